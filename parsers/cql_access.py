"""Statements about permissions, roles and identities, and DESCRIBE."""

from __future__ import annotations

from parsers.cql_lexer import SYMBOL, WORD
from parsers.cql_reader import Reader

_PERMISSIONS = ("create", "alter", "drop", "select", "modify", "authorize", "describe", "execute")
_PLAIN_PERMISSIONS = ("unmask", "select_masked")
_ALL_OF_A_KIND = ("cluster", "keyspaces", "tables", "columnfamilies", "types", "functions", "aggregates")
_EVERY = frozenset(("keyspaces", "tables", "columnfamilies", "functions", "roles", "mbeans"))


def grant(reader: Reader) -> str:
    """GRANT has been read, as with all here."""
    return _give(reader, "grant", "to")


def revoke(reader: Reader) -> str:
    """REVOKE."""
    return _give(reader, "revoke", "from")


def list_(reader: Reader) -> str:
    """LIST of roles, users or permissions."""
    if reader.plain("users"):
        action = "list-users"
        reader.add(action)
        return action
    if reader.plain("roles"):
        action = "list-roles"
        reader.add(action)
    else:
        action = "list-permissions"
        _permissions(reader)
        if reader.word("on"):
            _resource(reader, action)
        else:
            reader.add(action)
    if reader.word("of"):
        reader.role()
    reader.word("norecursive")
    return action


def add_identity(reader: Reader) -> str:
    """ADD."""
    reader.need_plain("identity")
    reader.conditional("not")
    reader.role()
    reader.need_word("to")
    reader.need_plain("role")
    reader.role()
    reader.add("add-identity")
    return "add-identity"


def describe(reader: Reader) -> str:
    """DESCRIBE and DESC. Who may describe something by its bare name may describe the keyspace and the table that it
    may be the name of."""
    action = "describe"
    if reader.word("full"):
        reader.need_word("schema")
        reader.add(action)
    elif reader.word("schema") or reader.plain(*_ALL_OF_A_KIND):
        reader.add(action)
    elif reader.sees(WORD, "keyspace") or reader.sees(WORD, "keyspace", 1):
        if not reader.word("keyspace"):
            reader.need_plain("only")
            reader.need_word("keyspace")
        if reader.sees_name():
            reader.add_keyspace(action, reader.name())
        else:
            reader.add(action, (None, ""), table=False)
    elif reader.word("table"):
        reader.add(action, reader.table())
    elif reader.word("materialized"):
        reader.need_word("view")
        reader.add(action, reader.table())
    elif reader.word("index") or (reader.sees_name(1) and reader.plain("type")):
        reader.add(action, reader.qualified(), table=False)
    elif (reader.sees_name(1) or reader.sees(WORD, "token", 1)) and reader.plain("function", "aggregate"):
        reader.add(action, reader.function(), table=False)
    else:
        name = reader.table()
        if name[0] is None:
            reader.add_keyspace(action, name[1])
        reader.add(action, name)
    if reader.word("with"):
        reader.need_plain("internals")
    return action


def _give(reader: Reader, verb: str, to: str) -> str:
    """A role is given if it is one name, and the word behind it says so."""
    if reader.sees(WORD, to, 1):
        reader.role()
        action = f"{verb}-role"
        reader.add(action)
    else:
        action = f"{verb}-permission"
        _permissions(reader)
        reader.need_word("on")
        _resource(reader, action)
    reader.need_word(to)
    reader.role()
    return action


def _permissions(reader: Reader) -> None:
    if reader.plain("all"):
        reader.plain("permissions")
        return
    while True:
        if not (reader.word(*_PERMISSIONS) or reader.plain(*_PLAIN_PERMISSIONS)):
            reader.fail("a permission")
        reader.plain("permission")
        if not reader.symbol(","):
            return


def _resource(reader: Reader, action: str) -> None:
    """Note the action on what is named. Words like ROLE are names of tables, if no name follows them."""
    if reader.word("keyspace"):
        reader.add_keyspace(action, reader.name())
    elif reader.word("table"):
        reader.add(action, reader.table())
    elif reader.sees_name(1) and reader.plain("all"):
        _all_of(reader, action)
    elif reader.sees_role(1) and reader.plain("role", "mbean", "mbeans"):
        reader.role()
        reader.add(action)
    elif (reader.sees_name(1) or reader.sees(WORD, "token", 1)) and reader.plain("function"):
        reader.add(action, reader.function(), table=False)
        if not reader.sees(SYMBOL, "("):
            reader.fail("the types of arguments")
        reader.skip((), ("to", "from", "of", "norecursive"), calls=False)
    else:
        reader.add(action, reader.table())


def _all_of(reader: Reader, action: str) -> None:
    what = reader.first()
    if what not in _EVERY or not reader.plain(what):
        reader.fail("all of a kind")
    if what in ("tables", "columnfamilies", "functions") and reader.word("in"):
        reader.need_word("keyspace")
        reader.add_keyspace(action, reader.name())
    elif what in ("tables", "columnfamilies"):
        reader.fail("IN KEYSPACE")
    else:
        reader.add(action)
