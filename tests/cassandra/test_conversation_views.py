"""What a conversation of CQL knows of materialized views, and how it hears of changes."""

from __future__ import annotations

from typing import Any

import pytest

from parsers.cassandra import Opcode
from parsers.facts import CqlRequest
from tests.cassandra import words
from tests.cassandra.rig import Rig, fresh, id_of, own, stream_of
from tests.conversations import REQUEST, RESPONSE

OPEN, BY_NAME = "SELECT * FROM shop.orders", "SELECT * FROM shop.by_name"
UNAUTHORIZED = 0x2100


def test_views_are_asked_for(rig: Rig) -> None:
    """Fact 8: who reads a view reads its table."""
    views = [("shop", "by_name", "secrets"), ("shop", "secret_view", "orders")]
    rig = fresh(rig, views=views)
    rig.ask(rig.query("SELECT * FROM shop.by_name", 1), rig.query(OPEN, 2))
    assert rig.errors() == [(1, UNAUTHORIZED)] and len(rig.served()) == 1
    rig.ask(rig.query("INSERT INTO shop.orders (k) VALUES (1)", 3))
    assert rig.errors() == [(3, UNAUTHORIZED)]
    assert rig.judge.judged[-1] == CqlRequest("insert", "shop", "secret_view")


def test_views_are_asked_for_again(rig: Rig) -> None:
    rig = fresh(rig, views=[])
    rig.ask(rig.query("SELECT * FROM shop.by_name", 1)).say(rig.rows(1))
    rig.views = (("shop", "by_name", "secrets"),)
    rig.now = 29.0
    rig.ask(rig.query("SELECT * FROM shop.by_name", 1)).say(rig.rows(1))
    assert [code for _, code in rig.errors()] == [0, 0]
    rig.now = 31.0
    rig.ask(rig.query("SELECT * FROM shop.by_name", 1))
    assert rig.errors() == [(1, UNAUTHORIZED)]
    rig.views = ()
    rig.ask(rig.query("DROP MATERIALIZED VIEW shop.by_name", 2)).say(rig.void(2))
    rig.ask(rig.query("SELECT * FROM shop.by_name", 1)).say(rig.rows(1))
    assert rig.errors() == [(2, 0), (1, 0)]


def test_the_question_for_views_is_nobody_elses(rig: Rig) -> None:
    """Its stream is free, its answer goes nowhere, and nothing is judged before it."""
    rig = fresh(rig, views=[])
    rig.views = None
    first = rig.query(OPEN, 32_767)
    rig.ask(words.options(rig.version, 32_767), rig.query(OPEN, 1))
    rig.ask(first)
    assert rig.judge.judged == []
    (question,) = [one for one in rig.envelopes(REQUEST) if own(one)]
    assert question[4] == Opcode.REGISTER and stream_of(question) == 32_766
    for table in (b"views", b"functions", b"aggregates"):
        rig.tell()
        (question,) = [one for one in rig.envelopes(REQUEST) if own(one)]
        assert b"FROM system_schema." + table in question and stream_of(question) == 32_766
    rig.say(words.say(Opcode.SUPPORTED, b"\0\0", rig.version, 32_767))
    rig.tell()
    assert len(rig.heard()) == 1 and len(rig.served()) == 2


@pytest.mark.parametrize("code", [0x2200, 0x2100, 0x1001])
def test_a_server_that_does_not_tell_its_views(code: int) -> None:
    rig = Rig(4)
    rig.views = None
    rig.ask(rig.query(OPEN)).tell().tell(error=code)
    assert rig.aborted == (code != 0x2200)
    if code == 0x2200:
        rig.tell(times=2)
        assert len(rig.served()) == 1


@pytest.mark.parametrize(("code", "then"), [(0x1001, UNAUTHORIZED), (0x2200, 0)])
def test_views_that_were_told_count_while_the_server_is_busy(code: int, then: int) -> None:
    rig = Rig(4, views=[("shop", "by_name", "secrets")])
    rig.ask(rig.query(OPEN)).say(rig.rows())
    rig.now, rig.views = 31.0, None
    rig.ask(rig.query("SELECT * FROM shop.by_name")).tell(error=code)
    rig.tell(error=code, times=0 if then else 2)
    assert rig.ending is None and bool(then) == ((0, then) in rig.errors()[1:])


def event(rig: Rig, kind: str = "SCHEMA_CHANGE") -> bytes:
    body = b"".join(map(words.string, (kind, "CREATED", "TABLE", "shop", "by_name")))
    return words.say(Opcode.EVENT, body, rig.version, -1)


def beside(rig: Rig, **more: Any) -> Rig:
    """Another connection of the same worker."""
    return Rig(rig.version, rig.judge, compression=rig.compression, known=rig.known, **more)


def test_a_change_that_the_server_tells_of(rig: Rig) -> None:
    """Whichever connection hears of it, and whether its client wants to or not."""
    rig = fresh(rig, views=[])
    other = beside(rig)
    for one in (rig, other):
        one.ask(one.query(BY_NAME, 1)).say(one.rows(1))
        assert one.errors() == [(1, 0)]
    rig.say(event(rig), event(rig, "STATUS_CHANGE"))
    assert rig.heard() == [event(rig, "STATUS_CHANGE")]
    other.views = (("shop", "by_name", "secrets"),)
    for one in (other, rig):
        one.ask(one.query(BY_NAME, 1))
        assert one.errors() == [(1, UNAUTHORIZED)] and not one.ending


