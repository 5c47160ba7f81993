"""Statements that differ in their constants alone are judged once, by every policy."""

from __future__ import annotations

import pytest

from tests.cassandra.rig import Rig, Teller, id_of

UNAUTHORIZED = 0x2100


def insert(number: int, table: str = "orders") -> str:
    return f"INSERT INTO shop.{table} (id, name) VALUES ({number}, 'number {number}')"


@pytest.mark.parametrize("version", [4, 5])
def test_other_constants_are_no_other_statement(version: int) -> None:
    rig = Rig(version)
    for number in range(5):
        rig.ask(rig.query(insert(number), 1)).say(rig.void(1))
    assert len(rig.judge.judged) == 1 and len(rig.served()) == 5
    rig.ask(rig.query(insert(5, "secrets"), 1)).ask(rig.query(insert(6, "secrets"), 1))
    assert len(rig.judge.judged) == 2 and not rig.served()
    assert rig.errors()[-2:] == [(1, UNAUTHORIZED)] * 2


def test_a_batch_of_them_neither() -> None:
    rig = Rig()
    number = id_of(insert(0))
    rig.ask(rig.prepare(insert(0), 1)).say(rig.prepared(number, 1))
    seen = len(rig.judge.judged)
    for other in range(5):
        rig.ask(rig.batch(insert(other), number, stream=1)).say(rig.void(1))
    assert len(rig.judge.judged) == seen + 1 and len(rig.served()) == 6


def test_another_policy_judges_again() -> None:
    rig = Rig()
    rig.ask(rig.query(insert(1), 1)).say(rig.void(1))
    rig.judge = rig.talk.judge = Teller(refused=["orders"])
    rig.ask(rig.query(insert(2), 1))
    assert rig.errors()[-1] == (1, UNAUTHORIZED) and len(rig.served()) == 1


def test_what_cannot_be_read_keeps_its_own_reason() -> None:
    rig = Rig()
    for text in ("SELECT 'x' FROM FROM shop.orders", "SELECT 'longer' FROM FROM shop.orders"):
        rig.ask(rig.query(text, 1))
        assert f"at character {text.index('FROM shop')}" in rig.reason
    assert not rig.served()


def test_no_constant_is_remembered() -> None:
    rig = Rig()
    rig.ask(rig.query("INSERT INTO shop.orders (id, name) VALUES (1, 'hush')", 1)).say(rig.void(1))
    assert not any(b"hush" in part for key in rig.judge.calls for part in key if isinstance(part, bytes))
