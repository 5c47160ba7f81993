"""How a connection begins, and what ends it: versions, compression, framing, and bytes that no driver sends."""

from __future__ import annotations

import struct
import zlib

import pytest

from parsers.cassandra import COMPRESSED, RESPONSE, Opcode, write_envelope
from parsers.cassandra_segments import crc24
from tests.cassandra import words
from tests.cassandra.rig import Rig, Teller, id_of
from tests.cassandra.test_wire_segments import made
from tests.conversations import REQUEST
from tests.conversations import RESPONSE as ANSWERS

OPEN, SECRET = "SELECT * FROM shop.orders", "SELECT * FROM shop.secrets"
PROTOCOL = 0x000A


def test_nothing_passes_before_startup_is_answered() -> None:
    for version in (3, 4, 5):
        rig = Rig(version, begun=False)
        rig.ask(words.options(version, 1)).say(words.say(Opcode.SUPPORTED, b"\0\0", version, 1))
        rig.ask(words.startup(version, stream=1), rig.query(OPEN, 2))
        assert [one[4] for one in rig.served()] == [Opcode.OPTIONS, Opcode.STARTUP]
        rig.say(words.ready(version, 1))
        if version < 5:
            assert len(rig.served()) == 1
        else:
            assert rig.closed, "what was sent unframed is no segment"


@pytest.mark.parametrize("first", [1, 2])
def test_old_versions_are_told_so_in_their_own_header(first: int) -> None:
    """Eight bytes are all that comes."""
    rig = Rig(begun=False)
    rig.arrive(REQUEST, bytes([first, 0, 0, Opcode.OPTIONS, 0, 0, 0, 0]))
    assert rig.closed and rig.server == b"" and rig.client[:4] == bytes([first | RESPONSE, 0, 0, 0])
    assert b"supported versions are (3/v3, 4/v4, 5/v5)" in rig.client


@pytest.mark.parametrize("first", [6, 7, 65, 66])
def test_new_versions_are_told_so_in_the_newest(first: int) -> None:
    """Fact 24: a beta version is spoken by servers, and executes."""
    for data in (words.options(4, 9), words.query(SECRET)):
        rig = Rig(begun=False)
        rig.arrive(REQUEST, bytes([first, 0x10]) + data[2:])
        assert rig.closed and rig.server == b"" and rig.client[0] == 5 | RESPONSE and rig.errors() == [(0, PROTOCOL)]


def test_a_server_that_speaks_an_older_version() -> None:
    """It answers in its own, perhaps on another stream; the client tries anew."""
    for request in (words.options(5, 3), words.startup(5, stream=3)):
        rig = Rig(5, begun=False)
        rig.ask(request)
        answer = words.error(PROTOCOL, "Invalid or unsupported protocol version", 4, 0)
        rig.say(answer)
        assert rig.client == answer and rig.closed


def test_a_startup_that_fails_is_the_end() -> None:
    """Fact 17: the server goes over to segments all the same, and takes another STARTUP."""
    for version in (4, 5):
        rig = Rig(version, begun=False)
        rig.ask(words.startup(version)).ask(words.startup(version, stream=1))
        rig.say(words.error(0x2200, "CQL version", version))
        assert rig.closed and rig.errors() == [(0, 0x2200)] and len(rig.served()) == 1


def test_a_second_startup() -> None:
    for version in (4, 5):
        rig = Rig(version)
        rig.ask(words.startup(version, stream=3))
        assert rig.closed and rig.errors() == [(3, PROTOCOL)] and rig.served() == []


@pytest.mark.parametrize("opcode", [Opcode.QUERY, Opcode.REGISTER, Opcode.AUTH_RESPONSE])
def test_nothing_but_startup_and_options_may_come_first(opcode: int) -> None:
    rig = Rig(begun=False)
    asked = {Opcode.QUERY: words.query(OPEN), Opcode.REGISTER: words.register()}
    rig.ask(asked.get(Opcode(opcode), write_envelope(4, 0, opcode, b"\xff\xff\xff\xff")))
    assert rig.closed and rig.server == b"" and rig.errors() == [(0, PROTOCOL)]


