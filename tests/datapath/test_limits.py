"""How much of everything there may be, and what happens beyond."""

from __future__ import annotations

import time

import pytest

from sockmap.datapath import DatapathError, Lifetimes, PolicyRow
from tests import netns
from tests.datapath import raw
from tests.datapath.harness import ALLOW, DENY, EGRESS, INGRESS, TCP, UDP, Node, ask, reaches, rows, start
from tests.lab import OUTSIDE4, OUTSIDE6, Lab

pytestmark = pytest.mark.privileged


def test_events_have_a_rate_and_what_is_lost_is_counted(lab: Lab, nodes: list[Node]) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    ask(a.ns, b.v4, 80)
    node = start(nodes, lab, event_rate=20)
    node.attach_all()
    node.policy(rows(2, INGRESS, DENY))
    node.events()
    before = node.counters()
    packet = raw.ipv4(a.v4, b.v4, UDP, raw.udp(a.v4, b.v4, 1000, 2000))
    began = time.monotonic()
    raw.send(a.ns, packet, times=200)
    seconds = time.monotonic() - began
    after, events = node.counters(), node.drops()
    dropped = after["Policy denied"] - before["Policy denied"]
    lost = after["events_lost"] - before["events_lost"]
    assert dropped == 200
    assert len(events) + lost == 200
    assert lost > 0
    assert len(events) <= 2 * 20 * (seconds + 1), "20 a second and processor, and as many saved up"


def test_a_hundred_thousand_rows(lab: Lab, nodes: list[Node]) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    node = start(nodes, lab)
    node.attach_all()
    many = [
        PolicyRow(2, INGRESS, identity, TCP, port, 16, DENY) for identity in range(5000, 6000) for port in range(100)
    ]
    began = time.monotonic()
    node.policy(many, rows(2, INGRESS, DENY, (80, ALLOW)))
    assert reaches(a.ns, b.v4, 80)
    assert not reaches(a.ns, b.v4, 81)
    node.policy(many, rows(2, INGRESS, DENY, (81, ALLOW)))
    assert reaches(a.ns, b.v4, 81)
    node.policy()
    assert time.monotonic() - began < 30
    node.stop()


def test_a_policy_that_does_not_fit_changes_nothing(lab: Lab, nodes: list[Node]) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    node = start(nodes, lab, policy_entries=100)
    node.attach_all()
    node.policy(rows(2, INGRESS, DENY, (80, ALLOW)))
    many = [PolicyRow(2, INGRESS, 0, TCP, port, 16, ALLOW) for port in range(200)]
    with pytest.raises(DatapathError, match="a policy of 200 rows cannot be written"):
        node.policy(many)
    assert reaches(a.ns, b.v4, 80)
    assert not reaches(a.ns, b.v4, 81)
    node.policy(rows(2, INGRESS, DENY, (81, ALLOW)))
    assert reaches(a.ns, b.v4, 81)


def test_addresses_and_policy_change_together_or_not_at_all(lab: Lab, nodes: list[Node]) -> None:
    """A longer prefix of the new policy, beside the rows of the old one, would be anybody's."""
    a = lab.pods["a"].ns
    node = start(nodes, lab, policy_entries=100, ipcache_entries=50)
    node.attach_all()

    def refused() -> list[int]:
        with netns.datagram(a, ("0.0.0.0", 0)) as four, netns.datagram(a, ("::", 0)) as six:
            four.sendto(b"x", (OUTSIDE4, 9))
            six.sendto(b"x", (OUTSIDE6, 9))
        return sorted(event.dst_identity for event in node.drops())

    one = node.entries({"192.0.2.0/24": 3001, "2001:db8::/32": 3002})
    node.policy(rows(1, EGRESS, ALLOW), *(rows(1, EGRESS, DENY, identity=who) for who in (3001, 3002)), entries=one)
    assert refused() == [3001, 3002]
    two = node.entries({"192.0.2.10/32": 3003, "2001:db8::10/128": 3004})
    denied = [rows(1, EGRESS, DENY, identity=who) for who in (3003, 3004)]
    many = [PolicyRow(2, INGRESS, 0, TCP, port, 16, ALLOW) for port in range(200)]
    with pytest.raises(DatapathError, match=r"a policy of 208 rows cannot be written: .* the map is full"):
        node.policy(many, *denied, entries=two)
    assert refused() == [3001, 3002]
    lots = node.entries({f"10.9.{number}.0/24": 3005 for number in range(60)})
    with pytest.raises(DatapathError, match=r"\d+ addresses and prefixes cannot be written: .* the map is full"):
        node.policy(*denied, entries=two | lots)
    assert refused() == [3001, 3002]
    for _ in range(4):  # what was refused has left nothing behind
        node.policy(rows(1, EGRESS, ALLOW), *denied, entries=two)
        assert refused() == [3003, 3004]


def test_flows_end_after_their_time(lab: Lab, nodes: list[Node]) -> None:
    """An idle flow is judged anew, and what comes of its other end is no reply any more."""
    a, b = lab.pods["a"], lab.pods["b"]
    node = start(nodes, lab, lifetimes=Lifetimes(other=1))
    node.attach_all()
    node.policy(rows(1, INGRESS, DENY))
    with netns.datagram(b.ns, (b.v4, 5000)) as server, netns.datagram(a.ns, (a.v4, 5001)) as client:
        client.settimeout(0.5)
        client.sendto(b"x", (b.v4, 5000))
        assert server.recv(10) == b"x"
        server.sendto(b"in time", (a.v4, 5001))
        assert client.recv(10) == b"in time"
        time.sleep(2.5)
        server.sendto(b"late", (a.v4, 5001))
        with pytest.raises(TimeoutError):
            client.recv(10)
        assert {event.reason for event in node.drops()} == {"Policy denied"}
