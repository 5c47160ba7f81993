"""Many checked streams on spliced sockets, while splicing goes on and off and its owner is killed: nothing is lost,
reordered or doubled.

L7PROXY_STRESS is the number of connections at a time; 10,000 takes half a minute.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sockmap.selfbench import take
from sockmap.splice import Scope, Splicer
from tests import netns
from tests.accelerate.rig import Rig, wait
from tests.splice.bench import live, program, until
from tests.splice.programs import StressReport, stress

pytestmark = pytest.mark.privileged
CONNECTIONS = int(os.environ.get("L7PROXY_STRESS", "2000"))
BUDGET = 30_000
"""Small, so that a reader is soon too slow and connections go from splicing to the stack and back."""
_NEAR, _FAR = "l7-splice-near", "l7-splice-far"


@contextmanager
def going_on_and_off(fresh: Splicer, scope: Scope) -> Iterator[None]:
    """Off for 10 ms in every 50."""
    over = threading.Event()

    def toggle() -> None:
        while not over.wait(0.04):
            fresh.stop()
            over.wait(0.01)
            fresh.start(scope)

    fresh.start(scope)
    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def is_right(report: StressReport) -> None:
    """Every stream of each kind is as it was sent, and ended as it should."""
    assert report.errors == [] and report.error_count == 0
    assert all(report.ends["client"]["kinds"].values()), report.ends
    assert report.total("resets") and report.total("peeks") and report.total("inquiries")


def both_ways_were_taken(fresh: Splicer, report: StressReport) -> None:
    """Bytes were spliced, and went by the stack for each reason; nobody's reads were taken for others."""
    counts = fresh.counts()
    assert counts["spliced_bytes"] > report.total("received") // 20 and counts["stack_bytes"] > 1 << 20, counts
    assert counts["flips"] > 100 and counts["budget"] and counts["order"] and counts["stopped"], counts
    assert sum(style.otherwise for style in fresh.styles()) == 0, list(fresh.styles())


def test_streams_of_all_kinds_while_splicing_goes_on_and_off(fresh: Splicer) -> None:
    with going_on_and_off(fresh, Scope(learn=False, budget=BUDGET)):
        report = stress("--connections", str(CONNECTIONS), "--seconds", "0", timeout=300)
    is_right(report)
    assert report.total("streams") > 1.5 * CONNECTIONS
    both_ways_were_taken(fresh, report)


@pytest.fixture
def near() -> Iterator[Sequence[str]]:
    """How a command is started in one of two network namespaces, with a cable between them."""
    netns.add(_NEAR)
    try:
        netns.add(_FAR)
        peer = ["peer", "name", "eth0", "netns", _FAR]
        netns.run(["ip", "-n", _NEAR, "link", "add", "eth0", "type", "veth", *peer])
        for name, address in ((_NEAR, "192.0.2.1/24"), (_FAR, "192.0.2.2/24")):
            netns.run(["ip", "-n", name, "address", "add", address, "dev", "eth0"])
            netns.run(["ip", "-n", name, "link", "set", "eth0", "up"])
        yield netns.inside(_NEAR, [])
    finally:
        netns.delete(_NEAR)
        if Path("/run/netns", _FAR).exists():
            netns.delete(_FAR)


def test_streams_between_two_network_namespaces(fresh: Splicer, near: Sequence[str]) -> None:
    ends = ("--addr", "192.0.2.1", "--client-netns", _FAR)
    with going_on_and_off(fresh, Scope(anywhere=True, learn=False, budget=BUDGET)):
        report = stress(*ends, "--connections", str(CONNECTIONS // 4), "--seconds", "1", prefix=near, timeout=300)
    is_right(report)
    both_ways_were_taken(fresh, report)


def test_a_program_that_is_learned_stays_known_whatever_its_connections_end_with(fresh: Splicer) -> None:
    """An end that comes in the middle of a read once made it one that reads by other means: left alone for good."""
    fresh.start(Scope(learn=False, dry_run=True))
    report = stress("--connections", "600", "--seconds", "1", "--kinds", "full,half,reset,unread")
    assert report.errors == []
    (style,) = [style for style in fresh.styles() if style.name == "stress"]
    # One in a hundred: the kernel may skip the program that counts a read (docs/splice.md).
    assert style.sound > 600 and style.otherwise * 100 <= style.sound


def test_pairs_whose_ends_go_at_once_leave_nothing_behind(fresh: Splicer) -> None:
    """On two CPUs: the ends of one in 3,000 once each took the other for one that is there."""
    fresh.start(Scope(learn=False, dry_run=True))
    for _ in range(3):
        report = stress("--connections", "600", "--seconds", "1", "--kinds", "full,half,reset,unread")
        assert report.errors == []
        until(lambda: not live(fresh))
    counts, left = fresh.counts(), list(fresh.pairs())
    assert counts["paired"] > 1800 and counts["ended"] + len(left) == counts["paired"]
    assert not [pair for pair in left if all(pair.gone)]
    assert len(left) * 100 < counts["paired"]  # as above
    assert fresh.tidy() == 0 and fresh.tidy(-1) == len(left)
    assert not list(fresh.pairs())


def test_messages_of_two_threads_keep_their_orders(fresh: Splicer) -> None:
    """Both on one socket, whose reader stops now and then."""
    count, size = 10_000, 24
    scope = Scope(learn=False, budget=10_000)
    with program(fresh) as bench, going_on_and_off(fresh, scope):
        client, server = bench.both()
        client.settimeout(None)

        def write(number: int) -> None:
            for turn in range(count):
                client.sendall(bytes([number]) * (size - 4) + turn.to_bytes(4, "big"))

        writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        for writer in writers:
            writer.start()
        turns, chance = [0, 0], random.Random(1)
        for _ in range(2 * count):
            if chance.random() < 0.002:
                time.sleep(0.005)
            message = take(server, size)
            assert message[: size - 4] == message[:1] * (size - 4)
            assert int.from_bytes(message[-4:], "big") == turns[message[0]]
            turns[message[0]] += 1
        for writer in writers:
            writer.join()
        way = bench.sent(client)
    assert turns == [count, count]
    assert way.spliced and way.stack and way.flips


def test_kill_9_of_the_accelerator_in_the_middle_of_streams(tmp_path: Path) -> None:
    """Twice; the second one has taken over from the first."""
    with closing(Rig(tmp_path)) as rig:
        cgroup = rig.cgroup("stress")
        prefix = ["sh", "-c", f'echo $$ >{cgroup}/cgroup.procs && exec "$@"', "sh"]
        flags = ("--cgroup", str(cgroup), "--no-learn", "--budget", str(BUDGET))
        over = threading.Event()

        def run() -> list[StressReport]:
            reports = []
            while not over.is_set():
                reports.append(stress("--connections", "200", "--seconds", "1", prefix=prefix))
            return reports

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run)
            try:
                for number in range(2):
                    accelerate = rig.start(*flags)
                    wait(lambda: running.done() or rig.counts()["spliced_bytes"] > 1 << 20)
                    accelerate.stop(signal.SIGKILL)
                    assert ("taken over" in accelerate.said) == (number == 1)
            finally:
                over.set()
            for report in running.result():
                is_right(report)
