"""A small HTTP/2 server that tells clients not to use HPACK's table, and sees whether they obey (RFC 7541)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from parsers import http2

STATIC = 61
_REFUSED = b"\x88\x0f\x10\x10application/grpc\x00\x0bgrpc-status\x017"
"""HEADERS of an answer that both kinds of client understand: 200, content-type, grpc-status 7, all as literals."""
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@dataclass
class Block:
    """What a header block does with the table. `acknowledged`: the client had acknowledged our SETTINGS before."""

    acknowledged: bool
    sizes: list[int] = field(default_factory=list)
    inserts: int = 0
    references: int = 0


def read_block(data: bytes, acknowledged: bool) -> Block:
    """Reads the representations of a block (RFC 7541, section 6), not the text in them."""
    block, position = Block(acknowledged), 0
    while position < len(data):
        first = data[position]
        if first & 0x80:
            index, position = _integer(data, position, 7)
        elif first & 0xE0 == 0x20:
            size, position = _integer(data, position, 5)
            block.sizes.append(size)
            continue
        else:
            inserting = bool(first & 0x40)
            block.inserts += inserting
            index, position = _integer(data, position, 6 if inserting else 4)
            for _ in range(1 if index else 2):
                length, position = _integer(data, position, 7)
                position += length
        block.references += index > STATIC
    return block


def _integer(data: bytes, position: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value, shift = data[position] & most, 0
    position += 1
    if value < most:
        return value, position
    while True:
        byte = data[position]
        value, shift, position = value + ((byte & 0x7F) << shift), shift + 7, position + 1
        if not byte & 0x80:
            return value, position


class Tap:
    """The server, on loopback. A context manager. `blocks` holds the blocks of each connection."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.blocks: list[list[Block]] = []

    def __enter__(self) -> Tap:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        seen: list[Block] = []
        self.blocks.append(seen)
        with suppress(OSError, EOFError), connection:
            _Session(connection, seen).run()


class _Session:
    """One connection."""

    def __init__(self, connection: socket.socket, seen: list[Block]) -> None:
        self.connection, self.seen, self.data = connection, seen, b""
        self.acknowledged = False

    def run(self) -> None:
        upgraded = self._begin()
        self.connection.sendall(http2.settings_frame([(http2.HEADER_TABLE_SIZE, 0)]))
        if upgraded:
            self._answer(1)
        for kind, flags, stream, payload in self._frames():
            if kind == http2.SETTINGS and flags & http2.ACK:
                self.acknowledged = True
            elif kind == http2.SETTINGS:
                self.connection.sendall(http2.frame(http2.SETTINGS, http2.ACK, 0))
            elif kind == http2.PING and not flags & http2.ACK:
                self.connection.sendall(http2.frame(http2.PING, http2.ACK, 0, payload))
            elif kind == http2.HEADERS:
                start, end = http2.fragment(payload, 0, len(payload), flags)
                self.seen.append(read_block(payload[start:end], self.acknowledged))
            elif kind == http2.DATA and payload:
                self.connection.sendall(http2.window_update(0, len(payload)))
            if kind in (http2.HEADERS, http2.DATA) and flags & http2.END_STREAM:
                self._answer(stream)

    def _begin(self) -> bool:
        """Past the preface. True if it came behind an upgrade."""
        while len(self.data) < 3:
            self._more()
        upgrades = not self.data.startswith(b"PRI")
        if upgrades:
            while b"\r\n\r\n" not in self.data:
                self._more()
            self.data = self.data.partition(b"\r\n\r\n")[2]
            self.connection.sendall(_SWITCH)
        self._take(len(http2.PREFACE))
        return upgrades

    def _answer(self, stream: int) -> None:
        flags = http2.END_STREAM | http2.END_HEADERS
        self.connection.sendall(http2.frame(http2.HEADERS, flags, stream, _REFUSED))

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        while True:
            length, kind, flags, stream = http2.frame_head(self._take(http2.HEAD), 0)
            yield kind, flags, stream, self._take(length)

    def _take(self, count: int) -> bytes:
        while len(self.data) < count:
            self._more()
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def _more(self) -> None:
        part = self.connection.recv(65536)
        if not part:
            raise EOFError
        self.data += part
