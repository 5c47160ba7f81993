"""What a real server says to bytes that we answer ourselves."""

from __future__ import annotations

import socket

import pytest

from parsers.cassandra_responses import unsupported
from tests.cassandra import words
from tests.cassandra.server import Server


def answer(server: Server, data: bytes, size: int) -> bytes:
    """The first bytes that come back."""
    found = b""
    with socket.create_connection(server.address, 10) as connection:
        connection.sendall(data)
        while len(found) < size:
            part = connection.recv(size - len(found))
            if not part:
                break
            found += part
    return found


@pytest.mark.parametrize("version", [1, 2, 7, 65, 66])
def test_a_version_that_is_not_spoken(cassandra: Server, version: int) -> None:
    """Version, flags, stream, opcode, and the error's code. Of 6 the server says that it is a beta."""
    asked = bytes([version, 0, 0, 5]) + bytes(4) if version < 3 else bytes([version]) + words.options(4)[1:]
    theirs, ours = answer(cassandra, asked, 12), unsupported(version)
    if version < 3:
        assert theirs[:4] == ours[:4] and theirs[8:12] == ours[8:12]
    else:
        assert theirs[:5] == ours[:5] and answer(cassandra, asked, 13)[9:13] == ours[9:13]
