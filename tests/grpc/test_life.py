"""What happens to running calls when policies, servers and the proxy itself change."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.grpc import common
from tests.grpc.common import AIO, REFUSED, assert_called, grpc_policy, orders
from tests.lab import Lab, Pod, Server
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged
AUDITED, LEAVING = 9054, 9061


@dataclass
class Net:
    lab: Lab
    node: NodeHandle
    front: Pod
    api: Pod

    @contextmanager
    def client(self, port: int, scenario: str) -> Iterator[subprocess.Popen[str]]:
        """A grpc.aio client whose stream is open."""
        argv = [sys.executable, str(common.CLIENTS / "aio_client.py"), f"{self.api.v4}:{port}", scenario]
        with self.lab.popen(self.front.ns, argv, stdout=subprocess.PIPE) as process:
            assert said(process) == "open"
            yield process


def said(process: subprocess.Popen[str]) -> Any:
    """The next line that a client prints."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def started(lab: Lab, **config: Any) -> tuple[Net, dict[int, Server]]:
    front, api = lab.pod("front"), lab.pod("api")
    old = lab.pod("old")
    servers = {AIO: common.python_server(lab, api, "aio", AIO), AUDITED: common.python_server(lab, old, "aio", AUDITED)}
    policies = {"policy.yaml": grpc_policy("api", AIO, LEAVING), "old.yaml": grpc_policy("old", AUDITED, mode="audit")}
    return Net(lab, lab.start_l7proxy(policies, **config), front, api), servers


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Net, dict[int, Server]]]:
    with Lab() as lab:
        yield started(lab)


@pytest.fixture
def net(both: tuple[Net, dict[int, Server]]) -> Net:
    return both[0]


def under_a_new_policy(net: Net, *methods: str) -> Any:
    """What becomes of calls, and of streams that run, when these methods alone are left."""
    try:
        with net.client(AIO, "changed") as client:
            rules = [{"service": "orders.v1.Orders", "method": method} for method in methods]
            net.node.write_policy(grpc_policy("api", AIO, LEAVING, rules=rules))
            return said(client)
    finally:
        net.node.write_policy(grpc_policy("api", AIO, LEAVING))


def test_a_stricter_policy_refuses_the_next_call_of_a_connection(net: Net) -> None:
    assert under_a_new_policy(net, "Chat", "Sum") == {"calls": REFUSED, "chat": "alive", "sum": "alive"}


def test_a_stricter_policy_cuts_running_streams_at_their_next_message(both: tuple[Net, dict[int, Server]]) -> None:
    """Before the response has begun, and within it; the server hears of no message that is refused."""
    net, servers = both
    before = len(all_ended(net.lab, servers[AIO]))
    assert under_a_new_policy(net, "Other") == {"calls": REFUSED, "chat": REFUSED, "sum": REFUSED}
    records = net.node.wait_flows(lambda r: "policy changed" in str(r), 2)
    assert {record["flow"]["verdict"] for record in records} == {"DROPPED"}
    parts = [record["flow"]["extensions"]["value"]["l7proxy"]["grpc"] for record in records]
    found = sorted((part["method"], part["status"], part["request_messages"]) for part in parts)
    assert found == [("Chat", 7, 1), ("Sum", 7, 1)]
    assert {(end["requests"], end["bytes"]) for end in all_ended(net.lab, servers[AIO])[before:]} == {(1, 1)}


def all_ended(lab: Lab, server: Server) -> list[dict[str, Any]]:
    """How the calls ended that a server ever had, none of which runs any more."""
    lab.wait(lambda: len(common.ends(server)) == common.calls(server).total(), what="the end of all calls")
    return common.ends(server)


def test_running_streams_may_be_kept() -> None:
    with Lab() as lab:
        net, _ = started(lab, on_policy_change={"streams": "keep"})
        assert under_a_new_policy(net, "Other") == {"calls": REFUSED, "chat": "alive", "sum": "alive"}


def test_an_endpoint_in_audit_mode_serves_every_call(both: tuple[Net, dict[int, Server]]) -> None:
    net, servers = both
    old = net.lab.pods["old"]
    seen = common.python_client(net.lab, net.front.ns, "aio", old.v4, AUDITED, "kinds")
    assert seen["allowed"] == seen["refused"] == seen["again"] == common.ANSWERED
    refused = {f"/orders.v1.Admin/{name}": 1 for name in ("Delete", "Purge", "Dump", "Shell")}
    assert_called(net.lab, servers[AUDITED], orders(Get=2, Sum=2, List=2, Chat=2) + Counter(refused))
    flows = [r["flow"] for r in net.node.wait_flows(lambda r: "orders.v1.Admin" in str(r) and "old" in str(r), 4)]
    assert {flow["verdict"] for flow in flows} == {"AUDIT"}


def test_a_server_that_stops_is_left_in_peace(net: Net) -> None:
    """Its GOAWAY reaches the client, and the stream that runs goes on to its end."""
    server = common.python_server(net.lab, net.api, "aio", LEAVING)
    with net.client(LEAVING, "leaving") as client:
        server.process.terminate()
        assert said(client) == [True, "OK"]
    assert server.process.wait(15) == 0


def test_the_proxy_says_that_it_stops_and_lets_streams_end() -> None:
    with Lab() as lab:
        net, servers = started(lab)
        with net.client(AIO, "leaving") as client:
            net.node.running.terminate()
            assert said(client) == [True, "OK"]
        assert net.node.running.wait(10) == 0
        assert_called(lab, servers[AIO], orders(Chat=1))


def test_no_call_is_lost_or_made_twice_when_the_proxy_stops() -> None:
    """To the proxy the connection is idle: the next call is always on its way. The client tries again by itself what a
    GOAWAY did not take; with no GOAWAY before FIN it may not."""
    with Lab() as lab:
        net, servers = started(lab)
        with net.client(AIO, "steady") as client:
            net.node.running.terminate()
            assert net.node.running.wait(15) == 0
            before = sum(common.calls(servers[AIO]).values())
            lab.wait(lambda: sum(common.calls(servers[AIO]).values()) > before, 30, "calls past the proxy")
            client.terminate()
            answers = said(client)
        assert list(answers) == ["x"]
        assert_called(lab, servers[AIO], orders(Get=answers["x"]))


def test_no_call_is_lost_when_an_idle_connection_is_ended() -> None:
    with Lab() as lab:
        net, servers = started(lab, limits={"idle_timeout": 0.5})
        with net.client(AIO, "resting") as client:
            assert said(client) == ["first", "second"]
        assert_called(lab, servers[AIO], orders(Get=2))
