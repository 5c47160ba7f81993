"""What processes and the machine have used, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_IDLE, _WAITING = 3, 4
"""Columns of /proc/stat that are no work."""


def family(root: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = _stat(int(entry.name))[1]
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if int(parent) == pid]
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all threads of the processes."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = _stat(pid)
            total += int(fields[11]) + int(fields[12])
    return total / _TICK


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before it may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def machine_seconds() -> float:
    """Time that all CPUs were not idle, soft interrupts included."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[_IDLE] - fields[_WAITING]) / _TICK


def memory(pids: Iterable[int]) -> int:
    """Bytes of the processes' own memory, shared pages by share (PSS)."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
