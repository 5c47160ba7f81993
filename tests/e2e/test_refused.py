"""A policy that the kernel has no room for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.common import DENIED, from_app, http, l4, policy, url
from tests.lab import Lab

pytestmark = pytest.mark.privileged
SMALL = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http()]}])
OTHER = SMALL.replace("/public/", "/open/")


def large(prefixes: int) -> str:
    """Rules for many prefixes, each with rows of its own, and other paths for everybody else."""
    many = [{"fromCIDR": [f"10.9.{number}.0/24"], "toPorts": [l4(1000 + number)]} for number in range(prefixes)]
    return OTHER + policy("many", "api", ingress=many)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.pod("front")
        lab.serve(lab.pod("api").ns, 80)
        yield lab


def codes(lab: Lab, *paths: str) -> list[int]:
    """The status code of each path, from front at api; 403 with the right text."""
    answers = [lab.curl(lab.pods["front"].ns, url(lab.pods["api"].v4, path)) for path in paths]
    assert all(text == DENIED for code, text in answers if code == 403)
    return [code for code, _ in answers]


def test_it_changes_nothing_says_so_and_is_no_hindrance(lab: Lab) -> None:
    node = lab.start_l7proxy(SMALL, datapath={"policy_entries": 1024})
    assert codes(lab, "/public/a", "/open/a") == [200, 403]
    before = node.status()["generation"]
    (node.policies / "policy.yaml").write_text(large(60))
    lab.wait(lambda: "the map is full" in node.status()["last_error"], 10, what="a refusal")
    assert node.status()["generation"] == before
    assert codes(lab, "/public/a", "/open/a") == [200, 403]
    assert "many" not in node.admin("/policies")[1]
    node.write_policy(OTHER)
    assert codes(lab, "/public/a", "/open/a") == [403, 200]
    status = node.status()
    assert (status["generation"], status["last_error"]) == (before + 1, "")
