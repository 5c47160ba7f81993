"""Both ends of a WebSocket, as far as a proxy sees it: the handshake, then bytes that come back as they were sent."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from statistics import quantiles

_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
)
_TIMEOUT, _SECONDS = 30.0, 2.0


def serve(host: str, port: int) -> None:
    """For ever."""
    listener = socket.create_server((host, port))
    while True:
        connection, _ = listener.accept()
        connection.settimeout(_TIMEOUT)
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = connection.recv(65536)
            if not part:
                return
            head += part
        connection.sendall(_SWITCH)
        while data := connection.recv(65536):
            connection.sendall(data)


def ask(host: str, port: int, path: str, size: int = 64) -> dict[str, float]:
    """Messages one at a time over one connection: `count` of them, how many a second, and the time each takes in us."""
    head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    times: list[float] = []
    with socket.create_connection((host, port), timeout=_TIMEOUT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head.encode())
        _take(connection, len(_SWITCH))
        message = bytes(size)
        begun = now = time.perf_counter()
        while now - begun < _SECONDS:
            connection.sendall(message)
            _take(connection, size)
            before, now = now, time.perf_counter()
            times.append(now - before)
    parts = quantiles(times, n=100)
    count = len(times)
    return {"count": count, "rps": count / (now - begun), "p50_us": parts[49] * 1e6, "p99_us": parts[98] * 1e6}


def _take(connection: socket.socket, size: int) -> None:
    while size:
        part = connection.recv(size)
        if not part:
            raise ConnectionError("the connection ended")
        size -= len(part)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        print(json.dumps(ask(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
