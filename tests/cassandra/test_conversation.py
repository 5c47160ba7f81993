"""Dialogues of CQL: what passes, what is refused, and how it is answered, in every version and framing."""

from __future__ import annotations

import struct

from l7proxy.ops import CqlStatement, Pass, Record
from parsers.cassandra import Opcode, write_envelope
from parsers.facts import CqlRequest
from tests.cassandra import words
from tests.cassandra.rig import Rig, Teller, fresh, id_of
from tests.conversations import RESPONSE

OPEN, SECRET = "SELECT * FROM shop.orders", "SELECT * FROM shop.secrets"
UNAUTHORIZED, UNPREPARED, PROTOCOL = 0x2100, 0x2500, 0x000A


def test_what_is_allowed_passes_verbatim(rig: Rig) -> None:
    rig.ask(rig.query("SELECT 1 FROM a.b")).say(rig.rows())
    start, (sent, got) = len(rig.ops), map(len, (rig.server, rig.client))
    asked, told = rig.wire(rig.query(OPEN, 3)), rig.wire(rig.rows(3))
    rig.ask(rig.query(OPEN, 3)).say(rig.rows(3))
    assert (rig.server[sent:], rig.client[got:], rig.ending) == (asked, told, None)
    assert rig.told[1] == ("FORWARDED", "QUERY", "select", 3, -1, True)
    ops = rig.ops[start:]
    assert [type(one) for one in ops] == [Pass, Record, Pass] and ops[0] == Pass(len(asked)) and rig.talk.idle


def test_a_refusal(rig: Rig) -> None:
    rig.ask(rig.query(SECRET, 7))
    assert rig.served() == [] and rig.errors() == [(7, UNAUTHORIZED)]
    assert rig.told == [("DROPPED", "QUERY", "select", 7, UNAUTHORIZED, False)]
    asks = rig.records[0].request
    assert isinstance(asks, CqlStatement) and asks.actions[0][0] == CqlRequest("select", "shop", "secrets")
    rig.ask(rig.query(OPEN, 7)).say(rig.rows(7))
    assert len(rig.heard()) == 1 and rig.ending is None and rig.talk.idle


def test_a_refusal_says_what_the_policy_says(rig: Rig) -> None:
    rig.ask(rig.query(SECRET))
    assert b"not yours" in rig.heard()[0]


def test_answers_come_in_any_order(rig: Rig) -> None:
    rig.ask(rig.query(OPEN, 1), rig.query(SECRET, 2), rig.query(OPEN, 3))
    assert rig.errors() == [(2, UNAUTHORIZED)] and len(rig.served()) == 2
    rig.say(rig.rows(3), rig.error(0x1100, 1))
    assert rig.errors() == [(3, 0), (1, 0x1100)]
    assert [one[3:] for one in rig.told] == [(2, UNAUTHORIZED, False), (3, -1, True), (1, 0x1100, True)]


def test_of_a_segment_the_allowed_part_goes_on() -> None:
    for compression in ("", "lz4"):
        rig = Rig(5, compression=compression)
        first, second = rig.query(OPEN, 1), rig.query("INSERT INTO shop.orders (k) VALUES (1)", 3)
        rig.ask(first, rig.query(SECRET, 2), second)
        assert rig.served() == [first, second]
        rig.ask(rig.query(SECRET, 4), rig.query(SECRET, 5))
        assert rig.served() == [] and rig.errors() == [(2, UNAUTHORIZED), (4, UNAUTHORIZED), (5, UNAUTHORIZED)]


def test_a_second_request_on_a_stream_ends_the_connection(rig: Rig) -> None:
    """Fact 25."""
    first = rig.query(OPEN, 9)
    rig.ask(first, rig.query("DELETE FROM shop.orders WHERE k = 1", 9))
    assert rig.served() == [first] and rig.ending is None and "second request on stream 9" in rig.reason
    rig.say(rig.rows(9))
    assert rig.closed and rig.errors() == [(9, 0)]


