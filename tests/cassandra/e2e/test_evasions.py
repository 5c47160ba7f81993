"""Bytes that a real server takes for statements, though a proxy might not: none changes its table, or ends it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from parsers.cassandra import BETA, COMPRESSED, PAYLOAD, Opcode, write_envelope
from parsers.cassandra_segments import write_segments
from tests import netns
from tests.cassandra import words
from tests.cassandra.e2e import common
from tests.cassandra.e2e.common import Net
from tests.cassandra.rig import id_of
from tests.cassandra.test_conversation_begin import not_alone
from tests.cassandra.test_wire_segments import made

pytestmark = pytest.mark.privileged
OPEN = "SELECT name FROM shop.orders WHERE id = 1"
PREPARED = "INSERT INTO shop.secrets (id, name) VALUES (99, 'prepared')"


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with common.net() as made:
        made.directly("SELECT id FROM shop.secrets")
        yield made


def secret(number: int) -> str:
    return f"INSERT INTO shop.secrets (id, name) VALUES ({number}, 'x')"


def long_string(text: str) -> bytes:
    return struct.pack(">i", len(text)) + text.encode()


def flagged(data: bytes, flags: int) -> bytes:
    return data[:1] + bytes([flags]) + data[2:]


def packed(body: bytes, declared: int) -> bytes:
    """A body of version 4 that says another length than it has."""
    return struct.pack(">I", declared) + words.lz4_compress(body)[4:]


def without_agreement() -> list[bytes]:
    return [words.startup(4), flagged(words.query(secret(1), 4, 1), COMPRESSED)]


def short_envelope() -> list[bytes]:
    asked = words.query(secret(2), 5, 1)
    return [words.startup(5), words.segments(asked[:5] + struct.pack(">i", 4) + asked[9:])]


def between_parts() -> list[bytes]:
    large = write_segments(words.query(OPEN + " " * 200_000, 5, 1), False)
    return [words.startup(5), large[:131_081], words.segments(words.query(secret(3), 5, 2)), large[131_081:]]


def whole_in_a_part() -> list[bytes]:
    return [words.startup(5), not_alone(words.query(secret(4), 5, 1))]


def left_in_the_buffer() -> list[bytes]:
    asked = words.query(secret(5), 5, 1)
    block = words.lz4_compress(asked[:20])[4:]
    return [
        words.startup(5, "lz4"),
        words.segments(words.query(OPEN + " " * 300, 5, 2), True),
        made(block, len(block), len(asked)),
    ]


def behind_an_error() -> list[bytes]:
    return [words.startup(4), write_envelope(4, 1, Opcode.RESULT, b"") + words.query(secret(6), 4, 2)]


def a_beta_version() -> list[bytes]:
    return [words.startup(5), words.segments(b"\x06" + flagged(words.query(secret(7), 5, 1), BETA)[1:])]


def begun_in_a_beta_version() -> list[bytes]:
    start = b"\x06" + flagged(words.startup(5), BETA)[1:]
    return [start, words.segments(b"\x06" + flagged(words.query(secret(8), 5, 1), BETA)[1:])]


def a_keyspace_in_version_3() -> list[bytes]:
    text = "INSERT INTO secrets (id, name) VALUES (9, 'x')"
    return [
        words.startup(3),
        write_envelope(3, 1, Opcode.QUERY, long_string(text) + b"\0\1\x80" + words.string("shop")),
    ]


def use_and_a_write() -> list[bytes]:
    write = words.query("INSERT INTO secrets (id, name) VALUES (10, 'x')", 4, 2)
    return [words.startup(4), words.query("USE shop", 4, 1) + write]


def a_payload_before_it() -> list[bytes]:
    payload = b"\0\1" + words.string("k") + struct.pack(">i", 3) + b"abc"
    asked = words.query(secret(11), 4)[9:]
    return [words.startup(4), write_envelope(4, 1, Opcode.QUERY, payload + asked, PAYLOAD)]


def an_id_that_anyone_computes() -> list[bytes]:
    return [words.startup(4), words.execute(id_of(PREPARED), 4, 1)]


def an_id_in_a_batch() -> list[bytes]:
    body = b"\0\0\2\0" + long_string("INSERT INTO shop.orders (id, name) VALUES (77, 'batch')") + b"\0\0"
    body += b"\1\0\x10" + id_of(PREPARED) + b"\0\0" + b"\0\1\0"
    return [words.startup(4), write_envelope(4, 1, Opcode.BATCH, body)]


def an_option_by_another_name() -> list[bytes]:
    body = (
        b"\0\2"
        + words.string("CQL_VERSION")
        + words.string("3.0.0")
        + words.string("compre\u00dfion")
        + words.string("lz4")
    )
    return [write_envelope(4, 0, Opcode.STARTUP, body), words.query(secret(14), 4, 1, "lz4")]


def a_startup_that_fails() -> list[bytes]:
    body = b"\0\1" + words.string("CQL_VERSION") + words.string("9.9.9")
    asked = words.segments(words.startup(5)) + words.segments(words.query(secret(15), 5, 1))
    return [write_envelope(5, 0, Opcode.STARTUP, body), asked]


def a_negative_stream() -> list[bytes]:
    return [words.startup(4), write_envelope(4, -5, Opcode.QUERY, words.query(secret(16), 4)[9:])]


def one_child_of_many() -> list[bytes]:
    return [
        words.startup(5),
        words.segments(words.batch("INSERT INTO shop.orders (id) VALUES (78)", secret(17), version=5)),
    ]


def beyond_the_block() -> list[bytes]:
    """It ends a server."""
    asked = words.query(secret(18), 4)[9:]
    return [words.startup(4, "lz4"), write_envelope(4, 1, Opcode.QUERY, packed(asked, 1 << 24), COMPRESSED)]


def a_value_of_a_gigabyte() -> list[bytes]:
    """It ends a server."""
    body = long_string("INSERT INTO shop.orders (id, name) VALUES (?, ?)") + b"\0\1\1\0\2" + struct.pack(">i", 1 << 30)
    return [words.startup(4), write_envelope(4, 1, Opcode.QUERY, body)]


EVASIONS: tuple[Callable[[], list[bytes]], ...] = (
    without_agreement,
    short_envelope,
    between_parts,
    whole_in_a_part,
    left_in_the_buffer,
    behind_an_error,
    a_beta_version,
    begun_in_a_beta_version,
    a_keyspace_in_version_3,
    use_and_a_write,
    a_payload_before_it,
    an_id_that_anyone_computes,
    an_id_in_a_batch,
    an_option_by_another_name,
    a_startup_that_fails,
    a_negative_stream,
    one_child_of_many,
    beyond_the_block,
    a_value_of_a_gigabyte,
)


def said(net: Net, lines: list[bytes]) -> bytes:
    """What comes back; each line is sent when something has come of the one before, or not for a while."""
    found = b""
    with netns.connect(net.front.ns, net.server.address) as connection:
        connection.settimeout(0.5)
        for line in lines:
            try:
                connection.sendall(line)
                found += connection.recv(65536)
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
    return found


@pytest.mark.parametrize("evasion", EVASIONS, ids=lambda one: one.__name__)
def test_nothing_is_written(net: Net, evasion: Callable[[], list[bytes]]) -> None:
    """Whatever is answered, the table is as it was."""
    said(net, evasion())
    assert net.directly("SELECT id FROM shop.secrets") == [[0]]
    assert net.directly("SELECT id FROM shop.orders WHERE id IN (77, 78)") == []
    assert net.server.process.poll() is None


def test_the_same_bytes_without_the_proxy_are_taken(net: Net) -> None:
    """Some of them at least: else this would show nothing."""
    for evasion in (without_agreement, short_envelope, between_parts, whole_in_a_part, a_keyspace_in_version_3):
        found = b""
        with netns.connect(str(net.server.namespace), net.server.address) as connection:
            connection.settimeout(0.5)
            for line in evasion():
                connection.sendall(line)
                try:
                    found += connection.recv(65536)
                except TimeoutError:
                    continue
    ids = sorted(one for (one,) in net.directly("SELECT id FROM shop.secrets"))
    assert ids == [0, 1, 2, 3, 4, 9]
