"""One end of a stream that is checked: `serve HOST` or `send HOST PORT MEBIBYTES`.

The server prints its port, and for each connection what it got: bytes and SHA-256. The client stops half way until a
line comes, and prints the same of what it sent.
"""

from __future__ import annotations

import hashlib
import random
import socket
import sys


def serve(host: str) -> None:
    """Read one connection after the other to its end."""
    listener = socket.create_server((host, 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        total, digest = 0, hashlib.sha256()
        while data := sock.recv(1 << 16):
            total += len(data)
            digest.update(data)
        print(total, digest.hexdigest(), flush=True)
        sock.close()


def send(host: str, port: int, mebibytes: int) -> None:
    """Pieces of many sizes."""
    sock = socket.create_connection((host, port))
    chance, digest, left = random.Random(1), hashlib.sha256(), mebibytes << 20
    total, pause = left, left // 2
    while left:
        if left <= pause:
            print("half", flush=True)
            sys.stdin.readline()
            pause = -1
        piece = chance.randbytes(min(left, chance.choice((1, 100, 4096, 70_000))))
        sock.sendall(piece)
        digest.update(piece)
        left -= len(piece)
    sock.close()
    print(total, digest.hexdigest(), flush=True)


serve(sys.argv[2]) if sys.argv[1] == "serve" else send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