def test_statements_wait_for_the_end_of_a_login() -> None:
    for version in (4, 5):
        rig = Rig(version, begun=False)
        rig.ask(words.startup(version)).say(words.say(Opcode.AUTHENTICATE, words.string("org.Password"), version))
        rig.framed = version > 4
        rig.read = [len(half.out) for half in rig.halves]
        login = write_envelope(version, 0, Opcode.AUTH_RESPONSE, b"\0\0\0\4\0a\0b")
        rig.ask(login, rig.query(OPEN, 1))
        assert rig.served() == [login]
        rig.say(words.say(Opcode.AUTH_CHALLENGE, b"\0\0\0\1x", version))
        assert rig.closed and "let the client in" in rig.reason
        rig = Rig(version, begun=False)
        rig.ask(words.startup(version)).say(words.say(Opcode.AUTHENTICATE, words.string("org.Password"), version))
        rig.framed = version > 4
        rig.read = [len(half.out) for half in rig.halves]
        rig.ask(login, rig.query(OPEN, 1)).say(words.say(Opcode.AUTH_SUCCESS, b"\xff\xff\xff\xff", version))
        assert len(rig.served()) == 2


def test_compression_that_was_not_agreed_on() -> None:
    """Fact 15: the server reads such a body plain, and executes it."""
    plain = words.query(SECRET, 4)
    flagged = bytes([4, COMPRESSED]) + plain[2:]
    for data in (flagged, words.query(OPEN, 4, 0, "lz4"), words.query(OPEN, 4, 0, "snappy")):
        rig = Rig(4)
        rig.ask(data)
        assert rig.closed and rig.served() == [] and "not agreed on" in rig.reason
    for compression in ("", "lz4"):
        rig = Rig(5, compression=compression)
        rig.ask(bytes([5, COMPRESSED]) + words.query(OPEN, 5)[2:])
        assert rig.closed and rig.served() == []
    rig = Rig(4, compression="lz4")
    rig.ask(words.query(OPEN, 4, 1, "snappy"))
    assert rig.closed and rig.served() == []


def test_with_compression_a_body_may_be_plain() -> None:
    """Fact 15."""
    for compression in ("lz4", "snappy"):
        rig = Rig(4, compression=compression)
        rig.ask(words.query(OPEN, 4, 1), words.query(SECRET, 4, 2), words.query(SECRET, 4, 3, compression))
        assert len(rig.served()) == 1 and rig.errors() == [(2, 0x2100), (3, 0x2100)]


def test_compressed_answers_are_read_where_they_matter() -> None:
    for compression in ("lz4", "snappy"):
        rig = Rig(4, compression=compression)
        number = id_of("SELECT * FROM t", "shop")
        rig.ask(rig.query("USE shop", 1))
        rig.say(words.say(Opcode.RESULT, words.set_keyspace("shop")[9:], 4, 1, compression))
        rig.ask(rig.prepare("SELECT * FROM t", 2))
        rig.say(words.say(Opcode.RESULT, words.prepared(number)[9:], 4, 2, compression))
        rig.ask(rig.execute(number, 3))
        assert [one[4] for one in rig.served()] == [Opcode.QUERY, Opcode.PREPARE, Opcode.EXECUTE]
        rig.say(words.say(Opcode.ERROR, words.error(0x1100)[9:], 4, 3, compression))
        assert rig.told[-1] == ("FORWARDED", "EXECUTE", "select", 3, 0x1100, True)
    rig = Rig(4)
    rig.ask(rig.query("USE shop", 1)).say(words.say(Opcode.RESULT, words.set_keyspace("shop")[9:], 4, 1, "lz4"))
    assert rig.aborted


def test_version_5_with_snappy() -> None:
    rig = Rig(5, begun=False)
    rig.ask(words.startup(5, "snappy"))
    assert rig.closed and rig.server == b""


