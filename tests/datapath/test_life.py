"""Coming and going: what is left on the node, what a successor takes over, and what is left alone."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sockmap.datapath import DatapathError, status
from tests import netns
from tests.datapath.harness import (
    ALLOW,
    DENY,
    EGRESS,
    INGRESS,
    PROXY,
    TCP,
    Echo,
    Node,
    ask,
    cleanup,
    reaches,
    rows,
    start,
)  # fmt: skip
from tests.lab import OUTSIDE4, Lab

pytestmark = pytest.mark.privileged
_RECEIVE_MARK = 75  # SO_RCVMARK, which Python has no name for


@pytest.fixture(scope="module")
def shared_node() -> None:
    """These tests start their own."""


def add_filter(lab: Lab, interface: str, priority: int) -> None:
    """A TC filter of somebody else's, which matches nothing."""
    words = ["prio", str(priority), "protocol", "ip", "bpf", "bytecode", "1,6 0 0 0,", "flowid", "1:1"]
    lab.run(lab.node_ns, ["tc", "filter", "add", "dev", interface, "ingress", *words])


def programs(cgroup: Path) -> str:
    return netns.run(["bpftool", "cgroup", "show", str(cgroup)]).stdout


@pytest.mark.parametrize("end", ["close", "cleanup"])
def test_the_node_is_left_as_it_was(lab: Lab, nodes: list[Node], end: str) -> None:
    """With a queueing discipline, a filter and a strict reverse path check of somebody else's."""
    cgroup = lab.cgroup(f"left-{end}")
    b = lab.pods["b"].interface
    netns.sysctl(lab.node_ns, {"net/ipv4/conf/all/rp_filter": 1})
    lab.run(lab.node_ns, ["tc", "qdisc", "replace", "dev", b, "clsact"])
    add_filter(lab, b, 77)
    before, attached = lab.state(), programs(cgroup)
    try:
        node = start(nodes, lab)
        node.attach_all()
        node.attach_cgroup(str(cgroup), 2001, 11)
        changed = netns.differences(before, lab.state())
        for word in ("clsact", "fwmark 0x200/0xf00", "table 2005", "accept_local=1", "lo/rp_filter=2", "l7proxy/from_"):
            assert word in changed
        assert programs(cgroup) != attached
        assert reaches(lab.outside, lab.pods["b"].v4, 80)
        if end == "close":
            node.stop()
        else:
            node.kill()
            said = cleanup(lab)
            assert f"clsact of {lab.pods['a'].interface}" in said
            assert f"clsact of {b}" not in said
            assert f"program of cgroup {cgroup}" in said
            assert cleanup(lab) == []
        assert netns.differences(before, lab.state()) == ""
        assert programs(cgroup) == attached
        assert not (lab.folder / "datapath" / "state.json").exists()
    finally:
        netns.sysctl(lab.node_ns, {"net/ipv4/conf/all/rp_filter": 0})
        lab.run(lab.node_ns, ["tc", "qdisc", "del", "dev", b, "clsact"], check=False)


def test_after_a_kill_the_hooks_hold_and_a_successor_takes_over(lab: Lab, nodes: list[Node]) -> None:
    before = lab.state()
    a, b = lab.pods["a"], lab.pods["b"]
    first = start(nodes, lab)
    first.attach_all()
    first.policy(rows(2, INGRESS, DENY, (80, PROXY), (81, ALLOW)))
    first.proxy()
    with netns.connect(a.ns, (b.v4, 81)) as sock:
        sock.sendall(b"one")
        assert sock.recv(100) == b"server:one"
        first.kill()
        assert not reaches(a.ns, b.v4, 80), "without its workers it fails closed"
        assert not reaches(a.ns, b.v4, 82)
        second = start(nodes, lab)
        assert not reaches(a.ns, b.v4, 80), "still the predecessor's hooks"
        second.policy(rows(2, INGRESS, DENY, (80, PROXY), (81, ALLOW)))
        second.attach_all()
        second.proxy()
        sock.sendall(b"two")
        assert sock.recv(100) == b"server:two", "what was tracked goes on"
        second.policy(rows(2, INGRESS, DENY, (80, PROXY)))
        sock.sendall(b"three")
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.recv(100)
    assert ask(a.ns, b.v4, 80).endswith(b"hello")
    second.stop()
    assert netns.differences(before, lab.state()) == ""


