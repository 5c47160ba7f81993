"""Cassandra's own lexer and parser, in a process that tests ask, and what it says in the proxy's words."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from parsers.cql_lexer import CONSTANT, NAME, QUOTED, RESERVED, STRING, SYMBOL, WORD
from parsers.cql_reader import NATIVE
from parsers.facts import CqlRequest
from tests.cassandra.server import CLASSES, JAVA
from tests.netns import run

_SOURCE = Path(__file__).parent / "java" / "Parse.java"
Pairs: TypeAlias = Sequence[tuple[str, str]]
SESSION = "session_ks"
"""The keyspace of the session in which statements are read."""
_CONSTANTS = {"INTEGER", "FLOAT", "BOOLEAN", "DURATION", "UUID", "HEXNUMBER"}
_CONSTANTS |= {f"K_{sign}_{word}" for sign in ("POSITIVE", "NEGATIVE") for word in ("NAN", "INFINITY")}
_KINDS = {"QUOTED_NAME": QUOTED, "EMPTY_QUOTED_NAME": QUOTED, "STRING_LITERAL": STRING}
_OPERATORS = {f"_{name}" for name in ("add", "divide", "modulo", "multiply", "negate", "substract")}
_SYMBOLS = {"QMARK": "?", "RANGE": ".."}


class NotRead(Exception):
    """What Cassandra says of a text that it does not read."""

    @property
    def syntax(self) -> bool:
        """The text is no CQL, whatever keyspaces there are."""
        return "ConfigurationException" not in str(self)


@dataclass(frozen=True)
class Parser:
    """A running parser."""

    process: subprocess.Popen[str]

    def lex(self, text: str) -> list[tuple[int, str]]:
        """Kinds and texts of tokens as `parsers.cql_lexer` has them. Raises NotRead."""
        found: list[tuple[int, str]] = []
        for name, value in self._ask("lex", text):
            if name == "IDENT":
                found.append((NAME, value.lower()))
            elif name in _KINDS:
                found.append((_KINDS[name], "" if name != "QUOTED_NAME" else value))
            elif name in _CONSTANTS:
                found.append((CONSTANT, ""))
            elif name.startswith("K_"):
                word = value.lower().replace("columnfamily", "table")
                found.append((WORD if word in RESERVED else NAME, word))
            elif name == "'expr('":
                found += [(NAME, "expr"), (SYMBOL, "(")]
            else:
                found.append((SYMBOL, _SYMBOLS.get(name, value)))
        return found

    def parse(self, text: str) -> Pairs:
        """A statement's class and what it holds. Raises NotRead."""
        return self._ask("parse", text)

    def functions(self) -> set[str]:
        """The names of Cassandra's own functions."""
        return {name for _, name in self._ask("functions", "")}

    def _ask(self, what: str, text: str) -> Pairs:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(f"{what} {base64.b64encode(text.encode()).decode()}\n")
        stdin.flush()
        return _answer(stdout)


def _answer(stdout: IO[str]) -> Pairs:
    line = stdout.readline()
    assert line, "Cassandra's parser has ended"
    status, *words = line.rstrip("\n").split("\t")
    if status == "error":
        raise NotRead(base64.b64decode(words[0]).decode())
    return [(name, base64.b64decode(value).decode()) for name, _, value in (word.partition("=") for word in words)]


@contextmanager
def parser(folder: Path) -> Iterator[Parser]:
    """A parser whose classes lie in `folder`; it ends with the context."""
    run(["javac", "-nowarn", "-cp", CLASSES, "-d", str(folder), str(_SOURCE)], timeout=120)
    (folder / "logback.xml").write_text("<configuration/>")
    argv = [*JAVA, f"-Dlogback.configurationFile={folder}/logback.xml", "-cp", f"{folder}:{CLASSES}", "Parse"]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
        )
    try:
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "ready\n":
            assert line, (folder / "errors").read_text()[-2000:]
        yield Parser(process)
    finally:
        process.kill()
        process.communicate(timeout=30)


_TABLES = {"CreateTable": "create-table", "AlterTable": "alter-table", "DropTable": "drop-table"}
_TABLES |= {"AlterView": "alter-materialized-view", "DropView": "drop-materialized-view"}
_KEYSPACES = {f"{verb}Keyspace": f"{verb.lower()}-keyspace" for verb in ("Create", "Alter", "Drop")}
_PARTS = {f"{verb}Type": f"{verb.lower()}-type" for verb in ("Create", "Alter", "Drop")}
_PARTS |= {"DropIndex": "drop-index", "DropFunction": "drop-function", "DropAggregate": "drop-aggregate"}
_PARTS |= {"CreateFunction": "create-function", "CreateAggregate": "create-aggregate"}
_ON = {"CreateIndex": "create-index", "CreateTrigger": "create-trigger", "DropTrigger": "drop-trigger"}
_ROLES = {
    "CreateRole": ("create-role", "create-user"),
    "AlterRole": ("alter-role", "alter-user"),
    "DropRole": ("drop-role", "drop-user"),
    "ListRoles": ("list-roles",),
    "ListUsers": ("list-users",),
    "GrantRole": ("grant-role",),
    "RevokeRole": ("revoke-role",),
    "AddIdentity": ("add-identity",),
    "DropIdentity": ("drop-identity",),
}
_PERMISSIONS = {f"{verb}Permissions": f"{verb.lower()}-permission" for verb in ("Grant", "Revoke")}
_PERMISSIONS |= {"ListPermissions": "list-permissions"}


