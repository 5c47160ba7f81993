"""The classifier beside Cassandra's own parser: what that reads, this reads alike or refuses.

`STRICTER` and `MORE` in `tests.cassandra.statements` list where it is stricter; nowhere may it be weaker.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parsers.cql_lexer import RESERVED
from parsers.cql_reader import NATIVE
from parsers.cql_statement import Statement, Unclassifiable, classify
from parsers.facts import CqlRequest
from tests.cassandra.grammar import spoilt, statement
from tests.cassandra.parser import SESSION, NotRead, Parser, wanted
from tests.cassandra.statements import MORE, NAMED, READ, STRICTER, UNREAD, requests

NEEDS_A_KEYSPACE = "GRANT EXECUTE ON FUNCTION ks.f(int, list<text>) TO r"
"""Cassandra's parser asks for the keyspace of the function."""


def ours(text: str) -> Statement | None:
    """What the classifier says; None: it refuses."""
    try:
        return classify(text, SESSION)
    except Unclassifiable:
        return None


def theirs(parser: Parser, text: str) -> tuple[set[str], set[CqlRequest]] | None:
    """The kinds and requests that Cassandra's parser finds; None: it does not read the text."""
    try:
        return wanted(parser.parse(text))
    except NotRead as error:
        assert error.syntax or "Keyspace" in str(error), text
        return None


def compare(parser: Parser, text: str) -> str:
    """Which of both reads it, and whether alike. A hole fails."""
    mine, other = ours(text), theirs(parser, text)
    if other is None:
        return "neither reads" if mine is None else "only ours reads"
    if mine is None:
        return "only Cassandra reads"
    kinds, least = other
    assert mine.kind in kinds, text
    assert least <= set(mine.requests), text
    assert mine.requests, text
    return "asks more" if least and least != set(mine.requests) else "alike"


@pytest.mark.parametrize("text", [text for text in READ if text != NEEDS_A_KEYSPACE])
def test_what_cassandra_reads_is_read_alike(cassandra_parser: Parser, text: str) -> None:
    assert compare(cassandra_parser, text) in (["alike", "asks more"] if text.startswith("DESC") else ["alike"])


def test_what_cassandra_does_not_read(cassandra_parser: Parser) -> None:
    for text in UNREAD:
        assert theirs(cassandra_parser, text) is None, text
    for word in (*RESERVED, "true", "false", "nan", "infinity"):
        for form in NAMED:
            assert theirs(cassandra_parser, form.format(word)) is None, word


@pytest.mark.parametrize("text", STRICTER)
def test_where_the_classifier_refuses_what_cassandra_reads(cassandra_parser: Parser, text: str) -> None:
    assert compare(cassandra_parser, text) == "only Cassandra reads"


@pytest.mark.parametrize("text", MORE)
def test_where_the_classifier_asks_more(cassandra_parser: Parser, text: str) -> None:
    other = theirs(cassandra_parser, text)
    assert other is not None
    assert set(classify(text, SESSION).requests) - other[1] == requests(MORE[text])


def test_native_functions_are_cassandras(cassandra_parser: Parser) -> None:
    """All whose names can be written without quotes."""
    assert {name for name in cassandra_parser.functions() if name.islower() and name[0] != "_"} == NATIVE


def test_statements_by_the_grammar(cassandra_parser: Parser) -> None:
    random = Random(1)
    seen = Counter(compare(cassandra_parser, statement(random)) for _ in range(8000))
    assert seen["alike"] > 3000, seen
    assert seen["only Cassandra reads"] + seen["asks more"] < 0.02 * seen["alike"], seen


def test_spoilt_statements(cassandra_parser: Parser) -> None:
    random = Random(2)
    seen = Counter(compare(cassandra_parser, spoilt(random)) for _ in range(8000))
    assert seen["alike"] > 200 and seen["neither reads"] > 1000, seen


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.sampled_from([statement, spoilt]))
def test_statements_by_hypothesis(cassandra_parser: Parser, random: Random, make: object) -> None:
    assert callable(make)
    compare(cassandra_parser, make(random))


def test_the_comparison_sees_a_hole(cassandra_parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parsers.cql_reader.NATIVE", NATIVE | {"hidden"})
    with pytest.raises(AssertionError):
        compare(cassandra_parser, "SELECT hidden(a) FROM ks.t")
