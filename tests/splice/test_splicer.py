"""Pairs, scopes, life: sockets of this process through the real programs, in a cgroup of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from sockmap.bpfmap import detach_cgroup, program_fd
from sockmap.btf import Btf, BtfError
from sockmap.selfbench import Bench, reset, take
from sockmap.splice import SOCK_OPS, Scope, Splicer, leftovers
from tests import netns
from tests.splice.bench import another_is_spliced, attached, cgroup, home, program, talk, until

pytestmark = pytest.mark.privileged
_SO_NETNS_COOKIE = 71


def counted(bench: Bench) -> dict[str, int]:
    """The counts that are not nought."""
    return {name: count for name, count in bench.splicer.counts().items() if count}


# -- pairs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("listen", "ask"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")])
def test_a_pair_says_who_its_ends_are_and_what_went_which_way(bench: Bench, listen: str, ask: str) -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    client, server = bench.connect(bench.listen(listen), ask)
    talk(client, server, 5)
    pair = bench.pair(client)
    assert (pair.client.address, pair.client.port) == (ip_address(ask), client.getsockname()[1])
    assert (pair.client.peer, pair.client.peer_port) == (ip_address(ask), server.getsockname()[1])
    assert (pair.server.port, pair.server.peer_port) == (pair.client.peer_port, pair.client.port)
    assert pair.client.name == pair.server.name and pair.client.name.startswith("program")
    assert pair.client.cgroup == pair.server.cgroup > 1
    cookie = int.from_bytes(client.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
    assert pair.client.namespace == pair.server.namespace == cookie
    assert before < pair.since < time.clock_gettime(time.CLOCK_MONOTONIC)
    assert pair.client.enrolled and pair.server.enrolled and pair.spliceable
    assert [(way.spliced, way.stack, way.flips, way.reason) for way in pair.sent] == [(20, 0, 1, "")] * 2


def test_a_client_whose_socket_is_of_ipv6_and_its_connection_of_ipv4(bench: Bench) -> None:
    client, server = bench.connect(bench.listen("127.0.0.1"), "::ffff:127.0.0.1")
    talk(client, server)
    pair = bench.pair(client)
    assert pair.client.address == pair.server.address == ip_address("127.0.0.1")
    assert pair.sent[0].spliced == 12


def test_counts(bench: Bench) -> None:
    client, server = bench.both()
    talk(client, server)
    client.close()
    server.close()
    until(lambda: bench.splicer.counts()["ended"])
    assert counted(bench) == {"paired": 1, "ended": 1, "spliced_bytes": 24, "flips": 2}


def test_a_cgroup_and_the_one_above_it(bench: Bench) -> None:
    with cgroup() as outer, cgroup(outer) as inner:
        bench.splicer.attach(outer)
        bench.splicer.attach(inner)
        try:
            client, server = bench.both()
            talk(client, server)
            assert bench.splicer.counts()["paired"] == 1 and not bench.splicer.counts()["enrol_failed"]
            assert bench.sent(client).spliced == 12
        finally:
            bench.splicer.detach(inner)
            bench.splicer.detach(outer)


def test_a_full_table_means_no_splice_and_no_error() -> None:
    with attached(Splicer(pairs=2)) as splicer, program(splicer) as bench:
        listener = bench.listen()
        ends = [bench.connect(listener) for _ in range(6)]
        for client, server in ends:
            talk(client, server)
        assert len(list(splicer.pairs())) == 2
        assert bench.sent(ends[0][0]).spliced == 12
        refused = splicer.counts()
        assert refused["pairs_full"] + refused["enrol_failed"] >= 4
        for client, server in ends[:2]:
            client.close()
            server.close()
        until(lambda: not list(splicer.pairs()))
        talk(*bench.both())


def test_a_client_whose_server_never_comes_takes_no_place() -> None:
    """A listener with TCP_DEFER_ACCEPT has no socket for a client that has said nothing."""
    with attached(Splicer(pairs=2)) as splicer, program(splicer) as bench:
        listener = bench.listen()
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        for _ in range(6):
            client = socket.create_connection(listener.getsockname())
            assert not list(splicer.pairs())
            reset(client)
        assert not splicer.counts()["pairs_full"]
        talk(*bench.both())
        assert splicer.counts()["paired"] == len(list(splicer.pairs())) == 1


def test_a_kernel_without_a_tracepoint_says_so() -> None:
    with pytest.raises(BtfError, match="no tracepoint tcp_sings"):
        Btf.running().tracepoint("tcp_sings")


def test_a_pair_that_is_left_alone_keeps_its_options(bench: Bench) -> None:
    bench.splicer.start(Scope(dry_run=True))
    client, server = bench.connect(bench.listen())
    server.close()
    assert take(client, 1) == b""
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


# -- scope -------------------------------------------------------------------------------------------------------------


def test_ports(bench: Bench) -> None:
    inside, outside = bench.listen(), bench.listen()
    bench.splicer.start(Scope(learn=False, ports=[inside.getsockname()[1]]))
    talk(*bench.connect(outside))
    assert not list(bench.splicer.pairs()) and bench.splicer.counts()["out_of_scope"] == 1
    client, server = bench.connect(inside)
    talk(client, server)
    assert bench.sent(client).spliced == 12


def test_names(bench: Bench) -> None:
    bench.use("chosen")
    bench.splicer.start(Scope(learn=False, names=["chosen"]))
    assert another_is_spliced(bench)
    bench.splicer.start(Scope(learn=False, names=["another"]))
    talk(*bench.connect(bench.listen()))
    bench.splicer.start(Scope(learn=False, not_names=["chosen"]))
    talk(*bench.connect(bench.listen()))
    assert bench.splicer.counts()["out_of_scope"] == 2
    bench.splicer.start(Scope(learn=False, not_names=["another"]))
    assert another_is_spliced(bench)


def test_the_servers_name_counts_as_well(bench: Bench) -> None:
    bench.use("server")
    listener = bench.listen()
    bench.use("client")
    bench.splicer.start(Scope(learn=False, not_names=["server"]))
    talk(*bench.connect(listener))
    assert not list(bench.splicer.pairs()) and bench.splicer.counts()["out_of_scope"] == 1
    for name in ("client", "server"):
        bench.splicer.start(Scope(learn=False, names=[name]))
        assert bench.pair(bench.connect(listener)[0]).spliceable


def test_namespaces_and_addresses(bench: Bench) -> None:
    with_address = "10.99.7.1"
    netns.run(["ip", "netns", "add", "l7-splice-scope"])
    try:
        netns.run(["ip", "-n", "l7-splice-scope", "link", "set", "lo", "up"])
        netns.run(["ip", "-n", "l7-splice-scope", "address", "add", f"{with_address}/32", "dev", "lo"])

        def connect() -> tuple[socket.socket, socket.socket]:
            return bench.connect(bench.listen(with_address))

        ends = netns.call("l7-splice-scope", connect)
        talk(*ends)
        assert bench.splicer.counts()["out_of_scope"] == 1
        cookie = int.from_bytes(ends[0].getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
        bench.splicer.start(Scope(learn=False, anywhere=True, namespaces=[cookie]))
        client, server = netns.call("l7-splice-scope", connect)
        talk(client, server)
        assert [pair.sent[0].spliced for pair in bench.splicer.pairs()] == [12]
        talk(*bench.connect(bench.listen()))
        assert bench.splicer.counts()["out_of_scope"] == 2
    finally:
        netns.run(["ip", "netns", "del", "l7-splice-scope"])


def test_a_dry_run_only_counts(bench: Bench) -> None:
    bench.splicer.start(Scope(learn=False, dry_run=True))
    client, server = bench.connect(bench.listen())
    talk(client, server)
    pair = bench.pair(client)
    assert not (pair.client.enrolled or pair.server.enrolled or pair.spliceable)
    assert [(way.spliced, way.stack) for way in pair.sent] == [(0, 12), (0, 12)]


# -- life --------------------------------------------------------------------------------------------------------------


def test_stop_and_start_with_bytes_unread(bench: Bench) -> None:
    client, server = bench.both()
    for switch in (bench.off, bench.on, bench.off, bench.on):
        client.sendall(b"one")
        switch()
        client.sendall(b"two")
        assert take(server, 6) == b"onetwo"
    way = bench.sent(client)
    assert way.spliced and way.stack


def test_after_detach_new_connections_are_not_looked_at_and_old_ones_go_on(splicer: Splicer) -> None:
    with program(splicer) as bench:
        path = home(splicer)
        client, server = bench.both()
        splicer.detach()
        try:
            talk(*bench.connect(bench.listen()))
            talk(client, server)
            assert [pair.sent[0].spliced for pair in splicer.pairs()] == [12]
        finally:
            splicer.attach(path)


def detach(path: Path, program: int) -> None:
    directory, fd = os.open(path, os.O_RDONLY), program_fd(program)
    try:
        detach_cgroup(directory, fd, SOCK_OPS)
    finally:
        os.close(fd)
        os.close(directory)


def test_what_is_spliced_outlives_the_programs_owner_and_can_be_detached() -> None:
    code = "import sys, time; from pathlib import Path; from sockmap.splice import *; s = Splicer();"
    code += "s.start(Scope(learn=False)); s.attach(Path(sys.argv[1])); print('there', flush=True); time.sleep(60)"
    with cgroup() as path:
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(path)], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None and process.stdout.readline() == b"there\n"
            with socket.create_server(("127.0.0.1", 0)) as listener:
                client = socket.create_connection(listener.getsockname(), timeout=2)
                server = listener.accept()[0]
            server.settimeout(2)
            with client, server:
                talk(client, server)
                client.sendall(b"unread")
                process.send_signal(signal.SIGKILL)
                process.wait()
                assert take(server, 6) == b"unread"
                talk(client, server)
                (left,) = leftovers(path)
                detach(path, left)
                assert not leftovers(path)
                talk(client, server)
        finally:
            process.kill()
            process.wait()
