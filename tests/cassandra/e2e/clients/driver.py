"""Scenarios of cassandra-driver: HOST:PORT, a protocol version, a compression ("-" for none), a scenario. What it found
goes to stdout as JSON; where it goes on for a while, one line for each thing. CASSANDRA_LOGIN: who logs in, with the
name as the password; CASSANDRA_REACTOR: asyncio or libev, if not the driver's own choice."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from random import Random
from typing import Any

import headers
from cassandra import ConsistencyLevel, InvalidRequest, Unauthorized
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    NoHostAvailable,
    ResponseFuture,
    Session,
)
from cassandra.connection import ConnectionBusy
from cassandra.policies import RoundRobinPolicy
from cassandra.query import BatchStatement, SimpleStatement, dict_factory

KEYSPACE = "shop"


def outcome(ask: Callable[[], Any]) -> Any:
    """Rows as lists, or the name of the error."""
    try:
        found = ask()
        return [list(row.values()) for row in found]
    except (Unauthorized, InvalidRequest, NoHostAvailable) as error:
        return type(error).__name__


def simple(session: Session) -> Any:
    session.execute("INSERT INTO shop.orders (id, name) VALUES (1, 'one')")
    session.execute("INSERT INTO shop.orders (id, name) VALUES (%s, %s)", (2, "two"))
    return {
        "read": sorted(outcome(lambda: session.execute("SELECT id, name FROM shop.orders WHERE id IN (1, 2)"))),
        "refused": outcome(lambda: session.execute("SELECT * FROM shop.secrets")),
        "write": outcome(lambda: session.execute("INSERT INTO shop.secrets (id) VALUES (1)")),
        "after": outcome(lambda: session.execute("SELECT name FROM shop.orders WHERE id = 1")),
    }


def prepared(session: Session) -> Any:
    insert = session.prepare("INSERT INTO shop.orders (id, name) VALUES (?, ?)")
    select = session.prepare("SELECT name FROM shop.orders WHERE id = ?")
    for number in range(20):
        session.execute(insert, (100 + number, f"name {number}"))
    return {
        "read": outcome(lambda: session.execute(select, (107,))),
        "refused": outcome(lambda: session.prepare("SELECT * FROM shop.secrets")),
    }


def batches(session: Session) -> Any:
    insert = session.prepare("INSERT INTO shop.orders (id, name) VALUES (?, ?)")
    good, bad = BatchStatement(), BatchStatement()
    for batch, first in ((good, 200), (bad, 210)):
        batch.add(insert, (first, "prepared"))
        batch.add(SimpleStatement("INSERT INTO shop.orders (id, name) VALUES (%s, 'plain')"), (first + 1,))
    bad.add(SimpleStatement("INSERT INTO shop.secrets (id) VALUES (5)"))
    return {
        "good": outcome(lambda: session.execute(good)),
        "bad": outcome(lambda: session.execute(bad)),
        "read": sorted(outcome(lambda: session.execute("SELECT id FROM shop.orders WHERE id IN (200, 201, 210, 211)"))),
    }


def keyspaces(session: Session) -> Any:
    session.set_keyspace(KEYSPACE)
    session.execute("INSERT INTO orders (id, name) VALUES (300, 'unqualified')")
    select = session.prepare("SELECT name FROM orders WHERE id = ?")
    return {
        "read": outcome(lambda: session.execute(select, (300,))),
        "refused": outcome(lambda: session.execute("SELECT * FROM secrets")),
        "use": outcome(lambda: session.execute("USE system_auth")),
        "after": outcome(lambda: session.execute("SELECT name FROM orders WHERE id = 300")),
    }


def paging(session: Session) -> Any:
    insert = session.prepare("INSERT INTO shop.orders (id, name) VALUES (?, ?)")
    waiting = [session.execute_async(insert, (1000 + number, "p" * 50)) for number in range(500)]
    for one in waiting:
        one.result()
    statement = SimpleStatement("SELECT id FROM shop.orders", fetch_size=100)
    found = {row["id"] for row in session.execute(statement)}
    return {"read": len([one for one in found if 1000 <= one < 1500])}


def answered(sent: ResponseFuture, again: Callable[[], Any]) -> Any:
    """What came of a request, which is sent again if the driver did not send it, for its socket was full."""
    try:
        return sent.result()
    except NoHostAvailable as error:
        if not all(isinstance(why, ConnectionBusy) for why in error.errors.values()):
            raise
        return again()


def many(session: Session) -> Any:
    """4,000 in flight, of which every tenth is refused when it is prepared or sent."""
    insert = session.prepare("INSERT INTO shop.orders (id, name) VALUES (?, ?)")
    secrets = "SELECT * FROM shop.secrets"
    rows = [(2000 + number, "m") for number in range(4000)]
    waiting = [session.execute_async(insert, row) for row in rows]
    refused = [session.execute_async(secrets) for _ in range(400)]
    for one, row in zip(waiting, rows, strict=True):
        answered(one, partial(session.execute, insert, row))
    count = sum(outcome(partial(answered, one, partial(session.execute, secrets))) == "Unauthorized" for one in refused)
    return {"refused": count, "read": outcome(lambda: session.execute("SELECT id FROM shop.orders WHERE id = 5999"))}


def blobs(session: Session) -> Any:
    insert = session.prepare("INSERT INTO shop.blobs (id, data) VALUES (?, ?)")
    data = bytes(range(256)) * (12 << 12)
    session.execute(insert, (1, data))
    found = session.execute("SELECT data FROM shop.blobs WHERE id = 1").one()
    refused = session.execute_async("INSERT INTO shop.secrets (id, name) VALUES (%s, %s)", (1, "x" * 5_000_000))
    return {"same": found["data"] == data, "size": len(data), "refused": outcome(refused.result)}


def largest(session: Session) -> Any:
    """The size of the largest blob that is written and read, and what is said of one that is a byte larger."""
    insert = session.prepare("INSERT INTO shop.blobs (id, data) VALUES (?, ?)")
    source = Random(1).randbytes(16 << 20)  # which cannot be packed

    def write(size: int) -> str:
        try:
            session.execute(insert, (2, source[:size]))
        except InvalidRequest as error:
            return str(error)
        return ""

    size = len(source) - 1
    while said := write(size):
        most, (length, limit) = size, map(int, re.findall(r"[0-9]{8}", said))
        size -= length - limit
    while most - size > 1:
        middle = (size + most) // 2
        size, most = (size, middle) if write(middle) else (middle, most)
    beyond = write(most)
    write(size)
    data = session.execute("SELECT data FROM shop.blobs WHERE id = 2").one()["data"]
    return {"size": size, "same": data == source[:size], "beyond": beyond}


def traced(session: Session) -> Any:
    future = session.execute_async("SELECT name FROM shop.orders WHERE id = 1", trace=True)
    future.result()
    warned = session.execute_async("SELECT name FROM shop.orders WHERE id = 1", custom_payload=None)
    return {"traced": bool(future.get_query_trace_ids()), "read": outcome(warned.result)}


def schema(session: Session) -> Any:
    """Events come, and what is created is refused or not."""
    session.execute("CREATE TABLE IF NOT EXISTS shop.made (id int PRIMARY KEY)")
    cluster = session.cluster
    cluster.refresh_schema_metadata()
    tables = sorted(cluster.metadata.keyspaces[KEYSPACE].tables)
    return {"tables": tables, "drop": outcome(lambda: session.execute("DROP TABLE shop.secrets"))}


def views(session: Session) -> Any:
    return {
        "view": outcome(lambda: session.execute("SELECT * FROM shop.secrets_by_name")),
        "other": outcome(lambda: session.execute("SELECT id FROM shop.orders_by_name WHERE name = 'no'")),
    }


def watch(session: Session) -> Any:
    """One read after the other, for two minutes at most, until stdin says otherwise."""
    select = session.prepare("SELECT name FROM shop.orders WHERE id = ?")
    last, end = None, time.monotonic() + 120
    while time.monotonic() < end:
        found = outcome(lambda: session.execute(select, (1,)))
        if found != last:
            print(json.dumps(found), flush=True)
        last = found
        time.sleep(0.02)


def steady(session: Session) -> Any:
    """A statement after the other, then many at once; how many."""
    select = session.prepare("SELECT name FROM shop.orders WHERE id = ?")
    insert = session.prepare("INSERT INTO shop.orders (id, name) VALUES (?, ?)")
    for number in range(1000):
        session.execute(insert, (9000, f"{number}" * 20))
        (row,) = session.execute(select, (9000,))
        assert row["name"] == f"{number}" * 20, row
    for number in range(10):
        waiting = [session.execute_async(select, (9000,)) for _ in range(100)]
        plain = session.execute_async(f"SELECT id FROM shop.orders WHERE id = {number}")
        for one in waiting:
            (row,) = answered(one, partial(session.execute, select, (9000,)))
            assert row["name"] == "999" * 20, row
        answered(plain, partial(session.execute, "SELECT id FROM shop.orders"))
    return {"statements": 3000}


def main() -> None:
    headers.mend()
    where, version, compression, scenario = sys.argv[1:]
    host, port = where.rsplit(":", 1)
    profile = ExecutionProfile(
        RoundRobinPolicy(), row_factory=dict_factory, request_timeout=60, consistency_level=ConsistencyLevel.ONE
    )
    login, reactor = os.environ.get("CASSANDRA_LOGIN"), os.environ.get("CASSANDRA_REACTOR")
    more: dict[str, Any] = {} if version == "-" else {"protocol_version": int(version)}
    if reactor:
        module = import_module(f"cassandra.io.{reactor}reactor")
        more["connection_class"] = getattr(module, f"{reactor.capitalize()}Connection")
    cluster = Cluster(
        [host],
        port=int(port),
        compression=False if compression == "-" else compression,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        auth_provider=PlainTextAuthProvider(login, login) if login else None,
        connect_timeout=60,
        control_connection_timeout=60,
        **more,
    )
    session = cluster.connect()
    found = globals()[scenario](session)
    spoken = cluster.protocol_version
    cluster.shutdown()
    print(json.dumps({"version": spoken, **(found or {})}))


main()
