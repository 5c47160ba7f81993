"""Before anything is spliced: real sockets through the real programs, in a cgroup of their own, on the kernel at hand.

Each of the ways in which splicing could change what a program sees has a check (selfchecks.py). What fails is worked
around, or nothing is spliced.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

from sockmap import selfchecks
from sockmap.cgroups import cgroup_root, remove
from sockmap.config import DatapathError
from sockmap.selfbench import Bench, Wrong
from sockmap.selfchecks import Check
from sockmap.splice import Scope, Splicer

BROKEN = "L7PROXY_SELFTEST_BROKEN"
"""The environment's list, by commas, of checks that shall fail (for tests)."""
ATTEMPTS_SECONDS = 1.0
"""What a check may take: bytes that are lost would be waited for."""
_ALL_SECONDS = 10.0
_WORKAROUNDS = {"interrupted": "programs whose reads wait in the kernel are left alone"}
"""Checks that need not hold, and what is done then."""


@dataclass(frozen=True, slots=True)
class Result:
    """A check, whether the kernel stood it, what was seen, how long that took."""

    name: str
    ok: bool
    seen: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked; `workarounds` and `failures` are for people to read."""

    checks: tuple[Result, ...]
    workarounds: tuple[str, ...]
    failures: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether anything may be spliced on this kernel."""
        return not self.failures

    def scope(self, scope: Scope) -> Scope:
        """The scope with this kernel's workarounds."""
        waits = any(check.name == "interrupted" and check.ok for check in self.checks)
        return replace(scope, blocking=scope.blocking or waits)


def run(splicer: Splicer, broken: Collection[str] | None = None, checks: Sequence[Check] = selfchecks.CHECKS) -> Report:
    """Try each check. `splicer`: not started yet, and not started afterwards; what it has counted is forgotten.

    `broken`: names of checks that shall fail, else those of the environment's BROKEN. Never raises: a test that cannot
    be made has failed.
    """
    switch = os.environ.get(BROKEN, "").split(",") if broken is None else broken
    try:
        results = _in_cgroup(splicer, checks)
    except (DatapathError, OSError) as error:
        results = [Result("start", False, f"the self-test cannot run: {error}", 0.0)]
    splicer.stop()
    splicer.forget()
    results = [replace(one, ok=False, seen="said to be broken") if one.name in switch else one for one in results]
    failed = [one for one in results if not one.ok]
    around = [f"{one.name}: {one.seen}; {_WORKAROUNDS[one.name]}" for one in failed if one.name in _WORKAROUNDS]
    fatal = [f"{one.name}: {one.seen}" for one in failed if one.name not in _WORKAROUNDS]
    return Report(tuple(results), (*splicer.fallbacks, *around), tuple(fatal))


def passed(splicer: Splicer) -> Report:
    """`run`, where nothing is spliced unless it is passed. Raises DatapathError."""
    report = run(splicer)
    if not report.usable:
        raise DatapathError("the self-test of splicing fails on this kernel: " + "; ".join(report.failures))
    return report


def _in_cgroup(splicer: Splicer, checks: Sequence[Check]) -> list[Result]:
    cgroup = cgroup_root() / f"l7proxy-selftest-{os.getpid()}"
    cgroup.mkdir(exist_ok=True)
    try:
        splicer.attach(cgroup)
        try:
            return _in_child(splicer, cgroup, checks)
        finally:
            splicer.detach(cgroup)
    finally:
        remove(cgroup)


def _in_child(splicer: Splicer, cgroup: Path, checks: Sequence[Check]) -> list[Result]:
    inward, outward = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(inward)
        _child(splicer, cgroup, checks, outward)
    os.close(outward)
    try:
        return _read(inward, checks)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(inward)


def _read(inward: int, checks: Sequence[Check]) -> list[Result]:
    """The child's lines, as far as it comes in time."""
    text, end = b"", time.monotonic() + _ALL_SECONDS
    while select.select([inward], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(inward, 65536)
        if not part:
            break
        text += part
    results = [Result(**json.loads(line)) for line in text.splitlines()]
    if len(results) < len(checks):
        name = checks[len(results)].__name__
        results.append(Result(name, False, "the test did not come to its end", _ALL_SECONDS * 1000))
    return results


def _child(splicer: Splicer, cgroup: Path, checks: Sequence[Check], outward: int) -> NoReturn:
    """Neither returns nor raises: this is a copy of the process."""
    with suppress(BaseException):
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL if number != signal.SIGPIPE else signal.SIG_IGN)
        signal.signal(signal.SIGALRM, _too_long)
        (cgroup / "cgroup.procs").write_text("0", encoding="ascii")
        for check in checks:
            os.write(outward, json.dumps(asdict(_try(Bench(splicer), check))).encode() + b"\n")
    os._exit(0)


def _too_long(*_: object) -> NoReturn:
    raise Wrong(f"nothing came for {ATTEMPTS_SECONDS:g} s")


def _try(bench: Bench, check: Callable[[Bench], str]) -> Result:
    begun = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, ATTEMPTS_SECONDS)
    try:
        with bench:
            bench.use(check.__name__)
            ok, seen = True, check(bench)
    except (Wrong, OSError, DatapathError) as error:
        ok, seen = False, str(error) or type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return Result(check.__name__, ok, seen, round((time.perf_counter() - begun) * 1000, 1))