def test_large_messages(rig: Rig) -> None:
    text = "INSERT INTO shop.orders (k) VALUES ('" + 300_000 * "x" + "')"
    rig.ask(rig.query(text, 1))
    (asked,) = rig.served()
    assert asked == rig.query(text, 1)
    large = rig.rows(1, 400_000)
    rig.say(large)
    assert rig.heard() == [large]
    rig.ask(rig.query(text.replace("orders", "secrets"), 2))
    assert rig.served() == [] and rig.errors() == [(2, UNAUTHORIZED)] and rig.known.held == 0
    assert rig.talk.idle


def test_a_refusal_waits_for_the_end_of_a_large_answer() -> None:
    data = Rig(5).wire(Rig(5).rows(1, 400_000))
    for cut in (10, 131_082, 140_000, 262_160, 300_000):
        rig = Rig(5)
        rig.ask(rig.query(OPEN, 1))
        rig.arrive(RESPONSE, data[:cut])
        rig.ask(rig.query(SECRET, 2))
        rig.arrive(RESPONSE, data[cut:])
        assert sorted(map(len, rig.heard()))[-1] == 400_013 and rig.client.count(data[:200_000]) == 1


def test_use_is_believed_when_the_server_confirms_it(rig: Rig) -> None:
    """Fact 9."""
    use, insert = rig.query("USE shop", 1), rig.query("INSERT INTO orders (k) VALUES (1)", 2)
    rig.ask(use, insert, rig.query("SELECT * FROM secrets", 3))
    assert rig.served() == [use]
    rig.say(rig.set_keyspace("shop", 1))
    assert rig.served() == [insert] and rig.errors() == [(1, 0), (3, UNAUTHORIZED)]
    assert rig.judge.judged[-2:] == [CqlRequest("insert", "shop", "orders"), CqlRequest("select", "shop", "secrets")]


def test_a_use_that_fails_does_not_move(rig: Rig) -> None:
    rig.ask(rig.query("USE shop", 1)).say(rig.set_keyspace("shop", 1))
    rig.ask(rig.query("USE nowhere", 1), rig.query("SELECT * FROM t", 2))
    rig.say(rig.error(0x2200, 1))
    assert rig.judge.judged[-1] == CqlRequest("select", "shop", "t")
    rig.say(rig.rows(2)).ask(rig.query("USE other", 1)).say(rig.set_keyspace("Other", 1))
    rig.ask(rig.query("SELECT * FROM t", 2))
    assert rig.judge.judged[-1] == CqlRequest("select", "Other", "t"), "the server's word"


def test_use_waits_for_what_depends_on_the_keyspace(rig: Rig) -> None:
    """Fact 9: the server runs them side by side."""
    rig.ask(rig.query("USE shop", 1)).say(rig.set_keyspace("shop", 1))
    rig.served()
    insert, use = rig.query("INSERT INTO t (k) VALUES (1)", 2), rig.query("USE other", 3)
    rig.ask(insert, use)
    assert rig.served() == [insert]
    rig.say(rig.void(2))
    assert rig.served() == [use]
    rig.ask(rig.query("SELECT * FROM shop.t", 4))
    assert rig.served() == []
    rig.say(rig.set_keyspace("other", 3))
    assert len(rig.served()) == 1


def test_a_keyspace_of_its_own(rig: Rig) -> None:
    """Fact 10."""
    if rig.version < 5:
        body = struct.pack(">i", 15) + b"SELECT * FROM t" + b"\0\1\x80" + words.string("secret")
        rig.ask(write_envelope(rig.version, 5, Opcode.QUERY, body))
    else:
        rig.ask(rig.query("SELECT * FROM t", 5, keyspace="secret"))
    assert rig.judge.judged[-1] == CqlRequest("select", "secret", "t") and rig.errors() == [(5, UNAUTHORIZED)]