def wanted(found: Pairs) -> tuple[set[str], set[CqlRequest]]:
    """The kinds that a statement may be said to be of (its class does not tell a user from a role), and the requests
    that it has to be said to be, at least."""
    fields: dict[str, str] = dict(found)
    name = fields["class"].partition("$")[0].removesuffix("Statement")
    if name == "Select":
        return {"select"}, {_table("select", fields, "qualifiedName.")} | _executes(found, "", fields)
    if name in ("Update", "Delete"):
        return {fields["type"].lower()}, _write(found, "")
    if name == "Batch":
        children = [key.removesuffix("class") for key, _ in found if key.startswith("parsed") and key.endswith("class")]
        return {"batch"}, {one for prefix in children for one in _write(found, prefix)}
    if name == "Use":
        return {"use"}, {CqlRequest("use", fields["keyspace"])}
    if name == "Truncate":
        return {"truncate"}, {_table("truncate", fields, "qualifiedName.")}
    if name == "Describe":
        return {"describe"}, _describe(fields)
    if name in _ROLES:
        return set(_ROLES[name]), set()
    if name in _PERMISSIONS:
        return {_PERMISSIONS[name]}, {_resource(_PERMISSIONS[name], fields)}
    return _schema(name, found, fields)


def _schema(name: str, found: Pairs, fields: dict[str, str]) -> tuple[set[str], set[CqlRequest]]:
    if name in _KEYSPACES:
        return {_KEYSPACES[name]}, {CqlRequest(_KEYSPACES[name], fields["keyspaceName"])}
    if name in _TABLES:
        return {_TABLES[name]}, {_table(_TABLES[name], fields, "name.")} | _executes(found, "", fields, "name.")
    if name in _ON:
        return {_ON[name]}, {_table(_ON[name], fields, "tableName.")}
    if name == "CreateView":
        actions = ("create-materialized-view", "select")
        return {actions[0]}, {_table(action, fields, "tableName.") for action in actions} | _executes(
            found, "", fields, "tableName."
        )
    action, prefix = _PARTS[name], "aggregateName." if name == "CreateAggregate" else "name."
    keyspace = fields.get(f"{prefix}keyspace", SESSION)
    hides = name == "CreateFunction" and fields["name.name"] in NATIVE
    extra = {CqlRequest("execute", keyspace)} if name == "CreateAggregate" or hides else set()
    return {action}, {CqlRequest(action, keyspace)} | extra


def _table(action: str, fields: dict[str, str], prefix: str) -> CqlRequest:
    return CqlRequest(action, fields.get(f"{prefix}keyspace", SESSION), fields[f"{prefix}name"])


def _write(found: Pairs, prefix: str) -> set[CqlRequest]:
    fields = dict(found)
    actions = {fields[f"{prefix}type"].lower()}
    if "true" in (fields[f"{prefix}ifExists"], fields[f"{prefix}ifNotExists"]) or f"{prefix}conditions" in fields:
        actions.add("select")
    own = f"{prefix}qualifiedName."
    return {_table(action, fields, own) for action in actions} | _executes(found, prefix, fields, own)


def _executes(found: Pairs, prefix: str, fields: dict[str, str], table: str = "qualifiedName.") -> set[CqlRequest]:
    """The functions called that are not Cassandra's own by their names."""
    keyspaces = [value for key, value in found if key == f"{prefix}call.keyspace"]
    names = [value for key, value in found if key == f"{prefix}call.name"]
    own = fields.get(f"{table}keyspace", SESSION)
    return {
        CqlRequest("execute", own if keyspace == "null" else keyspace)
        for keyspace, name in zip(keyspaces, names, strict=True)
        if not (keyspace in ("system", "null") and name in NATIVE) and not (keyspace == "system" and name in _OPERATORS)
    }


def _describe(fields: dict[str, str]) -> set[CqlRequest]:
    """What is named, as far as the statement's class shows it: an index from a table it does not."""
    keyspace, name = (fields.get(key, fields.get(f"val${key}")) for key in ("keyspace", "name"))
    bare = {CqlRequest("describe", name)} if keyspace is None and "val$name" in fields else set()
    return bare | ({CqlRequest("describe", keyspace or SESSION, name)} if "val$name" in fields else set())


def _resource(action: str, fields: dict[str, str]) -> CqlRequest:
    """Of what a permission is for; null is no keyspace, which is the session's."""
    keyspace = fields.get("resource.keyspace")
    return CqlRequest(action, SESSION if keyspace == "null" else keyspace, fields.get("resource.table"))
