"""What a CQL statement does, read as Apache Cassandra 5.0 reads it.

A statement is one or more requests, each with the name of what it is for. Wherever Cassandra 5.0 reads a text, this
either says the same of it, or refuses it: what is not certain is not guessed. `MOST_TOKENS`, `MOST_NESTED` and
`MOST_WORK` of `parsers.cql_reader` bound what a server is made to read.

Functions: a call is an ``execute`` of the function's keyspace, unless it is of Cassandra's own by its name. Where the
keyspace has a function of that name and for these arguments, ``CREATE FUNCTION ks.abs``, Cassandra calls this instead:
which keyspaces have such is not in the text. Making one is an ``execute`` too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from parsers.cql_access import add_identity, describe, grant, list_, revoke
from parsers.cql_lexer import NAME, Unclassifiable, redacted
from parsers.cql_reader import NONE, Name, Reader
from parsers.cql_schema import alter, create, drop
from parsers.facts import CqlRequest

__all__ = ["Statement", "Unclassifiable", "classify"]

_TERM = frozenset(("null", "token"))
_WHERE = _TERM | {"and", "in", "is", "not"}
_SELECT = _WHERE | {"allow", "asc", "desc", "limit", "of", "order", "where"}
_INSERT = _TERM | {"and", "not", "using"}
_NEXT = frozenset(("insert", "update", "delete", "apply"))
"""What ends a statement in a batch."""


@dataclass(frozen=True, slots=True)
class Statement:
    """`kind` is an action of `parsers.facts.ACTIONS`, or ``batch``; `requests` are what it does, and every one of them
    has to be allowed. `unqualified`: it names something without a keyspace, and so depends on the session's.
    `changes_keyspace`: the keyspace that a USE moves the session to, if the server lets it. `natives`: functions that
    are Cassandra's own, unless the keyspace has one of that name: it is an ``execute`` of the keyspace then."""

    kind: str
    requests: tuple[CqlRequest, ...]
    unqualified: bool
    changes_keyspace: str | None
    text: str
    natives: frozenset[Name]

    def redacted(self, limit: int = 2048) -> str:
        """The text with ``?`` for every constant (see `parsers.cql_lexer.redacted`)."""
        return redacted(self.text, limit)


def classify(query: str, keyspace: str | None = None) -> Statement:
    """What the only statement in `query` does for a session in `keyspace` (None: it is in none, and what is named
    without one has none). Takes time linear in the text's length. Raises Unclassifiable."""
    reader = Reader(query, keyspace)
    read = _STATEMENTS.get(reader.first())
    if read is None:
        reader.fail("the beginning of a statement")
    reader.at += 1
    kind = read(reader)
    reader.end()
    moves = reader.requests[0].keyspace if kind == "use" else None
    return Statement(
        kind, tuple(dict.fromkeys(reader.requests)), reader.unqualified, moves, query, frozenset(reader.natives)
    )


def _select(reader: Reader) -> str:
    reader.selected(_TERM)
    table = reader.table()
    if reader.sees_name() and reader.first() not in ("group", "per"):
        reader.fail("the end of a name")
    reader.add("select", table)
    reader.skip(_SELECT, ("by",))
    while reader.word("by"):
        # What is grouped Cassandra reads as it reads what is selected, what is ordered it does not.
        reader.skip(_SELECT, ("by",), selected=reader.sees(NAME, "group", -2))
    reader.add_calls(table[0])
    return "select"


def _insert(reader: Reader, until: Collection[str] = NONE) -> str:
    reader.need_word("into")
    table = reader.qualified()
    if not reader.plain("json"):
        reader.need_symbol("(")
        reader.column()
        while reader.symbol(","):
            reader.column()
        reader.need_symbol(")")
        reader.need_plain("values")
        reader.plain_bracket()
    return _written(reader, "insert", table, _INSERT, until)


def _update(reader: Reader, until: Collection[str] = NONE) -> str:
    table = reader.table()
    if reader.word("using"):
        reader.skip(("and",), ("set",))
    reader.need_word("set")
    reader.skip(_TERM, ("where", *until))
    reader.need_word("where")
    return _written(reader, "update", table, _WHERE, until)


def _delete(reader: Reader, until: Collection[str] = NONE) -> str:
    reader.skip(_TERM, ("from",))
    reader.need_word("from")
    table = reader.table()
    if reader.word("using"):
        reader.skip(NONE, ("where",))
    reader.need_word("where")
    return _written(reader, "delete", table, _WHERE, until)


def _written(reader: Reader, action: str, table: Name, words: Collection[str], until: Collection[str]) -> str:
    """The rest of a statement that writes, which reads too if it has a condition."""
    reader.add(action, table)
    reader.skip(words, ("if", *until))
    if reader.word("if"):
        reader.add("select", table)
        reader.skip(words, until)
    reader.add_calls(table[0])
    return action


_WRITES = {"insert": _insert, "update": _update, "delete": _delete}


def _batch(reader: Reader) -> str:
    if not reader.word("unlogged"):
        reader.plain("counter")
    reader.need_word("batch")
    if reader.word("using"):
        reader.skip(("and",), _NEXT)
    while write := _WRITES.get(reader.first()):
        reader.at += 1
        write(reader, _NEXT)
        reader.symbol(";")
    reader.need_word("apply", "batch")
    if not reader.requests:
        reader.fail("a batch of statements")
    return "batch"


def _truncate(reader: Reader) -> str:
    reader.word("table")
    reader.add("truncate", reader.table())
    return "truncate"


def _use(reader: Reader) -> str:
    reader.add_keyspace("use", reader.name())
    return "use"


_STATEMENTS: dict[str, Callable[[Reader], str]] = {
    "select": _select,
    **_WRITES,
    "begin": _batch,
    "truncate": _truncate,
    "use": _use,
    "create": create,
    "alter": alter,
    "drop": drop,
    "grant": grant,
    "revoke": revoke,
    "list": list_,
    "describe": describe,
    "desc": describe,
    "add": add_identity,
}
