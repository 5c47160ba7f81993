"""`splice: true` and `accelerate` in one node.yaml, or in two processes of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sockmap.cgroups import cgroup_root
from tests.accelerate.rig import Rig, accepted, attached, exchange, wait
from tests.e2e.common import from_app, http, policy
from tests.everywhere import everywhere
from tests.lab import Lab
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged
NAME = "both-at-once"
POLICY = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http()]}])


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A node with two pods, one of which has a server behind the proxy."""
    with everywhere(), Lab() as made:
        made.pod("front")
        made.serve(made.pod("api").ns, 80)
        yield made


def start(lab: Lab, rig: Rig, **accelerate: Any) -> NodeHandle:
    """With both keys."""
    rig.state_dir = lab.folder / "state"
    accelerate = {"learn": False, "anywhere": True, "process": NAME} | accelerate
    return lab.start_l7proxy(POLICY, splice=True, accelerate=accelerate)


def judged(lab: Lab) -> None:
    """One request through the proxy is served, one refused."""
    front, api = lab.pods["front"], lab.pods["api"]
    assert lab.curl(front.ns, f"http://{api.v4}/public/a")[0] == 200
    assert lab.curl(front.ns, f"http://{api.v4}/secret")[0] == 403


def spliced(node: NodeHandle) -> int:
    """Bytes, of both kinds."""
    count: int = node.status()["splice"]["spliced_bytes"]
    return count


@pytest.mark.parametrize("all_of_it", [False, True], ids=["one cgroup", "/"])
def test_both_are_spliced(lab: Lab, rig: Rig, all_of_it: bool) -> None:
    cgroup, root = rig.cgroup(), cgroup_root()
    node = start(lab, rig, cgroup="/" if all_of_it else str(cgroup))
    status = node.status()
    assert [(status[key]["on"], status[key]["paired"]) for key in ("splice", "accelerate")] == [(True, 0)] * 2, status
    assert attached(root) == ["on_socket" if all_of_it else "on_neighbour"]
    assert attached(cgroup) == ([] if all_of_it else ["on_socket"])
    judged(lab)
    wait(lambda: node.status()["splice"]["paired"] >= 3)  # each client's, and a server's
    by_proxy = spliced(node)
    assert by_proxy > 500
    agent = rig.agent(cgroup, NAME, namespace=lab.pods["front"].ns)
    listener = agent.listen()
    with agent.connect(listener) as near, accepted(listener) as far:
        exchange(near, far)
        assert spliced(node) == by_proxy + 8000
        assert sum(one["client"]["sent"]["spliced"] == 4000 for one in rig.connections()) == 1
    metrics = node.admin("/metrics")[1].splitlines()
    assert {"l7proxy_splice_up 1.0", "l7proxy_accelerate_up 1.0"} <= set(metrics)
    assert f'l7proxy_splice_bytes_total{{path="spliced"}} {by_proxy + 8000}.0' in metrics
    assert node.stop() == 0
    assert attached(root) == attached(cgroup) == []


def test_where_one_cannot_be_the_other_is(lab: Lab, rig: Rig) -> None:
    node = start(lab, rig, cgroup="no/such")
    status = node.status()
    assert (status["splice"]["on"], status["accelerate"]["on"]) == (True, False)
    assert status["accelerate"]["detail"].startswith("there is no cgroup no/such below ")
    judged(lab)
    wait(lambda: judged(lab) or spliced(node))  # once it is known how both programs read
    assert node.stop() == 0


def test_where_somebody_else_splices_everywhere(lab: Lab, rig: Rig) -> None:
    rig.state_dir = lab.folder / "state"
    other = rig.start("--cgroup", "/", "--process", "nobody")
    cgroup = rig.cgroup()
    node = start(lab, rig, cgroup=str(cgroup))
    status = node.status()
    assert (status["splice"]["on"], status["accelerate"]["on"]) == (False, True)
    expected = f"another l7proxy (process {other.process.pid}) splices in cgroup {cgroup_root()} already"
    assert status["splice"]["detail"] == expected
    judged(lab)
    assert attached(cgroup) == ["on_socket"]
    assert node.stop() == other.stop() == 0


def test_cleanup_after_a_killed_one(lab: Lab, rig: Rig) -> None:
    cgroup = rig.cgroup()
    node = start(lab, rig, cgroup=str(cgroup))
    node.kill9()
    assert attached(cgroup_root()) == ["on_neighbour"] and attached(cgroup) == ["on_socket"]
    node.start(lab.popen)
    node.wait_ready()
    said = node.output.read_text()
    assert said.count("splice: taken over: splicing in cgroup ") == 2
    node.kill9()
    assert node.cleanup().returncode == 0
    assert attached(cgroup_root()) == attached(cgroup) == []
