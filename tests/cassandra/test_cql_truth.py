"""The classifier beside Cassandra's own parser: what that reads, this reads alike or refuses.

`STRICTER` and `MORE` in `tests.cassandra.statements` list where it is stricter; nowhere may it be weaker.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
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


OLDER = {
    "CREATE SCHEMA ks WITH replication = {'class': 'x'}": "create-keyspace ks",
    "ALTER SCHEMA ks WITH durable_writes = true": "alter-keyspace ks",
    "DROP SCHEMA ks": "drop-keyspace ks",
}


@pytest.mark.parametrize("text", OLDER)
def test_words_of_older_servers(cassandra_parser: Parser, text: str) -> None:
    assert theirs(cassandra_parser, text) is None
    assert set(classify(text, SESSION).requests) == requests(OLDER[text])


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


@settings(max_examples=250, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.sampled_from([statement, spoilt]))
def test_statements_by_hypothesis(cassandra_parser: Parser, random: Random, make: object) -> None:
    assert callable(make)
    compare(cassandra_parser, make(random))


NESTED = {
    "parentheses": lambda n: f"SELECT {'(' * n}a{')' * n} FROM t",
    "calls": lambda n: f"SELECT JSON DISTINCT {'f(' * n}a{')' * n} FROM t",
    "maps": lambda n: f"SELECT {'{a:' * n}a{'}' * n} FROM t",
    "casts": lambda n: f"SELECT {'CAST(' * n}a{' AS int)' * n} FROM t",
    "type hints": lambda n: f"SELECT JSON DISTINCT {'(list<int>)' * n}[a] FROM t",
    "hints and brackets": lambda n: f"SELECT {'(int)(-' * n}a{')' * n} FROM t",
    "fields": lambda n: f"SELECT {'(a.b*' * n}a{')' * n} FROM t",
    "groups": lambda n: f"SELECT a FROM t GROUP BY {'(' * n}a{')' * n}",
    "view": lambda n: f"CREATE MATERIALIZED VIEW v AS SELECT {'(' * n}a{')' * n} FROM t PRIMARY KEY (a)",
    "wide": lambda n: f"SELECT JSON DISTINCT a{',((((((((a))))))))' * n} FROM t",
    "columns": lambda n: f"SELECT a{',a' * n} FROM t",
    "sums": lambda n: f"SELECT a{'+a' * n} FROM t",
    "minuses": lambda n: f"SELECT {'- ' * n}a FROM t",
    "points": lambda n: f"SELECT a{'.a' * n} FROM t",
    "subscripts": lambda n: f"SELECT a{'[1]' * n} FROM t",
    "relations": lambda n: f"SELECT * FROM t WHERE a = 1{' AND a = 1' * n}",
    "terms": lambda n: f"SELECT * FROM t WHERE a = {'[(' * n}1{')]' * n}",
    "type casts": lambda n: f"INSERT INTO t (a) VALUES ({'(int)' * n}1)",
    "additions": lambda n: f"UPDATE t SET a = a + 1{', a = a + 1' * n} WHERE k = 1",
    "batch": lambda n: f"BEGIN BATCH {'DELETE FROM t WHERE k = 1;' * n} APPLY BATCH",
    "types": lambda n: f"CREATE TABLE t (a {'list<' * n}int{'>' * n})",
    "properties": lambda n: f"ALTER TABLE t WITH a = 1{' AND a = 1' * n}",
}
"""Texts of which Cassandra's parser, or its stack, may have too much."""
LONGEST = 5.0
"""Seconds in which it has to have read, or refused, the most that the classifier lets through of each."""


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED)
def test_what_is_let_through_is_soon_read(cassandra_parser: Parser, make: Callable[[int], str]) -> None:
    least, most = 1, 70_000
    while most - least > 1:  # the longest that is let through
        middle = (least + most) // 2
        least, most = (least, middle) if ours(make(middle)) is None else (middle, most)
    begun = time.monotonic()
    theirs_or_error(cassandra_parser, make(least))
    assert time.monotonic() - begun < LONGEST, least


def theirs_or_error(parser: Parser, text: str) -> None:
    """Whatever it makes of it: its stack may overflow, which a server survives."""
    with contextlib.suppress(NotRead):
        parser.parse(text)


def test_the_comparison_sees_a_hole(cassandra_parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parsers.cql_reader.NATIVE", NATIVE | {"hidden"})
    with pytest.raises(AssertionError):
        compare(cassandra_parser, "SELECT hidden(a) FROM ks.t")
