"""Peers in the languages that applications are written in, and the client that checks what comes back of them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from tests.splice.programs import CACHE

FOLDER = Path(__file__).parent
_TIMEOUT = 30.0


def _go() -> list[str]:
    binary = CACHE / f"echo-go.{os.getpid()}"
    command = ["go", "build", "-o", str(binary), str(FOLDER / "echo.go")]
    subprocess.run(command, check=True, timeout=120, cwd=FOLDER, env=os.environ | {"GOTOOLCHAIN": "local"})
    return [str(binary)]


def _java() -> list[str]:
    """A source file is enough for the launcher: it compiles in memory."""
    return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", str(FOLDER / "Echo.java")]


KINDS: dict[str, Callable[[], list[str]]] = {
    "go": _go,
    "java": _java,
    "asyncio": lambda: [sys.executable, str(FOLDER / "echo.py")],
    "uvloop": lambda: [sys.executable, str(FOLDER / "echo.py")],
    "node": lambda: ["node", str(FOLDER / "echo.js")],
}
"""The command that runs a peer, to which the address is added."""


class Peer:
    """A running peer of one kind."""

    def __init__(self, kind: str, address: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [*prefix, *KINDS[kind](), address, *(["uvloop"] if kind == "uvloop" else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{kind}: {command} has ended"
        self.address, self.port = address, int(line)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


class Conversation(threading.Thread):
    """One connection: random content in pieces of random sizes, and what must come back. `failure` is empty if it did.

    mode: b"E" (all comes back) or b"D" (its digest does).
    """

    def __init__(self, address: str, port: int, mode: bytes, seed: int, size: int) -> None:
        super().__init__(daemon=True)
        self._random = random.Random(seed)
        self._content = self._random.randbytes(size)
        self._mode = mode
        self._socket = socket.create_connection((address, port), timeout=_TIMEOUT)
        self.failure = "it has not ended"

    def _send(self) -> None:
        try:
            self._socket.sendall(self._mode)
            at = 0
            while at < len(self._content):
                piece = self._random.randint(1, 1 << self._random.randint(0, 18))
                self._socket.sendall(self._content[at : at + piece])
                at += piece
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the reader sees it as well

    def run(self) -> None:
        writer = threading.Thread(target=self._send, daemon=True)
        writer.start()
        due = self._content if self._mode == b"E" else hashlib.sha256(self._content).hexdigest().encode()
        back = bytearray()
        try:
            while data := self._socket.recv(50_000):
                back += data
        except OSError as error:
            self.failure = f"after {len(back)} bytes: {error!r}"
            return
        finally:
            self._socket.close()
        wrong = next((i for i, (a, b) in enumerate(zip(back, due, strict=False)) if a != b), min(len(back), len(due)))
        self.failure = "" if back == due else f"{len(back)} bytes came of {len(due)}, wrong from {wrong} on"


def converse(address: str, port: int, mode: bytes, *, connections: int, size: int) -> list[str]:
    """Conversations at once; returns the failures."""
    all_of_them = [Conversation(address, port, mode, seed, size) for seed in range(connections)]
    for one in all_of_them:
        one.start()
    for one in all_of_them:
        one.join(2 * _TIMEOUT)
    return [one.failure for one in all_of_them if one.failure]


def node_talks(peer: Peer) -> dict[str, str]:
    """What Node as a client tries with Node as a server (talk.js): "" for each, or what was wrong."""
    command = ["node", str(FOLDER / "talk.js"), peer.address, str(peer.port)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=10 * _TIMEOUT)
    return dict(json.loads(done.stdout))
