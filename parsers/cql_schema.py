"""Statements that make, change and drop what a keyspace is made of, roles and users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from parsers.cql_lexer import SYMBOL
from parsers.cql_reader import NATIVE, Reader

_Rest: TypeAlias = Callable[[Reader, str], None]
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
    return _rest(reader, "create", what, _CREATED)


def alter(reader: Reader) -> str:
    """ALTER."""
    what = _what(reader)
    reader.conditional()
    return _rest(reader, "alter", what, _ALTERABLE)


def drop(reader: Reader) -> str:
    """DROP."""
    what = _what(reader)
    reader.conditional()
    return _rest(reader, "drop", what, _DROPPED)


def _rest(reader: Reader, verb: str, what: str, kinds: Mapping[str, _Rest]) -> str:
    if what not in kinds:
        reader.fail(f"something to {verb}")
    action = f"{verb}-{what}"
    kinds[what](reader, action)
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


# -- what is behind the kind of thing, for an action ------------------------------------------------------------------


def _keyspace(reader: Reader, action: str) -> None:
    reader.add_keyspace(action, reader.name())


def _table(reader: Reader, action: str) -> None:
    reader.add(action, reader.table())


def _named(reader: Reader, action: str) -> None:
    reader.add(action, reader.qualified(), table=False)


def _trigger(reader: Reader, action: str) -> None:
    reader.name()
    reader.need_word("on")
    _table(reader, action)


def _role(reader: Reader, action: str) -> None:
    reader.role()
    reader.add(action)


def _role_with(reader: Reader, action: str) -> None:
    _role(reader, action)
    reader.skip(_ROLE, calls=False)


def _keyspace_with(reader: Reader, action: str) -> None:
    _keyspace(reader, action)
    _properties(reader)


def _view_with(reader: Reader, action: str) -> None:
    _table(reader, action)
    _properties(reader)


def _properties(reader: Reader) -> None:
    reader.need_word("with")
    reader.skip(_PROPERTIES, calls=False)


def _create_table(reader: Reader, action: str) -> None:
    reader.add(action, table := reader.qualified())
    reader.plain_bracket()
    reader.skip(_TABLE, masks=True)
    reader.add_calls(table[0])


def _alter_table(reader: Reader, action: str) -> None:
    reader.add(action, table := reader.table())
    reader.skip(_ALTERED, masks=True)
    reader.add_calls(table[0])


def _create_index(reader: Reader, action: str) -> None:
    if not reader.word("on"):
        reader.name()
        reader.need_word("on")
    reader.add(action, reader.qualified())
    reader.plain_bracket()
    reader.skip(_INDEX, calls=False)


def _create_type(reader: Reader, action: str) -> None:
    _named(reader, action)
    reader.plain_bracket()
    reader.skip((), calls=False)


def _alter_type(reader: Reader, action: str) -> None:
    _named(reader, action)
    reader.skip(_ALTERED, calls=False)


def _create_trigger(reader: Reader, action: str) -> None:
    _trigger(reader, action)
    reader.need_word("using")
    reader.string()


def _create_view(reader: Reader, action: str) -> None:
    """What is asked for is the base table: the view has to be of its keyspace, and is nothing yet."""
    reader.unqualified |= reader.qualified()[0] is None
    reader.need_plain("as")
    reader.need_word("select")
    reader.selected(("null", "token"))
    base = reader.table()
    reader.add(action, base)
    reader.add("select", base)
    reader.skip(_VIEW)
    reader.add_calls(base[0])


def _create_function(reader: Reader, action: str) -> None:
    name = reader.function()
    reader.add(action, name, table=False)
    if name[1] in NATIVE:
        reader.add("execute", name, table=False)
    reader.plain_bracket()
    reader.skip(_FUNCTION, calls=False)


def _create_aggregate(reader: Reader, action: str) -> None:
    """Cassandra asks EXECUTE for the functions that an aggregate is made of, which are of its keyspace."""
    name = reader.function()
    reader.add(action, name, table=False)
    reader.add("execute", name, table=False)
    reader.plain_bracket()
    reader.skip(_AGGREGATE)
    reader.add_calls(name[0])


def _drop_function(reader: Reader, action: str) -> None:
    reader.add(action, reader.function(), table=False)
    if reader.sees(SYMBOL, "("):
        reader.skip((), calls=False)


_CREATED: Mapping[str, _Rest] = {
    "keyspace": _keyspace_with,
    "table": _create_table,
    "index": _create_index,
    "materialized-view": _create_view,
    "type": _create_type,
    "function": _create_function,
    "aggregate": _create_aggregate,
    "trigger": _create_trigger,
    "role": _role_with,
    "user": _role_with,
}
_ALTERABLE: Mapping[str, _Rest] = {
    "keyspace": _keyspace_with,
    "table": _alter_table,
    "materialized-view": _view_with,
    "type": _alter_type,
    "role": _role_with,
    "user": _role_with,
}
_DROPPED: Mapping[str, _Rest] = {
    "keyspace": _keyspace,
    "table": _table,
    "materialized-view": _table,
    "index": _named,
    "type": _named,
    "function": _drop_function,
    "aggregate": _drop_function,
    "trigger": _trigger,
    "role": _role,
    "user": _role,
    "identity": _role,
}
