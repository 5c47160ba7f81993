"""Other implementations, grpc-java over Netty and grpc-go, with grpcio's servers and clients and with each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.grpc import common
from tests.grpc.common import AIO, ANSWERED, JAVA, REFUSED, SYNC, assert_called, ends, orders
from tests.lab import Lab, Pod, Server
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged
PORTS = {"sync": SYNC, "aio": AIO, "java": JAVA}


@dataclass
class Net:
    lab: Lab
    node: NodeHandle
    front: Pod
    api: Pod
    servers: dict[str, Server]
    clients: dict[str, list[str]]


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Lab() as lab:
        front, api = lab.pod("front"), lab.pod("api")
        java = common.java()
        clients = {"java": [*java, "Client"], "go": common.go()}
        servers = {kind: common.python_server(lab, api, kind, PORTS[kind]) for kind in ("sync", "aio")}
        servers["java"] = common.started(lab, api, [*java, "Server"], JAVA)
        node = lab.start_l7proxy(common.grpc_policy("api", *PORTS.values()))
        yield Net(lab, node, front, api, servers, clients)


@pytest.fixture(autouse=True)
def _forget(net: Net) -> None:
    for server in net.servers.values():
        server.forget()


def ask(net: Net, client: str, kind: str, *scenario: str, v6: bool = False) -> Any:
    """What a client does on one channel to a kind of server: all that it can, if no scenario is named."""
    argv = [*net.clients[client], net.api.v6 if v6 else net.api.v4, str(PORTS[kind]), *scenario]
    return json.loads(net.lab.run(net.front.ns, argv, timeout=90).stdout)


@pytest.mark.parametrize("client", ["java", "go"])
@pytest.mark.parametrize("kind", PORTS)
def test_a_client_in_another_language(net: Net, client: str, kind: str) -> None:
    seen = ask(net, client, kind)
    assert seen["allowed"] == seen["again"] == ANSWERED
    assert seen["refused"] == dict.fromkeys(ANSWERED, REFUSED)
    assert seen["thousand"] == {'false "OK"': 666, f'true ["{REFUSED[0]}", "{REFUSED[1]}"]': 334}
    assert seen["deadline"] == ["DEADLINE_EXCEEDED"] and seen["cancel"] == [["CANCELLED"], "after"]
    assert seen["big"] == [True, True]
    expected = orders(Get=2 + 666 + 2, Sum=2, List=2, Chat=4, Wait=1)
    assert_called(net.lab, net.servers[kind], expected)
    net.lab.wait(lambda: len(ends(net.servers[kind])) == expected.total())
    assert len(common.connections(net.servers[kind])) == 1, ends(net.servers[kind])


@pytest.mark.parametrize("kind", PORTS)
def test_a_stream_goes_on_while_calls_beside_it_are_refused(net: Net, kind: str) -> None:
    code, reason = REFUSED
    assert ask(net, "go", kind, "beside", v6=True) == [True, {f'["{code}", "{reason}"]': 40}]
    assert_called(net.lab, net.servers[kind], orders(Chat=1))


@pytest.mark.parametrize("client", ["sync", "aio"])
def test_the_java_server(net: Net, client: str) -> None:
    def call(scenario: str) -> Any:
        return common.python_client(net.lab, net.front.ns, client, net.api.v4, JAVA, scenario)

    seen = call("kinds")
    assert seen["allowed"] == seen["again"] == ANSWERED
    assert seen["refused"] == dict.fromkeys(ANSWERED, REFUSED)
    assert call("thousand") == {"wrong": [], "counts": {"OK": 666, " ".join(REFUSED): 334}}
    assert call("deadline") == ["DEADLINE_EXCEEDED", "after"]
    assert call("big") == [True, True]
    expected = orders(Get=2 + 666 + 1 + 1, Sum=2, List=2, Chat=3, Wait=1)
    assert_called(net.lab, net.servers["java"], expected)
    assert {end["how"] for end in ends(net.servers["java"])} == {"ok", "cancelled"}
