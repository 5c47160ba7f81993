"""The supervisor without a kernel and without workers: in which order both are told, and what a refusal leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from l7proxy import supervisor
from l7proxy.config import Endpoint, NodeConfig, load_config
from l7proxy.snapshot import Snapshot
from l7proxy.supervisor import Node
from sockmap.datapath import DatapathError, Event, IpEntry, PolicyRow

DENYING = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: deny}
spec:
  endpointSelector: {matchLabels: {app: api}}
  egress:
  - toEntities: [world]
    toPorts: [{ports: [{port: "53", protocol: UDP}]}]
  egressDeny:
  - toEntities: [world]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
"""
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: NAME}
spec:
  endpointSelector: {matchLabels: {app: api}}
  egress:
  - toCIDR: [PREFIX]
"""
NODE = "policies: [policies/]\nendpoints: [{name: api, labels: {app: api}, interface: veth, addresses: [10.0.0.1]}]\n"


class Kernel:
    """Stands for a Datapath: refuses as often as it is told to, and keeps what it took and what was asked of it."""

    flows_fd = listeners_fd = -1

    def __init__(self, *_: Any) -> None:
        self.refusals = 0
        self.generation = 0
        self.identities: set[int] = set()
        self.attached: list[str] = []
        self.switched: Callable[[], None] = lambda: None

    def stage_policy(self, rows: list[PolicyRow], entries: dict[Any, IpEntry], *, generation: int) -> None:
        if self.refusals:
            self.refusals -= 1
            raise DatapathError("the map is full")
        self.staged = generation, {entry.identity for entry in entries.values()}

    def switch_policy(self) -> None:
        self.switched()
        self.generation, self.identities = self.staged

    def attach_endpoint(self, interface: str, *_: Any) -> None:
        self.attached.append(interface)

    def counters(self) -> dict[str, int]:
        return {}


class Pool:
    """Stands for the workers: keeps what they were told."""

    restarts = 0
    compiled = False

    def __init__(self, *_: Any, **__: Any) -> None:
        self.told: list[Snapshot] = []

    async def update(self, snapshot: Snapshot) -> None:
        self.told.append(snapshot)

    def ready(self) -> bool:
        return True

    def pids(self) -> dict[int, int]:
        return {}


class Rig:
    """A supervisor whose generation 1 is in force, between its stand-ins; time is what the test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.now = folder, 1000.0
        monkeypatch.setattr(supervisor, "Datapath", Kernel)
        monkeypatch.setattr(supervisor, "WorkerPool", Pool)
        monkeypatch.setattr(supervisor, "host_addresses", lambda: {"192.0.2.1"})
        monkeypatch.setattr(supervisor, "monotonic", lambda: self.now)
        (folder / "policies").mkdir()
        (folder / "node.yaml").write_text(NODE)
        self.write("first", "10.1.0.0/16")
        config: NodeConfig = load_config(folder / "node.yaml")
        self.node = Node(config)
        self.kernel: Any = self.node.datapath
        self.pool: Any = self.node.pool

    def write(self, name: str, prefix: str) -> None:
        text = POLICY.replace("NAME", name).replace("PREFIX", prefix)
        (self.folder / "policies/policy.yaml").write_text(text)

    async def start(self) -> None:
        for endpoint in self.node.config.endpoints:
            self.node._register(endpoint)
        self.node.table.set_host_addresses({"192.0.2.1"})
        assert await self.node.reload()

    def names(self) -> list[str]:
        return [entry["name"] for entry in self.node.policies_json()["policies"]]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig(tmp_path, monkeypatch)
    asyncio.run(rig.start())
    return rig


def test_a_generation_shows_once_the_kernel_has_it(rig: Rig) -> None:
    seen: list[tuple[int, int]] = []
    rig.kernel.switched = lambda: seen.append((rig.pool.told[-1].generation, rig.node.status()["generation"]))
    before = rig.node.status()["generation"]
    assert asyncio.run(rig.node.reload())
    assert seen == [(before + 1, before)], "the workers have the new one, and the kernel is about to"
    assert rig.node.status()["generation"] == rig.kernel.generation == before + 1


