"""Bulk data over links with a small MTU: segmentation offload, both families, both directions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.common import from_app, http, policy, url
from tests.lab import OUTSIDE4, OUTSIDE6, Lab, Pod
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged

SIZE = 32 << 20
POLICIES = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http()]}]) + policy(
    "front", "front", egress=[{"toEntities": ["all"], "toPorts": [http()]}]
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(mtu=1400) as made:
        made.pod("front")
        made.pod("api")
        made.serve(made.pods["api"].ns, 80)
        made.serve(made.outside, 80)
        yield made


@pytest.fixture(scope="module")
def node(lab: Lab) -> NodeHandle:
    return lab.start_l7proxy(POLICIES)


@pytest.mark.parametrize("target", ["pod", "pod6", OUTSIDE4, OUTSIDE6])
def test_bulk_in_both_directions(lab: Lab, node: NodeHandle, target: str) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    address = {"pod": api.v4, "pod6": api.v6}.get(target, target)
    before = dropped(node)
    assert transferred(lab, front, "%{size_download}", url(address, f"/public/down?size={SIZE}")) == SIZE
    upload = lab.folder / "upload"
    upload.write_bytes(bytes(SIZE))
    words = ["--data-binary", f"@{upload}", "-H", "Expect:"]
    assert transferred(lab, front, "%{size_upload}", url(address, "/public/up"), *words) == SIZE
    assert dropped(node) == before


def transferred(lab: Lab, pod: Pod, what: str, target: str, *words: str) -> int:
    """How many bytes curl says went over."""
    argv = ["curl", "-sS", "-g", "-f", "-o", "/dev/null", "-w", what, "--max-time", "30", *words, target]
    return int(lab.run(pod.ns, argv, timeout=40).stdout)


def dropped(node: NodeHandle) -> int:
    """Packets that the datapath has dropped so far, for whatever reason."""
    passed = {"forwarded", "steered"}
    return sum(count for name, count in node.status()["datapath"].items() if name not in passed)
