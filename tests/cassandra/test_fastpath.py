"""What the fast path takes of CQL, and that it is told of as if it had come by the proxy."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l7proxy.offers import Offer
from l7proxy.ops import CqlCall, CqlStatement, Record
from parsers.cassandra import HEADER
from parsers.malformed import Malformed
from sockmap.splice_lanes import BINDINGS
from tests.cassandra import words
from tests.cassandra.rig import Rig, Teller, id_of
from tests.matching import mutated, straight

SELECT = "SELECT name FROM shop.orders WHERE id = ?"
VERSIONS = (3, 4, 5)


def execute(version: int, stream: int = 0, values: Any = (b"\0\0\0\1",), **more: Any) -> bytes:
    return words.execute(id_of(SELECT), version, stream, list(values), **more)


def known(version: int, judge: Teller | None = None, compression: str = "", **more: Any) -> Rig:
    """A client that has prepared a statement and run it, as its offers show."""
    rig = Rig(version, judge, compression=compression)
    rig.talk.offers = []
    rig.ask(rig.prepare(SELECT, 99)).say(rig.prepared(id_of(SELECT), 99))
    rig.ask(execute(version, 1, **more)).say(rig.rows(1))
    rig.records.clear()
    return rig


def offers(rig: Rig) -> list[Offer]:
    return rig.talk.offers or []


def quiet(rig: Rig) -> bool:
    """Requests and answers may go straight."""
    return rig.talk.repeats(1.0) and rig.talk.hears()


def told(record: Record) -> tuple[CqlStatement, int, int, int, bool]:
    assert isinstance(record.request, CqlStatement) and isinstance(record.call, CqlCall)
    return record.request, record.code, record.call.stream, record.call.consistency, record.call.answered


@pytest.mark.parametrize("version", VERSIONS)
def test_a_statement_that_was_run_is_offered_whatever_its_values(version: int) -> None:
    rig = known(version)
    (offer,), form = offers(rig), rig.talk.form()
    assert (offer.tail, offer.values) == (BINDINGS, 1) and form.segments is (version > 4)
    for message in (
        execute(version, 32_767),
        execute(version, 7, [b""]),
        execute(version, 7, [None]),
        execute(version, 7, [b"v" * 5000]),
    ):
        assert straight(offers(rig), form, message) is offer
    negative = bytearray(execute(version))
    negative[2] |= 0x80
    flagged = bytearray(execute(version))
    flagged[1] = 2
    other = bytearray(execute(version))
    other[HEADER + 18 + 18 * (version > 4) + 1] = 2  # the consistency
    huge = execute(version, 7, [b"abcd"]).replace(b"\0\0\0\4abcd", b"\x40\0\0\0abcd")
    for message in (
        execute(version, 7, [b"a", b"b"]),
        execute(version, 7, []),
        bytes(other),
        execute(version)[:-1],
        execute(version) + b"\0",
        bytes(negative),
        bytes(flagged),
        huge,
        words.execute(id_of("other"), version, 0, [b"\0\0\0\1"]),
        words.query(SELECT, version),
    ):
        assert straight(offers(rig), form, message) is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "more", [{"fetch_size": 100}, {"serial_consistency_level": 8}, {"timestamp": 5}, {"values": []}]
)
def test_what_follows_the_values_has_its_size(version: int, more: dict[str, Any]) -> None:
    rig = known(version, **more)
    (offer,) = offers(rig)
    assert straight(offers(rig), rig.talk.form(), execute(version, 9, **more)) is offer
    assert straight(offers(rig), rig.talk.form(), execute(version, 9)) is None


def test_what_has_no_fixed_size_is_not_offered_nor_what_does_more() -> None:
    assert not offers(known(4, paging_state=b"page"))
    assert not offers(known(4, values=[b"v"] * 17))
    assert not offers(known(5, compression="lz4")) and offers(known(4, compression="lz4"))
    for judge in (Teller(refused=["orders"]),):
        rig = Rig(4, judge)
        rig.talk.offers = []
        rig.ask(rig.prepare(SELECT, 99))
        assert not offers(rig)
    rig = Rig()
    rig.talk.offers = []
    rig.ask(rig.prepare("USE shop", 9)).say(rig.prepared(id_of("USE shop"), 9))
    rig.ask(words.execute(id_of("USE shop"), 4, 1))
    assert not offers(rig) and not quiet(rig)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=100)
@given(
    places=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=3),
    tail=st.binary(max_size=4),
    value=st.none() | st.binary(max_size=40),
    whole=st.booleans(),
)
def test_whatever_goes_straight_would_have_passed(
    version: int, places: list[tuple[int, int]], tail: bytes, value: bytes | None, whole: bool
) -> None:
    rig = known(version)
    message = mutated(execute(version, 3, [value]), places, tail)
    if whole:
        message = message[:5] + struct.pack(">i", len(message) - HEADER) + message[HEADER:]
    if straight(offers(rig), rig.talk.form(), message) is None:
        return
    rig.served(), rig.heard()
    rig.ask(message)
    assert rig.served() == [message] and not rig.heard() and not rig.closed


@pytest.mark.parametrize("version", VERSIONS)
def test_notes_make_the_records_that_relaying_makes(version: int) -> None:
    rig = known(version)
    (offer,) = offers(rig)
    rig.ask(execute(version, 300)).say(rig.rows(300))
    (relayed,) = rig.records
    rig.talk.went(offer.entry, 300, 5.0)
    assert not rig.talk.idle
    made = rig.talk.heard(300, rig.rows(300)[:32], 5.5)
    assert told(made) == told(relayed) and (made.started, made.ended) == (5.0, 5.5) and rig.talk.idle


def test_streams_of_both_ways_are_told_apart() -> None:
    rig = known(4)
    (offer,) = offers(rig)
    rig.ask(execute(4, 5))
    rig.talk.went(offer.entry, 6, 1.0)
    assert told(rig.talk.heard(5, rig.rows(5)[:32], 2.0))[2] == 5
    rig.say(rig.rows(6))
    assert [told(record)[2] for record in rig.records] == [6] and rig.talk.idle
    rig.talk.went(offer.entry, 6, 3.0)
    for wrong in (lambda: rig.talk.went(offer.entry, 6, 3.0), lambda: rig.talk.heard(7, rig.rows(7)[:32], 3.0)):
        with pytest.raises(Malformed):
            wrong()


ASKS: dict[str, Callable[[Rig], bytes]] = {
    "prepared": lambda rig: rig.prepare("SELECT id FROM shop.orders", 7),
    "refused": lambda rig: rig.query("SELECT id FROM shop.secrets", 7),
    "use": lambda rig: rig.query("USE shop", 7),
    "changes": lambda rig: rig.query("DROP MATERIALIZED VIEW shop.v", 7),
    "options": lambda rig: words.options(rig.version, 7),
    "half": lambda rig: rig.query("SELECT id FROM shop.orders", 7)[:-3],
}


@pytest.mark.parametrize("name", ASKS)
def test_answers_that_are_looked_at_do_not_go_straight(name: str) -> None:
    rig = known(4)
    rig.ask(execute(4, 5))
    assert quiet(rig)
    rig.ask(ASKS[name](rig))
    assert quiet(rig) is (name == "refused")
    assert rig.talk.repeats(1.0) is (name not in ("use", "half"))


def test_views_that_may_have_changed_end_what_is_known() -> None:
    rig, heard = known(4), []
    rig.known.changed = heard.append
    group = rig.talk.group()
    assert group.until > 0
    rig.known.outdated(("10.0.0.9", 9042))
    assert heard == [("10.0.0.9", 9042)] and rig.talk.group().until < 0
    rig.views = [("shop", "by_name", "orders")]
    rig.ask(rig.query("SELECT id FROM shop.orders", 7)).say(rig.rows(7))
    assert rig.talk.group() is not group and rig.talk.group().until > 0
