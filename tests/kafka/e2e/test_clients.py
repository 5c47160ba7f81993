"""Real clients through l7proxy: what is allowed works, and what is refused is told in each client's own words, which it
has for a broker with ACLs as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import netns
from tests.kafka.broker import GROUP, READ, TOPIC, TRANSACTIONAL_ID, WRITE, Broker
from tests.kafka.e2e import common
from tests.kafka.e2e.common import Net
from tests.node import growth

pytestmark = pytest.mark.privileged
CLIENTS = ("librdkafka", "aio", "kafkapython", "java")
ACKS = ["acks=0", "acks=1", "acks=all", "idempotent"]
FEW, ALL = [*ACKS, "gzip"], sorted([*ACKS, "gzip", "snappy", "lz4", "zstd"])
"""Kinds of producers. Libraries that the two clients in Python need for the other kinds of compression are not here."""
KINDS = {"librdkafka": ALL, "aio": sorted(FEW), "kafkapython": sorted(FEW), "java": ALL}
GROUPS = {client: ["classic", *(["consumer"] if client in ("librdkafka", "java") else [])] for client in CLIENTS}
OK = {"librdkafka": "NO_ERROR", "aio": "ok", "kafkapython": "ok", "java": "ok"}
REFUSED = {
    "librdkafka": "TOPIC_AUTHORIZATION_FAILED",
    "aio": "TopicAuthorizationFailedError",
    "kafkapython": "TopicAuthorizationFailedError",
    "java": "TopicAuthorizationException",
}
"""What each client says of a refused topic."""
LEAST = 8 << 20
"""Bytes by which a worker may grow while 20 MB pass."""
each_client = pytest.mark.parametrize("client", CLIENTS)


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with common.net() as made:
        for client in CLIENTS:
            common.prepare(made.broker, client)
        common.let_share(made.broker)
        yield made


@pytest.fixture(scope="module")
def strict(kafka_acls: Broker) -> Broker:
    """A broker that refuses to alice what the policy refuses."""
    for resource in (TOPIC, GROUP, TRANSACTIONAL_ID):
        kafka_acls.allow("alice", resource)
        kafka_acls.refuse("alice", resource, "secret-")
    kafka_acls.refuse("alice", TOPIC, "read-", WRITE)
    kafka_acls.refuse("alice", TOPIC, "write-", READ)
    return kafka_acls


@each_client
def test_every_kind_of_producer_and_group(net: Net, client: str) -> None:
    found = net.run(client, "kinds")
    assert found == {"sent": dict.fromkeys(KINDS[client], OK[client]), **dict.fromkeys(GROUPS[client], KINDS[client])}


@each_client
def test_transactions(net: Net, client: str) -> None:
    assert net.run(client, "transactions") == {"out": ["one", "two"], "committed": 1}


@each_client
def test_refusals_are_those_of_a_broker_with_acls(net: Net, strict: Broker, client: str) -> None:
    found = net.run(client, "refused")
    assert found["produce"] == found["produce to what may be read"] == REFUSED[client]
    assert found["produce on"] == OK[client]
    common.prepare(strict, client)
    argv = common.argv(strict, client, "refused", user="alice")
    assert found == json.loads(netns.run(argv, timeout=150).stdout.splitlines()[-1])


@each_client
def test_of_two_topics_in_a_request_one_is_refused(net: Net, client: str) -> None:
    found = net.run(client, "mixed")
    topics = f"open-{client}-mixed", f"read-{client}"
    assert found["produce"] == dict(zip(topics, (OK[client], REFUSED[client]), strict=True))
    assert found["consume"] == sorted(["mixed", REFUSED[client]])


@each_client
def test_administration(net: Net, client: str) -> None:
    found = net.run(client, "admin")
    listed = found.pop("list")
    assert {one for one in listed if client in one} == {
        one.format(client) for one in common.TOPICS if not one.startswith("secret")
    }
    assert not [one for one in listed if one.startswith("secret")]
    words = told_by_administrators(client)
    made = {f"open-{client}-made": words[0], f"secret-{client}-made": words[1]}
    assert found.pop("create") == found.pop("delete") == made
    if client == "kafkapython":
        words = OK[client], "nothing"
    for what in found.values():
        assert what == {f"open-{client}": words[0], f"secret-{client}": words[1]}


def told_by_administrators(client: str) -> tuple[Any, Any]:
    """What they say of what is allowed and of what is refused."""
    return (0, 29) if client == "aio" else (OK[client], REFUSED[client])


@each_client
def test_a_batch_of_20_mb_and_the_memory_that_it_takes(net: Net, client: str) -> None:
    grown = [growth(pid) for pid in net.node.worker_pids()]
    assert net.run(client, "large") == [OK[client], True]
    assert all(bytes_of() <= LEAST for bytes_of in grown), [bytes_of() for bytes_of in grown]


def test_share_groups(net: Net) -> None:
    assert net.run("java", "share") == {"open-": "shared", "secret-": REFUSED["java"]}