def prepared(rig: Rig, text: str, keyspace: str = "", stream: int = 1) -> bytes:
    """Have it prepared; its id."""
    number = id_of(text, keyspace)
    rig.ask(rig.prepare(text, stream)).say(rig.prepared(number, stream))
    return number


def test_a_prepared_statement(rig: Rig) -> None:
    number = prepared(rig, OPEN)
    rig.ask(rig.execute(number, 2)).say(rig.rows(2))
    assert [one[:3] for one in rig.told] == [("FORWARDED", "PREPARE", "select"), ("FORWARDED", "EXECUTE", "select")]
    assert [r.request.prepared for r in rig.records] == [False, True]  # type: ignore[union-attr]
    other = fresh(rig, known=rig.known)
    other.ask(other.execute(number, 2))
    assert len(other.served()) == 1, "ids are those of the server, not of a connection"
    rig.ask(rig.prepare(SECRET, 3))
    assert (3, UNAUTHORIZED) in rig.errors() and len(rig.served()) == 2


def test_an_unknown_id_is_to_be_prepared_again(rig: Rig) -> None:
    """Fact 13: whoever knows the text can compute it."""
    number = id_of(SECRET)
    rig.ask(rig.execute(number, 4), rig.batch(OPEN, number, stream=5))
    frames = rig.heard()
    assert [words.body_of(one)[-16:] for one in frames] == [number, number] and rig.served() == []
    assert [one[3:] for one in rig.told] == [(4, UNPREPARED, False), (5, UNPREPARED, False)]
    elsewhere = fresh(rig, known=rig.known, server=("10.0.0.10", 9042))
    prepared(rig, OPEN)
    elsewhere.ask(elsewhere.execute(id_of(OPEN)))
    assert elsewhere.errors() == [(0, UNPREPARED)]


def test_an_id_is_bound_to_the_keyspace_it_was_made_from(rig: Rig) -> None:
    """Facts 13 and 14: a server keeps an unqualified text under the MD5 of the text alone as well, for another's
    keyspace."""
    text = "SELECT * FROM orders"
    rig.ask(rig.query("USE shop", 1)).say(rig.set_keyspace("shop", 1))
    prepared(rig, text, "shop")
    rig.ask(rig.query("USE secret_place", 1))
    assert rig.errors()[-1] == (1, UNAUTHORIZED)
    rig.ask(rig.query("USE other", 1)).say(rig.set_keyspace("other", 1))
    rig.ask(rig.execute(id_of(text, "shop"), 2)).say(rig.rows(2))
    assert rig.records[-1].request.actions[0][0] == CqlRequest("select", "shop", "orders")  # type: ignore[union-attr]
    rig.ask(rig.prepare(text, 3)).say(rig.prepared(id_of(text), 3))
    rig.errors()
    rig.ask(rig.execute(id_of(text), 4))
    assert rig.errors() == [(4, UNPREPARED)], "an id that is none of those it can have is not believed"
    if rig.version > 4:
        rig.ask(rig.prepare(text, 5, keyspace="third")).say(rig.prepared(id_of(text, "third"), 5))
        rig.ask(rig.execute(id_of(text, "third"), 6)).say(rig.rows(6))
        assert rig.records[-1].request.actions[0][0] == CqlRequest("select", "third", "orders")  # type: ignore[union-attr]


def test_use_can_be_prepared(rig: Rig) -> None:
    """Fact 9."""
    number = prepared(rig, "USE other")
    execute, then = rig.execute(number, 2), rig.query("SELECT * FROM t", 3)
    rig.served()
    rig.ask(execute, then)
    assert rig.served() == [execute]
    rig.say(rig.set_keyspace("other", 2))
    assert rig.served() == [then] and rig.judge.judged[-1] == CqlRequest("select", "other", "t")


