"""Servers that tests of one process share; each is started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cassandra.parser import Parser, parser
from tests.cassandra.rig import WIRES, Rig
from tests.cassandra.server import Server, server


@pytest.fixture(params=WIRES, ids=lambda one: f"v{one[0]}{one[1] and '-'}{one[1]}")
def rig(request: pytest.FixtureRequest) -> Rig:
    """A conversation in each version and compression."""
    version, compression = request.param
    return Rig(version, compression=compression)


@pytest.fixture(scope="session")
def cassandra() -> Iterator[Server]:
    """A server on loopback that refuses nothing. Its keyspaces outlive a test: take names of your own."""
    with server() as running:
        yield running


@pytest.fixture(scope="session")
def cassandra_authorizer() -> Iterator[Server]:
    """A server on loopback with logins and permissions (see `tests.cassandra.server`)."""
    with server(authorizer=True) as running:
        yield running


@pytest.fixture(scope="session")
def cassandra_parser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parser]:
    """Cassandra's own lexer and parser."""
    with parser(tmp_path_factory.mktemp("parser")) as running:
        yield running
