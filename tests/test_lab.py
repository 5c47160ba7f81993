"""The laboratory itself: what other tests build on must be true without l7proxy."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import netns
from tests.lab import GATEWAY4, NODE4, OUTSIDE4, OUTSIDE6, Lab

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(mtu=1400) as made:
        made.pod("front")
        made.pod("api")
        yield made


def test_every_pair_is_connected_over_both_families(lab: Lab) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    for ns, targets in (
        (front.ns, (api.v4, api.v6, OUTSIDE4, OUTSIDE6, GATEWAY4)),
        (lab.outside, (api.v4, api.v6, NODE4)),
        (lab.node_ns, (front.v4, front.v6, OUTSIDE4, "127.0.0.1", "::1")),
    ):
        for target in targets:
            lab.run(ns, ["ping", "-c1", "-W2", target])
    with pytest.raises(AssertionError):
        lab.run(front.ns, ["ping", "-c1", "-W1", "10.77.0.99"])


def test_the_server_tells_what_it_received(lab: Lab) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    server = lab.serve(api.ns, 80)
    code, body = lab.curl(front.ns, f"http://{api.v4}/a%20b?x=1", "-d", "hello", "-H", "X-One: 1")
    answer = json.loads(body)
    assert (code, answer["target"], answer["length"]) == (200, "/a%20b?x=1", 5)
    assert answer["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert lab.curl(front.ns, f"http://[{api.v6}]/six?status=404")[0] == 404
    lab.wait(lambda: len(server.events()) == 6)
    assert server.seen() == [("POST", "/a%20b?x=1"), ("GET", "/six?status=404")]
    first = server.requests()[0]
    assert ["X-One", "1"] in first["headers"] and first["peer"][0].endswith(front.v4)
    server.forget()
    with netns.connect(front.ns, (api.v4, 80)) as client:
        client.sendall(unfinished := b"GET /unfinished HTTP/1.1\r\nHost: a\r\n")
    lab.wait(lambda: [event["event"] for event in server.events()] == ["connect", "close"])
    assert server.seen() == [] and server.events()[1]["received"] == len(unfinished)


def test_the_server_streams_and_chunks(lab: Lab) -> None:
    api = lab.pods["api"]
    lab.serve(api.ns, 81)
    done = lab.run(
        api.ns, ["curl", "-sS", "-w", "%{size_download}", "-o", "/dev/null", f"http://{api.v4}:81/?size=70000"]
    )
    assert done.stdout == "70000"
    assert lab.curl(api.ns, f"http://{api.v4}:81/?chunks=3")[1].count('"target"') == 3


def test_an_mtu_below_the_usual_holds_on_every_link(lab: Lab) -> None:
    front = lab.pods["front"]
    lab.run(front.ns, ["ping", "-c1", "-W2", "-M", "do", "-s", "1372", OUTSIDE4])
    with pytest.raises(AssertionError, match=r"mtu|too long"):
        lab.run(front.ns, ["ping", "-c1", "-W2", "-M", "do", "-s", "1373", OUTSIDE4])


def test_state_shows_what_changes_and_nothing_else(lab: Lab) -> None:
    before = lab.state()
    assert netns.differences(before, lab.state()) == ""
    lab.run(lab.node_ns, ["ip", "rule", "add", "fwmark", "0x1", "lookup", "77"])
    netns.sysctl(lab.node_ns, {"net/ipv4/conf/lo/accept_local": 1})
    lab.run(lab.node_ns, ["tc", "qdisc", "add", "dev", "lo", "clsact"])
    changed = netns.differences(before, lab.state())
    assert "rules: + " in changed and "accept_local=1" in changed and "clsact" in changed


def test_a_process_can_be_put_into_a_cgroup(lab: Lab) -> None:
    cgroup = lab.cgroup("service")
    done = lab.run(lab.node_ns, ["cat", "/proc/self/cgroup"], cgroup=cgroup)
    assert cgroup.name in done.stdout


def test_nothing_remains_of_a_lab_that_failed() -> None:
    with pytest.raises(ZeroDivisionError), Lab() as broken:
        pod = broken.pod("one")
        cgroup = broken.cgroup("c")
        left = broken.popen(pod.ns, ["sleep", "1000"], cgroup=cgroup)
        # Not known to the lab by its process id, as a worker of a killed program would be.
        stray = subprocess.Popen(netns.inside(pod.ns, [sys.executable, "-c", "import time; time.sleep(1000)"]))
        broken.wait(lambda: stray.pid in netns.members(pod.ns))
        raise ZeroDivisionError
    assert left.poll() is not None and stray.wait(5) != 0
    assert not cgroup.exists() and not broken.folder.exists()
    assert not [name for name in os.listdir("/run/netns") if name.startswith(broken.prefix + "-")]
    assert not Path(f"/run/netns/{pod.ns}").exists()


def test_a_lab_removes_what_a_killed_one_left() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    name = f"l7-{gone.pid}-1-node"
    netns.add(name)
    stray = subprocess.Popen(netns.inside(name, ["sleep", "1000"]))
    Lab.wait(lambda: stray.pid in netns.members(name))
    with Lab():
        assert not Path("/run/netns", name).exists() and stray.wait(5) != 0
