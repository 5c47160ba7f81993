"""All checks of behave.c are right on plain TCP, and each one that should see a broken thing does."""

from __future__ import annotations

import re

import pytest

from tests.splice.programs import behave, naive

BROKEN = {
    "fionread": {
        *("fionread_small", "fionread_large", "fionread_end", "fionread_unaccepted"),
        *("fionread_user", "fionread_rounds", "peek_small"),
    },
    "rcvlowat": {"rcvlowat_before", "rcvlowat_after", "rcvlowat_blocks"},
    "reset": {"reset_unaccepted", "reset_wakes_reader", "reset_seen", "reset_behind_data"},
    "splice": {"splice_from", "splice_blocks", "splice_mixed"},
    "waitall": {"waitall", "waitall_pending", "waitall_end"},
    "peek": {"peek_small", "peek_large", "peek_end", "peek_offset"},
    "trunc": {"trunc"},
    "oob": {"oob"},
    "lose": {"many_small", "two_writers", "fionread_rounds"},
    "repeat": {"many_small", "two_writers", "fionread_rounds", "ping_pong"},
    "swap": {"many_small", "fionread_rounds"},
    "end": {"fionread_end", "epoll_rdhup", "shutdown_both"},
}
"""What is broken -> the checks that must see it."""


@pytest.mark.parametrize("options", [(), ("--warm-up", "20", "--rehearse", "1")], ids=["fresh", "warmed-up"])
def test_plain_tcp_behaves(options: tuple[str, ...]) -> None:
    report = behave(*options)
    assert report.failed == {}
    assert len(report.passed) == len(set(report.passed)) > 170
    assert re.search(r"bytes_received is \d{5}", " ".join(report.notes["tcp_info/c2s"]))


@pytest.mark.parametrize("thing", BROKEN)
def test_checks_see_what_is_broken(thing: str) -> None:
    wanted = BROKEN[thing]
    unconcerned = {"poll_level", "dontwait"}
    report = behave(
        "--only", ",".join(wanted | unconcerned), "--timeout", "1", "--soon", "200", environment=naive(thing)
    )
    assert report.names_failed() == wanted
    assert {name.partition("/")[0] for name in report.passed} >= unconcerned


def test_a_hung_check_is_reported() -> None:
    report = behave("--only", "peek_end", "--timeout", "1", environment=naive("end"))
    assert report.failed == {"peek_end/c2s": "hung", "peek_end/s2c": "hung"}
