"""Starting, stopping, dying: the node is left as it was, and nothing passes unjudged meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from tests import netns
from tests.e2e.common import from_app, http, l4, policy, received, url
from tests.lab import Lab
from tests.node import COMMAND, NodeHandle

pytestmark = pytest.mark.privileged

POLICIES = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http()]}])


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.pod("front")
        made.pod("api")
        made.serve(made.pods["api"].ns, 80)
        yield made


def codes(lab: Lab, *paths: str, timeout: float = 5.0) -> list[int]:
    """Status codes of GET from front to api (0: no answer)."""
    target = lab.pods["api"].v4
    return [lab.curl(lab.pods["front"].ns, url(target, path), timeout=timeout)[0] for path in paths]


def test_a_stop_leaves_the_node_exactly_as_it_was(lab: Lab) -> None:
    before = lab.state()
    node = lab.start_l7proxy(POLICIES)
    assert netns.differences(before, lab.state()) != ""
    assert codes(lab, "/public/a", "/secret") == [200, 403]
    assert node.stop() == 0
    assert netns.differences(before, lab.state()) == ""
    assert codes(lab, "/secret") == [200]


def test_a_qdisc_of_somebody_else_stays(lab: Lab) -> None:
    lab.run(lab.node_ns, ["tc", "qdisc", "add", "dev", "veth-api", "clsact"])
    lab.run(lab.node_ns, ["ip", "rule", "add", "fwmark", "0x80000/0x80000", "lookup", "99", "priority", "5"])
    before = lab.state()
    lab.start_l7proxy(POLICIES).stop()
    assert netns.differences(before, lab.state()) == ""


def test_cleanup_after_a_kill(lab: Lab) -> None:
    before = lab.state()
    node = lab.start_l7proxy(POLICIES)
    node.kill9()
    lab.wait(lambda: not [pid for pid in netns.members(lab.node_ns) if b"l7proxy" in cmdline(pid)])
    assert netns.differences(before, lab.state()) != ""
    assert codes(lab, "/public/a", timeout=1.5) == [0], "without a proxy its flows must fail closed"
    done = node.cleanup()
    assert done.returncode == 0, done.stdout + done.stderr
    assert netns.differences(before, lab.state()) == ""
    assert codes(lab, "/secret") == [200]
    assert "nothing" in node.cleanup().stdout


def test_run_takes_over_what_a_killed_one_left(lab: Lab) -> None:
    before = lab.state()
    first = lab.start_l7proxy(POLICIES)
    first.kill9()
    second = lab.start_l7proxy(POLICIES)
    assert codes(lab, "/public/a", "/secret") == [200, 403]
    assert second.stop() == 0
    assert netns.differences(before, lab.state()) == ""


def test_a_second_instance_is_refused_and_changes_nothing(lab: Lab) -> None:
    node = lab.start_l7proxy(POLICIES)
    during = lab.state()
    done = netns.run(netns.inside(lab.node_ns, [COMMAND, "run", "--config", str(node.config)]), check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "another" in done.stderr + done.stdout
    assert netns.differences(during, lab.state()) == ""
    assert codes(lab, "/public/a", "/secret") == [200, 403]
    refused = node.cleanup()
    assert refused.returncode == 1 and "Traceback" not in refused.stderr


def test_a_dead_worker_takes_nothing_with_it_but_its_own_connections(lab: Lab) -> None:
    node = lab.start_l7proxy(POLICIES, workers=2)
    for victim in node.worker_pids():
        os.kill(victim, signal.SIGKILL)
        # At once: the other one serves, whatever slot the flow's hash points at.
        assert codes(lab, *["/public/a"] * 4, "/secret") == [200] * 4 + [403]
        lab.wait(partial(replaced, node, victim))
    assert node.status()["worker_restarts"] == 2


def test_no_worker_and_flows_fail_closed_then_come_back(lab: Lab) -> None:
    node = lab.start_l7proxy(POLICIES, workers=1)
    (worker,) = node.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    assert set(codes(lab, "/secret", "/secret")) <= {0, 403}
    lab.wait(lambda: codes(lab, "/public/a", timeout=2) == [200])


def test_no_worker_and_flows_pass_if_so_configured(lab: Lab) -> None:
    node = lab.start_l7proxy(POLICIES, workers=1, on_proxy_down="open")
    assert codes(lab, "/secret") == [403]
    node.kill9()
    lab.wait(lambda: not [pid for pid in netns.members(lab.node_ns) if b"l7proxy" in cmdline(pid)])
    assert codes(lab, "/secret") == [200]


def test_a_stop_lets_what_is_in_flight_finish(lab: Lab) -> None:
    node = lab.start_l7proxy(POLICIES)
    with netns.connect(lab.pods["front"].ns, (lab.pods["api"].v4, 80)) as client:
        client.sendall(b"GET /public/slow?sleep=1.5 HTTP/1.1\r\nHost: api\r\n\r\n")
        time.sleep(0.3)
        node.running.terminate()
        answer = received(client, b"}\n")
    assert answer.startswith(b"HTTP/1.1 200") and node.running.wait(20) == 0


def test_a_bad_policy_changes_nothing_and_says_so(lab: Lab) -> None:
    node = lab.start_l7proxy(POLICIES)
    (node.policies / "policy.yaml").write_text(POLICIES.replace("toPorts", "toPortz"))
    lab.wait(lambda: "toPortz" in node.status()["last_error"], 5)
    assert codes(lab, "/public/a", "/secret") == [200, 403]
    assert "toPortz" in node.output.read_text()
    (node.policies / "policy.yaml").write_text(POLICIES.replace("/public/", "/open/"))
    lab.wait(lambda: codes(lab, "/open/a", "/public/a") == [200, 403], 10)


def test_endpoints_come_and_go_while_running(lab: Lab) -> None:
    api = lab.pods["api"]
    endpoints = [lab.pods["front"].endpoint()]
    node = lab.start_l7proxy(POLICIES, endpoints=endpoints)
    assert codes(lab, "/secret") == [200]
    status, text = node.admin("/endpoints", method="POST", body=api.endpoint())
    assert status in (200, 201), text
    assert codes(lab, "/public/a", "/secret") == [200, 403]
    status, text = node.admin("/endpoints/api", method="DELETE")
    assert status in (200, 204), text
    assert codes(lab, "/secret") == [200]


def test_audit_mode_of_the_whole_node(lab: Lab) -> None:
    node = lab.start_l7proxy(POLICIES, mode="audit")
    lab.serve(lab.pods["api"].ns, 81)
    assert codes(lab, "/secret") == [200]
    flow = node.wait_flows(lambda r: "/secret" in str(r))[0]["flow"]
    assert flow["verdict"] == "AUDIT"
    assert lab.curl(lab.pods["front"].ns, url(lab.pods["api"].v4, "/x", 81))[0] == 200
    node.wait_flows(lambda r: r.get("flow", {}).get("Type") == "L3_L4" and r["flow"]["verdict"] == "AUDIT")


def test_a_changed_policy_cuts_flows_it_no_longer_allows(lab: Lab) -> None:
    """Also those that were allowed whole, and whose requests have to be judged now."""
    front, api = lab.pods["front"], lab.pods["api"]
    whole = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [l4(80)]}])
    node = lab.start_l7proxy(whole)
    request = b"GET /secret HTTP/1.1\r\nHost: api\r\n\r\n"
    for changed in (policy("api", "api", ingress=[{**from_app("nobody"), "toPorts": [l4(80)]}]), POLICIES):
        with netns.connect(front.ns, (api.v4, 80), timeout=2) as client:
            client.sendall(request)
            assert received(client, b"}\n").startswith(b"HTTP/1.1 200")
            node.write_policy(changed)
            client.sendall(request)
            with pytest.raises((TimeoutError, ConnectionError)):
                client.recv(1)
        node.write_policy(whole)
    drops = [flow for r in node.wait_flows(is_drop) if (flow := r["flow"])["IP"]["source"] == front.v4]
    assert drops


def replaced(node: NodeHandle, victim: int) -> bool:
    """True once a worker has been started in the place of `victim`."""
    pids = node.worker_pids()
    return len(pids) == 2 and victim not in pids


def is_drop(record: dict[str, dict[str, object]]) -> bool:
    """True for a record of a dropped packet."""
    flow = record.get("flow", {})
    return flow.get("Type") == "L3_L4" and flow.get("verdict") == "DROPPED"


def cmdline(pid: int) -> bytes:
    """The command line of a process; empty if it has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""
