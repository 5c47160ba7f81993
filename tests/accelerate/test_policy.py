"""Pods of a node with `accelerate`, and a policy that changes: what is spliced obeys it as what is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.accelerate.rig import Agent, Rig, accepted, exchange, wait
from tests.e2e.common import from_app, http, l4, policy
from tests.lab import Lab, Pod
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged
KEPT, CUT = 7000, 7001
REASON = "the policy has changed, and the stack is judged first"


def allow(*ports: dict[str, Any]) -> str:
    """Of the pod api, to the pod front."""
    return policy("api", "api", ingress=[{**from_app("front"), "toPorts": list(ports)}])


@dataclass
class Net:
    lab: Lab
    rig: Rig
    cgroup: Path
    node: NodeHandle
    front: Pod
    api: Pod
    client: Agent
    listeners: dict[tuple[str, int], socket.socket]

    def connect(self, port: int, host: str) -> tuple[socket.socket, socket.socket]:
        """A connection that is spliced."""
        listener = self.listeners[host, port]
        near, far = self.client.connect(listener), accepted(listener)
        exchange(near, far)
        assert self.pair(near)["client"]["sent"]["spliced"] == 4000
        return near, far

    def pair(self, near: socket.socket) -> dict[str, Any]:
        """As `status --connections` shows it."""
        port = near.getsockname()[1]
        return next(one for one in self.rig.connections() if one["client"]["port"] == port)

    def drops(self) -> int:
        """Packets that TC has dropped."""
        counters: dict[str, int] = self.node.status()["datapath"]
        return sum(count for name, count in counters.items() if name.startswith("Policy"))


@pytest.fixture(scope="module", params=["in run", "beside run"])
def net(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Net]:
    with closing(Rig(tmp_path_factory.mktemp("rig"))) as rig, Lab() as lab:
        cgroup, front, api = rig.cgroup(), lab.pod("front"), lab.pod("api")
        accelerate = {"cgroup": str(cgroup), "anywhere": True, "learn": False}
        inside = {"accelerate": accelerate} if request.param == "in run" else {}
        node = lab.start_l7proxy(allow(l4(KEPT), l4(CUT)), **inside)
        rig.state_dir = lab.folder / "state"
        if inside:
            wait(lambda: "accelerate: ready" in node.output.read_text())
        else:
            rig.start("--cgroup", str(cgroup), "--anywhere", "--no-learn")
        client, server = rig.agent(cgroup, "client", front.ns), rig.agent(cgroup, "server", api.ns)
        ports = [(host, port) for host in (api.v4, api.v6) for port in (KEPT, CUT)]
        yield Net(lab, rig, cgroup, node, front, api, client, {at: server.listen(*at) for at in ports})


def nothing(sock: socket.socket) -> bool:
    """No byte has come; a reset may have."""
    try:
        sock.setblocking(False)
        return not sock.recv(100, socket.MSG_PEEK)
    except (BlockingIOError, ConnectionResetError):
        return True
    finally:
        sock.settimeout(10)


@pytest.mark.parametrize("other", [(), (http(port=CUT),)], ids=["denied", "for the proxy now"])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_new_policy_cuts_what_is_spliced_and_leaves_the_rest(
    net: Net, other: tuple[dict[str, Any], ...], family: str
) -> None:
    net.node.write_policy(allow(l4(KEPT), l4(CUT)))
    host = getattr(net.api, family)
    near, far = net.connect(KEPT, host)
    near2, far2 = net.connect(CUT, host)
    with near, far, near2, far2:
        net.node.write_policy(allow(l4(KEPT), *other))
        before = net.drops()
        near2.sendall(b"denied")
        wait(lambda: net.drops() > before)
        assert nothing(far2)
        exchange(near, far, times=4)
        sent = [net.pair(near)[end]["sent"] for end in ("client", "server")]
        assert [(way["spliced"], way["stack"], way["reason"]) for way in sent] == [(4300, 100, REASON)] * 2
        with suppress(ConnectionError):  # where the proxy is to have it, its stack knows nothing of it
            far2.sendall(b"denied")
            near2.sendall(b"denied")
        assert nothing(far2) and nothing(near2)
    assert net.rig.counts()["policy"] >= 4


def test_an_endpoint_that_is_added_is_judged_from_then_on(net: Net) -> None:
    """Two pods that nobody managed, whose connections were their own affair."""
    pods = net.lab.pod("one"), net.lab.pod("two")
    client, server = (net.rig.agent(net.cgroup, pod.name, pod.ns) for pod in pods)
    listener = server.listen(pods[1].v4, CUT)
    with listener, client.connect(listener) as near, accepted(listener) as far:
        exchange(near, far)
        net.node.write_policy(policy("two", "two", ingress=[from_app("front")]), "two.yaml")
        exchange(near, far)
        assert net.node.admin("/endpoints", method="POST", body=pods[1].endpoint())[0] < 300
        before = net.drops()
        near.sendall(b"denied")
        wait(lambda: net.drops() > before)
        assert nothing(far)


def test_what_is_busy_past_the_stack_stays_known_to_it(rig: Rig) -> None:
    """Its track would end without a packet, and whoever sends the next would be judged as who opened the connection."""
    with Lab() as lab:
        cgroup, pods = rig.cgroup("busy"), (lab.pod("front"), lab.pod("api"))
        accelerate = {"cgroup": str(cgroup), "anywhere": True, "learn": False}
        node = lab.start_l7proxy(allow(l4(KEPT)), accelerate=accelerate, datapath={"lifetimes": {"established": 4}})
        rig.state_dir = lab.folder / "state"
        wait(lambda: "accelerate: ready" in node.output.read_text())
        client, server = (rig.agent(cgroup, pod.name, pod.ns) for pod in pods)
        listener = server.listen(pods[1].v4, KEPT)
        with listener, client.connect(listener) as near, accepted(listener) as far:
            exchange(near, far)

            def asked() -> bool:
                exchange(near, far)
                (pair,) = rig.connections()
                return all(pair[end]["sent"]["stack"] for end in ("client", "server"))

            wait(asked)
