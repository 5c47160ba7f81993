"""What programs see of connections that are spliced: all that they see of plain TCP, but for what is listed here."""

from __future__ import annotations

import pytest

from sockmap.splice import Scope, Splicer
from tests.splice.programs import BehaveReport, behave

pytestmark = pytest.mark.privileged
NON_BLOCKING = ("--non-blocking", "--soon", "400", "--timeout", "20")
WAITS = {"rcvlowat_blocks", "waitall", "waitall_pending", "waitall_end"}
"""Checks of reads that wait in the kernel for several bytes: not to be had with O_NONBLOCK, on plain TCP either."""
DIFFERS = {
    "rcvlowat_after": "bytes that were spliced before the mark was set count as readable",
    "peek_offset": "SO_PEEK_OFF is not looked at",
    "trunc": "MSG_TRUNC is not looked at: the bytes are copied",
    "inq_message": "TCP_INQ is not looked at: recvmsg does not say how much is left",
    "splice_from": "splice(2) finds nothing",
    "splice_blocks": "splice(2) finds nothing",
    "splice_mixed": "splice(2) finds nothing",
    "oob": "urgent data come in line, without POLLPRI",
    "oob_inline": "urgent data come in line, without POLLPRI",
    "zerocopy": "completions of MSG_ZEROCOPY do not come",
    "close_unread": "FIN, not RST",
    "close_part_read": "FIN, not RST",
    "close_unread_both": "FIN, not RST",
}
"""Checks -> what an application notices on a socket that is spliced (docs/splice.md). The list is exact."""
SOMETIMES = {
    "close_on_blocked_writer": "its writer is told within two seconds and by ETIMEDOUT, if nothing unread came by the "
    "stack; else at once, by a reset",
}
BY_STACK = {
    "reset_wakes_reader": "sends nothing",
    "reset_seen": "sends nothing",
    "rcvlowat_before": "its mark is there before its bytes",
    "small_buffers": "its messages are larger than half of the SO_RCVBUF that it has set",
}


def spliced(fresh: Splicer) -> set[str]:
    """The names of the programs that had bytes spliced."""
    return {talkers.client for talkers, talk in fresh.talks().items() if talk.spliced}


def program(check: str) -> str:
    """The name of the process of a check."""
    return f"b-{check}"[:15]


def names(report: BehaveReport) -> set[str]:
    """The checks that have passed, at least one way."""
    return {name.partition("/")[0] for name in report.passed}


def test_nothing_is_worse_for_programs_whose_reads_wait(fresh: Splicer) -> None:
    """They are learned to be such, and left alone."""
    fresh.start(Scope())
    report = behave("--warm-up", "20", "--rehearse", "2")
    assert report.failed == {} and len(report.passed) > 170
    counts = fresh.counts()
    assert counts["reads_otherwise"] and counts["left_bytes"] and not counts["spliced_bytes"], counts


def test_programs_that_do_not_wait_see_nothing_else_on_plain_tcp() -> None:
    report = behave(*NON_BLOCKING, "--soon", "5000")
    assert report.names_failed() == WAITS, report.failed


def test_programs_that_do_not_wait_see_nothing_else_when_spliced(fresh: Splicer) -> None:
    fresh.start(Scope(learn=False))
    report = behave(*NON_BLOCKING)
    assert report.names_failed() - WAITS - SOMETIMES.keys() == DIFFERS.keys(), report.failed
    carried = spliced(fresh)
    stack = {check for check in names(report) - WAITS if program(check) not in carried}
    assert stack == BY_STACK.keys()
    assert fresh.counts()["spliced_bytes"] > 50 << 20


def test_programs_that_do_not_wait_are_spliced_once_they_are_known(fresh: Splicer) -> None:
    """Among others a .NET-like user of FIONREAD, edge and level, half-closes, and a send of 64 MiB."""
    fresh.start(Scope())
    checks = ["fionread_user", "fionread_rounds", "poll_level", "select_level", "epoll_level", "epoll_edge"]
    checks += ["epoll_rdhup", "epoll_out", "shutdown_write", "half_close_answer", "large_send", "two_writers"]
    checks += ["stops_and_goes", "sendfile_to", "peek_large", "reset_behind_data", "close_full", "both_ways"]
    report = behave(*NON_BLOCKING, "--rehearse", "2", "--warm-up", "2", "--only", ",".join(checks))
    assert report.failed == {} and names(report) == set(checks)
    assert {program(check) for check in checks} <= spliced(fresh)
    assert not fresh.counts()["reads_otherwise"]


def test_a_writer_that_waits_for_room_is_told_of_the_close_within_two_seconds(fresh: Splicer) -> None:
    fresh.start(Scope(learn=False))
    report = behave("--non-blocking", "--soon", "3000", "--only", "close_on_blocked_writer")
    assert program("close_on_blocked_writer") in spliced(fresh)
    # POLLHUP has come, or it were another line. The error is another one than ECONNRESET or EPIPE.
    assert len(report.failed) + len(report.passed) == 2
    assert all(text.startswith("errno of send: Connection timed out") for text in report.failed.values()), report
