"""A TCP relay that may tamper with what clients send: the programs must notice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType

Tamper = Callable[[bytes], list[bytes]]
"""The window of bytes in question -> what goes on instead of it, in turn."""


def honest(window: bytes) -> list[bytes]:
    """What it is."""
    return [window]


class Relay:
    """Listens at `port`; one thread a direction. Of each connection, the client's bytes in `window` are tampered with.

    window: first offset and length. `holds`: the rest of the client's bytes from the window on never goes on.
    """

    def __init__(self, target: int, tamper: Tamper = honest, window: tuple[int, int] = (0, 0), *, holds: bool = False):
        self._target, self._tamper, self._window, self._holds = target, tamper, window, holds
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self._listener.getsockname()[1])
        self._closed = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            threading.Thread(target=self._carry, args=(client, server, self._tamper), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, honest), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, tamper: Tamper) -> None:
        try:
            if tamper is not honest:
                self._disturb(source, sink, tamper)
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _disturb(self, source: socket.socket, sink: socket.socket, tamper: Tamper) -> None:
        """What is before the window as it comes, and then the window, if the client sends so much."""
        first, length = self._window
        at = 0
        while at < first and (data := source.recv(min(65536, first - at))):
            sink.sendall(data)
            at += len(data)
        window = b""
        while len(window) < length and (data := source.recv(length - len(window))):
            window += data
        if self._holds:
            self._closed.wait()
            return
        for piece in tamper(window) if len(window) == length else [window]:
            sink.sendall(piece)
