"""The model of the hand-over between stack and redirect, checked by spin over all interleavings (sockmap/model).

What holds must hold in every configuration; and each rule of the design is needed: without it spin finds the fault.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "sockmap" / "model" / "handover.pml"
THREADS = "-DTHREADS=2 -DLEN=2 -DMSGS=3 -DSNDBUF=1 -DTOGGLES=0"
BOTH_WAYS = "-DDIRS=2 -DMSGS=2 -DTOGGLES=0"

HOLDS = {
    "one sender, one reader": "",
    "no verdict program": "-DNOVERDICT",
    "data before accept": "-DPREACCEPT",
    "data before accept, no budget": "-DPREACCEPT -DBUDGET=0",
    "two threads share the sender": THREADS,
    "two threads, no verdict program": f"{THREADS} -DNOVERDICT",
    "both ends send": BOTH_WAYS,
    "allocations fail, no end": "-DFAILS=1 -DNOFIN",
    "the sender resets": "-DABORTS",
    "the reader closes": "-DCLOSES",
    "a send after shutdown": "-DLATE",
    "a receiver is taken out": "-DREMOVES",
    "a receiver is taken out, both ends send": "-DREMOVES -DDIRS=2 -DMSGS=1 -DTOGGLES=0",
    "a receiver is taken out, two threads": f"-DREMOVES {THREADS}",
    "a policy denies the connection": "-DDENIES -DMSGS=3",
    "a policy denies the connection, two threads": f"{THREADS} -DDENIES",
}

ORDER, END, BUDGET = r"got&before", r"got&e\[.*\.done\)==", r"redirected<="
LATE, AFTER_END, STUCK = r"!\(late\)", r"eof\)\|\|", r"invalid end state"
REMOVED = rf"{ORDER}|{END}|{AFTER_END}|closed\|\|"
BACK, OVER, GONE = r"write_seq==0", r"queued<=", r"given==0"
DENIED = r"!\(.*\.denied>>"
FAULTS = {
    "redirect without looking": ("-DM_ALWAYS", ORDER),
    "acknowledged is taken for read, before accept": ("-DM_ACKED -DPREACCEPT", ORDER),
    "acknowledged is taken for read, no verdict program": ("-DM_ACKED -DNOVERDICT", ORDER),
    "acknowledged is taken for read, allocations fail": ("-DM_ACKED -DFAILS=1 -DNOFIN", ORDER),
    "who redirected last redirects again": (f"-DM_STICKY {THREADS}", ORDER),
    "no budget": ("-DM_NOBUDGET", BUDGET),
    "an unread receiver is removed": ("-DM_REMOVE", REMOVED),
    "a receiver with nothing unread is removed": ("-DM_REMOVE_EMPTY", REMOVED),
    "a receiver is taken out that its peer still redirects to": ("-DREMOVES -DM_UNFLAGGED", REMOVED),
    "a receiver is taken out in the middle of a decision": ("-DREMOVES -DM_UNSETTLED", REMOVED),
    "a receiver is taken out when nothing is unread": ("-DREMOVES -DM_UNCOUNTED", REMOVED),
    "shutdown is not looked at": ("-DM_NODOWN -DLATE", LATE),
    "the policy's generation is not looked at": ("-DM_UNJUDGED -DDENIES", DENIED),
    "one send that the stack is offered will do": ("-DM_ONCE -DDENIES", DENIED),
    "a kernel whose copied_seq counts redirected bytes": ("-DM_COPIED_ALL", ORDER),
    "a kernel whose work queue takes out before it puts in": ("-DM_DEQUEUES -DFAILS=1 -DNOFIN", ORDER),
    "a kernel that holds both locks": (f"-DM_HOLD {BOTH_WAYS}", STUCK),
}
LIMITS = {
    "allocations fail, then the end": ("-DFAILS=1", END),
    "one thread sends while another shuts down": ("-DRACE", AFTER_END),
}
"""What Linux itself does not keep; see the model's README."""
WITNESSES = {
    "redirect is taken up again after the stack": ("-DW_BACK", BACK),
    "the budget is exceeded": ("-DW_BUDGET", OVER),
    "a receiver is taken out that bytes were redirected to": ("-DREMOVES -DW_REMOVED", GONE),
}
"""What must be able to happen, lest the rest hold for want of steps: it is denied, and spin shows the contrary."""


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def verdict(flags: str, folder: Path, model: Path = MODEL) -> str:
    """What an exhaustive search says: '' if no error is reachable, else the first error found."""
    run("spin", "-a", *flags.split(), str(model), folder=folder)
    run("gcc", "-O0", "-w", "-DSAFETY", "-DVECTORSZ=2048", "-DMEMLIM=2048", "-o", "pan", "pan.c", folder=folder)
    said = run("./pan", "-m100000", folder=folder)
    assert "error: max search depth too small" not in said, said
    errors = re.search(r"errors: (\d+)", said)
    assert errors, said
    if errors[1] == "0":
        assert "Search not completed" not in said, said
        return ""
    found = re.search(r"^pan:1: (.*) \(at depth", said, re.MULTILINE)
    assert found, said
    return found[1]


@pytest.mark.parametrize("flags", HOLDS.values(), ids=HOLDS)
def test_every_interleaving_keeps_the_bytes(flags: str, tmp_path: Path) -> None:
    assert verdict(flags, tmp_path) == ""


@pytest.mark.parametrize(("flags", "expected"), FAULTS.values(), ids=FAULTS)
def test_without_a_rule_the_model_fails(flags: str, expected: str, tmp_path: Path) -> None:
    assert re.search(expected, verdict(flags, tmp_path))


@pytest.mark.parametrize(("flags", "expected"), LIMITS.values(), ids=LIMITS)
def test_what_linux_does_not_keep(flags: str, expected: str, tmp_path: Path) -> None:
    assert re.search(expected, verdict(flags, tmp_path))


@pytest.mark.parametrize(("flags", "expected"), WITNESSES.values(), ids=WITNESSES)
def test_both_ways_are_taken(flags: str, expected: str, tmp_path: Path) -> None:
    assert re.search(expected, verdict(flags, tmp_path))


def test_a_switch_that_the_model_does_not_know_is_a_mistake() -> None:
    known = set(re.findall(r"\b[A-Z_]+\b", MODEL.read_text()))
    used = [*HOLDS.values(), *(flags for flags, _ in (FAULTS | LIMITS | WITNESSES).values())]
    assert {flag[2:].split("=")[0] for flags in used for flag in flags.split()} <= known
