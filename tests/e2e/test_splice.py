"""The proxy's own connections spliced: the same verdicts, the same bytes, and proof of which path they took."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from l7proxy.splice_node import WORKERS
from sockmap.cgroups import cgroup_root
from sockmap.splice import leftovers
from tests.e2e.common import assert_judged, from_app, http, policy
from tests.everywhere import everywhere
from tests.lab import Lab, Pod, Server
from tests.netns import inside
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged

POLICY = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http(), http(port=8080)]}])
LARGE = 64 << 20
_NGINX = """
user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{ access_log off; client_max_body_size 0; client_body_temp_path {folder}/body;
  server {{ listen 8080; keepalive_requests 1000000;
    location /public/ {{ alias {folder}/; }} }} }}
"""


@dataclass
class Net:
    lab: Lab
    node: NodeHandle
    front: Pod
    api: Pod
    server: Server
    digest: str

    def splice(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.node.status()["splice"]
        return answer

    def wrk(self, path: str) -> str:
        """A second of it."""
        argv = ["wrk", "-t1", "-c8", "-d1s", f"http://{self.api.v4}:8080{path}"]
        return self.lab.run(self.front.ns, argv).stdout

    def large(self) -> None:
        """The large body, whole and right, and over the same connection a small one behind it."""
        url = f"http://{self.api.v4}:8080/public/"
        argv = ["curl", "-sS", "--max-time", "60", "-o", "-", url + "large", url + "small"]
        body = subprocess.run(inside(self.front.ns, argv), capture_output=True, check=True, timeout=70).stdout
        assert hashlib.sha256(body).hexdigest() == self.digest


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    large, small = os.urandom(LARGE), b"small\n"
    (folder / "large").write_bytes(large)
    (folder / "small").write_bytes(small)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))
    with everywhere(), Lab() as lab:
        front, api = lab.pod("front"), lab.pod("api")
        server = lab.serve(api.ns, 80)
        lab.popen(api.ns, ["/usr/sbin/nginx", "-c", str(folder / "nginx.conf")])
        node = lab.start_l7proxy(POLICY, endpoints=[front.endpoint(), api.endpoint()], splice=True)
        yield Net(lab, node, front, api, server, hashlib.sha256(large + small).hexdigest())


def test_verdicts_are_the_same(net: Net) -> None:
    assert net.splice()["on"], net.splice()["detail"]
    for _ in range(3):
        assert_judged(net.lab, net.front.ns, net.api.v4, net.server, client=net.front.v4)
        assert_judged(net.lab, net.front.ns, net.api.v6, net.server, client=net.front.v6)


def test_requests_are_spliced_once_it_is_known_how_their_programs_read(net: Net) -> None:
    assert "Non-2xx" not in net.wrk("/public/small")
    before = net.splice()
    assert "Non-2xx" not in net.wrk("/public/small")
    after = net.splice()
    assert after["spliced_bytes"] - before["spliced_bytes"] > 20 * (after["stack_bytes"] - before["stack_bytes"])
    assert after["paired"] - before["paired"] >= 16  # both hops of eight connections


def test_refusals_are_spliced_too(net: Net) -> None:
    net.wrk("/secret")
    before = net.splice()
    output = net.wrk("/secret")
    refused = int(output.partition("Non-2xx or 3xx responses: ")[2].split()[0])
    assert refused > 100 and f"{refused} requests in" in output
    assert net.splice()["spliced_bytes"] > before["spliced_bytes"] + 100 * refused


def test_a_large_body_is_whole(net: Net) -> None:
    for _ in range(3):
        before = net.splice()["spliced_bytes"]
        net.large()
    assert net.splice()["spliced_bytes"] > before + (1 << 20)


def test_a_policy_that_allows_no_more_ends_what_is_spliced(net: Net) -> None:
    argv = ["curl", "-sS", "-o", "/dev/null", "--limit-rate", "1M", f"http://{net.api.v4}:8080/public/large"]
    slow = net.lab.popen(net.front.ns, argv, stderr=subprocess.PIPE)
    net.lab.wait(lambda: net.splice()["paired"] > net.splice()["ended"])
    net.node.write_policy(policy("api", "api", ingress=[{**from_app("nobody"), "toPorts": [http(port=8080)]}]))
    try:
        assert slow.wait(10) in (18, 56)  # cut off, or reset
    finally:
        slow.kill()
        net.node.write_policy(POLICY)
    net.large()


def test_it_leaves_nothing_and_cleanup_takes_what_kill_9_leaves(net: Net) -> None:
    root = cgroup_root()

    def left() -> list[Path]:
        return list(root.rglob(f"{WORKERS}{net.node.running.pid}"))

    assert len(leftovers(root)) == 1 and len(left()) == 1
    net.node.kill9()
    assert leftovers(root)
    net.node.cleanup()
    assert not leftovers(root) and not left()
    net.node.start(net.lab.popen)
    net.node.wait_ready()
    assert net.splice()["on"]
    net.large()
    assert net.node.stop() == 0
    assert not leftovers(root) and not left()
