"""Statements that make, change and drop what a keyspace is made of, roles and users."""

from __future__ import annotations

from parsers.cql_lexer import SYMBOL
from parsers.cql_reader import NATIVE, Reader

_PLAIN = ("type", "function", "aggregate", "trigger", "role", "user", "identity")
_PROPERTIES = frozenset(("and", "with"))
_TABLE = _PROPERTIES | {"asc", "by", "desc", "null", "order", "primary", "token"}
_ALTERED = _TABLE | {"add", "alter", "drop", "exists", "if", "not", "rename", "to", "using"}
_VIEW = _TABLE | {"in", "is", "not", "where"}
_INDEX = _PROPERTIES | {"entries", "full", "using"}
_FUNCTION = frozenset(("language", "not", "null", "on"))
_AGGREGATE = frozenset(("null", "token"))
_ROLE = _PROPERTIES | {"from", "to"}


def create(reader: Reader) -> str:
    """CREATE has been read, as with all here."""
    replaced = reader.word("or")
    if replaced:
        reader.need_plain("replace")
    custom = reader.plain("custom")
    what = _what(reader)
    if what not in ("function", "aggregate") if replaced else (what != "index" and custom):
        reader.fail("something to create")
    reader.conditional("not")
    action = f"create-{what}"
    if what == "keyspace":
        reader.add_keyspace(action, reader.name())
        _properties(reader)
    elif what == "table":
        reader.add(action, table := reader.qualified())
        reader.plain_bracket()
        reader.skip(_TABLE, masks=True)
        reader.add_calls(table[0])
    elif what == "index":
        if not reader.word("on"):
            reader.name()
            reader.need_word("on")
        reader.add(action, reader.qualified())
        reader.plain_bracket()
        reader.skip(_INDEX, calls=False)
    elif what == "materialized-view":
        _create_view(reader)
    elif what == "type":
        reader.add(action, reader.qualified(), table=False)
        reader.plain_bracket()
        reader.skip((), calls=False)
    elif what == "function":
        _create_function(reader)
    elif what == "aggregate":
        _create_aggregate(reader)
    elif what == "trigger":
        _trigger(reader, action)
        reader.need_word("using")
        reader.string()
    elif what in ("role", "user"):
        reader.role()
        reader.add(action)
        reader.skip(_ROLE, calls=False)
    else:
        reader.fail("something to create")
    return action


def alter(reader: Reader) -> str:
    """ALTER."""
    what = _what(reader)
    reader.conditional()
    action = f"alter-{what}"
    if what == "keyspace":
        reader.add_keyspace(action, reader.name())
        _properties(reader)
    elif what == "materialized-view":
        reader.add(action, reader.table())
        _properties(reader)
    elif what == "table":
        reader.add(action, table := reader.table())
        reader.skip(_ALTERED, masks=True)
        reader.add_calls(table[0])
    elif what == "type":
        reader.add(action, reader.qualified(), table=False)
        reader.skip(_ALTERED, calls=False)
    elif what in ("role", "user"):
        reader.role()
        reader.add(action)
        reader.skip(_ROLE, calls=False)
    else:
        reader.fail("something to alter")
    return action


def drop(reader: Reader) -> str:
    """DROP."""
    what = _what(reader)
    reader.conditional()
    action = f"drop-{what}"
    if what == "keyspace":
        reader.add_keyspace(action, reader.name())
    elif what in ("table", "materialized-view"):
        reader.add(action, reader.table())
    elif what in ("index", "type"):
        reader.add(action, reader.qualified(), table=False)
    elif what in ("function", "aggregate"):
        reader.add(action, reader.function(), table=False)
        if reader.sees(SYMBOL, "("):
            reader.skip((), calls=False)
    elif what == "trigger":
        _trigger(reader, action)
    else:
        reader.role()
        reader.add(action)
    return action


def _what(reader: Reader) -> str:
    if reader.word("keyspace", "schema"):
        return "keyspace"
    if reader.word("materialized"):
        reader.need_word("view")
        return "materialized-view"
    found = reader.first()
    if reader.word("table", "index") or reader.plain(*_PLAIN):
        return found
    reader.fail("a kind of thing")


def _properties(reader: Reader) -> None:
    reader.need_word("with")
    reader.skip(_PROPERTIES, calls=False)


def _trigger(reader: Reader, action: str) -> None:
    reader.name()
    reader.need_word("on")
    reader.add(action, reader.table())


def _create_view(reader: Reader) -> None:
    """What is asked for is the base table: the view has to be of its keyspace, and is nothing yet."""
    reader.unqualified |= reader.qualified()[0] is None
    reader.need_plain("as")
    reader.need_word("select")
    reader.selected(("null", "token"))
    base = reader.table()
    reader.add("create-materialized-view", base)
    reader.add("select", base)
    reader.skip(_VIEW)
    reader.add_calls(base[0])


def _create_function(reader: Reader) -> None:
    name = reader.function()
    reader.add("create-function", name, table=False)
    if name[1] in NATIVE:
        reader.add("execute", name, table=False)
    reader.plain_bracket()
    reader.skip(_FUNCTION, calls=False)


def _create_aggregate(reader: Reader) -> None:
    """Cassandra asks EXECUTE for the functions that an aggregate is made of, which are of its keyspace."""
    name = reader.function()
    reader.add("create-aggregate", name, table=False)
    reader.add("execute", name, table=False)
    reader.plain_bracket()
    reader.skip(_AGGREGATE)
    reader.add_calls(name[0])
