"""Brokers that tests of one process share; each is started when the first test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kafka.broker import Broker, broker

# atheris has wheels for no other machine.
collect_ignore = [] if os.uname().machine == "x86_64" else ["test_fuzz.py"]


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """A broker on loopback that refuses nothing. Its topics and groups outlive a test: take names of your own."""
    with broker() as running:
        yield running


@pytest.fixture(scope="session")
def kafka_acls() -> Iterator[Broker]:
    """A broker on loopback with ACLs (see `tests.kafka.broker`) and the users alice and bob."""
    with broker(acls=True) as running:
        yield running
