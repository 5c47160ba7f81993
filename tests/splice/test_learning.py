"""Which programs are spliced: how they read is learned from connections that are not."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from sockmap.cgroups import listening, sockets
from sockmap.selfbench import Bench, take
from sockmap.splice import Scope
from tests.splice.bench import another_is_spliced, close, disconnect, home, talk

pytestmark = pytest.mark.privileged
_SO_ZEROCOPY, _MSG_ZEROCOPY = 60, 0x4000000


def early_listener(bench: Bench) -> socket.socket:
    """One that the programs have not seen made."""
    bench.off()
    listener = bench.listen()
    bench.splicer.start(Scope())
    return listener


def test_the_first_connection_teaches(bench: Bench) -> None:
    bench.splicer.start(Scope())
    ends = bench.connect(bench.listen())
    talk(*ends)
    assert not bench.pair(ends[0]).spliceable and bench.splicer.counts()["learning"] == 1
    close(ends)
    style = bench.style()
    assert style is not None and (style.sound, style.otherwise) == (2, 0)
    assert another_is_spliced(bench)


def test_a_long_connection_teaches_before_it_ends(bench: Bench) -> None:
    bench.splicer.start(Scope())
    talk(*bench.connect(bench.listen()), times=40)
    assert another_is_spliced(bench)


def test_a_socket_that_connects_again_is_judged_by_what_it_has_read(bench: Bench) -> None:
    first, second = bench.listen(), bench.listen()
    bench.splicer.start(Scope(ports=[first.getsockname()[1]]))
    client, server = bench.connect(first)
    talk(client, server)
    disconnect(client)
    server.close()
    client.connect(second.getsockname())
    assert not list(bench.splicer.pairs())
    another = bench.own(second.accept()[0])
    talk(client, another)
    close((client, another))
    style = bench.style()
    assert style is not None and (style.sound, style.otherwise) == (2, 0)


def waits_for_all(client: socket.socket, server: socket.socket) -> None:
    client.sendall(b"abcdef")
    assert server.recv(6, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b"abcdef"


def waits(client: socket.socket, server: socket.socket) -> None:
    server.settimeout(None)
    client.sendall(b"abc")
    assert server.recv(3) == b"abc"


def splices(client: socket.socket, server: socket.socket) -> None:
    client.sendall(b"abc")
    assert server.recv(1) == b"a"
    inward, outward = os.pipe()
    assert os.splice(server.fileno(), outward, 100) == 2
    os.close(inward)
    os.close(outward)


def urgent(client: socket.socket, server: socket.socket) -> None:
    client.send(b"!", socket.MSG_OOB)
    poll = select.poll()
    server.setblocking(False)
    poll.register(server, select.POLLPRI)
    assert poll.poll(1000)
    assert server.recv(1, socket.MSG_OOB) == b"!"


def copies_nothing(client: socket.socket, server: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, _SO_ZEROCOPY, 1)
    client.send(bytes(50_000), _MSG_ZEROCOPY)
    assert len(take(server, 50_000)) == 50_000
    assert client.recvmsg(1, 200, socket.MSG_ERRQUEUE)[1]


def has_a_mark(client: socket.socket, server: socket.socket) -> None:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 3)
    client.sendall(b"abc")
    assert take(server, 3) == b"abc"


PECULIAR = [waits_for_all, waits, splices, urgent, copies_nothing, has_a_mark]


@pytest.mark.parametrize("act", PECULIAR, ids=lambda act: act.__name__)
def test_programs_that_splicing_would_disturb_are_left_alone(
    bench: Bench, act: Callable[[socket.socket, socket.socket], None]
) -> None:
    bench.splicer.start(Scope())
    ends = bench.connect(bench.listen())
    talk(*ends)
    act(*ends)
    close(ends)
    style = bench.style()
    assert style is not None and style.otherwise
    assert not another_is_spliced(bench)
    assert bench.splicer.counts()["reads_otherwise"]


def test_a_program_is_left_alone_while_its_first_connection_is_there(bench: Bench) -> None:
    bench.splicer.start(Scope())
    ends = bench.connect(bench.listen())
    talk(*ends, times=40)  # known, and spliced were it not for what comes
    waits(*ends)
    assert not another_is_spliced(bench)
    close(ends)
    style = bench.style()
    assert style is not None and (style.sound, style.otherwise) == (2, 1)


def test_what_a_program_opens_that_is_left_alone_is_only_counted(bench: Bench) -> None:
    bench.splicer.start(Scope())
    ends = bench.connect(bench.listen())
    waits(*ends)
    close(ends)
    bench.splicer.clear_counts()
    for _ in range(3):
        ends = bench.connect(bench.listen())
        talk(*ends)
        close(ends)
    assert bench.refusals() == "reads_otherwise 3" and not list(bench.splicer.pairs())
    # A dry run follows and lists all.
    bench.splicer.start(Scope(dry_run=True))
    client, _ = bench.connect(bench.listen())
    assert bench.pair(client).client.refusal == "its program reads by other means than recv"


def test_a_server_that_is_left_alone_is_looked_at_now_and_then(bench: Bench) -> None:
    bench.use("waiter")
    listener, another = bench.listen(), bench.listen()
    bench.use("asker")
    waits_for_all(*bench.connect(listener))
    bench.splicer.clear_counts()
    for _ in range(20):
        close(bench.connect(listener))
    counts = bench.splicer.counts()
    assert (counts["paired"], counts["reads_otherwise"]) == (1, 20)
    bench.connect(another)  # nothing is known of it
    assert bench.splicer.counts()["paired"] == 2
    Path("/proc/thread-self/comm").write_text("another", encoding="ascii")
    bench.connect(listener)  # who may come to another server by this address
    assert bench.splicer.counts()["paired"] == 3
    bench.connect(listener)
    assert bench.splicer.counts()["paired"] == 3
    time.sleep(5.1)
    bench.connect(listener)
    assert bench.splicer.counts()["paired"] == 4


@pytest.mark.parametrize("scope", [Scope(blocking=True), Scope(learn=False)], ids=["blocking", "not learning"])
def test_reads_that_wait_are_spliced_if_it_is_said(bench: Bench, scope: Scope) -> None:
    bench.splicer.start(scope)
    ends = bench.connect(bench.listen())
    talk(*ends)
    waits(*ends)
    close(ends)
    assert another_is_spliced(bench)


def test_nobody_is_taken_for_a_listener_that_was_there_before(bench: Bench) -> None:
    listener = early_listener(bench)
    talk(*bench.connect(bench.listen()), times=40)  # this program's way of reading is known by now
    client, server = bench.connect(listener)
    assert not bench.pair(client).spliceable and bench.pair(client).server.refusal == "its program is not known"
    close((client, server))
    assert bench.splicer.adopt(home(bench.splicer)) == 1
    client, server = bench.connect(listener)
    pair = bench.pair(client)
    assert pair.spliceable and pair.server.name == pair.client.name != ""


def test_of_other_processes_only_listeners_are_borrowed() -> None:
    """A socket that its process closes meanwhile would stay open, and in its epoll sets."""
    with ExitStack() as stack:
        one = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        two = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        stack.enter_context(socket.create_connection(one.getsockname()))
        stack.enter_context(one.accept()[0])
        found = [stack.enter_context(sock) for sock in sockets(os.getpid(), listening(os.getpid()))]
        inodes = {os.fstat(sock.fileno()).st_ino for sock in found}
        assert {os.fstat(sock.fileno()).st_ino for sock in (one, two)} <= inodes
        assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in found)


_TALK = """
import socket, sys
listener, waits = None, int(sys.argv[2])
for line in sys.stdin:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    with listener.accept()[0] as ours:
        ours.setblocking(bool(waits))
        while True:
            try:
                data = ours.recv(100)
            except BlockingIOError:
                continue
            if not data:
                break
            ours.sendall(data)
"""


def test_programs_of_one_interpreter_are_told_apart(bench: Bench) -> None:
    """A script that was seen to read without waiting says nothing of another, whose name is the same."""
    bench.splicer.start(Scope())

    def spliced(waits: int) -> bool:
        argv = [sys.executable, "-c", _TALK.replace("import socket, sys", f"import socket, sys  # {waits}")]
        with subprocess.Popen(
            [*argv, "0", str(waits)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            found = False
            for _ in range(2):
                process.stdin.write("again\n")
                process.stdin.flush()
                with socket.create_connection(("127.0.0.1", int(process.stdout.readline())), timeout=2) as client:
                    found = bench.pair(client).server.enrolled
                    client.sendall(b"a few bytes")
                    assert take(client, 11) == b"a few bytes"
            process.stdin.close()
            return found

    talk(*bench.connect(bench.listen()), times=40)  # so that this program is known
    assert spliced(waits=0) and not spliced(waits=1)