def test_a_successor_that_wants_less_takes_the_rest_away(lab: Lab, nodes: list[Node]) -> None:
    first = start(nodes, lab)
    first.attach_all()
    first.kill()
    second = start(nodes, lab)
    second.policy()
    second.attach_loopback()
    a = lab.pods["a"]
    second.attach_endpoint(a.interface, 1, 1001, [a.v4, a.v6])
    said = second.drop_inherited()
    assert {f"clsact of {name}" for name in (lab.pods["b"].interface, "eth0")} <= set(said), said
    assert not any(a.interface in line or "lo" in line.split() for line in said)
    filters = lab.run(lab.node_ns, ["tc", "filter", "show", "dev", a.interface, "ingress"]).stdout
    assert "l7proxy/from_endpoint" in filters
    second.stop()


def test_endpoints_come_and_go(lab: Lab, nodes: list[Node]) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    before = lab.state()
    node = start(nodes, lab)
    node.attach_all()
    node.policy(rows(2, INGRESS, DENY))
    assert not reaches(a.ns, b.v4, 80)
    node.detach_endpoint(b.interface)
    assert reaches(a.ns, b.v4, 80)
    node.attach_endpoint(b.interface, 2, 1002, [b.v4, b.v6])
    assert not reaches(a.ns, b.v4, 80)
    with pytest.raises(DatapathError, match="veth-nobody is not attached"):
        node.detach_endpoint("veth-nobody")
    with pytest.raises(DatapathError, match="interface veth-nobody"):
        node.attach_endpoint("veth-nobody", 3, 1003, ["10.77.0.9"])
    node.stop()
    assert netns.differences(before, lab.state()) == ""


def test_one_instance_a_node(lab: Lab, nodes: list[Node]) -> None:
    first = start(nodes, lab)
    first.policy()
    first.attach_loopback()
    with pytest.raises(DatapathError, match=rf"another l7proxy \(process {first.process.pid}\) runs with"):
        start(nodes, lab)
    with pytest.raises(DatapathError, match="another l7proxy"):
        cleanup(lab)
    elsewhere = lab.folder / "elsewhere"
    with pytest.raises(DatapathError, match="runs on this node, with another state directory"):
        start(nodes, lab, state_dir=elsewhere)
    said = status(lab.folder / "datapath")
    assert (said["pid"], said["interfaces"]) == (first.process.pid, ["lo"])
    first.stop()
    assert status(lab.folder / "datapath") == {"pid": 0, "interfaces": [], "cgroups": []}


def test_without_loopback_nothing_starts(lab: Lab, nodes: list[Node]) -> None:
    lab.run(lab.node_ns, ["ip", "link", "set", "lo", "down"])
    try:
        before = lab.state()
        with pytest.raises(DatapathError, match=r"lo is down, .*`ip link set lo up` first"):
            start(nodes, lab)
        assert netns.differences(before, lab.state()) == ""
    finally:
        lab.run(lab.node_ns, ["ip", "link", "set", "lo", "up"])
    start(nodes, lab).stop()


def test_nothing_is_attached_before_there_is_a_policy(lab: Lab, nodes: list[Node]) -> None:
    node = start(nodes, lab)
    with pytest.raises(DatapathError, match="no policy is set yet"):
        node.attach_endpoint(lab.pods["a"].interface, 1, 1001, [lab.pods["a"].v4])
    with pytest.raises(DatapathError, match="no policy is set yet"):
        node.attach_loopback()
    node.policy()
    with pytest.raises(DatapathError, match="generation 1 cannot follow 1"):
        node.stage_policy([], {}, generation=1)


def test_a_priority_of_somebody_elses_is_not_taken(lab: Lab, nodes: list[Node]) -> None:
    b = lab.pods["b"]
    lab.run(lab.node_ns, ["tc", "qdisc", "add", "dev", b.interface, "clsact"])
    add_filter(lab, b.interface, 1)
    try:
        node = start(nodes, lab)
        node.policy()
        with pytest.raises(DatapathError, match=f"{b.interface}: TC ingress priority 1 is taken by bpf"):
            node.attach_endpoint(b.interface, 2, 1002, [b.v4])
    finally:
        lab.run(lab.node_ns, ["tc", "qdisc", "del", "dev", b.interface, "clsact"])


