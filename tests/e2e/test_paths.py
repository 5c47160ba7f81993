"""Every way a flow can take across the node, over both families: the same policy, the same verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.common import assert_judged, from_app, http, l4, l7, policy
from tests.lab import GATEWAY4, GATEWAY6, NODE4, NODE6, OUTSIDE4, OUTSIDE6, Lab, Pod, Server
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged

POLICIES = (
    policy(
        "api",
        "api",
        ingress=[
            {**from_app("front"), "toPorts": [http()]},
            {**from_app("batch"), "toPorts": [http()]},
            {"fromEntities": ["world", "host"], "toPorts": [http()]},
        ],
    )
    + policy("local", "local", ingress=[{"fromEntities": ["all"], "toPorts": [http(port=8080)]}])
    + policy(
        "caller",
        "caller",
        egress=[
            {"toEntities": ["world"], "toPorts": [http()]},
            {"toEndpoints": [{"matchLabels": {"app": "local"}}], "toPorts": [l4(8080)]},
        ],
    )
    + policy(
        "batch",
        "batch",
        egress=[
            {"toEntities": ["world"], "toPorts": [http()]},
            {"toEndpoints": [{}], "toPorts": [l4(80), l4(8080)]},
        ],
    )
)


@dataclass
class Net:
    lab: Lab
    node: NodeHandle
    api: Pod
    front: Pod
    caller: Pod
    api_server: Server
    outside_server: Server
    local_server: Server
    batch: Path


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Lab() as lab:
        front, api, caller = lab.pod("front"), lab.pod("api"), lab.pod("caller")
        lab.pod("other")
        batch, local = lab.cgroup("batch"), lab.cgroup("local")
        servers = lab.serve(api.ns, 80), lab.serve(lab.outside, 80)
        # Started before l7proxy is: a socket made before the cgroup hook must not escape.
        local_server = lab.serve(lab.node_ns, 8080, cgroup=local)
        endpoints: list[dict[str, Any]] = [pod.endpoint() for pod in lab.pods.values()]
        endpoints += [
            {"name": "batch", "labels": {"app": "batch"}, "cgroup": batch.name},
            {"name": "local", "labels": {"app": "local"}, "cgroup": local.name},
        ]
        node = lab.start_l7proxy(POLICIES, endpoints=endpoints)
        yield Net(lab, node, api, front, caller, *servers, local_server, batch)


def test_pod_to_pod(net: Net) -> None:
    assert_judged(net.lab, net.front.ns, net.api.v4, net.api_server, client=net.front.v4)


def test_pod_to_pod_v6(net: Net) -> None:
    assert_judged(net.lab, net.front.ns, net.api.v6, net.api_server, client=net.front.v6)


@pytest.mark.parametrize("family", [4, 6])
def test_pod_to_outside(net: Net, family: int) -> None:
    target, client = (OUTSIDE4, net.caller.v4) if family == 4 else (OUTSIDE6, net.caller.v6)
    assert_judged(net.lab, net.caller.ns, target, net.outside_server, client=client)


@pytest.mark.parametrize("family", [4, 6])
def test_outside_to_pod(net: Net, family: int) -> None:
    target, client = (net.api.v4, OUTSIDE4) if family == 4 else (net.api.v6, OUTSIDE6)
    assert_judged(net.lab, net.lab.outside, target, net.api_server, client=client)


@pytest.mark.parametrize("family", [4, 6])
def test_host_to_pod(net: Net, family: int) -> None:
    target, client = (net.api.v4, GATEWAY4) if family == 4 else (net.api.v6, GATEWAY6)
    assert_judged(net.lab, net.lab.node_ns, target, net.api_server, client=client)


@pytest.mark.parametrize("target", ["127.0.0.1", "::1", NODE4, NODE6])
def test_host_to_its_own_service_over_loopback(net: Net, target: str) -> None:
    assert_judged(net.lab, net.lab.node_ns, target, net.local_server, port=8080, client=target)


@pytest.mark.parametrize("target", [NODE4, NODE6])
def test_outside_to_a_host_service(net: Net, target: str) -> None:
    client = OUTSIDE6 if ":" in target else OUTSIDE4
    assert_judged(net.lab, net.lab.outside, target, net.local_server, port=8080, client=client)


@pytest.mark.parametrize("target", [GATEWAY4, NODE6])
def test_pod_to_a_host_service(net: Net, target: str) -> None:
    client = net.caller.v6 if ":" in target else net.caller.v4
    assert_judged(net.lab, net.caller.ns, target, net.local_server, port=8080, client=client)


@pytest.mark.parametrize("target", ["pod", "pod6", "outside", "outside6", "127.0.0.1", "::1"])
def test_a_host_service_as_client(net: Net, target: str) -> None:
    addresses = {"pod": net.api.v4, "pod6": net.api.v6, "outside": OUTSIDE4, "outside6": OUTSIDE6}
    address = addresses.get(target, target)
    server = {"pod": net.api_server, "out": net.outside_server}.get(target[:3], net.local_server)
    port = 8080 if server is net.local_server else 80
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
    server.forget()
    for path, code in (("/public/batch", "200"), ("/secret", "403")):
        argv = ["curl", "-sS", "-g", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", url + path]
        assert net.lab.run(net.lab.node_ns, argv, cgroup=net.batch).stdout == code
    net.lab.wait(lambda: server.requests())
    assert server.seen() == [("GET", "/public/batch")]
    records = net.node.wait_flows(lambda record: "/public/batch" in str(record))
    assert "k8s:app=batch" in records[-1]["flow"]["source"]["labels"]


def test_who_is_not_named_is_dropped_before_the_proxy(net: Net) -> None:
    net.api_server.forget()
    for name in ("other", "caller"):
        pod = net.lab.pods[name]
        assert net.lab.curl(pod.ns, f"http://{net.api.v4}/public/a", timeout=1.5)[0] == 0
    assert net.api_server.events() == []
    dropped = net.node.wait_flows(lambda r: r.get("flow", {}).get("Type") == "L3_L4")
    flow = next(r["flow"] for r in dropped if r["flow"]["IP"]["source"] == net.lab.pods["other"].v4)
    assert (flow["verdict"], flow["IP"]["destination"]) == ("DROPPED", net.api.v4)
    assert flow["l4"]["TCP"]["destination_port"] == 80 and flow["drop_reason_desc"] == "POLICY_DENIED"


def test_other_ports_of_a_selected_endpoint_are_closed(net: Net) -> None:
    net.lab.serve(net.api.ns, 81)
    assert net.lab.curl(net.front.ns, f"http://{net.api.v4}:81/public/a", timeout=1.5)[0] == 0


def test_what_no_policy_selects_is_open(net: Net) -> None:
    other = net.lab.pods["other"]
    net.lab.serve(other.ns, 90)
    assert net.lab.curl(net.front.ns, f"http://{other.v4}:90/secret")[0] == 200
    net.lab.run(net.front.ns, ["ping", "-c1", "-W2", other.v6])


def test_the_flow_log_tells_who_asked_for_what_and_which_rule_decided(net: Net) -> None:
    net.lab.curl(net.front.ns, f"http://{net.api.v4}/public/logged?q=1")
    net.lab.curl(net.front.ns, f"http://{net.api.v4}/secret/logged")
    # Two connections may have two workers, whose records come in any order.
    net.node.wait_flows(lambda r: "/logged" in str(r), 2)
    (allowed,), (refused,) = l7(net.node, "FORWARDED", "/public/logged?q=1"), l7(net.node, "DROPPED", "/secret/logged")
    for flow in (allowed, refused):
        assert flow["IP"]["source"] == net.front.v4 and flow["IP"]["destination"] == net.api.v4
        assert "k8s:app=front" in flow["source"]["labels"] and "k8s:app=api" in flow["destination"]["labels"]
        assert flow["traffic_direction"] == "INGRESS" and flow["l4"]["TCP"]["destination_port"] == 80
        assert flow["l7"]["http"]["method"] == "GET"
    assert allowed["l7"]["http"]["code"] == 200 and int(allowed["l7"]["latency_ns"]) > 0
    assert allowed["ingress_allowed_by"][0]["name"] == "api"
    assert refused["l7"]["http"]["code"] == 403 and refused["drop_reason_desc"] == "POLICY_DENIED"


def test_one_record_for_each_request(net: Net) -> None:
    paths = [f"/public/one-{number}" for number in range(20)]
    urls = [f"http://{net.api.v4}{path}" for path in paths]
    words = [word for url in urls for word in ("-o", "/dev/null", url)]
    net.lab.run(net.front.ns, ["curl", "-sS", *words])
    net.node.wait_flows(lambda r: "/public/one-19" in str(r))
    for path in paths:
        assert len(l7(net.node, "FORWARDED", path)) == 1
