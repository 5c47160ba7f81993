"""grpcio's clients and servers, both APIs of each, through the proxy."""

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
from tests.grpc.common import AIO, ANSWERED, REFUSED, SYNC, assert_called, ends, orders
from tests.lab import Lab, Pod, Server
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged
LATE, DRIPPING = 9059, 9060
PORTS = {"sync": SYNC, "aio": AIO}
MISSING = "no order called naïve/ü%"
ANY = pytest.mark.parametrize("client", PORTS)
BOTH = pytest.mark.parametrize(("client", "kind"), [(one, other) for one in PORTS for other in PORTS])
CROSSED = pytest.mark.parametrize(("client", "kind"), [("sync", "aio"), ("aio", "sync")])


@dataclass
class Net:
    lab: Lab
    node: NodeHandle
    front: Pod
    api: Pod
    servers: dict[str, Server]

    def ask(self, client: str, kind: str, scenario: str, *, v6: bool = False) -> Any:
        """What a scenario of a client gives with a kind of server."""
        address = self.api.v6 if v6 else self.api.v4
        return common.python_client(self.lab, self.front.ns, client, address, PORTS[kind], scenario)

    def carried(self) -> int:
        """Bytes that the client's pod has sent and got."""
        links = json.loads(self.lab.run(self.front.ns, ["ip", "-j", "-s", "link"]).stdout)
        return sum(link["stats64"][way]["bytes"] for link in links for way in ("rx", "tx"))


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Lab() as lab:
        front, api = lab.pod("front"), lab.pod("api")
        servers = {kind: common.python_server(lab, api, kind, port) for kind, port in PORTS.items()}
        node = lab.start_l7proxy(common.grpc_policy("api", SYNC, AIO, LATE, DRIPPING))
        yield Net(lab, node, front, api, servers)


@pytest.fixture(autouse=True)
def _forget(net: Net) -> None:
    for server in net.servers.values():
        server.forget()


@BOTH
def test_calls_of_all_four_kinds_are_answered_or_refused(net: Net, client: str, kind: str) -> None:
    seen = net.ask(client, kind, "kinds", v6=client == kind)
    assert seen["allowed"] == seen["again"] == ANSWERED
    assert seen["refused"] == dict.fromkeys(ANSWERED, REFUSED)
    assert_called(net.lab, net.servers[kind], orders(Get=2, Sum=2, List=2, Chat=2))
    assert len(common.connections(net.servers[kind])) == 1


@ANY
def test_refusals_in_a_crowd_change_nothing_for_others(net: Net, client: str) -> None:
    assert net.ask(client, "aio", "many_kinds") == 1
    assert_called(net.lab, net.servers["aio"], orders(Get=40, Sum=40, List=40, Chat=40))
    assert len(common.connections(net.servers["aio"])) == 1


@BOTH
def test_a_thousand_calls_at_once_of_which_every_third_is_refused(net: Net, client: str, kind: str) -> None:
    seen = net.ask(client, kind, "thousand")
    assert seen == {"wrong": [], "counts": {"OK": 666, " ".join(REFUSED): 334}}
    server = net.servers[kind]
    assert_called(net.lab, server, orders(Get=666))
    net.lab.wait(lambda: len(ends(server)) == 666)
    assert len(common.connections(server)) == 1, "the channel had to connect again"


@BOTH
def test_a_deadline_ends_the_call_at_both_ends(net: Net, client: str, kind: str) -> None:
    assert net.ask(client, kind, "deadline") == ["DEADLINE_EXCEEDED", "after"]
    net.lab.wait(lambda: len(ends(net.servers[kind])) == 2)
    assert sorted(end["how"] for end in ends(net.servers[kind])) == ["cancelled", "ok"]


@BOTH
def test_both_ends_may_cancel(net: Net, client: str, kind: str) -> None:
    seen = net.ask(client, kind, "cancel")
    assert seen == {"client": [["0", "1"], "CANCELLED"], "server": [3, "CANCELLED"], "after": "after"}
    assert_called(net.lab, net.servers[kind], orders(Chat=1, Cut=1, Get=1))
    net.lab.wait(lambda: len(ends(net.servers[kind])) == 3)
    assert 2 <= max(end["requests"] for end in ends(net.servers[kind])) < 1000, "the server did not see it"


@CROSSED
def test_large_messages(net: Net, client: str, kind: str) -> None:
    assert net.ask(client, kind, "big") == [True, True]
    assert sorted(end["bytes"] for end in ends(net.servers[kind])) == [4 << 20, 16 << 20]


@BOTH
def test_what_refused_calls_send_takes_nothing_from_the_others_window(net: Net, client: str, kind: str) -> None:
    assert net.ask(client, kind, "wasted") == [[REFUSED] * 10, True]
    assert_called(net.lab, net.servers[kind], orders(Get=1))