def test_a_client_that_wants_to_hear_of_changes(rig: Rig) -> None:
    rig = fresh(rig, views=[])
    rig.ask(rig.query(OPEN, 1)).say(rig.rows(1)).say(event(rig))
    rig.ask(words.register(rig.version, 2)).say(words.ready(rig.version, 2)).say(event(rig))
    assert rig.heard() == [rig.rows(1), words.ready(rig.version, 2), event(rig)]
    rig.ask(rig.query(BY_NAME, 1)).say(rig.rows(1))
    assert rig.errors() == [(1, 0)]


def test_a_change_while_the_server_tells_its_views(rig: Rig) -> None:
    """What it tells then may be what was before."""
    rig = fresh(rig, views=[])
    rig.views = None
    rig.ask(rig.query(BY_NAME, 1)).say(event(rig)).tell().say(event(rig)).tell(times=3)
    assert rig.served() == [] and rig.heard() == []
    rig.tell([("shop", "by_name", "secrets")], times=3)
    assert rig.served() == [] and rig.errors() == [(1, UNAUTHORIZED)]


def test_a_change_behind_which_the_server_does_not_tell_its_views(rig: Rig) -> None:
    rig = fresh(rig, views=[])
    rig.ask(rig.query(BY_NAME, 1)).say(rig.rows(1)).say(event(rig))
    rig.served()
    rig.views = None
    rig.ask(rig.query(BY_NAME, 1)).tell(error=0x1001)
    assert rig.aborted and rig.served() == []


def test_when_nobody_hears_of_changes_any_more(rig: Rig) -> None:
    rig = fresh(rig, views=[])
    other = beside(rig)
    for one in (rig, other):
        one.ask(one.query(BY_NAME, 1)).say(one.rows(1))
    rig.finish()
    other.views = (("shop", "by_name", "secrets"),)
    other.ask(other.query(BY_NAME, 2))
    assert other.errors() == [(1, 0), (2, UNAUTHORIZED)] and len(rig.known.watchers) == 1
    other.finish()
    assert not rig.known.watchers


CALLS = "SELECT abs(v) FROM shop.orders"


@pytest.mark.parametrize(
    ("text", "keyspace", "hidden"),
    [
        (CALLS, None, True),
        ("SELECT k FROM orders WHERE k = abs(1)", "shop", True),
        ("INSERT INTO shop.orders (k) VALUES (Abs(1))", None, True),
        ('SELECT "abs"(v) FROM shop.orders', None, True),
        ("SELECT system.abs(v), now(), abs FROM shop.orders", None, False),
        ("SELECT abs(v) FROM mall.orders", None, False),
        ("SELECT k FROM orders WHERE k = abs(1)", "mall", False),
    ],
)
def test_functions_that_hide_one_of_cassandras(rig: Rig, text: str, keyspace: str | None, hidden: bool) -> None:
    """Who calls abs in a keyspace that has an abs of its own executes that one."""
    rig = fresh(rig, views=[])
    rig.functions = (("shop", "abs"), ("shop", "other"))
    if keyspace is not None:
        rig.ask(rig.query(f"USE {keyspace}", 1)).say(rig.set_keyspace(keyspace, 1))
    rig.ask(rig.query(text, 1))
    executes = [one for one in rig.judge.judged if one.action == "execute"]
    assert executes == ([CqlRequest("execute", "shop")] if hidden else [])


def test_a_function_that_is_made_later(rig: Rig) -> None:
    rig = fresh(rig, views=[])
    number = id_of(CALLS)
    rig.ask(rig.prepare(CALLS, 1)).say(words.prepared(number, rig.version, 1))
    rig.ask(rig.execute(number, 1), rig.batch(CALLS, number, stream=2)).say(rig.rows(1), rig.rows(2))
    assert CqlRequest("execute", "shop") not in rig.judge.judged
    rig.functions = (("shop", "abs"),)
    rig.say(event(rig)).ask(rig.execute(number, 1))
    assert rig.judge.judged[-1] == CqlRequest("execute", "shop")
    rig.say(rig.rows(1))
    del rig.judge.judged[:]
    rig.ask(rig.batch(number, stream=2))
    assert rig.judge.judged[-1] == CqlRequest("execute", "shop")


def test_a_server_that_tells_of_nothing(rig: Rig) -> None:
    """It is asked every 30 seconds then."""
    rig = fresh(rig, views=[])
    rig.views = None
    rig.ask(rig.query(BY_NAME, 1)).tell(error=0).tell(times=3).say(rig.rows(1))
    assert rig.errors() == [(1, 0)] and not rig.known.watchers


@pytest.mark.parametrize("cut", [1, 10, 20])
def test_an_event_in_pieces(rig: Rig, cut: int) -> None:
    rig = fresh(rig, views=[])
    rig.ask(rig.query(OPEN, 1)).say(rig.rows(1))
    data = rig.wire(event(rig)) + rig.wire(event(rig, "STATUS_CHANGE"))
    rig.arrive(RESPONSE, data[:cut]).arrive(RESPONSE, data[cut:-cut]).arrive(RESPONSE, data[-cut:])
    assert rig.heard() == [rig.rows(1), event(rig, "STATUS_CHANGE")]
    assert rig.known.changes == 1 and rig.known.held == 0
