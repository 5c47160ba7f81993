"""What is judged is what is run: of all that goes on, a reader that is no stricter than a server finds no refused
statement."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cassandra import words
from tests.cassandra.as_server import statements
from tests.cassandra.rig import Rig
from tests.cassandra.test_conversation_begin import not_alone
from tests.cassandra.test_wire_segments import made
from tests.conversations import REQUEST

WIRES = [(3, ""), (4, ""), (4, "lz4"), (4, "snappy"), (5, ""), (5, "lz4")]
OPEN, SECRET = "SELECT * FROM shop.orders", "SELECT * FROM shop.secrets"
HIDDEN = "SELECT * FROM shop.orders WHERE k = '{}'".format(words.query(SECRET, 5).decode("latin-1"))


def asked(rig: Rig, chance: random.Random) -> bytes:
    """One request, of which some hold another."""
    stream = chance.randrange(6)
    text = chance.choice(
        (OPEN, SECRET, OPEN + " " * chance.randrange(300), HIDDEN, "INSERT INTO shop.orders (k) VALUES (1)")
    )
    kind = chance.randrange(5)
    if kind == 0:
        return rig.prepare(text, stream)
    if kind == 1:
        return rig.batch(*(chance.choice((OPEN, SECRET, bytes(16))) for _ in range(3)), stream=stream)
    if kind == 2:
        return rig.query(text, stream, values=[SECRET.encode(), words.query(SECRET, rig.version)])
    return rig.query(text, stream)


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """Some bytes are others: mostly such as say how long something is."""
    raw = bytearray(data)
    for _ in range(chance.choice((0, 0, 1, 1, 2))):
        place = chance.randrange(min(len(raw), 40)) if chance.random() < 0.7 else chance.randrange(len(raw))
        raw[place] = chance.choice(
            (0, 1, 4, 5, 0x80, 0xFF, raw[place] ^ 1 << chance.randrange(8), chance.randrange(256))
        )
    return bytes(raw)


def wired(rig: Rig, data: bytes, chance: random.Random) -> bytes:
    """As it travels: in segments of either kind, whose sums are right whatever is in them."""
    if not rig.framed:
        return data
    if rig.packed:
        block = words.lz4_compress(data)[4:]
        return made(block, len(block), len(data) + chance.choice((0, 0, 0, 1, -1)), alone=chance.random() < 0.8)
    if chance.random() < 0.8:
        return words.segments(data)
    cut = chance.randrange(1, len(data))
    return not_alone(data[:cut]) + not_alone(data[cut:])


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_the_model_finds_statements(wire: tuple[int, str]) -> None:
    """Else it would show nothing."""
    rig = Rig(*wire[:1], compression=wire[1])
    data = rig.wire(rig.query(SECRET, 1), rig.prepare(OPEN, 2), rig.batch(OPEN, bytes(16), SECRET, stream=3))
    assert statements(data, *wire) == [SECRET, OPEN, OPEN, SECRET]


@settings(max_examples=800)
@given(st.sampled_from(WIRES), st.integers(0, 1 << 32))
def test_no_refused_statement_goes_on(wire: tuple[int, str], seed: int) -> None:
    chance = random.Random(seed)
    rig = Rig(wire[0], compression=wire[1])
    start = len(rig.server)
    for _ in range(chance.randrange(1, 5)):
        data = b"".join(asked(rig, chance) for _ in range(chance.randrange(1, 4)))
        rig.arrive(REQUEST, wired(rig, spoilt(data, chance), chance))
    rig.finish()
    assert rig.known.held == 0
    for text in statements(rig.server[start:], *wire):
        assert SECRET not in text.split("'")[0]
