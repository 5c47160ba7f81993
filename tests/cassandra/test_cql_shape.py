"""A text and its shape are the same statement."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parsers.cql_lexer import Unclassifiable, redacted, tokenize
from parsers.cql_shape import shape
from parsers.cql_statement import classify
from tests.cassandra.grammar import spoilt, statement
from tests.cassandra.statements import READ

UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
SAME = [
    ("INSERT INTO ks.t (a, b) VALUES (7, 'seven')", "INSERT INTO ks.t (a, b) VALUES (0, '')"),
    ("SELECT * FROM t WHERE a=1 AND b = -2.5 LIMIT 10;", "SELECT * FROM t WHERE a=0 AND b = 0 LIMIT 0;"),
    (f"UPDATE t SET a = {UUID} WHERE b IN (0xCAFE,{UUID})", "UPDATE t SET a = 0 WHERE b IN (0,0)"),
    ("SELECT a FROM t WHERE b = 'it''s -- /* \" $$ FROM u'", "SELECT a FROM t WHERE b = ''''"),
    ("INSERT INTO t JSON '{\"a\": 1}'", "INSERT INTO t JSON ''"),
    ("SELECT t1.a1 FROM t2", "SELECT t1.a1 FROM t2"),
]
NONE = [
    "SELECT a FROM t WHERE b = 'c",
    'SELECT a FROM "t" WHERE b = 1',
    "SELECT a FROM t -- ' \n WHERE b = ''",
    "SELECT a FROM t // ' \n WHERE b = ''",
    "SELECT a FROM t /* ' */ WHERE b = ''",
    "SELECT a FROM t WHERE b = $$ ' $$ AND c = ''",
    "SELECT a FROM t\u00a0WHERE b = 1",
    "SELECT a FROM t\x00",
    "SELECT a FROM t WHERE a = \\1",
    "a-b--",
    "SELECT a - b--",
]
LOOK_ALIKES = [
    "SELECT 1a FROM t",
    "a = 1AND",
    "a = 1..2",
    "a = 0xcafeFROM",
    f"a = {UUID}0",
    "a = 12345678-1",
    "LIMIT 5s",
    f"a = {'1' * 41}",  # it may be one that takes a server long
]
WORDS = """SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE BATCH BEGIN APPLY IF USE LIMIT ks.t t expr e P ( ) [ ]
{ } , = - -- -= += . .. ; : ? * < ' '' 'x' " "t" $$ / // /* */ 0 1 12 12345678 1e5 0x 0xCAFE P1Y 5s NaN -infinity T1H
\u00e9"""
PIECES = st.sampled_from([*WORDS.split(), " ", " ", "\n", "\t", "\x00", UUID, UUID[:8]])


@pytest.mark.parametrize(("text", "wanted"), SAME)
def test_constants_are_left_out(text: str, wanted: str) -> None:
    assert shape(text) == wanted


@pytest.mark.parametrize("text", NONE)
def test_what_is_not_plain_has_no_shape(text: str) -> None:
    assert shape(text) is None


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_like_a_constant_stays(text: str) -> None:
    assert shape(text) == text


@given(st.one_of(st.lists(PIECES, max_size=24).map("".join), st.lists(PIECES, max_size=24).map(" ".join)))
@example("SELECT a FROM t WHERE a = -1 AND b =-1.5 AND c IN ('', 'x''y')")
def test_a_shape_is_the_same_statement(text: str) -> None:
    """Tokens, what is said of them, and what is logged."""
    found = shape(text)
    if found is None:
        return
    assert shape(found) == found and tokens(found) == tokens(text) and said(found) == said(text)
    assert redacted(text) == redacted(found)


@pytest.mark.parametrize("text", READ)
def test_statements_by_hand(text: str) -> None:
    found = shape(text)
    assert found is None or (tokens(found), said(found)) == (tokens(text), said(text))


@given(st.randoms(use_true_random=False), st.booleans())
def test_statements_of_a_grammar(random: Random, bad: bool) -> None:
    text = spoilt(random) if bad else statement(random)
    found = shape(text)
    assert found is None or (tokens(found), said(found)) == (tokens(text), said(text))


def tokens(text: str) -> object:
    try:
        found = tokenize(text, 1000)
    except Unclassifiable:
        return None
    return found.kinds, found.texts


def said(text: str) -> object:
    try:
        found = classify(text, "k")
    except Unclassifiable:
        return None
    return found.kind, found.requests, found.unqualified, found.changes_keyspace
