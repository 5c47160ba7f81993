"""Limits of a CQL connection, and how it ends: by the program, by time, and without a server."""

from __future__ import annotations

import struct

import pytest

from l7proxy import cassandra_exchange
from parsers.cassandra import COMPRESSED, Opcode, write_envelope
from parsers.cql_reader import NATIVE
from parsers.cql_statement import Statement, classify
from parsers.options import CassandraOptions
from tests.cassandra import words
from tests.cassandra.rig import Rig, Teller, id_of
from tests.conversations import REQUEST, RESPONSE

OPEN, SECRET = "SELECT * FROM shop.orders", "SELECT * FROM shop.secrets"
INSERT = "INSERT INTO shop.orders (k) VALUES (1)"
UNAUTHORIZED, UNPREPARED = 0x2100, 0x2500


def test_limits() -> None:
    rig = Rig(4, Teller(CassandraOptions(max_in_flight=2)))
    rig.ask(*(rig.query(OPEN, one) for one in range(5)))
    assert len(rig.served()) == 2
    rig.say(rig.rows(1))
    assert len(rig.served()) == 1
    rig = Rig(4, Teller(CassandraOptions(max_batch=2)))
    rig.ask(rig.batch(OPEN, OPEN, OPEN))
    assert rig.closed and "a batch of 3 statements" in rig.reason
    rig = Rig(4, Teller(CassandraOptions(max_statement=256)))
    rig.ask(rig.query(OPEN + " " * 300))
    assert rig.errors() == [(0, UNAUTHORIZED)] and "max_statement" in rig.reason
    for version in (4, 5):
        rig = Rig(version, Teller(CassandraOptions(max_held=262_144, max_frame=1 << 20)))
        rig.arrive(REQUEST, rig.wire(rig.query(OPEN + " " * 300_000))[:100_000])
        rig.arrive(REQUEST, rig.wire(rig.query(OPEN + " " * 300_000))[100_000:140_000])
        assert rig.closed and "max_held" in rig.reason and rig.known.held == 0
        rig = Rig(version, Teller(CassandraOptions(max_frame=1024)))
        rig.ask(rig.query(OPEN + " " * 1024))
        assert rig.closed and "a body of" in rig.reason


@pytest.mark.parametrize("version", [4, 5])
def test_small_requests_are_held_whatever_others_hold(version: int) -> None:
    """Some may not come to an end; the rest goes on."""
    rig = Rig(version, Teller(CassandraOptions(max_held=1 << 20, max_held_together=300_000)))
    rig.known.held += 300_001
    for byte in rig.wire(rig.query(OPEN + " " * 2000)):
        rig.arrive(REQUEST, bytes([byte]))
    assert len(rig.served()) == 1 and not rig.ending
    rig.say(rig.rows())
    rig.arrive(REQUEST, rig.wire(rig.query(OPEN + " " * 100_000))[:-1])
    assert rig.closed and "max_held_together" in rig.reason


def test_a_batch_is_read_in_a_short_time() -> None:
    """However small it is with LZ4."""
    many = ", ".join(["a"] * 1000)
    rig = Rig(4)
    rig.ask(rig.batch(*(f"SELECT {many}, {one} FROM shop.orders" for one in range(500)), stream=1))
    assert rig.errors() == [(1, UNAUTHORIZED)] and "max_statement" in rig.reason
    rig.ask(rig.batch(*[f"UPDATE shop.orders SET a = '{many}' WHERE k = 1"] * 500, stream=2))
    assert rig.errors() == [] and len(rig.served()) == 1, "what comes often is read once"
    rig.ask(rig.batch(id_of(OPEN), *(f"SELECT {many}, {one} FROM shop.orders" for one in range(500)), stream=3))
    assert rig.errors() == [(3, UNPREPARED)]
    child = b"\0" + struct.pack(">i", len(INSERT)) + INSERT.encode() + b"\xff\xff" + b"\xff" * 4 * 65_535
    for count, closed in ((4, False), (5, True)):
        rig = Rig(4, compression="lz4")
        body = words.lz4_compress(b"\0" + struct.pack(">h", count) + child * count + b"\0\1\0")
        rig.ask(write_envelope(4, 1, Opcode.BATCH, body, COMPRESSED))
        assert rig.closed == closed and len(rig.served()) == (not closed)
    assert "a batch of more than 262144 values" in rig.reason


def test_what_is_remembered_of_requests_has_a_limit() -> None:
    """Verdicts of long requests are not."""
    rig = Rig(5)
    for keyspace in ("k" * 1000, "k" * 1025):
        rig.ask(rig.query("SELECT * FROM t", keyspace=keyspace)).say(rig.rows())
    assert rig.closed and "a keyspace whose name has 1025" in rig.reason
    rig = Rig(4)
    for count in (100, 200):
        rig.ask(write_envelope(4, 1, Opcode.BATCH, b"\0" + struct.pack(">h", count) + bytes(7) * count + b"\0\1\0"))
        assert rig.errors() == [(1, UNAUTHORIZED)] and len(rig.judge.calls) == 1


def test_what_is_remembered_of_calls_has_a_limit() -> None:
    """However short they are."""
    rig, names = Rig(4), sorted(NATIVE, key=len)[:60]
    text = "SELECT k FROM shop.orders WHERE k IN ({})"
    short, long = (text.format(", ".join(f"{one}()" for one in some)) for some in (names[:10], names[10:]))
    assert len(short) < len(long) < 1000
    rig.ask(rig.query(short, 1), rig.query(long, 2)).say(rig.rows(1), rig.rows(2))
    assert len(rig.judge.calls) == 2
    made = "SELECT k FROM shop.orders WHERE k IN ({})".format(", ".join(f"{one}()" for one in sorted(NATIVE)))
    rig.ask(rig.query(made, 1)).say(rig.rows(1))
    assert len(rig.judge.calls) == 2 and len(rig.errors()) == 3
    weight = rig.known.prepared.weight
    rig.ask(rig.prepare(made, 1)).say(rig.prepared(id_of(made), 1))
    assert rig.known.prepared.weight > weight + 500 * len(NATIVE)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("audit", [False, True])
