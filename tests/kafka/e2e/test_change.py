"""What becomes of running clients when the policy changes and when workers die, and what is recorded of all."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kafka.e2e import common
from tests.kafka.e2e.common import Net
from tests.kafka.e2e.watcher import REFUSING, Watcher
from tests.kafka.wire import Closed

pytestmark = pytest.mark.privileged
CLIENTS = ("librdkafka", "aio", "kafkapython", "java")
NEW = ("librdkafka", "java")
"""Those that know the new protocol of groups."""
WATCHERS = [*((one, "watch", one) for one in CLIENTS), *((one, "watch_new", f"{one}-new") for one in NEW)]
"""Clients that go on reading: client, scenario, name."""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with common.net(workers=2) as made:
        for client in CLIENTS:
            common.prepare(made.broker, client)
        made.broker.create(*(f"open-{client}-new-watch" for client in NEW))
        yield made


@contextmanager
def watching(net: Net) -> Iterator[dict[str, Watcher]]:
    """All clients at once, each of which has read something."""
    with common.all_of(net.running(*one) for one in WATCHERS) as processes:
        watchers = {name: Watcher(net, name, one) for (_, _, name), one in zip(WATCHERS, processes, strict=True)}
        for client, watcher in watchers.items():
            watcher.put(f"{client} begins")
        for client, watcher in watchers.items():
            watcher.hears(f"{client} begins")
        yield watchers


def test_consumers_recover_from_a_refusal_and_from_dead_workers(net: Net) -> None:
    with watching(net) as watchers:
        net.rules(REFUSING)
        for watcher in watchers.values():
            watcher.put("while it is refused")  # which fetches wait for that were sent before
        for watcher in watchers.values():
            watcher.is_refused()
            watcher.put("while it is still refused")
        for watcher in watchers.values():
            watcher.is_refused()
            assert not {"while it is refused", "while it is still refused"} & set(watcher.said())
        net.rules()
        for watcher in watchers.values():
            watcher.hears("while it is refused")
            watcher.hears("while it is still refused")
            watcher.put("allowed again")
            watcher.hears("allowed again")
        for pid in net.node.worker_pids():
            os.kill(pid, signal.SIGKILL)
        for watcher in watchers.values():
            watcher.put("after the worker's death")
            watcher.hears("after the worker's death")
    assert net.node.status()["worker_restarts"] == 2


def test_in_audit_mode_all_is_served_and_what_would_be_refused_recorded(net: Net) -> None:
    net.rules(mode="audit")
    try:
        found = net.run("java", "refused", "java")
        assert found["produce"] == found["produce to what may be read"] == found["produce on"] == "ok"
        assert found["consume classic"] == found["group consumer"] == ["x"]
        wanted = {"api": "Produce", "verdict": "AUDIT", "topics": {"secret-java": "AUDIT"}, "code": 0}
        net.lab.wait(lambda: [one for one in net.records() if wanted.items() <= one.items()], what=str(wanted))
        listed = [one for one in net.run("java", "admin", "java")["list"] if one.startswith("secret")]
        assert listed == [f"secret-{client}" for client in sorted(CLIENTS)]
    finally:
        net.rules()


def test_one_record_for_each_request(net: Net) -> None:
    requests: list[tuple[str, int, dict[str, Any]]] = [
        ("Metadata", 12, {"topics": [{"name": f"{kind}-aio"} for kind in ("open", "secret")]}),
        ("OffsetFetch", 7, {"group_id": "secret-group", "topics": None}),
        ("CreateTopics", 5, {"topics": [{"name": "secret-new", "num_partitions": 1, "replication_factor": 1}]}),
        ("DescribeAcls", 3, {"resource_type_filter": 1, "operation": 1, "permission_type": 1}),
        ("ListGroups", 4, {}),
    ]
    with net.wire() as wire:
        for request in requests:
            wire.ask(*request)
    topics = {"open-aio": "FORWARDED", "secret-aio": "DROPPED"}
    due = [
        told("Metadata", 12, 29, "DROPPED", 1, topics),
        told("OffsetFetch", 7, 30, "DROPPED", 2, {}),
        told("CreateTopics", 5, 29, "DROPPED", 3, {"secret-new": "DROPPED"}),
        told("DescribeAcls", 3, 31, "DROPPED", 4, {}),
        told("ListGroups", 4, 31, "DROPPED", 5, {}),
    ]

    def found() -> list[dict[str, Any]]:
        return [shown(one) for one in net.records() if one["client"] == "wire"]

    net.lab.wait(lambda: len(found()) >= len(due))
    assert found() == due
    reasons = [one["reason"] for one in net.records() if one["client"] == "wire"]
    assert "allows CreateTopics 5, topic 'secret-new', client 'wire'" in reasons[2]


def told(api: str, version: int, code: int, verdict: str, number: int, topics: dict[str, str]) -> dict[str, Any]:
    """What a record says."""
    return {"api": api, "version": version, "code": code, "verdict": verdict, "number": number, "topics": topics}


def shown(record: dict[str, Any]) -> dict[str, Any]:
    """Of a record, what `told` has."""
    return {key: value for key, value in record.items() if key not in ("reason", "client")}


def test_what_a_broker_closes_on_is_closed_and_recorded(net: Net) -> None:
    with net.wire() as wire:
        data = [{"name": "secret-aio", "partition_data": [{"index": 0, "records": common.batch("x")}]}]
        wire.put(common.request("Produce", 9, {"acks": 0, "topic_data": data}, client="no acks"))
        with pytest.raises(Closed):
            wire.receive()
    with net.wire() as wire:
        wire.put(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(Closed):
            wire.receive()
    net.node.wait_flows(lambda record: "no acks" in str(record))
    net.node.wait_flows(lambda record: "a request of 1195725856 bytes" in str(record))
