"""Statements by hand, and what each does: for the classifier's tests, and for Cassandra's own parser."""

from __future__ import annotations

from parsers.facts import CqlRequest
from tests.cassandra.parser import SESSION

REPLICATION = "{'class': 'SimpleStrategy', 'replication_factor': 1}"


def requests(words: str) -> set[CqlRequest]:
    """Of ``select ks.t, describe ks, list-roles``; ``_`` is the keyspace of the session."""
    found = set()
    for word in words.split(", "):
        action, _, name = word.partition(" ")
        keyspace, _, table = name.partition(".")
        keyspace = SESSION if keyspace == "_" else keyspace
        found.add(CqlRequest(action, keyspace or None, table or None))
    return found


def _read(text: str) -> dict[str, str]:
    """Rows of requests, ``|`` and a statement."""
    rows = (line.partition(" | ") for line in text.strip().split("\n"))
    return {statement.replace("REPLICATION", REPLICATION): words for words, _, statement in rows}


DATA = _read(r"""
select ks.t | SELECT * FROM ks.t
select ks.t | SELECT*FROM"ks"."t"
select ks.t | select * from ks.t ;;;
select ks.t | SELECT * FROM Ks . T
select ks.t | SELECT * FROM ks./**/t
select ks.Public | SELECT * FROM ks."Public"
select Ks.public | SELECT * FROM "Ks".public
select k"s.t"t | SELECT * FROM "k""s"."t""t"
select a b.c;d | SELECT * FROM "a b"."c;d"
select _.t | SELECT * FROM t
select _.json | SELECT JSON * FROM json
select ks.t | SELECT JSON DISTINCT k FROM ks.t
select ks.t | SELECT json, distinct FROM ks.t
select ks.t | SELECT DISTINCT distinct FROM ks.t
select keyspaces.tables | SELECT * FROM keyspaces.tables
select key.type | SELECT ttl, count, text, list, as, values FROM key.type
select values.values | SELECT values FROM values.values WHERE values = 1
select ks.t | SELECT a AS "from x.y", b AS key FROM ks.t
select ks.t | SELECT ' from x.y ', $$ from x.y $$ FROM ks.t
select ks.t | SELECT '''' FROM ks.t WHERE k = 'it''s -- /* '
select ks.t | SELECT a.b.c, a[1], a[1..2], a[..2], {'a': 1}, {1, 2}, [a, b], (a, b), -a, - -a, a + b * c % d / e FROM ks.t
select ks.t | SELECT (int)a, (frozen<list<int>>)[1], (set<int>){1}, CAST(a AS text) FROM ks.t
select ks.t | SELECT count(*), count(1), COUNT(a), writetime(a), maxwritetime(a), TTL(a.b), token(k), now(), to_json(a), toJson(a) FROM ks.t
select ks.t, execute f | SELECT f.g(a) FROM ks.t
select ks.t, execute ks | SELECT g(a) FROM ks.t
select ks.t, execute ks, execute system | SELECT system.g(a), "abS"(a), ks.abs(a), system.abs(b) FROM ks.t
select _.t, execute _ | SELECT max(g (a)) FROM t
select ks.t, execute ks, execute x | SELECT * FROM ks.t WHERE a = g(1) AND b > [x.h(2)] AND token(k) >= token(1)
select ks.t, execute ks | SELECT * FROM ks.t GROUP BY a, g(b)
select ks.t, execute ks | SELECT a, sum(b) FROM ks.t WHERE k = 1 GROUP BY floor(c), gg(d) ORDER BY a DESC LIMIT 1
select ks.t | SELECT * FROM ks.t WHERE k = 1 AND (a, b) > (1, 2) AND c IN (1, 2) AND d IN ? AND (e, f) IN ((1, 2), (3, 4)) AND g CONTAINS 1 AND h CONTAINS KEY 'x' AND i LIKE '%' AND j[1] = 2 AND k IS NOT NULL
select ks.t | SELECT * FROM ks.t WHERE ((k = 1)) ORDER BY a ASC, b DESC PER PARTITION LIMIT 2 LIMIT ? ALLOW FILTERING
select ks.t | SELECT * FROM ks.t WHERE expr(ix, '{}') AND k = :name
select ks.t | SELECT * FROM ks.t ORDER BY v ANN OF [1.0, -2.5e3, NaN, -Infinity] LIMIT 3
select ks.t | SELECT * FROM ks.t WHERE u = 12345678-1234-1234-1234-123456789abc AND v = deadbeef-1234-1234-1234-123456789abc AND b = 0xCAFE AND d = P1Y2M AND e = 12mo3d AND f = -1h2m AND g = P0001-02-03T04:05:06 AND h = true
select ks.p1 | SELECT P1, P99_x, PT, P1YX FROM ks.P1
select ks.t | SELECT * FROM ks.t WHERE a = {a: 1, b: ['1']} AND c = {}
insert ks.t | INSERT INTO ks.t (k, v) VALUES (1, 'x')
insert ks.t | INSERT INTO"ks"."t"("id")VALUES(1)
insert json.json | INSERT INTO json.json (json) VALUES (1)
insert _.json | INSERT INTO json JSON '{"a": 1}'
insert ks.t | INSERT INTO ks.t JSON ? DEFAULT UNSET USING TTL 10 AND TIMESTAMP ?
insert ks.t, select ks.t | INSERT INTO ks.t JSON :j DEFAULT NULL IF NOT EXISTS
insert ks.t, select ks.t | INSERT INTO ks.t (k) VALUES (?) IF NOT EXISTS USING TIMESTAMP 1
insert ks.t, execute values, execute ks | INSERT INTO ks.t ("", values) VALUES (values.f((int)values(1)), {1: [null]})
insert ks.t | INSERT INTO ks.t (a) VALUES (uuid(), now(), (text)'a', CAST(1 AS text), 'IF')
update ks.t | UPDATE ks.t SET a = 1 WHERE k = 2
update ks.t | UPDATE ks.t USING TTL 1 AND TIMESTAMP :t SET a = a + 1, b = b -1, c += [1], d -= {2}, e[1] = 2, f.g = 3, h = [1] + h WHERE k IN (1, 2)
update ks.t, select ks.t | UPDATE ks.t SET a = 1 WHERE k = 2 IF EXISTS
update ks.t, select ks.t | UPDATE ks.t SET a = 1 WHERE k = 2 IF a = 1 AND b[1] != 2 AND c.d IN (1) AND e IN ? AND f CONTAINS 3
update ks.t, execute ks, select ks.t | UPDATE ks.t SET l[f(1)] = 2 WHERE k = 1 IF a = g(1)
update ks.t | UPDATE ks.t SET a = (set<int>){1}, b = (map<int, frozen<set<int>>>){} WHERE k = 1
update ks.set | UPDATE ks."set" SET "where" = ' where ' WHERE "if" = 'if'
delete ks.t | DELETE FROM ks.t WHERE k = 1
delete ks.t | DELETE a, b[1], c.d FROM ks.t USING TIMESTAMP 1 WHERE k = 1
delete ks.t, select ks.t | DELETE "from" FROM ks.t WHERE k = 1 IF EXISTS
delete ks.t, execute ks, select ks.t | DELETE a[f(1)] FROM ks.t WHERE k = 1 IF a = 1
insert ks.t, delete x.u, update _.v | BEGIN BATCH INSERT INTO ks.t (a) VALUES (1) DELETE FROM x.u WHERE k = 1; UPDATE v SET a = 1 WHERE k = 1 APPLY BATCH;
insert ks.t, select ks.t, update ks.u | BEGIN UNLOGGED BATCH USING TIMESTAMP 1 INSERT INTO ks.t (a) VALUES (1) IF NOT EXISTS; UPDATE ks.u SET a = 1 WHERE k = 1; APPLY BATCH
update ks.c | BEGIN COUNTER BATCH UPDATE ks.c SET a = a + 1 WHERE k = 1; UPDATE ks.c SET a = a + 1 WHERE k = 2; APPLY BATCH
update ks.t, execute ks, insert x.t, execute x | BEGIN BATCH UPDATE ks.t SET a = f(1) WHERE k = 1 INSERT INTO x.t (a) VALUES (g(1)) APPLY BATCH
insert ks.t, insert x.u | BEGIN BATCH INSERT INTO ks.t JSON '' INSERT INTO x.u JSON ' INSERT INTO y.z JSON ' DEFAULT UNSET APPLY BATCH
truncate ks.t | TRUNCATE ks.t
truncate _.t | TRUNCATE TABLE t
truncate ks.t | TRUNCATE COLUMNFAMILY ks.t
truncate system.local | TRUNCATE system.local
update system_schema.tables | UPDATE system_schema.tables SET comment = '' WHERE keyspace_name = 'ks' AND table_name = 't'
insert system_auth.roles | INSERT INTO system_auth.roles (role, is_superuser) VALUES ('r', true)
use ks | USE ks
use Ks | USE "Ks";
use key | USE KEY
""")  # noqa: E501
SCHEMA = _read(r"""
create-keyspace ks | CREATE KEYSPACE ks WITH replication = REPLICATION AND durable_writes = false
create-keyspace Ks | CREATE KEYSPACE IF NOT EXISTS "Ks" WITH replication = REPLICATION
alter-keyspace ks | ALTER KEYSPACE IF EXISTS ks WITH replication = REPLICATION
drop-keyspace ks | DROP KEYSPACE IF EXISTS ks
create-table ks.t | CREATE TABLE ks.t (k int, c set<text>, d map<int, frozen<ty>>, s text static, PRIMARY KEY ((k, c), d)) WITH CLUSTERING ORDER BY (d DESC) AND comment = 'x' AND compaction = {'class': 'x'} AND speculative_retry = '99p'
create-table _.type | CREATE COLUMNFAMILY IF NOT EXISTS type (key int PRIMARY KEY, v vector<float, 3>, list list<int>,)
create-table ks.t, execute ks, execute m | CREATE TABLE ks.t (k int MASKED WITH DEFAULT PRIMARY KEY, a int MASKED WITH f(1, 'x'), b int MASKED WITH m.f(), c int MASKED WITH mask_inner(1, null))
create-table ks.t, execute ks, execute x | CREATE TABLE ks.t (k int PRIMARY KEY, a int MASKED WITH ks.f((x.g(1))))
alter-table ks.t | ALTER TABLE ks.t ADD (a int, b set<int> static)
alter-table ks.t | ALTER TABLE IF EXISTS ks.t ADD IF NOT EXISTS a int
alter-table ks.t | ALTER TABLE ks.t DROP IF EXISTS (a, b) USING TIMESTAMP 1
alter-table ks.t | ALTER TABLE ks.t RENAME a TO b AND c TO d
alter-table ks.t | ALTER TABLE ks.t ALTER a TYPE int
alter-table ks.t | ALTER TABLE ks.t DROP COMPACT STORAGE
alter-table _.t | ALTER TABLE t WITH gc_grace_seconds = 1 AND caching = {'keys': 'ALL'}
alter-table ks.t, execute f | ALTER TABLE ks.t ALTER IF EXISTS a MASKED WITH f.g(1)
alter-table ks.t | ALTER TABLE ks.t ALTER a DROP MASKED
drop-table ks.t | DROP TABLE IF EXISTS ks.t
create-index ks.t | CREATE INDEX ON ks.t (a)
create-index ks.t | CREATE INDEX IF NOT EXISTS i ON ks.t (keys(a))
create-index ks.t | CREATE CUSTOM INDEX "i i" ON ks.t (full(a), values(b), entries(c)) USING 'sai' WITH OPTIONS = {'a': 'b'}
drop-index ks | DROP INDEX ks.i
drop-index _ | DROP INDEX IF EXISTS i
create-materialized-view ks.b, select ks.b | CREATE MATERIALIZED VIEW ks.v AS SELECT * FROM ks.b WHERE a IS NOT NULL AND k IS NOT NULL PRIMARY KEY (a, k) WITH CLUSTERING ORDER BY (k ASC) AND comment = ''
create-materialized-view _.b, select _.b, execute _ | CREATE MATERIALIZED VIEW IF NOT EXISTS as AS SELECT a, b FROM b WHERE a > f(1) PRIMARY KEY ((a, b))
alter-materialized-view ks.v | ALTER MATERIALIZED VIEW ks.v WITH comment = 'x'
drop-materialized-view ks.v | DROP MATERIALIZED VIEW IF EXISTS ks.v
create-type ks | CREATE TYPE IF NOT EXISTS ks.ty (a int, b frozen<list<text>>)
alter-type ks | ALTER TYPE ks.ty ADD IF NOT EXISTS b int
alter-type _ | ALTER TYPE ty RENAME IF EXISTS a TO b AND c TO d
drop-type ks | DROP TYPE ks.ty
create-function ks | CREATE FUNCTION ks.f (a int, b set<int>) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return 1;'
create-function ks | CREATE OR REPLACE FUNCTION ks."F" () RETURNS NULL ON NULL INPUT RETURNS text LANGUAGE java AS $$ return "'"; $$
create-function ks, execute ks | CREATE FUNCTION IF NOT EXISTS ks.abs (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS ''
drop-function ks | DROP FUNCTION IF EXISTS ks.f (int, list<int>)
drop-function _ | DROP FUNCTION token
create-aggregate ks, execute ks | CREATE OR REPLACE AGGREGATE ks.a (int, text) SFUNC f STYPE tuple<int, text> FINALFUNC g INITCOND (1, 'x')
create-aggregate _, execute _ | CREATE AGGREGATE a () SFUNC f STYPE int
drop-aggregate ks | DROP AGGREGATE ks.a(int)
create-trigger ks.t | CREATE TRIGGER IF NOT EXISTS tr ON ks.t USING 'x'
drop-trigger ks.t | DROP TRIGGER IF EXISTS tr ON ks.t
""")  # noqa: E501
ACCESS = _read(r"""
create-role | CREATE ROLE IF NOT EXISTS r WITH PASSWORD = 'x' AND LOGIN = true AND SUPERUSER = false AND OPTIONS = {'a': 'b'} AND ACCESS TO DATACENTERS {'dc1', 'dc2'}
create-role | CREATE ROLE "r" WITH HASHED PASSWORD = 'x' AND ACCESS FROM ALL CIDRS
alter-role | ALTER ROLE IF EXISTS 'r' WITH PASSWORD = 'x' AND ACCESS TO ALL DATACENTERS AND ACCESS FROM CIDRS {'a'}
drop-role | DROP ROLE IF EXISTS r
create-user | CREATE USER IF NOT EXISTS 'u' WITH PASSWORD 'x' SUPERUSER
alter-user | ALTER USER u WITH HASHED PASSWORD 'x' NOSUPERUSER
drop-user | DROP USER u
list-roles | LIST ROLES
list-roles | LIST ROLES OF "r" NORECURSIVE
list-users | LIST USERS
grant-role | GRANT r TO s
grant-role | GRANT all TO 'role'
revoke-role | REVOKE "r" FROM s
grant-permission ks.t | GRANT SELECT ON ks.t TO r
grant-permission ks.t | GRANT ALL PERMISSIONS ON TABLE ks.t TO "r"
grant-permission _.t | GRANT MODIFY PERMISSION ON t TO r
grant-permission ks | GRANT SELECT, MODIFY PERMISSION, UNMASK ON KEYSPACE ks TO r
grant-permission | GRANT SELECT_MASKED ON ALL KEYSPACES TO r
grant-permission ks | GRANT CREATE ON ALL TABLES IN KEYSPACE ks TO r
grant-permission _.all | GRANT SELECT ON all TO r
grant-permission all.role | GRANT SELECT ON all.role TO r
grant-permission _.role | GRANT SELECT ON role TO r
grant-permission role.mbean | GRANT SELECT ON role.mbean TO r
grant-permission _.function | GRANT SELECT ON function TO r
grant-permission | GRANT ALTER ON ROLE r TO 's'
grant-permission | GRANT AUTHORIZE ON ALL ROLES TO r
grant-permission | GRANT EXECUTE ON ALL FUNCTIONS TO r
grant-permission ks | GRANT EXECUTE ON ALL FUNCTIONS IN KEYSPACE ks TO r
grant-permission ks | GRANT EXECUTE ON FUNCTION ks.f(int, list<text>) TO r
grant-permission | GRANT EXECUTE ON ALL MBEANS TO r
grant-permission | GRANT SELECT ON MBEAN 'a:type=b' TO r
grant-permission | GRANT SELECT ON MBEANS 'a:type=*' TO r
revoke-permission ks.t | REVOKE DROP ON ks.t FROM r
revoke-permission | REVOKE ALL ON ALL KEYSPACES FROM r
list-permissions | LIST ALL PERMISSIONS
list-permissions ks.t | LIST SELECT PERMISSION ON ks.t OF r NORECURSIVE
list-permissions ks | LIST ALL ON KEYSPACE ks
list-permissions | LIST ALL ON ROLE r OF s
add-identity | ADD IDENTITY IF NOT EXISTS 'spiffe://x' TO ROLE 'r'
drop-identity | DROP IDENTITY 'spiffe://x'
describe | DESCRIBE CLUSTER
describe | DESC SCHEMA
describe | DESCRIBE FULL SCHEMA WITH INTERNALS
describe | DESCRIBE KEYSPACES
describe | DESC TABLES
describe | DESC TYPES
describe | DESC FUNCTIONS
describe | DESC AGGREGATES
describe _ | DESCRIBE KEYSPACE
describe ks | DESCRIBE ONLY KEYSPACE ks WITH INTERNALS
describe ks.t | DESCRIBE TABLE ks.t
describe ks.t | DESC COLUMNFAMILY ks.t
describe ks | DESCRIBE INDEX ks.i
describe ks.v | DESCRIBE MATERIALIZED VIEW ks.v
describe ks | DESCRIBE TYPE ks.ty
describe ks | DESCRIBE FUNCTION ks.f
describe _ | DESCRIBE AGGREGATE a
describe ks.t | DESCRIBE ks.t
describe foo, describe _.foo | DESC foo
describe type, describe _.type | DESC type WITH INTERNALS
describe type.type | DESC type.type
describe only, describe _.only | DESC only
""")  # noqa: E501
COMMENTS = {
    "-- from x.y\nSELECT * FROM ks.t": "select ks.t",
    "-- from x.y\rSELECT * FROM ks.t": "select ks.t",
    "// a\n/* b */SELECT//\r*--\nFROM/***/ks.t--\n": "select ks.t",
    "/* /* */SELECT * FROM ks.t": "select ks.t",
    "/*/ SELECT * FROM x.y /*/SELECT * FROM ks.t": "select ks.t",
    "--\v\f\u0085\u2028 SELECT * FROM x.y\nSELECT * FROM ks.t": "select ks.t",
    "/* ' \" $$ */SELECT * FROM ks.t": "select ks.t",
    "-- ' /*\nSELECT * FROM ks.t": "select ks.t",
    "SELECT '-- /* ' FROM ks.t WHERE a = '*/'": "select ks.t",
    'SELECT "-- /*" FROM ks."t--" WHERE "*/" = 1': "select ks.t--",
    "SELECT * FROM ks.t WHERE a = 1--1\nAND b = 2": "select ks.t",
    "SELECT '\\' FROM ks.t WHERE a = ' FROM x.y '": "select ks.t",
    "SELECT $$\\$$ FROM ks.t WHERE a = $$ FROM x.y $$": "select ks.t",
    "SELECT $$'$$, '$$' FROM ks.t": "select ks.t",
    "SELECT $$ $a$ $$ FROM ks.t": "select ks.t",
    "\t\r\n SELECT\t*\rFROM\nks.t\r\n": "select ks.t",
    "SELECT 'é\0\u2028' FROM ks.\"é\U0001f600\"": "select ks.é\U0001f600",
}
READ = DATA | SCHEMA | ACCESS | COMMENTS
"""All that Cassandra reads (as far as it does not ask for keyspaces), and what it does."""