def test_what_connections_hold_together_has_a_limit(version: int, audit: bool) -> None:
    """Where nothing is enforced, what is beyond it passes unread, in its order."""
    options = CassandraOptions(max_held=1 << 20, max_held_together={4: 300_000, 5: 500_000}[version])
    known = Rig(version).known
    first, second = (Rig(version, Teller(options, audit_only=audit), known=known) for _ in range(2))
    data = first.wire(first.query(OPEN + " " * 900_000))
    for rig in (first, second):
        sent = len(rig.server)
        for place in range(0, 200_000, 1000):
            rig.arrive(REQUEST, data[place : place + 1000])
    assert second.closed != audit and "max_held_together" in second.reason and not first.ending
    assert second.server[sent:] == (data[:200_000] if audit else b"")
    first.finish()
    second.finish()
    assert known.held == 0


@pytest.mark.parametrize("version", [4, 5])
def test_what_is_being_prepared_has_a_limit(version: int) -> None:
    """It is kept until the server answers, which may take long if the client does not read."""
    rig = Rig(version, Teller(CassandraOptions(max_statement=1000)))
    texts = [f"{OPEN} /*{'x' * (size - len(OPEN) - 5)}*/" for size in (900, 100, 101, 300)]
    asked = [rig.prepare(text, one) for one, text in enumerate(texts)]
    rig.ask(*asked)
    assert rig.served() == asked[:2]
    rig.say(rig.prepared(id_of(texts[1]), 1))
    assert rig.served() == []
    rig.say(rig.error(0x2000, 0))
    assert rig.served() == asked[2:]
    rig.say(rig.prepared(id_of(texts[2]), 2), rig.prepared(id_of(texts[3]), 3))
    rig.ask(rig.execute(id_of(texts[3]), 1))
    assert len(rig.served()) == 1 and rig.talk._preparing == 0


@pytest.mark.sources
@pytest.mark.parametrize("version", [4, 5])
def test_what_waits_is_not_read_at_every_answer(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A USE may be as long as any statement."""
    rig = Rig(version)
    rig.ask(rig.query("USE shop", 0)).say(rig.set_keyspace("shop"))
    rig.ask(*(rig.query("SELECT * FROM t", one) for one in range(50)))
    seen: list[str] = []

    def counted(query: str, keyspace: str | None) -> Statement:
        seen.append(query)
        return classify(query, keyspace)

    monkeypatch.setattr(cassandra_exchange, "classify", counted)
    rig.ask(rig.query(f"USE /*{'x' * 3000}*/ other", 60))
    for one in range(49):
        rig.say(rig.rows(one))
    assert len(seen) == 1
    rig.say(rig.rows(49))
    assert len(seen) == 2 and len(rig.served()) == 52


def test_a_startup_waits_for_what_came_before_it() -> None:
    rig = Rig(4, begun=False)
    rig.ask(words.options(5, 1), words.options(3, 2), words.startup(4, stream=2))
    rig.say(words.say(Opcode.SUPPORTED, b"\0\0", 5, 1))
    assert len(rig.served()) == 2
    rig.say(words.say(Opcode.SUPPORTED, b"\0\0", 3, 2))
    assert [one[4] for one in rig.served()] == [Opcode.STARTUP]


def test_refusals_do_not_pile_up() -> None:
    rig = Rig(4)
    rig.ask(rig.query(OPEN, 1))
    large = rig.rows(1, 5000)
    rig.arrive(RESPONSE, large[:100])
    many = b"".join(rig.query(SECRET, 2) for _ in range(3000))
    rig.arrive(REQUEST, many)
    assert len(rig.halves[REQUEST].pending) > len(many) // 2
    rig.arrive(RESPONSE, large[100:])
    assert len(rig.errors()) == 3001 and rig.halves[REQUEST].pending == b""


def test_draining() -> None:
    rig = Rig(5)
    rig.ask(rig.query(OPEN, 1))
    rig.apply(rig.talk.draining(1.0))
    assert rig.ending is None
    rig.ask(rig.query(OPEN, 2))
    rig.say(rig.rows(1))
    assert rig.closed and len(rig.served()) == 1
    rig = Rig(4)
    assert rig.talk.idle
    rig.apply(rig.talk.draining(1.0))
    assert rig.closed


def test_a_server_that_cannot_be_reached() -> None:
    rig = Rig(4, begun=False)
    rig.ask(words.options(4, 3))
    rig.apply(rig.talk.upstream_failed("refused", 1.0))
    assert rig.errors() == [(3, 0x0000)] and rig.closed


def test_a_request_that_does_not_come_to_an_end() -> None:
    rig = Rig(4)
    rig.ask(rig.query(OPEN)).say(rig.rows())
    rig.arrive(REQUEST, rig.query(OPEN)[:20])
    assert rig.talk.head_pending and rig.talk.receiving
    rig.apply(rig.talk.head_timeout(9.0))
    assert rig.closed and "in time" in rig.reason and rig.known.held == 0
    rig = Rig(4)
    rig.arrive(REQUEST, rig.query(OPEN)[:20], True)
    assert "within a request" in rig.reason
