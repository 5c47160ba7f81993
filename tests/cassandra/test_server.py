"""The server that the other tests take for the truth: it stores, and with an authorizer it refuses."""

from __future__ import annotations

import pytest
from cassandra import Unauthorized
from cassandra.cluster import NoHostAvailable

from tests.cassandra.server import Server

REPLICATION = "WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_driver_reads_what_it_wrote(cassandra: Server, version: int) -> None:
    with cassandra.session(protocol_version=version) as session:
        session.execute(f"CREATE KEYSPACE stored{version} {REPLICATION}")
        session.set_keyspace(f"stored{version}")
        session.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
        session.execute("INSERT INTO t (id, name) VALUES (%s, %s)", (1, "one"))
        statement = session.prepare("SELECT name FROM t WHERE id = ?")
        assert [row.name for row in session.execute(statement, (1,))] == ["one"]
        assert session.execute(statement, (2,)).one() is None


def test_a_role_may_do_what_it_was_granted(cassandra_authorizer: Server) -> None:
    with cassandra_authorizer.session() as session:
        session.execute(f"CREATE KEYSPACE guarded {REPLICATION}")
        session.execute("CREATE TABLE guarded.t (id int PRIMARY KEY)")
        session.execute("CREATE ROLE reader WITH PASSWORD = 'reader' AND LOGIN = true")
        with cassandra_authorizer.session("reader") as reader:
            with pytest.raises(Unauthorized, match=r"has no SELECT permission on <table guarded\.t>"):
                reader.execute("SELECT * FROM guarded.t")
            session.execute("GRANT SELECT ON guarded.t TO reader")
            assert reader.execute("SELECT * FROM guarded.t").all() == []
            with pytest.raises(Unauthorized, match="MODIFY"):
                reader.execute("INSERT INTO guarded.t (id) VALUES (1)")
        assert session.execute("SELECT * FROM guarded.t").all() == []


def test_a_wrong_password_is_refused(cassandra_authorizer: Server) -> None:
    with pytest.raises(NoHostAvailable), cassandra_authorizer.session("nobody"):
        pass