def test_a_policy_that_changes(rig: Rig) -> None:
    number = prepared(rig, OPEN)
    rig.ask(rig.execute(number, 2)).say(rig.rows(2))
    rig.heard()
    rig.talk.judge = Teller(refused=["orders"])  # type: ignore[assignment]
    rig.ask(rig.execute(number, 2), rig.query(OPEN, 3), rig.batch(number, stream=4))
    assert rig.errors() == [(2, UNAUTHORIZED), (3, UNAUTHORIZED), (4, UNAUTHORIZED)]
    rig.talk.judge = rig.judge  # type: ignore[assignment]
    rig.ask(rig.execute(number, 2)).say(rig.rows(2))
    assert rig.errors() == [(2, 0)]


def test_a_batch_passes_as_a_whole_or_not_at_all(rig: Rig) -> None:
    number = prepared(rig, "INSERT INTO shop.orders (k) VALUES (?)")
    good = rig.batch("UPDATE shop.a SET v = 1 WHERE k = 2", number, stream=2)
    rig.served()
    rig.ask(good).say(rig.void(2))
    assert rig.served() == [good]
    rig.ask(rig.batch("UPDATE shop.a SET v = 1 WHERE k = 2", number, "DELETE FROM shop.secrets WHERE k = 1", stream=3))
    assert rig.served() == [] and rig.errors()[-1] == (3, UNAUTHORIZED)
    verdict, _, kind, *_ = rig.told[-1]
    actions = rig.records[-1].request.actions  # type: ignore[union-attr]
    assert (verdict, kind) == ("DROPPED", "batch") and actions[0][0] == CqlRequest("delete", "shop", "secrets")
    rig.ask(rig.batch("GIBBERISH", stream=4))
    assert rig.errors() == [(4, UNAUTHORIZED)]


def test_what_cannot_be_read_needs_a_rule(rig: Rig) -> None:
    rig.ask(rig.query("GIBBERISH", 1))
    assert rig.errors() == [(1, UNAUTHORIZED)] and "not the beginning of a statement" in rig.reason
    rig = fresh(rig, Teller(unknown=True))
    gibberish, then = rig.query("GIBBERISH", 1), rig.query("SELECT * FROM t", 2)
    rig.ask(gibberish, then)
    assert rig.served() == [gibberish], "it may have been a USE"
    rig.say(rig.set_keyspace("secret", 1))
    assert rig.served() == [] and rig.errors()[-1] == (2, UNAUTHORIZED)


def test_what_may_stall_a_server_passes_under_no_rule(rig: Rig) -> None:
    """Fact 27."""
    rig = fresh(rig, Teller(unknown=True))
    bomb = "SELECT " + "(" * 24 + "k" + ")" * 24 + " FROM shop.orders"
    rig.ask(rig.query(bomb, 1), rig.prepare("GIBBERISH " + bomb, 2), rig.batch(bomb, stream=3))
    assert rig.served() == [] and rig.errors() == [(1, UNAUTHORIZED), (2, UNAUTHORIZED), (3, UNAUTHORIZED)]
    assert "may stall a server" in rig.reason
    for bomb in ("?" + "+?" * 9, "9" * 1001):
        rig.ask(rig.query(f"GIBBERISH SELECT * FROM shop.orders WHERE k = {bomb}", 4))
        assert rig.served() == [] and "may stall a server" in rig.reason


def test_events_and_heartbeats_pass(rig: Rig) -> None:
    register, heartbeat = words.register(rig.version, 1), words.options(rig.version, 2)
    rig.ask(register, heartbeat)
    event = words.say(Opcode.EVENT, words.string("SCHEMA_CHANGE") + b"x" * 40, rig.version, -1)
    rig.say(words.ready(rig.version, 1), event, words.say(Opcode.SUPPORTED, b"\0\0", rig.version, 2))
    assert rig.served() == [register, heartbeat] and len(rig.heard()) == 3 and rig.records == []
