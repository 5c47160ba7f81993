"""The C programs of this folder, which try TCP connections from outside: built, run, their reports read.

They know nothing of splicing: what they ask must hold on plain TCP as well. Options are those of each file's head.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SOURCES = Path(__file__).parent / "programs"
CACHE = ROOT / "build" / "splice-programs"
FLAGS = ["-D_GNU_SOURCE", "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
BUILDS = {
    "stress": ["stress.c", "stream.c", "plan.c"],
    "behave": ["behave.c", *(f"behave_{part}.c" for part in ("readiness", "read", "write", "end", "share"))],
    "stalled": ["stalled.c"],
    "naive.so": ["naive.c"],
}
"""Sources by program. The library `naive.so` breaks one thing for whoever is started with it."""
_LINE = re.compile(r"(?P<word>ok|not ok|#) (?P<name>\w+)/(?P<way>c2s|s2c)(: (?P<text>.*))?")


def build(name: str) -> Path:
    """The path of a program, compiled if its sources have changed since. Raises AssertionError with gcc's words."""
    texts = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    digest = hashlib.sha256(b"\0".join([*texts, " ".join(FLAGS).encode()])).hexdigest()[:16]
    target = CACHE / digest / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several tests may build it at once: each its own, and the last one stays.
    unfinished = target.with_name(f"{name}.{os.getpid()}")
    shared = ["-shared", "-fPIC"] if name.endswith(".so") else []
    command = ["gcc", *FLAGS, *shared, *(str(SOURCES / source) for source in BUILDS[name]), "-o", str(unfinished)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    unfinished.replace(target)
    return target


def naive(thing: str) -> dict[str, str]:
    """The environment in which a program meets one thing broken (`naive.c` has the list)."""
    return {"LD_PRELOAD": str(build("naive.so")), "NAIVE": thing}


def _run(command: Sequence[str], timeout: float, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=os.environ | dict(environment),
    )
    assert done.returncode in (0, 1), f"{command}: status {done.returncode}: {done.stderr}"
    return done


@dataclass(frozen=True)
class StressReport:
    """What each end has seen: "client", "server" or both, as stress.c prints it."""

    ends: Mapping[str, Mapping[str, Any]]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The first errors: stream, kind, end, events, offset, what. Hung streams are among them."""
        return [error for end in self.ends.values() for error in end["errors"]]

    @property
    def error_count(self) -> int:
        """All of them."""
        return sum(end["error_count"] for end in self.ends.values())

    def total(self, name: str) -> int:
        """The sum of one counter over the ends."""
        return sum(int(end[name]) for end in self.ends.values())


def stress(
    *options: str, prefix: Sequence[str] = (), timeout: float = 120, environment: Mapping[str, str] | None = None
) -> StressReport:
    """Run it, both ends or (`--connect`) the client's; `prefix` is a command such as `ip netns exec NAME`."""
    done = _run([*prefix, str(build("stress")), *options], timeout, environment or {})
    report = StressReport(json.loads(done.stdout))
    assert (done.returncode == 0) == (report.error_count == 0), done.stdout
    return report


class StressServer:
    """The server's end of the stress program alone; it ends when a client has said that it is done."""

    def __init__(self, *options: str, prefix: Sequence[str] = ()) -> None:
        command = [*prefix, str(build("stress")), "--listen", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert line.startswith("port "), line
        self.port = int(line.split()[1])

    def __enter__(self) -> StressServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def report(self, timeout: float = 120) -> StressReport:
        """Wait for its end and read what it has seen."""
        output, _ = self._process.communicate(timeout=timeout)
        return StressReport(json.loads(output))


@dataclass(frozen=True)
class BehaveReport:
    """Checks by "name/way"; ways are c2s and s2c."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """What was seen."""
    notes: dict[str, list[str]] = field(default_factory=dict)

    def names_failed(self) -> set[str]:
        """Failed checks, whichever way."""
        return {name.partition("/")[0] for name in self.failed}


def behave(
    *options: str, prefix: Sequence[str] = (), timeout: float = 240, environment: Mapping[str, str] | None = None
) -> BehaveReport:
    """Run the checks (`--only a,b`, `--warm-up N`, ...)."""
    done = _run([*prefix, str(build("behave")), *options], timeout, environment or {})
    report = BehaveReport()
    for line in done.stdout.splitlines():
        match = _LINE.fullmatch(line)
        assert match, line
        name, text = f"{match['name']}/{match['way']}", match["text"] or ""
        if match["word"] == "ok":
            report.passed.append(name)
        elif match["word"] == "not ok":
            report.failed[name] = text
        else:
            report.notes.setdefault(name, []).append(text)
    assert (done.returncode == 0) == (not report.failed), done.stdout
    return report


@dataclass(frozen=True)
class StalledReport:
    """Bytes that writers got rid of while nobody read, per stream, and memory (KiB) before, then, and afterwards."""

    streams: int
    least: int
    most: int
    total: int
    unbounded: int
    """Streams that took `--limit` bytes, or were there when `--total` was reached."""
    errors: int
    """Streams whose content was wrong once it was read."""
    tcp: Mapping[str, int]
    """What TCP sockets charge, by "before", "stalled", "after"."""
    available: Mapping[str, int]
    """MemAvailable of the machine, likewise."""


def stalled(
    *options: str, prefix: Sequence[str] = (), timeout: float = 120, environment: Mapping[str, str] | None = None
) -> StalledReport:
    """Run it: `--connections N`, `--warm-up N`, `--both`, ..."""
    done = _run([*prefix, str(build("stalled")), *options], timeout, environment or {})
    report = json.loads(done.stdout)
    moments = ("before", "stalled", "after")
    counts = {name: report[name] for name in ("streams", "least", "most", "total", "unbounded", "errors")}
    memory = {kind: {moment: report[moment][kind] for moment in moments} for kind in ("tcp", "available")}
    assert (done.returncode == 0) == (report["errors"] == 0), done.stderr
    return StalledReport(**counts, tcp=memory["tcp"], available=memory["available"])
