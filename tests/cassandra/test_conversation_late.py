"""What is held back, or waited for, too long ends a CQL connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l7proxy.limits import Limits
from parsers.cassandra import Opcode
from parsers.options import CassandraOptions
from tests.cassandra import words
from tests.cassandra.rig import Rig, Teller
from tests.cassandra.test_conversation_begin import not_alone
from tests.conversations import REQUEST, RESPONSE

OPEN = "SELECT * FROM shop.orders"
LIMITS = Limits(head_timeout=10, idle_timeout=300)
OPTIONS = CassandraOptions(max_held=1 << 20, max_held_together=400_000)
SERVER_ERROR = 0


def late(rig: Rig, now: float) -> Rig:
    rig.now = now
    return rig.apply(rig.talk.late(now, LIMITS))


@pytest.mark.parametrize("version", [4, 5])
def test_what_is_held_long_makes_room(version: int) -> None:
    """Only where others need it."""
    rig = Rig(version, Teller(OPTIONS))
    rig.arrive(REQUEST, rig.wire(rig.query(OPEN + " " * 900_000))[:100_000])
    assert not late(rig, 299).ending and rig.known.held == 100_000
    rig.known.held += 100_001
    assert not late(rig, 10).ending
    assert late(rig, 10.1).closed and "held for long" in rig.reason and rig.known.held == 100_001
    assert rig.served() == []


@pytest.mark.parametrize("version", [4, 5])
def test_what_is_small_is_not_asked_for_it(version: int) -> None:
    """It has `limits.head_timeout` in any case, in however many segments it comes."""
    rig = Rig(version, Teller(OPTIONS))
    rig.known.held += 300_000
    data = rig.query(OPEN + " " * 60_000)
    rig.arrive(REQUEST, data[:50_000] if version == 4 else not_alone(data[:1000]))
    rig.arrive(REQUEST, data[50_000:50_001] if version == 4 else not_alone(data[1000:1001]))
    assert not late(rig, 299).ending and rig.talk.head_pending
    rig.apply(rig.talk.head_timeout(300))
    assert rig.closed and rig.known.held == 300_000


@pytest.mark.parametrize("version", [4, 5])
def test_where_nothing_is_enforced_it_goes_on_unread(version: int) -> None:
    rig = Rig(version, Teller(OPTIONS, audit_only=True))
    data = rig.wire(rig.query(OPEN + " " * 900_000))
    sent = len(rig.server)
    rig.arrive(REQUEST, data[:100_000])
    rig.known.held += 200_000
    assert late(rig, 11).server[sent:] == data[:100_000] and not rig.ending and rig.known.held == 200_000
    rig.arrive(REQUEST, data[100_000:])
    assert rig.server[sent:] == data and not late(rig, 99).ending


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("audit", [False, True])
def test_answers_that_are_held_long(version: int, audit: bool) -> None:
    rig = Rig(version, Teller(OPTIONS, audit_only=audit))
    rig.ask(rig.query(OPEN)).say(rig.rows()).ask(rig.prepare(OPEN))
    data = rig.wire(words.say(Opcode.RESULT, bytes(200_000), version))
    heard = len(rig.client)
    rig.arrive(RESPONSE, data[:100_000])
    assert rig.known.held == 100_000
    rig.known.held += 200_000
    assert late(rig, 11).aborted != audit and rig.client[heard:] == (data[:100_000] if audit else b"")
    rig.finish()
    assert rig.known.held == 200_000 and "held for long" in rig.reason


def use(rig: Rig) -> None:
    rig.ask(rig.query("USE shop", 3))


def use_behind_a_statement(rig: Rig) -> None:
    rig.ask(rig.query("SELECT * FROM orders", 3), rig.query("USE shop", 4))


@pytest.mark.parametrize("asks", [use, use_behind_a_statement], ids=lambda one: one.__name__)
@pytest.mark.parametrize("version", [4, 5])
def test_requests_do_not_wait_for_ever(version: int, asks: Callable[[Rig], None]) -> None:
    """For a server that does not answer what decides about them."""
    rig = Rig(version)
    rig.ask(rig.query(OPEN, 1)).say(rig.rows(1)).ask(rig.query(OPEN, 7))
    rig.heard()
    asks(rig)
    rig.ask(rig.query("SELECT * FROM t", 5))
    assert not late(rig, 300).ending
    assert late(rig, 301).closed and "no answer in time" in rig.reason
    assert sorted(rig.errors()) == [(3, SERVER_ERROR), (7, SERVER_ERROR)]
    assert ("FORWARDED", "QUERY", "select", 7, -1, False) in rig.told


def test_others_may_wait_for_long() -> None:
    rig = Rig(4).ask(words.query(OPEN, 4, 1), words.query("SELECT * FROM orders", 4, 2), words.execute(b"x" * 16, 4, 3))
    assert not late(rig, 1e6).ending


def test_an_answer_that_is_under_way_is_not_spoken_into() -> None:
    rig = Rig(4).ask(words.query(OPEN, 4, 1))
    rig.ask(rig.query("USE shop", 3))
    rig.arrive(RESPONSE, rig.rows(1, 5000)[:100])
    heard = rig.client
    assert late(rig, 301).aborted and rig.client == heard and "no answer in time" in rig.reason


def test_the_proxy_waits_for_its_own_question_no_longer() -> None:
    """And the client hears nothing of it."""
    rig = Rig(4)
    rig.views = None
    rig.ask(rig.query(OPEN, 1))
    assert len(rig.envelopes(REQUEST)) == 1
    assert late(rig, 301).closed and rig.errors() == []