def test_other_versions_than_the_connections() -> None:
    """Fact 24: the server complains, and goes on."""
    for version in (3, 4, 5):
        for other in {3, 4, 5, 6} - {version}:
            rig = Rig(version)
            rig.ask(bytes([other, 0x10 if other == 6 else 0]) + words.query(OPEN, version)[2:])
            assert rig.closed and rig.served() == []


def test_an_error_does_not_protect() -> None:
    """Fact 19: the next request of the packet is executed."""
    for version in (3, 4, 5):
        rig = Rig(version)
        bad = write_envelope(version, 1, Opcode.RESULT, b"")
        rig.ask(rig.query(OPEN, 2), bad, rig.query(OPEN, 3))
        assert len(rig.served()) == 1 and rig.ending is None
        rig.say(rig.rows(2))
        assert rig.closed and rig.errors() == [(1, PROTOCOL), (2, 0)]
        rig.finish()
        assert [one[0] for one in rig.told] == ["DROPPED", "FORWARDED"]


def framed(packed: bool = False) -> Rig:
    return Rig(5, compression="lz4" if packed else "")


def refused(rig: Rig, why: str) -> None:
    assert rig.ending is not None and rig.served() == [] and why in rig.reason, rig.reason
    assert rig.known.held == 0


@pytest.mark.parametrize("packed", [False, True])
def test_a_message_does_not_go_on_behind_its_envelope(packed: bool) -> None:
    """Fact 20: the server reads on, up to the segment's end."""
    body = struct.pack(">i", len(SECRET)) + SECRET.encode() + b"\0\1\0\0\0\0"
    for size in (4, len(body) - 1, 0):
        rig = framed(packed)
        rig.ask(struct.pack(">BBhBi", 5, 0, 1, Opcode.QUERY, size) + body)
        refused(rig, "")
    rig = framed(packed)
    rig.ask(struct.pack(">BBhBi", 5, 0, 1, Opcode.QUERY, len(body) + 1) + body)
    refused(rig, "in a segment that has")


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_stands_between_the_segments_of_a_message(packed: bool) -> None:
    """Fact 21: the server runs it before."""
    rig = framed(packed)
    large = rig.wire(rig.query(OPEN + " " * 200_000, 1))
    cut = 131_071 + 12 if not packed else int.from_bytes(large[:3], "little") % (1 << 17) + 12
    cut = cut if packed else 131_071 + 10
    rig.arrive(REQUEST, large[:cut])
    assert rig.server.count(SECRET.encode()) == 0 and rig.ending is None
    rig.ask(rig.query(SECRET, 2))
    refused(rig, "would run first")


def test_a_part_that_goes_on_behind_its_message() -> None:
    """Fact 22: the server waits for ever."""
    whole = words.query(OPEN, 5, 1)
    rig = framed()
    rig.arrive(REQUEST, not_alone(whole[:20]) + not_alone(whole[20:] + whole))
    refused(rig, "behind its message")
    rig = framed()
    rig.arrive(REQUEST, not_alone(whole + b"x"))
    refused(rig, "behind its message")
    rig = framed()
    rig.arrive(REQUEST, not_alone(whole[:8]))
    refused(rig, "header")


def test_a_message_in_very_small_parts() -> None:
    """What is held of it is not much longer than the message."""
    rig = framed()
    whole = words.query(OPEN + " " * 30_000, 5, 1)
    rig.arrive(REQUEST, not_alone(whole[:9]))
    for place in range(9, len(whole)):
        if rig.ending:
            break
        rig.arrive(REQUEST, not_alone(whole[place : place + 1]))
    refused(rig, "too many segments")


def test_a_whole_message_in_a_part() -> None:
    """Fact 22: the server runs it."""
    rig = framed()
    for stream, text in enumerate((OPEN, SECRET)):
        rig.arrive(REQUEST, not_alone(words.query(text, 5, stream)))
    assert rig.errors() == [(1, 0x2100)] and rig.served() == [words.query(OPEN, 5, 0)]


