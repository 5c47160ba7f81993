"""However the bytes are split, the same goes on and the same is said; and what is cut off goes nowhere unjudged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l7proxy.ops import Direction
from parsers.cassandra import Opcode, write_envelope
from parsers.options import CassandraOptions
from tests.cassandra import words
from tests.cassandra.rig import Rig, Teller, id_of, texts
from tests.conversations import REQUEST, RESPONSE

Lines = Sequence[tuple[Direction, bytes]]
WIRES = [(3, ""), (4, "lz4"), (4, "snappy"), (5, ""), (5, "lz4")]
OPEN, SECRET, OWN = "SELECT * FROM shop.orders", "SELECT * FROM shop.secrets", 32_767
TALKS = ("plain", "keyspace", "prepared", "batch", "malformed", "large", "login", "unknown stream")


def dialogue(name: str, version: int, compression: str) -> Lines:
    """One that begins with STARTUP, and has the question for views answered before its second line is."""
    rig = Rig(version, compression=compression, begun=False)
    start: list[tuple[Direction, bytes]] = [(REQUEST, words.startup(version, compression))]
    if name == "login":
        start.append((RESPONSE, words.say(Opcode.AUTHENTICATE, words.string("org.Password"), version)))
    else:
        start.append((RESPONSE, words.ready(version)))
    rig.framed = version > 4
    said = [*start, *lines_of(name, rig)]
    number = 3 if name != "login" else 5
    # What comes first waits until the server has told its views.
    told = [words.ready(version, OWN), texts([("shop", "v", "secrets")], 3, version, OWN)]
    told += [texts([("shop", "abs")], 2, version, OWN), texts([], 2, version, OWN)]
    return [*said[:number], *((RESPONSE, rig.wire(one)) for one in told), *said[number:]]


def lines_of(name: str, rig: Rig) -> Lines:
    ask: Callable[..., tuple[Direction, bytes]] = lambda *some: (REQUEST, rig.wire(*some))  # noqa: E731
    say: Callable[..., tuple[Direction, bytes]] = lambda *some: (RESPONSE, rig.wire(*some))  # noqa: E731
    insert, number = "INSERT INTO orders (k) VALUES (1)", id_of("SELECT * FROM orders", "shop")
    if name == "plain":
        asked = [rig.query(OPEN, 1), rig.query(SECRET, 2), rig.query("SELECT * FROM shop.v", 3), rig.query(OPEN, 4)]
        return [ask(*asked), say(rig.rows(4), rig.error(0x1100, 1)), ask(rig.query(SECRET, 1)), say(rig.rows(4)[:0])]
    if name == "keyspace":
        asked = [rig.query("USE shop", 1), rig.query(insert, 2), rig.query("SELECT * FROM secrets", 3)]
        return [ask(*asked), say(rig.set_keyspace("shop", 1)), say(rig.void(2))]
    if name == "prepared":
        first = [rig.query("USE shop", 1), rig.prepare("SELECT * FROM orders", 2), rig.execute(number, 3)]
        then = [rig.execute(number, 3), rig.prepare(SECRET, 4)]
        return [
            ask(*first),
            say(rig.set_keyspace("shop", 1)),
            say(rig.prepared(number, 2)),
            ask(*then),
            say(rig.rows(3)),
        ]
    if name == "batch":
        return [
            ask(rig.batch("UPDATE a.b SET c = 1 WHERE d = 2", OPEN, stream=1), rig.batch(SECRET, OPEN, stream=2)),
            say(rig.void(1)),
        ]
    if name == "malformed":
        bad = write_envelope(rig.version, 2, Opcode.RESULT, b"")
        return [ask(rig.query(OPEN, 1), bad, rig.query(OPEN, 3)), say(rig.rows(1))]
    if name == "large":
        size = 150_000 if rig.framed else 300
        return [ask(rig.query(OPEN + " " * size, 1)), say(rig.rows(1, size))]
    if name == "login":
        token = write_envelope(rig.version, 0, Opcode.AUTH_RESPONSE, b"\0\0\0\4\0a\0b")
        passed = words.say(Opcode.AUTH_SUCCESS, b"\xff\xff\xff\xff", rig.version)
        return [ask(token), say(passed), ask(rig.query(OPEN, 1)), say(rig.rows(1))]
    return [ask(rig.query(OPEN, 1)), say(rig.rows(5))]


def play(version: int, compression: str, lines: Lines, cut: Callable[[bytes], list[bytes]], **how: bool) -> Rig:
    rig = Rig(version, Teller(**how), compression=compression, begun=False)  # type: ignore[arg-type]
    rig.views = None
    for direction, data in lines:
        for part in cut(data):
            rig.arrive(direction, part)
    return rig.finish()


def result(rig: Rig) -> tuple[object, ...]:
    """What must not depend on how the bytes came. Our own answers may come earlier or later, and what is allowed in
    segments of our own."""
    rig.framed, rig.read = rig.version > 4, [0, 0]
    both = [beginning(rig, direction) for direction in (REQUEST, RESPONSE)]
    return both[0], sorted(both[1]), sorted(rig.told), type(rig.ending), rig.known.held


def beginning(rig: Rig, direction: Direction) -> list[bytes]:
    """All envelopes, of which the first is not framed."""
    first = len(words.startup(rig.version, rig.compression))
    out = bytes(rig.halves[direction].out)
    if direction is RESPONSE and out:
        first = 9 + int.from_bytes(out[5:9], "big")
    rig.read[direction] = min(first, len(out))
    return [out[:first], *rig.envelopes(direction)]


@pytest.mark.parametrize("audit", [False, True])
@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize("name", TALKS)
def test_splits(name: str, wire: tuple[int, str], audit: bool) -> None:
    lines = dialogue(name, *wire)
    whole = result(play(*wire, lines, lambda data: [data], audit_only=audit))
    if name != "large":
        assert (
            result(play(*wire, lines, lambda data: [data[i : i + 1] for i in range(len(data))], audit_only=audit))
            == whole
        )
    for index, (_, line) in enumerate(lines):
        step = 1 if name != "large" else 1 + len(line) // 20
        for place in range(1, len(line), step):
            cut = [(d, part) for n, (d, one) in enumerate(lines) for part in parts(one, place if n == index else 0)]
            assert result(play(*wire, cut, lambda data: [data], audit_only=audit)) == whole, (index, place)


def parts(line: bytes, place: int) -> list[bytes]:
    return [line[:place], line[place:]] if place else [line]


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize("name", TALKS)
def test_what_is_cut_off(name: str, wire: tuple[int, str], end: bool) -> None:
    """Nothing of a request goes on that is not whole, and nothing is held when the connection is over."""
    lines = dialogue(name, *wire)
    full = [set(one) for one in result(play(*wire, lines, lambda data: [data]))[:2]]  # type: ignore[call-overload]
    for index, (direction, line) in enumerate(lines):
        for place in range(0, len(line), 1 if name != "large" else 1 + len(line) // 20):
            rig = Rig(wire[0], compression=wire[1], begun=False)
            rig.views = None
            for before, data in lines[:index]:
                rig.arrive(before, data)
            if rig.ending:
                continue
            rig.arrive(direction, line[:place], end)
            rig.finish()
            assert rig.known.held == 0
            sent = result(rig)[0]
            assert isinstance(sent, list) and set(sent) - {b""} <= full[0]
            assert SECRET.encode() not in rig.server


@settings(max_examples=400)
@given(st.data())
def test_mutated_bytes_reach_the_server_judged_or_not_at_all(data: st.DataObject) -> None:
    wire = data.draw(st.sampled_from(WIRES))
    lines = dialogue(data.draw(st.sampled_from(TALKS)), *wire)
    chance = Random(data.draw(st.integers(0, 1 << 32)))
    rig = Rig(wire[0], Teller(CassandraOptions(max_in_flight=3)), compression=wire[1], begun=False)
    rig.views = None
    rig.garbled(lines, chance, 3)
    assert rig.known.held == 0
    if not wire[1]:
        assert b"secret" not in rig.server