def test_what_the_kernel_refuses_is_tried_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = rig.kernel.generation
    rig.kernel.refusals = 2
    rig.write("second", "10.2.0.0/16")
    assert not asyncio.run(rig.node.reload())
    status = rig.node.status()
    assert status["generation"] == rig.kernel.generation == before
    assert status["last_error"] == f"the kernel refuses generation {before + 1}, {before} stays: the map is full"
    assert rig.names() == ["default/first"]
    assert rig.pool.told[-1].generation == before, "the workers keep to what the kernel has"
    for seconds, refused in ((0.5, 1), (0.6, 0), (1.5, 0)):
        rig.now += seconds
        asyncio.run(rig.node._look())
        assert (rig.kernel.refusals, rig.kernel.generation) == (refused, before)
    rig.now += 0.6
    asyncio.run(rig.node._look())
    status = rig.node.status()
    assert (status["generation"], status["last_error"]) == (before + 1, "")
    assert rig.names() == ["default/second"]
    assert rig.pool.told[-1].generation == rig.kernel.generation == before + 1
    assert rig.kernel.identities <= set(rig.pool.told[-1].identities), "the workers know whom the kernel names"
    assert f"generation {before + 1}: in force after all" in caplog.text


def test_the_pauses_are_bounded_and_start_anew(rig: Rig) -> None:
    rig.kernel.refusals = 9
    asyncio.run(rig.node.reload())
    pauses, last = [], rig.now
    for _ in range(300):
        left = rig.kernel.refusals
        rig.now += 1
        asyncio.run(rig.node._look())
        if rig.kernel.refusals < left:
            pauses.append(int(rig.now - last))
            last = rig.now
    assert rig.kernel.refusals == 0
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert rig.node.status()["last_error"] == ""
    rig.kernel.refusals = 1
    asyncio.run(rig.node.reload())
    rig.now += 1
    asyncio.run(rig.node._look())
    assert rig.kernel.refusals == 0 and rig.node.status()["last_error"] == ""


def test_an_endpoint_without_rows_in_the_kernel_is_not_attached(rig: Rig) -> None:
    new = Endpoint("new", {"app": "api"}, interface="veth-new", addresses=(ip_address("10.0.0.2"),))
    rig.kernel.refusals = 1
    with pytest.raises(ValueError, match=r"endpoint new cannot be attached: the kernel refuses .*map is full"):
        asyncio.run(rig.node.add_endpoint(new))
    assert rig.kernel.attached == []
    assert [entry["name"] for entry in rig.node.endpoints()] == ["api"]
    assert "new" not in rig.pool.told[-1].endpoints.values()
    assert rig.node.status()["last_error"] == ""
    asyncio.run(rig.node.add_endpoint(new))
    assert rig.kernel.attached == ["veth-new"]


def test_a_bad_file_is_told_until_it_is_mended_whatever_the_kernel_does(rig: Rig) -> None:
    rig.kernel.refusals = 1
    asyncio.run(rig.node.reload())
    (rig.folder / "policies/policy.yaml").write_text("kind: Nothing\n")
    asyncio.run(rig.node._look())
    assert len(rig.node.last_error.splitlines()) > 1
    rig.now += 1
    asyncio.run(rig.node._look())
    assert "policy.yaml" in rig.node.last_error
    assert "refuses" not in rig.node.last_error


def packet(rig: Rig, **changes: Any) -> Event:
    """A SYN of the endpoint's to port 80 outside, refused."""
    own = rig.node.table.workloads["api"]
    ends: dict[str, Any] = {
        "src_identity": own.identity.number,
        "dst_identity": 2,
        "endpoint_id": own.id,
        "direction": 1,
    }
    whole: dict[str, Any] = {
        "reason": "Policy denied",
        "kind": "drop",
        "src": "10.0.0.1",
        "dst": "192.0.2.9",
        "proto": 6,
        "sport": 999,
    }
    whole |= {"dport": 80, "ifindex": 1, "icmp_type": 0, "icmp_code": 0, "length": 60, "tcp_flags": 2, "time_ns": 0}
    return Event(**(whole | ends | changes))


def test_the_rule_behind_a_drop(rig: Rig) -> None:
    (rig.folder / "policies/policy.yaml").write_text(DENYING)
    assert asyncio.run(rig.node.reload())

    def rule(**changes: Any) -> str:
        found = rig.node._rule_of(packet(rig, **changes))
        return found.policy if found else ""

    own = packet(rig).src_identity
    assert rule() == "default/deny"
    assert rule(reason="Policy denied (changed)") == "default/deny"
    answer = {"src_identity": 2, "dst_identity": own, "sport": 80, "dport": 999, "reply": True}
    assert rule(**answer, reason="Policy denied (changed)") == "default/deny"
    assert rule(dport=81) == "", "no rule: what none allows"
    assert rule(proto=17, dport=53) == "", "a rule that allows has dropped nothing"
    assert rule(reason="Invalid source ip") == rule(reason="Proxy unavailable") == ""
