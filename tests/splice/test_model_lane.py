"""The model of the fast path, checked by spin over all interleavings (sockmap/model/lane.pml)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.splice.test_model import MODEL, verdict

LANE = MODEL.with_name("lane.pml")
PARTS = "-DMSGS=2 -DPARTS=2"
THREADS = "-DMSGS=2 -DTHREADS=2"
BOTH = f"{THREADS} -DPARTS=2"
CALM = f"{BOTH} -DPOLICIES=0"
HOLDS = {
    "three messages": "-DPOLICIES=0",
    "three messages, two without an answer": "-DWINDOW=2",
    "messages in two parts": PARTS,
    "two threads send messages in two parts": CALM,
    "requests are read together": "-DBATCH -DPOLICIES=0",
}
SERVER, CLIENT, OURS = r"known\|passed", r"m==got", r"!\(opened\[1\]\)&& !\(open\[1\]\)"
BEGINNING, THEIRS = r"u%2\)==0\)==\(\(before%2", r"!\(opened\[0\]\)&& !\(open\[0\]\)"
TOLD, ROOM, STUCK = r"Q_has\(due", r"q_len\(due\)<2", r"invalid end state"
FAULTS = {
    "requests do not shut the response lane": ("-DM_ONEWAY", OURS),
    "the server's reading is not waited for": (f"-DM_NOREADS {BOTH}", f"{SERVER}|{BEGINNING}"),
    "the client's reading is not waited for": ("-DM_NOREADC", CLIENT),
    "the server's decision is not waited for": ("-DM_NODECIDED", STUCK),
    "what is in the queue is looked at before what was read": (f"-DM_QUEUEFIRST {CALM}", BEGINNING),
    "parts of messages may overtake": (f"-DM_TORN {CALM}", BEGINNING),
    "a lane is opened before what was read is written": ("-DM_UNWRITTEN -DBATCH", THEIRS),
    "what the relay has not read is not looked at": ("-DM_NOBASE", CLIENT),
    "what the target has not read is not looked at": ("-DM_NOCOUNT", CLIENT),
    "the response lane is opened before the relay has written": ("-DM_EARLY", CLIENT),
    "notes of answers are counted behind those of requests": ("-DM_NOTES", TOLD),
    "notes of answers are not counted again": ("-DM_NOSECOND -DWINDOW=2", ROOM),
}
OPEN = {"two threads send whole messages": (THREADS, SERVER)}
"""What the fast path does not keep: whole messages of two threads may come in the other order."""
WITNESSES = {
    "requests go straight": ("-DW_STRAIGHT", r"!\(crosses\)"),
    "they do so again behind others": ("-DW_AGAIN", r"made\[0\]<2"),
    "answers go straight": ("-DW_ANSWER", r"!\(crosses\)"),
    "those do so again behind others": ("-DW_ANSWER_AGAIN", r"made\[1\]<2"),
}


@pytest.mark.parametrize("flags", HOLDS.values(), ids=HOLDS)
def test_every_interleaving_keeps_messages_answers_and_notes(flags: str, tmp_path: Path) -> None:
    assert verdict(flags, tmp_path, LANE) == ""


@pytest.mark.parametrize(("flags", "expected"), FAULTS.values(), ids=FAULTS)
def test_without_a_rule_the_model_fails(flags: str, expected: str, tmp_path: Path) -> None:
    assert re.search(expected, verdict(flags, tmp_path, LANE))


@pytest.mark.parametrize(("flags", "expected"), OPEN.values(), ids=OPEN)
def test_what_is_not_kept(flags: str, expected: str, tmp_path: Path) -> None:
    assert re.search(expected, verdict(flags, tmp_path, LANE))


@pytest.mark.parametrize(("flags", "expected"), WITNESSES.values(), ids=WITNESSES)
def test_both_ways_are_taken(flags: str, expected: str, tmp_path: Path) -> None:
    assert re.search(expected, verdict(flags, tmp_path, LANE))


def test_a_switch_that_the_model_does_not_know_is_a_mistake() -> None:
    known = set(re.findall(r"\b[A-Z_]+\b", LANE.read_text()))
    used = [*HOLDS.values(), *(flags for flags, _ in (FAULTS | OPEN | WITNESSES).values())]
    assert {flag[2:].split("=")[0] for flags in used for flag in flags.split()} <= known