_BLANKS = "\v\f\0\u00a0\u2003\u2028\ufeff\\\x1c\x85"
"""What other languages take for white space, or read over."""
NAMED = ("SELECT * FROM {}", "SELECT * FROM ks.{}", "SELECT * FROM {}.t", "UPDATE {} SET a = 1 WHERE k = 1", "USE {}")
_TEXTS = r"""
SELECT * FROM ks.t -- c
SELECT * FROM ks.t // c
SELECT * FROM ks.t /* c
SELECT * FROM ks.t /*/
/* a /* b */ c */ SELECT * FROM ks.t
SELECT * FROM ks.t WHERE a = 'it\'s'
SELECT * FROM ks.t WHERE a = 'x
SELECT * FROM ks.t WHERE a = "x
SELECT * FROM ks.t WHERE a = $$x
SELECT * FROM ks.t WHERE a = $x$ FROM $x$
SELECT * FROM ks.t WHERE a = $$x$$$ AND b = $$$y$$
SELECT * FROM ks.t WHERE a = 1AND b = 2
SELECT * FROM ks.t LIMIT 2ALLOW FILTERING
UPDATE ks.t USING TTL 10SET a = 1 WHERE k = 1
SELECT 1FROM ks.t
SELECT 0xcafeFROM ks.t
SELECT * FROM ks.P1Y
SELECT * FROM P1Y.t
SELECT deadbeef-a FROM ks.t
SELECT a -infinit FROM ks.t
;SELECT * FROM ks.t
SELECT * FROM ks.t; SELECT * FROM ks.u
SELECT * FROM ks.t SELECT * FROM ks.u
SELECT * FROM ks.t; DROP TABLE ks.t
BEGIN BATCH ; INSERT INTO ks.t (a) VALUES (1); APPLY BATCH
BEGIN BATCH INSERT INTO ks.t (a) VALUES (1);; APPLY BATCH
BEGIN BATCH SELECT * FROM ks.t APPLY BATCH
BEGIN BATCH TRUNCATE ks.t; APPLY BATCH
BEGIN BATCH INSERT INTO ks.t (a) VALUES (1)
BEGIN TRANSACTION UPDATE ks.t SET a = 1 WHERE k = 1; COMMIT TRANSACTION
SELECT * FROM ""
SELECT * FROM ks.""
SELECT * FROM ?
SELECT * FROM ks.?
SELECT * FROM 'ks.t'
SELECT * FROM a.b.c
SELECT * FROM a b
SELECT * FROM ks.t, ks.u
SELECT * FROM ks.t WHERE (a = 1
SELECT * FROM ks.t WHERE a = 1)
SELECT * FROM ks.t WHERE a = [(1])
SELECT * FROM ks.t WHERE a = (SELECT * FROM ks.u)
SELECT (SELECT a FROM ks.u) FROM ks.t
SELECT 1
SELECT FROM ks.t
INSERT INTO ks.t VALUES (1)
INSERT INTO ks.t (a) SELECT * FROM ks.u
INSERT ks.t (a) VALUES (1)
INSERT INTO ks.t (a) VALUES 1
UPDATE ks.t SET a = 1
UPDATE ks.t a SET a = 1 WHERE k = 1
DELETE FROM ks.t
DELETE ks.t WHERE k = 1
TRUNCATE ks.t, ks.u
TRUNCATE
USE
USE a b
USE a.b
USE 'ks'
CREATE TABLE ks.t
CREATE TABLE ks.t LIKE ks.u
CREATE OR REPLACE TABLE ks.t (k int PRIMARY KEY)
CREATE CUSTOM TABLE ks.t (k int PRIMARY KEY)
CREATE VIEW ks.v AS SELECT * FROM ks.t PRIMARY KEY (a)
CREATE INDEX IF EXISTS i ON ks.t (a)
CREATE INDEX i ks.t (a)
CREATE IDENTITY 'x'
CREATE MATERIALIZED VIEW ks.v AS INSERT INTO ks.t (a) VALUES (1)
ALTER INDEX ks.i WITH a = 1
ALTER FUNCTION ks.f WITH a = 1
ALTER KEYSPACE ks
DROP ks.t
DROP VIEW ks.v
DROP TABLE ks.t, ks.u
DROP TABLE ks.t CASCADE
DROP TABLE IF NOT EXISTS ks.t
GRANT SELECT TO r
GRANT SELECT ON ks.t
GRANT FOO ON ks.t TO r
GRANT SELECT ON ALL TABLES TO r
GRANT SELECT ON ks.t FROM r
GRANT r FROM s
REVOKE r TO s
LIST
LIST SUPERUSERS
LIST ROLES FOO
DESCRIBE
DESCRIBE TABLE
DESCRIBE INDEX
DESC only FOO
DESC SCHEMA ks
DESC KEYSPACES.t
ADD ROLE r
EXECUTE f
EXPLAIN SELECT * FROM ks.t
ſelect * FROM ks.t
SELECT * FROM ks.ﬁ
SELECT * FROM ks.t WHERE é = 1
SELECT * FROM ks.t_é
SELECT * FROM _t
SELECT * FROM 1t
SELECT * FROM ks.t WHERE a = @b
""".strip().split("\n")
UNREAD = [
    *_TEXTS,
    *(f"SELECT{blank}* FROM ks.t" for blank in _BLANKS),
    *(f"{blank}SELECT * FROM ks.t" for blank in _BLANKS),
    *(f"SELECT * FROM ks.t{blank}" for blank in _BLANKS),
    "",
    ";",
    "--\n",
    "SELECT * FROM ks.t --\v",
    "SELECT * FROM ks.t -- \u2028 \u0085",
]
"""What neither Cassandra reads nor the classifier."""
_DEEP = "[" * 17 + "]" * 17
STRICTER = {
    "SELECT 1.0FROM ks.t": "a word right behind a number",
    "UPDATE ks.t SET a = 1 WHERE k = 1IF EXISTS": "the same",
    "BEGIN BATCH APPLY BATCH": "a batch of nothing",
    f"SELECT * FROM ks.t WHERE a = {_DEEP}": "17 brackets in each other",
    f"SELECT {'(' * 15}a{')' * 15} FROM ks.t": "what Cassandra reads twice for each bracket, 15 of them",
    f"SELECT {'(int)' * 15}a FROM ks.t": "type hints, which it reads twice as well",
    f"SELECT a{', ((((((((((a))))))))))' * 12} FROM ks.t": "12 times 10 brackets",
    "SELECT * FROM ks.t WHERE a = ?+?-?*?/?%?": "five operators, whose types take long to find out",
    "INSERT INTO ks.t (a, b) VALUES ((?+(?+?)), -(?)+?+?)": "the same in brackets",
    f"SELECT * FROM ks.t WHERE a = ?+?+?+?+?{' AND a = ?+?+?+?+?' * 7}": "eight times four operators",
    f"SELECT * FROM ks.t WHERE a = {'abs(' * 8}?{')' * 8}": "eight functions in each other",
    "SELECT * FROM ks.t WHERE a = ?+abs(abs(?+abs(abs(abs(1+?)))))": "operators and functions in each other",
    f"SELECT * FROM ks.t WHERE a = {'9' * 1001}": "a number of 1,001 digits",
    f'SELECT * FROM ks."{"t" * 1025}"': "a name of 1,025 characters",
    "SELECT * FROM ks.t WHERE d = " + "1d" * 17: "a duration of 17 units",
}
"""What Cassandra reads and the classifier refuses, and why."""
MORE = {
    "SELECT * FROM ks.t WHERE a CONTAINS (1)": "execute ks",
    "SELECT * FROM ks.t WHERE a LIKE ('x')": "execute ks",
}
"""What Cassandra reads and does not take for a call of a function, but the classifier does."""