def not_alone(payload: bytes) -> bytes:
    """A segment that is not self-contained, without compression."""
    head = len(payload).to_bytes(3, "little")
    crc = zlib.crc32(payload, zlib.crc32(b"\xfa\x2d\x55\xca"))
    return head + crc24(head).to_bytes(3, "little") + payload + struct.pack("<I", crc)


def test_a_block_that_is_not_what_it_says() -> None:
    """Fact 23: what an earlier message left in the buffer is executed."""
    plain = words.query(OPEN, 5, 1)
    block = words.lz4_compress(plain)[4:]
    for size in (len(plain) + 1, len(plain) - 1, 131_071):
        rig = framed(True)
        rig.arrive(REQUEST, made(block, len(block), size))
        refused(rig, "")


def test_segments_with_wrong_sums() -> None:
    for place in (0, 4, 20, -1):
        rig = framed()
        data = bytearray(rig.wire(rig.query(OPEN, 1)))
        data[place] ^= 1
        rig.arrive(REQUEST, bytes(data))
        refused(rig, "CRC")


def test_what_a_server_may_not_say() -> None:
    for version in (4, 5):
        for bad in (
            words.void(version, 5),
            words.void(9 - version, 1),
            words.query(OPEN, version, 1),
            words.say(Opcode.EVENT, b"", version, 1),
            words.say(Opcode.ERROR, b"\0", version, 1),
        ):
            rig = Rig(version)
            rig.ask(rig.query(OPEN, 1)).say(bad)
            assert rig.aborted and bad not in rig.client
        rig = Rig(version)
        rig.ask(rig.prepare(OPEN, 1)).say(rig.void(1))
        assert rig.aborted
    rig = Rig(5)
    rig.ask(rig.query(OPEN, 1))
    data = bytearray(rig.wire(rig.rows(1)))
    data[-1] ^= 1
    rig.arrive(ANSWERS, bytes(data))
    assert rig.aborted


@pytest.mark.parametrize("version", [4, 5])
def test_audit_does_not_know_the_keyspace_for_sure(version: int) -> None:
    """What could not be read, or was prepared elsewhere, may have been a USE."""
    for number in (0, 1):
        rig = Rig(version, Teller(audit_only=True))
        rig.ask(rig.query("GIBBERISH", 1) if number else rig.execute(bytes(16), 1)).say(rig.rows(1))
        rig.talk.judge = Teller()  # type: ignore[assignment]
        rig.ask(rig.query(OPEN, 2))
        assert rig.closed and "enforces now" in rig.reason and len(rig.served()) == 1


@pytest.mark.parametrize("version", [4, 5])
def test_audit_passes_all_and_says_what_it_would_refuse(version: int) -> None:
    rig = Rig(version, Teller(audit_only=True))
    asked = [rig.query(SECRET, 1), rig.query("GIBBERISH", 2), rig.execute(bytes(16), 3)]
    rig.ask(asked[0]).say(rig.rows(1)).ask(asked[1]).say(rig.rows(2)).ask(asked[2]).say(rig.rows(3))
    assert rig.served() == asked and [one[0] for one in rig.told] == ["AUDIT"] * 3
    sent = rig.server
    bad = rig.wire(rig.query(SECRET, 4), write_envelope(version, 1, Opcode.RESULT, b"x"))
    rig.arrive(REQUEST, bad)
    assert rig.server == sent + bad and rig.told[-1][0] == "AUDIT" and rig.talk.idle
    rig.arrive(ANSWERS, b"whatever").arrive(REQUEST, b"so")
    assert rig.client.endswith(b"whatever") and rig.server.endswith(b"so")
    rig.talk.judge = Teller()  # type: ignore[assignment]
    rig.arrive(REQUEST, b"more")
    assert rig.aborted and not rig.server.endswith(b"more")