def mark_towards(watcher: socket.socket, address: str) -> int:
    """The mark of the next packet that the node takes for itself though it is for this address."""
    while True:
        packet, [(_, _, mark)], _, _ = watcher.recvmsg(100, 100)
        if packet[16:20] == socket.inet_aton(address):
            return int.from_bytes(mark, "little")


def test_marks_of_others_are_left_alone(lab: Lab, nodes: list[Node]) -> None:
    """A steered packet carries our value and the source's identity, beside the bits that are somebody else's."""
    b = lab.pods["b"]
    node = start(nodes, lab)
    node.attach_all()
    node.policy(rows(2, INGRESS, DENY, (80, PROXY)))
    node.proxy()
    watcher = netns.call(lab.node_ns, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, TCP))
    watcher.setsockopt(socket.SOL_SOCKET, _RECEIVE_MARK, 1)
    watcher.settimeout(2.0)
    with watcher:
        for ns, theirs, identity in ((lab.node_ns, 0x3003, 1), (lab.pods["a"].ns, 0, 1001)):
            ask(ns, b.v4, 80, options=[(socket.SOL_SOCKET, socket.SO_MARK, theirs)])
            for _ in range(3):  # at least: SYN, ACK and the data
                assert mark_towards(watcher, b.v4) == theirs | 0x200 | identity << 16
            time.sleep(0.2)
            watcher.setblocking(False)
            with suppress(BlockingIOError):
                while watcher.recv(100):
                    pass
            watcher.settimeout(2.0)


def test_large_segments_and_a_small_mtu(nodes: list[Node]) -> None:
    with Lab(mtu=1400) as lab:
        a, b = lab.pod("a"), lab.pod("b")
        server = Echo(b.ns, 80)
        node = start(nodes, lab)
        node.attach_all()
        node.policy(rows(1, EGRESS, ALLOW, (80, PROXY)))
        node.proxy(relay=True)
        for address in (b.v4, b.v6):
            with netns.connect(a.ns, (address, 80)) as sock:
                blob = bytes(2 << 20)
                sock.sendall(blob)
                got = 0
                while got < len(blob):
                    got += len(sock.recv(1 << 20).replace(b"server:", b""))
        assert reaches(a.ns, b.v4, 80)
        assert OUTSIDE4 not in {event.src for event in node.drops()}
        assert node.drops() == []
        server.close()
        node.stop()


def bridge(lab: Lab) -> None:
    """Join the pods' interfaces by a bridge, which is their gateway; IPv4 only."""
    commands = [["ip", "link", "add", "br0", "type", "bridge"], ["ip", "link", "set", "br0", "up"]]
    for pod in lab.pods.values():
        commands += [["ip", "address", "flush", "dev", pod.interface], ["ip", "route", "del", f"{pod.v4}/32"]]
        commands.append(["ip", "link", "set", pod.interface, "master", "br0"])
        lab.run(pod.ns, ["ip", "address", "add", f"{pod.v4}/24", "dev", "eth0"])
    commands.append(["ip", "address", "add", "10.77.0.1/24", "dev", "br0"])
    for words in commands:
        lab.run(lab.node_ns, words, check="route" not in words)


def test_pods_of_one_bridge(nodes: list[Node]) -> None:
    """Between ports of a bridge a packet does not pass the IP layer by itself."""
    with Lab() as lab:
        a, b = lab.pod("a"), lab.pod("b")
        bridge(lab)
        servers = [Echo(b.ns, 80), Echo(b.ns, 81), Echo(lab.outside, 80)]
        node = start(nodes, lab)
        node.attach_all()
        assert ask(a.ns, b.v4, 80) == b"server:hello"
        node.proxy(relay=True)
        node.policy(rows(2, INGRESS, DENY, (80, PROXY)), rows(1, EGRESS, ALLOW, (80, PROXY)))
        for ns, address in ((a.ns, b.v4), (lab.outside, b.v4), (lab.node_ns, b.v4), (a.ns, OUTSIDE4)):
            assert ask(ns, address, 80) == b"server:hello", (ns, address)
        assert len(node.seen()) == 4
        assert not reaches(a.ns, b.v4, 81)
        for server in servers:
            server.close()
        node.stop()
