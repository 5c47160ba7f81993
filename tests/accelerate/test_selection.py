"""Which connections are spliced: by cgroup, network namespace, port, program and address; and what a dry run shows."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sockmap import namespaces
from tests import netns
from tests.accelerate.rig import Agent, Rig, accepted, exchange, talk, wait

pytestmark = pytest.mark.privileged


def taught(rig: Rig, client: Agent, listener: socket.socket, host: str | None = None) -> dict[str, Any]:
    """What `status` shows of a connection of programs that were seen to read by recv."""
    talk(client, listener, host=host)
    return shown(rig, client, listener, host)


def shown(rig: Rig, client: Agent, listener: socket.socket, host: str | None = None) -> dict[str, Any]:
    """What `status` shows of one more connection, empty if that is nothing."""
    with client.connect(listener, host) as near, accepted(listener) as far:
        exchange(near, far)
        port = near.getsockname()[1]
        found = [one for one in rig.connections() if one["client"]["port"] == port]
    return found[0] if found else {}


def test_connections_of_the_cgroup_and_those_below_are_spliced(rig: Rig) -> None:
    ours, other = rig.cgroup(), rig.cgroup("b")
    below = rig.cgroup("a/below")
    client, server, stranger = rig.agent(ours), rig.agent(below, "serve"), rig.agent(other)
    listener, strange = server.listen(), stranger.listen()
    accelerate = rig.start("--cgroup", ours.name, "--cgroup", str(below))
    assert f"cgroup {ours}; loopback addresses" in accelerate.said  # the one below is in it
    connection = taught(rig, client, listener)
    assert connection["path"] == "spliced", connection["detail"]
    ends = [(connection[end]["program"], connection[end]["sent"]["spliced"]) for end in ("client", "server")]
    assert ends == [("peer", 4000), ("serve", 4000)]
    assert taught(rig, stranger, listener) == taught(rig, client, strange) == {}


def test_a_listener_that_was_there_before_is_known_by_its_program(rig: Rig) -> None:
    """Its connections would else be those of a program without a name, which all such share."""
    cgroup = rig.cgroup()
    first, second = rig.agent(cgroup, "first"), rig.agent(cgroup, "second")
    one, two = first.listen(), second.listen()
    rig.start("--cgroup", str(cgroup))
    assert taught(rig, first, one)["path"] == "spliced"
    # `first` is known; how `second` reads is not.
    connection = shown(rig, first, two)
    assert connection["server"]["program"] == "second"
    assert connection["detail"] == "stack: its program's way of reading is not known yet"


def test_a_listener_that_came_into_the_cgroup_without_being_seen_is_left_alone(rig: Rig) -> None:
    """Its maker is in the cgroup no more when the programs come, so that nobody can say how it is read."""
    cgroup = rig.cgroup()
    client, server = rig.agent(cgroup), rig.agent(cgroup, "gone")
    listener = server.listen()
    server.process.kill()
    server.process.wait()
    rig.start("--cgroup", str(cgroup))
    talk(client, listener)
    assert shown(rig, client, listener)["detail"] == "stack: its program is not known"


@pytest.mark.parametrize("by", ["name", "path", "process"])
def test_clients_of_one_network_namespace(rig: Rig, by: str) -> None:
    cgroup, inner = rig.cgroup(), rig.namespace("x")
    inside, outside = rig.agent(cgroup, "in", inner), rig.agent(cgroup, "out")
    names = {"name": inner, "path": f"/run/netns/{inner}", "process": str(inside.process.pid)}
    rig.start("--cgroup", str(cgroup), "--netns", names[by], "--no-learn")
    assert shown(rig, inside, inside.listen())["path"] == "spliced"
    assert shown(rig, outside, outside.listen()) == {}
    assert rig.counts()["out_of_scope"] == 1


def test_a_namespaces_cookie_is_that_of_its_sockets(rig: Rig) -> None:
    inner = rig.namespace("x")

    def theirs() -> bytes:
        with socket.socket() as sock:
            return sock.getsockopt(socket.SOL_SOCKET, 71, 8)

    assert namespaces.cookie(inner) == int.from_bytes(netns.call(inner, theirs), "little")
    assert namespaces.cookie(str(os.getpid())) == int.from_bytes(theirs(), "little") != namespaces.cookie(inner)


def test_ports_and_programs_and_addresses(rig: Rig) -> None:
    cgroup = rig.cgroup()
    client, envoy, curl = rig.agent(cgroup), rig.agent(cgroup, "envoy"), rig.agent(cgroup, "curl")
    listener, other = envoy.listen(), client.listen()
    chosen = ["--port", str(listener.getsockname()[1]), "--process", "envoy", "--not-process", "curl"]
    rig.start("--cgroup", str(cgroup), "--no-learn", *chosen)
    assert shown(rig, client, listener)["path"] == "spliced"  # the server is chosen
    assert shown(rig, envoy, other) == {}  # another port
    assert shown(rig, curl, listener) == {}
    assert rig.counts()["out_of_scope"] == 2


def test_one_end_of_a_chosen_program_is_needed(rig: Rig) -> None:
    cgroup = rig.cgroup()
    client, envoy = rig.agent(cgroup), rig.agent(cgroup, "envoy")
    plain, chosen = client.listen(), envoy.listen()
    rig.start("--cgroup", str(cgroup), "--no-learn", "--process", "envoy")
    assert shown(rig, client, plain) == {}
    assert shown(rig, client, chosen)["path"] == shown(rig, envoy, plain)["path"] == "spliced"


@pytest.fixture
def address(rig: Rig) -> Iterator[tuple[str, str]]:
    """A namespace, and an address in it that is not loopback."""
    namespace = rig.namespace("x")
    netns.run(["ip", "-n", namespace, "address", "add", "10.78.0.1/24", "dev", "lo"])
    yield namespace, "10.78.0.1"


@pytest.mark.parametrize("anywhere", [False, True])
def test_only_loopback_unless_it_is_said(rig: Rig, address: tuple[str, str], anywhere: bool) -> None:
    cgroup = rig.cgroup()
    agent = rig.agent(cgroup, namespace=address[0])
    listener = agent.listen(address[1])
    rig.start("--cgroup", str(cgroup), "--no-learn", *["--anywhere"] * anywhere)
    assert shown(rig, agent, listener).get("path") == ("spliced" if anywhere else None)
    assert shown(rig, agent, agent.listen("::1"))["path"] == "spliced"


def test_the_budget_bounds_what_waits(rig: Rig) -> None:
    cgroup = rig.cgroup()
    agent = rig.agent(cgroup)
    listener = agent.listen()
    rig.start("--cgroup", str(cgroup), "--no-learn", "--budget", "64KiB")
    with agent.connect(listener) as near, accepted(listener) as far:
        for _ in range(4):  # a send goes one way as a whole
            near.sendall(bytes(1 << 16))
        sent = rig.connections()[0]["client"]["sent"]
        assert (sent["spliced"], sent["stack"], sent["budget_hits"]) == (1 << 16, 3 << 16, 3)
        assert sent["reason"] == "the peer does not read fast enough"
        left = 1 << 18
        while left:
            left -= len(far.recv(left))


# -- dry run and watch --------------------------------------------------------------------------------------------


def test_a_dry_run_lists_what_would_pair(rig: Rig) -> None:
    cgroup = rig.cgroup()
    client, server = rig.agent(cgroup, "client"), rig.agent(cgroup, "server")
    listener, waiting = server.listen(), server.listen()
    accelerate = rig.start("--cgroup", str(cgroup), "--dry-run")
    assert "ready: dry run, nothing is spliced; cgroup" in accelerate.said
    for _ in range(3):
        talk(client, listener)
    with client.connect(waiting) as near, accepted(waiting) as far:
        exchange(near, far, times=1)
        far.send(b"unread")
        assert {one["path"] for one in rig.connections()} == {"stack"}
        assert accelerate.stop() == 0
        assert near.recv(100) == b"unread"
    rows = [line.split(maxsplit=8) for line in accelerate.said.splitlines() if line.startswith("client (")]
    place = f"({cgroup.name})"
    port, other = (str(one.getsockname()[1]) for one in (listener, waiting))
    assert rows == [
        ["client", place, "server", place, port, "3", "23.4", "KiB", "yes"],
        ["client", place, "server", place, other, "1", "200", "B", "yes"],
    ]
    assert re.search(r"bytes spliced +0\n", accelerate.said), accelerate.said
    assert re.search(r"connections paired +4\n", accelerate.said), accelerate.said
    assert re.search(r"bytes by the stack +24,200\n", accelerate.said), accelerate.said


def test_a_dry_run_says_who_would_not_be_spliced(rig: Rig) -> None:
    cgroup = rig.cgroup()
    client, server = rig.agent(cgroup, "client"), rig.agent(cgroup, "waiter")
    listener = server.listen()
    accelerate = rig.start("--cgroup", str(cgroup), "--dry-run")
    with client.connect(listener) as near, accepted(listener) as far:
        near.sendall(b"x" * 100)
        assert far.recv(100, socket.MSG_WAITALL) == b"x" * 100
    wait(lambda: rig.counts()["ended"])
    assert accelerate.stop() == 0
    assert "no: waiter reads by other means than recv" in accelerate.said


def test_watch_shows_rates_and_the_busiest(rig: Rig) -> None:
    cgroup = rig.cgroup()
    client, server = rig.agent(cgroup, "client"), rig.agent(cgroup, "server\x1b[1m")
    listener = server.listen()
    accelerate = rig.start("--cgroup", str(cgroup), "--no-learn", "--watch")
    with client.connect(listener) as near, accepted(listener) as far:

        def seen() -> list[str]:
            exchange(near, far, times=1, size=1 << 14)
            return re.findall(
                r"^1 connections; spliced [\d.]+ [KM]iB/s, by the stack 0 B/s; .*\n.*\n.*$", accelerate.said, re.M
            )

        head, columns, row = wait(seen)[0].splitlines()
        assert " in all " in head and columns.split() == [
            "CLIENT",
            "SERVER",
            "SPLICED/s",
            "STACK/s",
            "SPLICED",
            "STACK",
        ]
        ends = [
            f"{name} 127.0.0.1:{sock.getsockname()[1]}" for name, sock in (("client", near), ("server\\x1b[1m", far))
        ]
        assert row.startswith("  ".join(ends)), row
    assert accelerate.stop() == 0
