"""The self-test: passes on this kernel, sees what a kernel lacks, and neither hangs nor leaves anything."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sockmap import selfchecks, selftest
from sockmap.bpfmap import cgroup_programs
from sockmap.cgroups import cgroup_root
from sockmap.config import DatapathError
from sockmap.selfbench import Bench, Wrong, take
from sockmap.selftest import BROKEN, Report, Result
from sockmap.splice import QUEUED, VERDICT, Scope, Splicer

pytestmark = pytest.mark.privileged


@contextmanager
def loaded(**options: object) -> Iterator[Splicer]:
    """The programs, given up at the end."""
    splicer = Splicer(**options)  # type: ignore[arg-type]  # they are of several types
    try:
        yield splicer
    finally:
        splicer.close()


@pytest.fixture(scope="module")
def splicer() -> Iterator[Splicer]:
    with loaded() as splicer:
        yield splicer


def by_name(report: Report) -> dict[str, Result]:
    """The checks by their names."""
    return {check.name: check for check in report.checks}


def works(_: Bench) -> str:
    """A check that passes."""
    return "fine"


def waits(bench: Bench) -> str:
    """A check for which a byte does not come."""
    _, server = bench.both()
    server.settimeout(None)
    return str(server.recv(1))


def dies(_: Bench) -> str:
    """A check that takes the process with it."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "not reached"


def test_this_kernel_stands_it(splicer: Splicer) -> None:
    report = selftest.run(splicer)
    assert report.failures == () and report.usable
    assert [check.name for check in report.checks] == [check.__name__ for check in selfchecks.CHECKS]
    assert all(check.seen for check in report.checks)


def test_nothing_is_left(splicer: Splicer) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    report = selftest.run(splicer)
    assert report.usable
    assert not list(cgroup_root().glob(f"l7proxy-selftest-{os.getpid()}"))
    assert Path(f"/proc/self/task/{os.getpid()}/children").read_text() == children
    assert (list(splicer.pairs()), list(splicer.styles())) == ([], [])
    assert not any(splicer.counts().values())


def test_it_runs_in_a_cgroup_of_its_own(splicer: Splicer) -> None:
    def attached(_: Bench) -> str:
        path = cgroup_root() / Path("/proc/self/cgroup").read_text().rpartition("::/")[2].strip()
        fd = os.open(path, os.O_RDONLY)
        return f"{path.name} {len(cgroup_programs(fd, 3))}"

    assert selftest.run(splicer, checks=[attached]).checks[0].seen == f"l7proxy-selftest-{os.getpid()} 1"


def test_a_kernel_whose_fionread_is_wrong_is_not_used() -> None:
    with loaded(without={VERDICT}) as splicer:
        report = selftest.run(splicer)
    assert not report.usable
    assert [text.partition(":")[0] for text in report.failures] == ["fionread"]
    assert "not 150" in report.failures[0]


def test_a_kernel_that_does_not_count_what_waits_is_worked_around() -> None:
    with loaded(without={QUEUED}) as splicer:
        report = selftest.run(splicer)
    assert report.usable, report.failures
    assert "sk_psock.msg_tot_len" in report.workarounds[0]
    assert by_name(report)["budget"].ok and by_name(report)["order"].ok


def test_a_full_table_is_tried_where_it_is_small() -> None:
    with loaded(pairs=3) as splicer:
        report = selftest.run(splicer)
    assert report.usable, report.failures
    assert by_name(report)["full"].seen == "the others go by the stack"


def test_a_check_can_be_made_to_fail(splicer: Splicer) -> None:
    report = selftest.run(splicer, broken={"order"}, checks=[selfchecks.pairs, selfchecks.order])
    assert report.failures == ("order: said to be broken",) and not report.usable


def test_by_the_environment_too(splicer: Splicer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BROKEN, "rst,pairs")
    report = selftest.run(splicer, checks=[selfchecks.pairs, selfchecks.peek, selfchecks.rst])
    assert report.failures == ("pairs: said to be broken", "rst: said to be broken")


def test_a_lost_byte_is_a_failure_and_the_next_check_runs(splicer: Splicer) -> None:
    report = selftest.run(splicer, checks=[waits, works])
    assert [(check.name, check.ok) for check in report.checks] == [("waits", False), ("works", True)]
    assert report.failures == ("waits: nothing came for 1 s",)


def test_a_check_that_dies_is_a_failure(splicer: Splicer) -> None:
    report = selftest.run(splicer, checks=[works, dies, works])
    assert report.failures == ("dies: the test did not come to its end",)


def test_a_check_that_cannot_be_stopped_is_a_failure(splicer: Splicer, monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(_: Bench) -> str:
        signal.setitimer(signal.ITIMER_REAL, 0)
        time.sleep(60)
        return "not reached"

    monkeypatch.setattr(selftest, "_ALL_SECONDS", 0.5)
    assert selftest.run(splicer, checks=[deaf]).failures == ("deaf: the test did not come to its end",)


def test_a_wrong_byte_is_said(splicer: Splicer) -> None:
    def wrong(bench: Bench) -> str:
        client, server = bench.both()
        client.sendall(b"ab")
        client.close()
        if len(take(server, 3)) < 3:
            raise Wrong("2 of 3 bytes came")
        return "not reached"

    assert selftest.run(splicer, checks=[wrong]).failures == ("wrong: 2 of 3 bytes came",)


def test_where_it_cannot_run_nothing_is_spliced(splicer: Splicer, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise DatapathError("no cgroup2 hierarchy is mounted")

    monkeypatch.setattr(selftest, "cgroup_root", none)
    report = selftest.run(splicer)
    assert report.failures == ("start: the self-test cannot run: no cgroup2 hierarchy is mounted",)


def interrupted(_: Bench) -> str:
    """As on a kernel where reads that wait are not disturbed."""
    return "it goes on"


def test_programs_whose_reads_wait_are_spliced_where_they_are_not_disturbed(splicer: Splicer) -> None:
    scope = Scope(anywhere=True)
    report = selftest.run(splicer, checks=[interrupted])
    assert report.scope(scope) == Scope(anywhere=True, blocking=True)
    report = selftest.run(splicer, checks=[interrupted], broken={"interrupted"})
    assert report.usable and report.scope(scope) == scope
    assert report.workarounds == (
        "interrupted: said to be broken; programs whose reads wait in the kernel are left alone",
    )
