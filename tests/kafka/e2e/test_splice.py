"""With the proxy's own connections spliced, clients of Kafka get the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.everywhere import everywhere
from tests.kafka.e2e import common
from tests.kafka.e2e.common import RULES, Net
from tests.kafka.e2e.watcher import REFUSING, Watcher

pytestmark = pytest.mark.privileged
CLIENT = "librdkafka"


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with everywhere(), common.net(splice=True) as made:
        common.prepare(made.broker, CLIENT)
        yield made


def spliced(net: Net) -> int:
    """Bytes that took the short way so far."""
    found = net.node.status()["splice"]
    assert found["on"], found["detail"]
    return int(found["spliced_bytes"])


def test_clients_and_verdicts_are_the_same(net: Net) -> None:
    before = spliced(net)
    found = net.run(CLIENT, "kinds")
    assert set(found["sent"].values()) == {"NO_ERROR"} and found["classic"] == found["consumer"] == sorted(
        found["sent"]
    )
    assert net.run(CLIENT, "transactions") == {"out": ["one", "two"], "committed": 1}
    found = net.run(CLIENT, "refused")
    assert found["produce"] == "TOPIC_AUTHORIZATION_FAILED" and found["produce on"] == "NO_ERROR"
    assert found["consume"] == ["TOPIC_AUTHORIZATION_FAILED"] and found["group"] == ["GROUP_AUTHORIZATION_FAILED"]
    found = net.run(CLIENT, "mixed")
    assert found["consume"] == ["TOPIC_AUTHORIZATION_FAILED", "mixed"]
    assert set(found["produce"].values()) == {"NO_ERROR", "TOPIC_AUTHORIZATION_FAILED"}
    assert spliced(net) > before


def test_20_mb_are_whole(net: Net) -> None:
    for _ in range(3):
        before = spliced(net)
        assert net.run(CLIENT, "large") == ["NO_ERROR", True]
    assert spliced(net) > before + (1 << 20)


def test_a_consumer_recovers_from_a_refusal(net: Net) -> None:
    with net.running(CLIENT, "watch") as process:
        watcher = Watcher(net, CLIENT, process)
        for number in range(100):  # until it is known how it reads, nothing is spliced
            watcher.put(f"{number}")
            watcher.hears(f"{number}")
        net.rules(REFUSING)
        watcher.is_refused()
        net.rules()
        before = spliced(net)
        watcher.put("allowed again")
        watcher.hears("allowed again")
        assert spliced(net) > before


def straight(net: Net) -> int:
    """Bytes that have passed the proxy by."""
    return int(net.node.status()["splice"]["straight_bytes"])


def until(process: subprocess.Popen[str], wanted: str, count: int = 0) -> int:
    """Wait until the client says this, and that it has sent so many; how many it has."""
    assert process.stdout is not None
    for line in process.stdout:
        sent, found = json.loads(line)
        if found == wanted and sent >= count:
            return int(sent)
    raise AssertionError(f"it ends before it says {wanted}")


def stored(net: Net) -> int:
    """Messages of its topic."""
    row = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": -1}
    asks = {"replica_id": -1, "topics": [{"name": f"open-{CLIENT}-in", "partitions": [row]}]}
    with net.broker.wire() as wire:
        return int(wire.ask("ListOffsets", 5, asks)["topics"][0]["partitions"][0]["offset"])


def told(net: Net) -> list[dict[str, Any]]:
    """Of what that client has sent to its topic."""
    return [one for one in net.records() if one["api"] == "Produce" and one["client"] == f"{CLIENT}-steady"]


def test_known_requests_pass_the_proxy_by_and_are_recorded_all_the_same(net: Net) -> None:
    first = stored(net) - len(told(net))
    with net.running(CLIENT, "steady") as process:
        until(process, "NO_ERROR", 200)  # now it is known how it reads
    before = straight(net)
    with net.running(CLIENT, "steady") as process:
        until(process, "NO_ERROR", 2000)
        process.send_signal(signal.SIGSTOP)
        net.lab.wait(lambda: first + len(told(net)) == stored(net), what="a record of each message")
        assert straight(net) > before + 2000 * 200
        found = told(net)[-2000:]
        assert {one["verdict"] for one in found} == {"FORWARDED"}
        assert {json.dumps(one["topics"]) for one in found} == {json.dumps({f"open-{CLIENT}-in": "FORWARDED"})}
        numbers = [one["number"] for one in found]
        assert numbers == sorted(set(numbers))
        process.send_signal(signal.SIGCONT)
        # A policy that refuses it holds for what was known, at once.
        net.rules(*({**RULES[0], "topics": ["write-*"]}, *RULES[1:]))
        until(process, "TOPIC_AUTHORIZATION_FAILED")
        before = stored(net)
        until(process, "TOPIC_AUTHORIZATION_FAILED")
        assert stored(net) == before
        net.rules()
        again = straight(net)
        until(process, "NO_ERROR", until(process, "NO_ERROR") + 500)
        assert straight(net) > again + 500 * 200


def test_a_worker_that_is_killed_takes_nothing_along_but_its_connections(net: Net) -> None:
    with net.running(CLIENT, "steady") as process:
        until(process, "NO_ERROR", 300)
        for pid in net.node.worker_pids():
            os.kill(pid, signal.SIGKILL)
        before = straight(net)
        until(process, "NO_ERROR", until(process, "NO_ERROR") + 500)
        assert straight(net) > before
