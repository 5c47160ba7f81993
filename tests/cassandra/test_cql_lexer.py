"""Tokens, beside those of Cassandra's own lexer."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parsers.cql_lexer import CONSTANT, END, NAME, QUOTED, RESERVED, STRING, SYMBOL, WORD, Unclassifiable, tokenize
from tests.cassandra.parser import NotRead, Parser

PARTS = [
    *("SELECT", "from", "TABLE", "COLUMNFAMILY", "schema", "a", "b1", "i", "n", "x", "K", "expr(", "true", "nan"),
    *("infinity", "deadbeef", "12345678", "aaaa", "-aaaa", "-aaaa-aaaa-aaaa-aaaaaaaaaaaa", "1", "00", "9", ".", ".."),
    *("0x", "fe", "e", "E5", "P", "P1Y", "T1H", "P0001", "-01-01T00:00:00", "y", "mo", "ms", "us", "\u00b5s", "_"),
    *("-", "--", "//", "/*", "*/", "/", "*", "'", "''", '"', '""', "$$", "$", "+", "=", "<", ">", "!", "(", ")"),
    *("[", "]", "{", "}", ",", ";", ":", "?", "%", " ", "\n", "\r", "\t", "\v", "\u00a0", "é", "\\", "ſ", "ı"),
    *("\U0001f600", "\0", "\ufeff"),
]


def ours(text: str) -> list[tuple[int, str]] | None:
    """Kinds and texts without the end; None: refused."""
    try:
        found = tokenize(text, 10_000)
    except Unclassifiable:
        return None
    assert found.kinds[-1] == END and found.starts == sorted(found.starts)
    return list(zip(found.kinds, found.texts, strict=True))[:-1]


def theirs(parser: Parser, text: str) -> list[tuple[int, str]] | None:
    """The same of Cassandra's."""
    try:
        return parser.lex(text)
    except NotRead:
        return None


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a.B", [(NAME, "a"), (SYMBOL, "."), (NAME, "b")]),
        ('"A""b"', [(QUOTED, 'A"b')]),
        ('""', [(QUOTED, "")]),
        ('""""', [(QUOTED, '"')]),
        ("'a''b'", [(STRING, "")]),
        ("'a' 'b'", [(STRING, ""), (STRING, "")]),
        ("$$a'$$", [(STRING, "")]),
        ("a-1", [(NAME, "a"), (CONSTANT, "")]),
        ("a - 1", [(NAME, "a"), (SYMBOL, "-"), (CONSTANT, "")]),
        ("a/**/b", [(NAME, "a"), (NAME, "b")]),
        ("1..2", [(CONSTANT, ""), (SYMBOL, ".."), (CONSTANT, "")]),
        ("COLUMNFAMILY Token", [(WORD, "table"), (WORD, "token")]),
        ("P1Y P1 PT1H", [(CONSTANT, ""), (NAME, "p1"), (CONSTANT, "")]),
        ("-NaN -Infinity NAN", [(CONSTANT, "")] * 3),
        ("<=>= != += -=", [(SYMBOL, one) for one in ("<=", ">=", "!=", "+=", "-=")]),
    ],
)
def test_tokens(cassandra_parser: Parser, text: str, tokens: list[tuple[int, str]]) -> None:
    assert ours(text) == theirs(cassandra_parser, text) == tokens


def test_reserved_keywords_are_those_that_cassandra_takes_for_no_name(cassandra_parser: Parser) -> None:
    candidates = {word for text in PARTS for word in [text]} | RESERVED | {"key", "type", "json", "values", "list"}
    for word in sorted(one for one in candidates if one.isascii() and one.isalpha()):
        try:
            cassandra_parser.parse(f"SELECT * FROM {word}")
            named = True
        except NotRead:
            named = False
        assert named == (ours(word) == [(NAME, word.lower())]), word


def test_all_texts_of_up_to_three_parts_are_read_alike_or_refused(cassandra_parser: Parser) -> None:
    """Nothing is read that Cassandra does not read."""
    random, refused, read = Random(1), 0, 0
    texts = [one + other for one in PARTS for other in PARTS]
    texts += ["".join(random.choices(PARTS, k=random.randint(3, 9))) for _ in range(20_000)]
    for text in texts:
        mine, other = ours(text), theirs(cassandra_parser, text)
        assert mine in (None, other), text
        refused += mine is None and other is not None
        read += mine is not None
    assert read > 4000 and refused < read / 5


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.lists(st.sampled_from(PARTS), max_size=12).map("".join), st.text(max_size=20)))
def test_any_text_is_read_alike_or_refused(cassandra_parser: Parser, text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        return
    assert ours(text) in (None, theirs(cassandra_parser, text))