@CROSSED
def test_compressed_messages(net: Net, client: str, kind: str) -> None:
    before = net.carried()
    assert net.ask(client, kind, "compressed") == [True, "OK", REFUSED]
    assert_called(net.lab, net.servers[kind], orders(Get=1))
    assert net.carried() - before < 100_000, "600,000 bytes have gone uncompressed"


@BOTH
def test_metadata_go_through_as_they_are(net: Net, client: str, kind: str) -> None:
    seen = net.ask(client, kind, "metadata")
    assert seen["initial"] == seen["trailing"] == seen["sent"]
    assert seen["error"] == ["NOT_FOUND", MISSING, [["x-why", "gone"], ["x-why-bin", "00ff"]]]
    sent = [event["metadata"] for event in net.servers[kind].events() if event.get("method", "").endswith("/Get")]
    assert [pair for pair in sent[0] if pair[0].startswith("x-")] == seen["sent"]


@pytest.mark.parametrize("size", [1, 9])
def test_a_conversation_that_comes_in_drips(net: Net, size: int) -> None:
    """Both ends' words reach the proxy a few bytes at a time."""
    with drip(net, net.api, "127.0.0.1", AIO, size), drip(net, net.front, net.api.v4, DRIPPING, size):
        seen = common.python_client(net.lab, net.front.ns, "sync", "127.0.0.1", DRIPPING, "kinds")
    assert seen["allowed"] == seen["again"] == ANSWERED
    assert seen["refused"] == dict.fromkeys(ANSWERED, REFUSED)


@contextmanager
def drip(net: Net, pod: Pod, host: str, port: int, size: int) -> Iterator[None]:
    """In a pod, a way to host and port for those who ask for DRIPPING."""
    words = [sys.executable, str(common.CLIENTS / "drip.py"), *map(str, (DRIPPING, host, port, size))]
    with net.lab.popen(pod.ns, words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == "ready"
        try:
            yield
        finally:
            process.kill()


@CROSSED
def test_health_and_reflection(net: Net, client: str, kind: str) -> None:
    seen = net.ask(client, kind, "services")
    assert seen["health"] == [1, 1] and {"orders.v1.Admin", "orders.v1.Orders"} <= set(seen["names"])
    assert set(calls := common.calls(net.servers[kind])) == {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }, calls


@ANY
def test_a_call_may_wait_for_a_server_that_is_not_there_yet(net: Net, client: str) -> None:
    argv = [sys.executable, str(common.CLIENTS / f"{client}_client.py"), f"{net.api.v4}:{LATE}", "patient"]
    waiting = net.lab.popen(net.front.ns, argv, stdout=subprocess.PIPE)
    assert waiting.stdout is not None and json.loads(waiting.stdout.readline()) == "UNAVAILABLE"
    late = common.python_server(net.lab, net.api, "aio", LATE)
    try:
        assert json.loads(waiting.stdout.readline()) == "later" and waiting.wait(10) == 0
        assert_called(net.lab, late, orders(Get=1))
    finally:
        late.process.kill()
        late.process.wait(10)


def test_the_log_has_one_record_a_call(net: Net) -> None:
    net.ask("sync", "aio", "many_kinds")
    # Only those of this channel: records of calls before may still come.
    (peer,) = common.connections(net.servers["aio"])
    port = int(peer.rpartition(":")[2])

    def ours(record: dict[str, Any]) -> bool:
        flow = record.get("flow", {})
        return "l7" in flow and bool(flow["l4"]["TCP"]["source_port"] == port)

    # Verdict, service, method, status, and how many messages came from the client and from the server.
    served = {"Get": (1, 1), "Sum": (20, 1), "List": (1, 20), "Chat": (3, 3)}
    expected = Counter({("FORWARDED", "Orders", name, "OK", counts): 40 for name, counts in served.items()})
    for name in ("Delete", "Purge", "Dump", "Shell"):
        expected["DROPPED", "Admin", name, "PERMISSION_DENIED", None] = 20
    found = net.node.wait_flows(ours, expected.total())
    assert Counter(shown(record["flow"]) for record in found) == expected


def shown(flow: dict[str, Any]) -> tuple[Any, ...]:
    """What a record says of a call. Of a refused one nobody knows how many messages would have come."""
    assert flow["l7"]["http"]["protocol"] == "HTTP/2"
    call = flow["extensions"]["value"]["l7proxy"]["grpc"]
    counts = int(call["request_messages"]), int(call["response_messages"])
    service = call["service"].rpartition(".")[2]
    return flow["verdict"], service, call["method"], call["status_name"], None if service == "Admin" else counts
