"""The model of bridges past a relay, checked by spin over all interleavings (sockmap/model/bridge.pml)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.splice.test_model import MODEL, verdict

BRIDGE = MODEL.with_name("bridge.pml")
THREADS = "-DMSGS=4 -DTHREADS=2"
HOLDS = {
    "a tunnel": "",
    "a tunnel, two threads send": THREADS,
    "a body": "-DBODY=3",
    "a body, two threads send": f"-DBODY=2 {THREADS}",
}
ORDER, IN_THE_BODY, BEYOND = r"got&before", r"!\(judged\)\|\|", r"judged\|\|"
FAULTS = {
    "what the relay has not read is not looked at": ("-DM_NOBASE", ORDER),
    "what the relay's socket has given to the stack is not looked at": ("-DM_NOCLEAN", ORDER),
    "the bridge is opened before the relay has written": ("-DM_EARLY", ORDER),
    "the end of a body is not looked at": ("-DM_NOLIMIT -DBODY=3", BEYOND),
    "what follows a body does not wait": (f"-DM_NOWAIT -DBODY=2 {THREADS}", IN_THE_BODY),
}
WITNESSES = {
    "bytes go straight": ("-DW_STRAIGHT", r"!\(crosses\)"),
    "they do so again behind others": ("-DW_AGAIN", r"!\(given\)"),
}


@pytest.mark.parametrize("flags", HOLDS.values(), ids=HOLDS)
def test_every_interleaving_keeps_the_bytes_and_the_end_of_a_body(flags: str, tmp_path: Path) -> None:
    assert verdict(flags, tmp_path, BRIDGE) == ""


@pytest.mark.parametrize(("flags", "expected"), (FAULTS | WITNESSES).values(), ids=FAULTS | WITNESSES)
def test_without_a_rule_the_model_fails_and_both_ways_are_taken(flags: str, expected: str, tmp_path: Path) -> None:
    assert re.search(expected, verdict(flags, tmp_path, BRIDGE))
