"""What the classifier says beside what a server's authorizer asks for.

A role without permissions runs a statement, is granted what the refusal names, and tries again, until it is let. What
it was asked for by then is what the statement needs; each permission has to be among those that our requests stand
for. Rows of `STRICTER` ask more here than there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from cassandra import InvalidRequest, Unauthorized
from cassandra.cluster import Session
from cassandra.protocol import SyntaxException

from parsers.cql_statement import classify
from parsers.facts import CqlRequest
from tests.cassandra.server import Server
from tests.cassandra.statements import REPLICATION, requests

KEYSPACE = "perm"
_SETUP = f"""
CREATE KEYSPACE perm WITH replication = {REPLICATION}
CREATE KEYSPACE other WITH replication = {REPLICATION}
CREATE TABLE perm.t (k int PRIMARY KEY, v int, l list<int>)
CREATE TABLE perm.u (k int PRIMARY KEY, v int)
CREATE TABLE perm.b (k int PRIMARY KEY, v int)
CREATE MATERIALIZED VIEW perm.mv AS SELECT * FROM perm.b WHERE k IS NOT NULL AND v IS NOT NULL PRIMARY KEY (v, k)
CREATE FUNCTION perm.f (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return a;'
CREATE FUNCTION perm.sf (s int, a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return a;'
CREATE FUNCTION perm.abs (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return 77;'
CREATE AGGREGATE perm.ag (int) SFUNC sf STYPE int INITCOND 0
CREATE TYPE perm.ty (a int)
CREATE INDEX i ON perm.t (v)
CREATE TABLE perm.gone (k int PRIMARY KEY)
CREATE TYPE perm.gone (a int)
CREATE FUNCTION perm.gone (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return a;'
CREATE FUNCTION perm.again (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return a;'
CREATE AGGREGATE perm.gone_too (int) SFUNC sf STYPE int INITCOND 0
CREATE ROLE somebody
INSERT INTO perm.t (k, v) VALUES (1, -5)
""".strip().split("\n")
_REFUSED = re.compile(r"has no (\w+) permission on <([^>]*)>")

_ROWS = """
SELECT table perm.t | SELECT * FROM perm.t
SELECT table perm.t | SELECT JSON k, count(*) FROM perm.t WHERE token(k) > token(1)
SELECT table perm.t | SELECT now(), to_json(v), writetime(v), CAST(v AS text), system.abs(v) FROM perm.t
SELECT table perm.t, EXECUTE function perm.f(int) | SELECT perm.f(v) FROM perm.t
SELECT table perm.t, EXECUTE function perm.f(int) | SELECT max(f(v)) FROM perm.t
SELECT table perm.t, EXECUTE function perm.abs(int) | SELECT perm.abs(v) FROM perm.t
SELECT table perm.t, EXECUTE function perm.f(int) | SELECT * FROM perm.t WHERE k = perm.f(1)
SELECT table perm.t, EXECUTE function perm.ag(int), EXECUTE function perm.sf(int, int) | SELECT ag(v) FROM perm.t
MODIFY table perm.t | INSERT INTO perm.t (k, v) VALUES (1, 2)
MODIFY table perm.t | INSERT INTO perm.t JSON '{"k": 1}'
MODIFY table perm.t, SELECT table perm.t | INSERT INTO perm.t (k) VALUES (1) IF NOT EXISTS
MODIFY table perm.t, SELECT table perm.t | INSERT INTO perm.t JSON '{"k": 1}' IF NOT EXISTS
MODIFY table perm.t, EXECUTE function perm.f(int) | INSERT INTO perm.t (k, v) VALUES (perm.f(1), 2)
MODIFY table perm.t | UPDATE perm.t SET v = 1 WHERE k = 1
MODIFY table perm.t, SELECT table perm.t | UPDATE perm.t SET v = 1 WHERE k = 1 IF EXISTS
MODIFY table perm.t, SELECT table perm.t | UPDATE perm.t SET v = 1 WHERE k = 1 IF v = 3
MODIFY table perm.t, SELECT table perm.t, EXECUTE function perm.f(int) | UPDATE perm.t SET v = 1 WHERE k = 1 IF v = f(3)
MODIFY table perm.t, EXECUTE function perm.f(int) | UPDATE perm.t SET l = l + [perm.f(1)] WHERE k = 1
MODIFY table perm.t | DELETE FROM perm.t WHERE k = 1
MODIFY table perm.t, SELECT table perm.t | DELETE v FROM perm.t WHERE k = 1 IF v = 1
MODIFY table perm.t, MODIFY table perm.u | BEGIN BATCH INSERT INTO perm.t (k) VALUES (1) DELETE FROM perm.u WHERE k = 1 APPLY BATCH
MODIFY table perm.t, SELECT table perm.t | BEGIN BATCH INSERT INTO perm.t (k) VALUES (1) IF NOT EXISTS APPLY BATCH
MODIFY table perm.t | TRUNCATE perm.t
| USE perm
| DESCRIBE KEYSPACES
| DESCRIBE TABLE perm.t
| DESC perm.t
CREATE all keyspaces | CREATE KEYSPACE made WITH replication = REPLICATION
ALTER keyspace other | ALTER KEYSPACE other WITH durable_writes = true
DROP keyspace other | DROP KEYSPACE other
CREATE all tables in perm | CREATE TABLE perm.made (k int PRIMARY KEY, x ty)
ALTER table perm.t | ALTER TABLE perm.t ADD z int
DROP table perm.gone | DROP TABLE perm.gone
ALTER table perm.u | CREATE INDEX made ON perm.u (v)
ALTER table perm.t | DROP INDEX perm.i
| DROP INDEX IF EXISTS perm.nothing
CREATE all tables in perm | CREATE TYPE perm.made (a int)
ALTER all tables in perm | ALTER TYPE perm.ty ADD b int
DROP all tables in perm | DROP TYPE perm.gone
CREATE all functions in perm | CREATE FUNCTION perm.made (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return a;'
ALTER function perm.again(int) | CREATE OR REPLACE FUNCTION perm.again (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return 1;'
DROP function perm.gone(int) | DROP FUNCTION perm.gone
CREATE all functions in perm, EXECUTE function perm.sf(int, int), EXECUTE function perm.f(int) | CREATE AGGREGATE perm.made_too (int) SFUNC sf STYPE int FINALFUNC f INITCOND 0
DROP function perm.gone_too(int) | DROP AGGREGATE perm.gone_too
CREATE all functions in perm, EXECUTE function perm.max(int, int) | CREATE AGGREGATE perm.made_of_max (int) SFUNC max STYPE int
AUTHORIZE table perm.t, SELECT table perm.t | GRANT SELECT ON perm.t TO somebody
AUTHORIZE keyspace perm, MODIFY keyspace perm | GRANT MODIFY ON KEYSPACE perm TO somebody
AUTHORIZE all keyspaces, SELECT all keyspaces | GRANT SELECT ON ALL KEYSPACES TO somebody
AUTHORIZE function perm.f(int), EXECUTE function perm.f(int) | GRANT EXECUTE ON FUNCTION perm.f(int) TO somebody
AUTHORIZE role somebody, ALTER role somebody | GRANT ALTER ON ROLE somebody TO somebody
AUTHORIZE table perm.t, SELECT table perm.t | REVOKE SELECT ON perm.t FROM somebody
| SELECT * FROM system.local
| SELECT * FROM system_schema.tables
SELECT table system_auth.roles | SELECT * FROM system_auth.roles
SELECT table system_views.clients | SELECT * FROM system_views.clients
"""  # noqa: E501
_PAIRS = (row.replace("REPLICATION", REPLICATION).partition("| ") for row in _ROWS.strip().split("\n"))
STATEMENTS = {text: asked for asked, _, text in _PAIRS}
VIEWS = {
    "SELECT * FROM perm.mv": "SELECT table perm.b",
    "INSERT INTO perm.b (k, v) VALUES (1, 2)": "MODIFY table perm.b, SELECT table perm.b, MODIFY table perm.mv",
    "DELETE FROM perm.b WHERE k = 1": "MODIFY table perm.b, SELECT table perm.b, MODIFY table perm.mv",
    "TRUNCATE perm.b": "MODIFY table perm.b",
    "ALTER MATERIALIZED VIEW perm.mv WITH comment = 'x'": "ALTER table perm.b",
    "DROP MATERIALIZED VIEW perm.mv": "ALTER table perm.b",
    "CREATE MATERIALIZED VIEW perm.mv2 AS SELECT * FROM perm.b WHERE k IS NOT NULL AND v IS NOT NULL "
    "PRIMARY KEY (v, k)": "ALTER table perm.b",
}
"""What views need, of which a text tells nothing: what is written to or read has to be known to have any."""
ADMINISTERED = {
    "CREATE TRIGGER tr ON perm.t USING 'x'": "superusers",
    "DROP TRIGGER tr ON perm.t": "superusers",
    "CREATE ROLE made": "privileges",
    "ALTER ROLE somebody WITH PASSWORD = 'x'": "privileges",
    "ALTER ROLE somebody WITH SUPERUSER = true": "superusers",
    "DROP ROLE somebody": "privileges",
    "CREATE USER made": "privileges",
    "DROP USER somebody": "privileges",
    "LIST ROLES OF somebody": "not authorized",
    "LIST ALL PERMISSIONS": "not authorized",
    "LIST ALL ON perm.t OF somebody": "not authorized",
    "GRANT somebody TO cassandra": "privileges",
    "REVOKE somebody FROM cassandra": "privileges",
    "ADD IDENTITY 'x' TO ROLE somebody": "privileges",
    "DROP IDENTITY 'x'": "privileges",
}
"""What is refused for other reasons than a permission on a resource; whichever, it is never a plain read or write."""
MODIFIES = ("insert", "update", "delete", "truncate")
ON_ALL_OF = {"create-table": "CREATE", "create-type": "CREATE", "alter-type": "ALTER", "drop-type": "DROP"}
NO_PERMISSION = ("use", "describe")
SYSTEM = ("system.local", "system_schema.tables")
"""What everybody may read."""


@pytest.fixture(scope="module")
def superuser(cassandra_authorizer: Server) -> Iterator[Session]:
    """A session with all that the statements are about."""
    with cassandra_authorizer.session() as session:
        for statement in _SETUP:
            session.execute(statement)
        yield session


def asked(server: Server, superuser: Session, role: str, statement: str) -> list[str]:
    """The permissions that a new role lacks for a statement, one after the other, until it is let (or until it is no
    longer a matter of permissions)."""
    superuser.execute(f"CREATE ROLE {role} WITH PASSWORD = '{role}' AND LOGIN = true")
    found: list[str] = []
    with server.session(role) as session:
        while len(found) < 10:
            try:
                session.execute(statement)
                return found
            except Unauthorized as error:
                refused = _REFUSED.search(str(error))
                if refused is None:
                    raise
                permission, resource = refused.groups()
                found.append(f"{permission} {resource}")
            if not _grant(superuser, permission, resource, role):
                return found
    raise AssertionError(found)


def _grant(superuser: Session, permission: str, resource: str, role: str) -> bool:
    kind, _, name = resource.partition(" ")
    words = f"{kind} {name}" if kind in ("table", "keyspace", "role", "function") else resource
    words = re.sub(r"^all (tables|functions) in ", r"all \1 in keyspace ", words)
    try:
        superuser.execute(f"GRANT {permission} ON {words} TO {role}")
    except (InvalidRequest, SyntaxException):  # there is no such thing to be granted anything on
        return False
    return True


def stand_for(request: CqlRequest) -> set[str]:
    """The permissions that Cassandra may ask for what we call this, as patterns."""
    action, keyspace, table = request.action, request.keyspace, request.table
    verb = re.escape(action.partition("-")[0].upper())
    if action == "select":
        return {f"SELECT table {keyspace}.{table}"}
    if action in MODIFIES:
        return {f"MODIFY table {keyspace}.{table}"}
    if action == "execute":
        return {rf"EXECUTE function {keyspace}\..*"}
    if action in ON_ALL_OF:
        return {f"{ON_ALL_OF[action]} all tables in {keyspace}"}
    if action in ("create-function", "create-aggregate"):
        return {f"CREATE all functions in {keyspace}", rf"ALTER function {keyspace}\..*"}
    if action in ("drop-function", "drop-aggregate"):
        return {rf"DROP function {keyspace}\..*"}
    if action == "create-keyspace":
        return {"CREATE all keyspaces"}
    if action in ("alter-keyspace", "drop-keyspace"):
        return {f"{verb} keyspace {keyspace}"}
    if action in ("alter-table", "drop-table"):
        return {f"{verb} table {keyspace}.{table}"}
    if action in ("create-index", "create-materialized-view"):
        return {f"ALTER table {keyspace}.{table}"}
    if action == "drop-index":
        return {rf"ALTER table {keyspace}\..*"}
    if action in ("grant-permission", "revoke-permission"):
        own = f"table {keyspace}.{table}" if table else rf"(keyspace {keyspace}|function {keyspace}\..*)"
        return {rf"\w+ {own if keyspace else '(all keyspaces|role .*)'}"}
    return set()


@pytest.mark.parametrize("text", STATEMENTS, ids=lambda text: text[:60])
def test_permissions(cassandra_authorizer: Server, superuser: Session, text: str) -> None:
    role = f"role{list(STATEMENTS).index(text)}"
    lacks = asked(cassandra_authorizer, superuser, role, text)
    assert lacks == [one for one in re.split(r", (?=[A-Z]+ )", STATEMENTS[text].strip()) if one]
    found = classify(text, KEYSPACE)
    patterns = {one: stand_for(one) for one in found.requests}
    for permission in lacks:
        assert any(re.fullmatch(one, permission) for some in patterns.values() for one in some), permission
    for request, some in patterns.items():
        free = request.action in NO_PERMISSION or f"{request.keyspace}.{request.table}" in SYSTEM
        absent = "IF EXISTS" in text and not lacks
        assert free or absent or any(re.fullmatch(one, permission) for one in some for permission in lacks), request


@pytest.mark.parametrize("text", VIEWS, ids=lambda text: text[:60])
def test_permissions_for_views(cassandra_authorizer: Server, superuser: Session, text: str) -> None:
    lacks = asked(cassandra_authorizer, superuser, f"viewer{list(VIEWS).index(text)}", text)
    assert lacks == VIEWS[text].split(", ")


@pytest.mark.parametrize("text", ADMINISTERED, ids=lambda text: text[:60])
def test_what_only_some_may_administer(cassandra_authorizer: Server, superuser: Session, text: str) -> None:
    role = f"clerk{list(ADMINISTERED).index(text)}"
    with pytest.raises(Unauthorized, match=ADMINISTERED[text]):
        asked(cassandra_authorizer, superuser, role, text)
    (request,) = classify(text, KEYSPACE).requests
    assert request.action.partition("-")[0] in ("create", "alter", "drop", "list", "grant", "revoke", "add")


_HIDING = f"""
CREATE KEYSPACE hides WITH replication = {REPLICATION}
CREATE TABLE hides.t (k int PRIMARY KEY, v int, b bigint)
CREATE FUNCTION hides.abs (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return 77;'
CREATE FUNCTION hides.now () CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return 77;'
CREATE FUNCTION hides.token (a int) CALLED ON NULL INPUT RETURNS bigint LANGUAGE java AS 'return 77L;'
CREATE FUNCTION hides.sf (s int, a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return a;'
CREATE AGGREGATE hides.max (int) SFUNC sf STYPE int INITCOND 0
INSERT INTO hides.t (k, v, b) VALUES (1, -5, -5)
""".strip().split("\n")
HIDDEN = {
    "SELECT abs(v) FROM hides.t": "abs(int)",
    "SELECT k FROM hides.t WHERE k = abs(1)": "abs(int)",
    "INSERT INTO hides.t (k, v) VALUES (2, abs(1))": "abs(int)",
    "SELECT now() FROM hides.t": "now()",
    "SELECT k FROM hides.t WHERE token(k) > token(1)": "token(int)",
    "SELECT max(v) FROM hides.t": "max(int)",
    "SELECT abs(b), max(b), count(*) FROM hides.t": "",
    "SELECT system.abs(v), v + v FROM hides.t": "",
}
"""The function of the keyspace that is called instead of Cassandra's own."""


@pytest.fixture(scope="module")
def hiding(superuser: Session) -> Session:
    for statement in _HIDING:
        superuser.execute(statement)
    return superuser


@pytest.mark.parametrize("text", HIDDEN, ids=lambda text: text[:60])
def test_functions_that_hide_cassandras_own(cassandra_authorizer: Server, hiding: Session, text: str) -> None:
    """A function of the table's keyspace for these arguments is called instead, and its permission asked for; that the
    name is one of Cassandra's own, and unqualified, is known from the text."""
    lacks = asked(cassandra_authorizer, hiding, f"hidden{list(HIDDEN).index(text)}", text)
    called = [one.removeprefix("EXECUTE function hides.") for one in lacks if one.startswith("EXECUTE")]
    assert called[:1] == ([HIDDEN[text]] if HIDDEN[text] else [])
    statement = classify(text)
    assert not any(one.action == "execute" for one in statement.requests)
    assert {("hides", one.partition("(")[0]) for one in called[:1]} <= statement.natives
    assert not statement.natives or "system" not in text


def test_who_makes_a_function_that_hides_one_of_cassandras() -> None:
    made = "CREATE FUNCTION perm.abs (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return 77;'"
    assert set(classify(made).requests) == requests("create-function perm, execute perm")


STRICTER = {
    "SELECT * FROM perm.t WHERE l CONTAINS (1) ALLOW FILTERING": ("SELECT table perm.t", "execute perm"),
    'SELECT "castAsText"(v) FROM perm.t': ("SELECT table perm.t", "execute perm"),
    "CREATE MATERIALIZED VIEW perm.mv3 AS SELECT * FROM perm.u WHERE k IS NOT NULL AND v IS NOT NULL "
    "PRIMARY KEY (v, k)": ("ALTER table perm.u", "select perm.u"),
    "LIST ROLES": ("", "list-roles"),
    "LIST USERS": ("", "list-users"),
}
"""What the server asks for, and what we ask more."""


@pytest.mark.parametrize("text", STRICTER, ids=lambda text: text[:60])
def test_where_we_ask_more(cassandra_authorizer: Server, superuser: Session, text: str) -> None:
    lacks, more = STRICTER[text]
    role = f"strict{list(STRICTER).index(text)}"
    try:
        found = asked(cassandra_authorizer, superuser, role, text)
    except InvalidRequest:  # let, and then found to make no sense
        found = [lacks]
    assert ", ".join(found) == lacks
    assert requests(more) <= set(classify(text, KEYSPACE).requests)
