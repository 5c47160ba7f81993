"""The same as ``driver.py`` with acsylla, which wraps the C++ driver: HOST:PORT, a version ("-": it finds out), a
compression (it has none), a scenario."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import acsylla


async def outcome(asked: Awaitable[Any]) -> Any:
    """Rows as lists, or the beginning of the error's text."""
    try:
        return [list(row.as_list()) for row in await asked or ()]
    except acsylla.errors.CassException as error:
        return "Unauthorized" if "Access denied" in str(error) else f"{type(error).__name__}: {error}"


def one(text: str, *values: Any) -> Any:
    made = acsylla.create_statement(text, parameters=len(values))
    if values:
        made.bind_list(list(values))
    return made


async def simple(session: Any) -> Any:
    insert = await session.create_prepared("INSERT INTO shop.orders (id, name) VALUES (?, ?)")
    waiting = []
    for number in range(3000, 4000):
        made = insert.bind()
        made.bind_list([number, "acsylla"])
        waiting.append(session.execute(made))
    await asyncio.gather(*waiting)
    return {
        "read": await outcome(session.execute(one("SELECT name FROM shop.orders WHERE id = 3999"))),
        "refused": await outcome(session.execute(one("SELECT * FROM shop.secrets"))),
        "prepare": await outcome(session.create_prepared("SELECT * FROM shop.secrets")),
        "after": await outcome(session.execute(one("SELECT name FROM shop.orders WHERE id = 3000"))),
    }


async def keyspaces(session: Any) -> Any:
    await session.use_keyspace("shop")
    return {
        "read": await outcome(session.execute(one("SELECT name FROM orders WHERE id = 3000"))),
        "refused": await outcome(session.execute(one("SELECT * FROM secrets"))),
    }


async def main() -> None:
    where, version, _, scenario = sys.argv[1:]
    host, port = where.rsplit(":", 1)
    more = {} if version == "-" else {"protocol_version": int(version)}
    cluster = acsylla.create_cluster([host], port=int(port), connect_timeout=30, request_timeout=60, **more)
    session = await cluster.create_session()
    found = await globals()[scenario](session)
    await session.close()
    print(json.dumps(found))


asyncio.run(main())
