"""What the classifier says of statements by hand, without a server."""

from __future__ import annotations

import time
from random import Random

import pytest

from parsers import cql_lexer, cql_reader
from parsers.cql_lexer import RESERVED, redacted
from parsers.cql_statement import Unclassifiable, classify
from parsers.facts import ACTIONS, CqlRequest
from tests.cassandra.grammar import spoilt, statement
from tests.cassandra.parser import SESSION
from tests.cassandra.statements import ACCESS, DATA, MORE, NAMED, READ, SCHEMA, STRICTER, UNREAD, requests

SLOWEST = 5.0
"""Seconds for 16 MiB of anything, on a machine with other work; all of it takes a tenth."""
SIZE = 16 << 20


@pytest.mark.parametrize("text", READ)
def test_what_a_statement_does(text: str) -> None:
    found = classify(text, SESSION)
    assert set(found.requests) == requests(READ[text])
    assert len(set(found.requests)) == len(found.requests)
    assert found.kind in {*ACTIONS, "batch"} and (found.kind == "batch" or found.requests[0].action == found.kind)


@pytest.mark.parametrize("text", UNREAD)
def test_what_is_no_statement_is_refused(text: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(text, SESSION)
    assert 0 <= caught.value.offset <= len(text) and caught.value.reason in str(caught.value)


@pytest.mark.parametrize("text", STRICTER)
def test_what_is_not_certain_or_too_much_is_refused(text: str) -> None:
    with pytest.raises(Unclassifiable):
        classify(text, SESSION)


@pytest.mark.parametrize("form", NAMED)
def test_reserved_keywords_are_names_in_quotes_only(form: str) -> None:
    for word in (*RESERVED, "true", "false", "nan", "infinity"):
        for case in (word, word.upper(), word.capitalize()):
            with pytest.raises(Unclassifiable):
                classify(form.format(case))
        quoted = classify(form.format(f'"{word}"'), SESSION).requests[0]
        assert word in (quoted.keyspace, quoted.table)


def test_kinds_of_all_there_are() -> None:
    kinds = {classify(text).kind for text in READ}
    assert kinds == {*ACTIONS, "batch"} - {"execute", "unknown"}


def test_a_name_without_a_keyspace_is_of_the_session() -> None:
    for text in DATA | SCHEMA | ACCESS:
        here, elsewhere, nowhere = classify(text, "here"), classify(text, "elsewhere"), classify(text, None)
        assert here.kind == elsewhere.kind == nowhere.kind
        differs = here.requests != elsewhere.requests
        assert here.unqualified == elsewhere.unqualified == nowhere.unqualified
        assert here.unqualified >= differs
        moved = tuple(
            CqlRequest(one.action, None if one.keyspace == "here" else one.keyspace, one.table) for one in here.requests
        )
        assert tuple(dict.fromkeys(moved)) == nowhere.requests


@pytest.mark.parametrize(
    ("text", "moves"),
    [("USE ks", "ks"), ('use "K"" s" ;', 'K" s'), ("USE/**/KEY--\n", "key"), ("SELECT * FROM ks.t", None)],
)
def test_only_use_changes_the_keyspace(text: str, moves: str | None) -> None:
    assert classify(text, "here").changes_keyspace == moves


@pytest.mark.parametrize("text", MORE)
def test_what_is_taken_for_a_call(text: str) -> None:
    assert requests(MORE[text]) < set(classify(text, SESSION).requests)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT * FROM t WHERE a = 'secret' AND b=-1.5 AND c=0xcafe", "SELECT * FROM t WHERE a = ? AND b=? AND c=?"),
        ("/* secret */INSERT  INTO t\n(a) -- secret\nVALUES('it''s ''secret')", "INSERT INTO t (a) VALUES(?)"),
        ("CREATE ROLE r WITH PASSWORD = $$se'cret$$", "CREATE ROLE r WITH PASSWORD = ?"),
        ('SELECT "Q""x", true, null, :n FROM ks . "t"', 'SELECT "Q""x", ?, null, :n FROM ks . "t"'),
        ("SELECT 'a' 'b'", "SELECT ? ?"),
        ("SELECT 'secret", "SELECT…"),
        ("SELECT 1 @ secret", "SELECT ?…"),
    ],
)
def test_the_text_without_its_constants(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_the_text_without_its_constants_is_short() -> None:
    found = redacted("SELECT a" + ", abcdefgh" * 1000 + " FROM t", 100)
    assert found.endswith("…") and 90 < len(found) <= 101
    assert redacted("SELECT " + "a" * 5000, 100) == "SELECT…"
    assert redacted("/**/" * 100_000 + "SELECT 1") in ("SELECT ?", "…")


def test_no_constant_is_shown() -> None:
    random = Random(20)
    for _ in range(500):
        text = statement(random).replace("'x'", "'hidden'").replace("$$y$$", "$$hidden$$").replace("0xCAFE", " 0x1ddee")
        shown = redacted(text)
        assert "hidden" not in shown and "1ddee" not in shown


def _long(part: str) -> str:
    return part * (SIZE // len(part))


LONG = {
    "string": f"SELECT * FROM t WHERE a = '{_long('a')}'",
    "open string": f"SELECT * FROM t WHERE a = '{_long('a')}",
    "quotes": f"SELECT * FROM t WHERE a = '{_long(chr(39) * 2)}'",
    "open dollars": f"SELECT * FROM t WHERE a = $${_long('a$')}",
    "open comment": f"SELECT /*{_long('* /')}",
    "comments": f"{_long('/**/')}SELECT * FROM t",
    "open line comment": f"SELECT * FROM t --{_long('-')}",
    "blanks": f"SELECT{_long(' ')}* FROM t",
    "digits": f"SELECT * FROM t WHERE a = {_long('1')}",
    "points": f"SELECT {_long('1.')}",
    "blob": f"SELECT * FROM t WHERE a = 0x{_long('ab')}",
    "duration": f"SELECT {_long('1d')}",
    "letters": f"SELECT * FROM {_long('a')}",
    "period": f"SELECT * FROM P{_long('1')}",
    "periods": f"SELECT * FROM P1Y{_long('1M')}",
    "hexadecimal": f"SELECT {_long('deadbeef-')}",
    "quoted name": f'SELECT * FROM "{_long("a")}"',
    "doubled quotes": f'SELECT * FROM "{_long(chr(34) * 2)}"',
    "brackets": f"SELECT {_long('(')}",
    "columns": f"SELECT a{_long(',a')} FROM t",
    "calls": f"SELECT {_long('f(a),')}",
    "batch": f"BEGIN BATCH {_long('INSERT INTO t (a) VALUES (1);')} APPLY BATCH",
    "semicolons": f"SELECT * FROM t{_long(';')}",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_long_texts_take_no_time(text: str) -> None:
    begun = time.process_time()
    try:
        classify(text)
    except Unclassifiable:
        redacted(text)
    assert time.process_time() - begun < SLOWEST


def test_large_blobs_and_texts_pass() -> None:
    for name in ("string", "blob"):
        assert classify(LONG[name], "ks").requests == (CqlRequest("select", "ks", "t"),)


@pytest.mark.parametrize(
    "form", ["SELECT a{} FROM t", "SELECT * FROM t WHERE a IN (1{})", "INSERT INTO t (a) VALUES ([1{}])"]
)
def test_twice_the_text_takes_twice_the_time(form: str) -> None:
    """Within the limit on tokens; a quarter of it first."""

    def seconds(times: int) -> float:
        text = form.format(",1" * times)
        taken = []
        for _ in range(5):
            begun = time.process_time()
            classify(text)
            taken.append(time.process_time() - begun)
        return min(taken)

    most = (cql_reader.MOST_WORK if form.startswith("SELECT a{") else cql_reader.MOST_TOKENS) // 2 - 20
    assert seconds(most) < 16 * seconds(most // 4)


def test_more_than_the_limits_is_refused() -> None:
    brackets = cql_reader.MOST_NESTED
    inside = classify(f"SELECT * FROM t WHERE a = {'[' * brackets}{']' * brackets}", "ks")
    assert inside.requests == (CqlRequest("select", "ks", "t"),)
    with pytest.raises(Unclassifiable, match="tokens"):
        classify(f"SELECT * FROM t WHERE a IN (1{',1' * cql_reader.MOST_TOKENS})")
    assert classify(f'SELECT * FROM "{"t" * cql_lexer.MOST_NAME}"', "ks").kind == "select"
    assert classify(f"SELECT {'(' * 10}a{')' * 10} FROM t").kind == "select"
    assert classify(f"SELECT * FROM t WHERE a = ?+?-?*?/?{' AND a = ?+?+?+?+?' * 6}").kind == "select"
    assert (
        classify(f"BEGIN BATCH {'UPDATE t SET a = a + 1, b = b - 1 WHERE k = 1;' * 3000} APPLY BATCH").kind == "batch"
    )
    assert classify(f"SELECT * FROM t WHERE a = {'abs(' * 7}?{')' * 7}").kind == "select"
    assert classify(f"SELECT * FROM t WHERE a IN (1{', abs(1), abs(abs(2))' * 3000})").kind == "select"
    assert classify(f"SELECT * FROM t WHERE a = 1{' AND a = abs(abs(1)) + 1' * 3000}").kind == "select"
    assert classify(f"SELECT * FROM t WHERE a = {'9' * cql_lexer.MOST_NUMBER}").kind == "select"


def test_whatever_comes_is_classified_or_refused() -> None:
    random = Random(7)
    read = 0
    for _ in range(3000):
        try:
            found = classify(spoilt(random), SESSION)
        except Unclassifiable:
            continue
        read += 1
        assert found.requests and found.redacted()
    assert 100 < read < 2900
