"""Passes connections on in small pieces, each in a packet of its own: ``drip.py PORT HOST PORT SIZE``."""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress


def drip(source: socket.socket, target: socket.socket, size: int) -> None:
    """All that comes, `size` bytes at a time, and the end."""
    with suppress(OSError):
        while data := source.recv(65536):
            for start in range(0, len(data), size):
                target.sendall(data[start : start + size])
        target.shutdown(socket.SHUT_WR)


def main() -> None:
    """Until it is killed."""
    port, host, to, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    listener = socket.create_server(("", port))
    print("ready", flush=True)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection((host, to))
        for one, other in ((near, far), (far, near)):
            other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=drip, args=(one, other, size), daemon=True).start()


if __name__ == "__main__":
    main()
