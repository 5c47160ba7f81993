"""Who splices in which cgroup: a locked file for each in the state directory, which outlives a process that is killed.

The lock says whether the process lives, the file what it has attached and where it counts.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sockmap import bpfmap
from sockmap.cgroups import cgroup_id
from sockmap.config import DatapathError
from sockmap.splice import ON_SOCKET, SOCK_OPS, Splicer, leftovers
from sockmap.splice_tables import MAPS, Tables

_PREFIX = "splice-"
_OVERRIDE, _MULTI = 1, 2
"""BPF_F_ALLOW_OVERRIDE, BPF_F_ALLOW_MULTI."""
_A_LOOK = 0.02


@dataclass(frozen=True, slots=True)
class Record:
    """What a process has attached to a cgroup: its program, and its maps by name."""

    cgroup: str
    process: int
    program: int
    maps: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def tables(self) -> Iterator[Tables]:
        """The maps that it counts in. Raises DatapathError if they are gone, OSError if they cannot be opened."""
        with ExitStack() as stack:
            try:
                fds = {name: _opened(stack, name, self.maps[name]) for name in MAPS}
            except (FileNotFoundError, KeyError) as error:
                raise DatapathError(f"what is known of cgroup {self.cgroup} is out of date") from error
            yield Tables(fds)


def _opened(stack: ExitStack, name: str, number: int) -> int:
    fd = bpfmap.map_fd(number)
    stack.callback(os.close, fd)
    if bpfmap.map_name(fd) != name:  # ids begin anew when the machine does
        raise KeyError(name)
    return fd


class Claim:
    """One cgroup, for as long as this process lives or until close()."""

    def __init__(self, state_dir: Path, cgroup: Path) -> None:
        """Raises DatapathError if another process has it."""
        self.cgroup, self._path = cgroup, state_dir / f"{_PREFIX}{cgroup_id(cgroup)}"
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._fd, holder = _lock(self._path)
        except OSError as error:
            raise DatapathError(f"{self._path}: {error.strerror}") from error
        self._is_clear = False
        if holder is not None:
            raise DatapathError(f"another l7proxy (process {holder}) splices in cgroup {cgroup} already")

    def take_over(self) -> str:
        """Detach what a process that was killed has left; says what. Raises DatapathError if somebody else's hangs
        there."""
        before = _read(self._fd)
        done = _undo(before) if before is not None else ""
        self._is_clear = True
        strangers = leftovers(self.cgroup)
        if strangers:
            raise DatapathError(
                f"cgroup {self.cgroup} has a program of another l7proxy, whose state is not in {self._path.parent} "
                f"(`bpftool cgroup detach {self.cgroup} sock_ops id {strangers[0]}` takes it away)"
            )
        return done

    def write(self, splicer: Splicer, program: str = ON_SOCKET) -> None:
        """Write down what is about to be attached."""
        record = Record(str(self.cgroup), os.getpid(), splicer.program(program), splicer.map_ids())
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(asdict(record)).encode(), 0)

    def close(self) -> None:
        """Nothing of this process is attached any more."""
        if self._is_clear or _read(self._fd) is None:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)


def _lock(path: Path) -> tuple[int, int | None]:
    """A locked descriptor and None, or another and the process that has the lock."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            record = _read(fd)
            os.close(fd)
            if record is None or Path(f"/proc/{record.process}").exists():
                return -1, record.process if record is not None else 0
            time.sleep(_A_LOOK)  # somebody only looks whether it lives, or is about to take over
            continue
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd, None
        os.close(fd)  # its owner has taken the file away meanwhile


def _read(fd: int) -> Record | None:
    try:
        return Record(**json.loads(os.pread(fd, 1 << 16, 0)))
    except (ValueError, TypeError):
        return None


def _undo(record: Record) -> str:
    """Stop and detach what a record tells of; says what was done."""
    with suppress(DatapathError), record.tables() as tables:
        tables.stop()
    try:
        if record.program not in leftovers(Path(record.cgroup)):
            return ""
        _detach(Path(record.cgroup), record.program)
    except FileNotFoundError:  # with the cgroup, everything is gone
        return ""
    return f"splicing in cgroup {record.cgroup}, left by process {record.process}"


def _detach(cgroup: Path, program: int) -> None:
    with ExitStack() as stack:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        program_fd = bpfmap.program_fd(program)
        stack.callback(os.close, program_fd)
        bpfmap.detach_cgroup(fd, program_fd, SOCK_OPS)


def records(state_dir: Path) -> list[tuple[Record, bool]]:
    """What is attached, and whether its process lives."""
    found = []
    for path in sorted(state_dir.glob(f"{_PREFIX}*")):
        with suppress(FileNotFoundError), path.open("rb") as file:
            record = _read(file.fileno())
            if record is not None:
                found.append((record, _is_locked(file.fileno())))
    return found


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def judged_anew(state_dir: Path) -> None:
    """Tell other processes that splice here, and what killed ones have left, of a new policy (Tables.judged_anew).
    Raises OSError."""
    for record, _ in records(state_dir):
        if record.process != os.getpid():
            with suppress(DatapathError), record.tables() as tables:  # what is gone splices no more
                tables.judged_anew()


def cleanup(state_dir: Path) -> list[str]:
    """Detach what killed processes have left; says what. What a living one splices is left alone."""
    done = []
    for path in sorted(state_dir.glob(f"{_PREFIX}*")):
        fd, holder = _lock(path)
        if holder is not None:
            done.append(f"process {holder} lives and splices: left alone")
            continue
        record = _read(fd)
        done.append(_undo(record) if record is not None else "")
        path.unlink(missing_ok=True)
        os.close(fd)
    return [line for line in done if line]


# -- others' programs ---------------------------------------------------------------------------------------------


def obstacle(cgroup: Path, root: Path) -> str:
    """Why a program cannot be attached to a cgroup without harm to others' programs; empty if it can."""
    for place in [cgroup, *cgroup.parents]:
        programs, flags = _attached(place)
        if programs and not flags & _MULTI:
            who = ", ".join(f"{bpfmap.program_name(number) or '(no name)'} (id {number})" for number in programs)
            if place == cgroup or not flags & _OVERRIDE:
                return f"cgroup {place} has the sock_ops program {who}, attached so that it excludes others"
            return f"cgroup {place} has the sock_ops program {who}, which one attached below it would turn off"
        if programs or place == root:
            break
    return ""


def _attached(cgroup: Path) -> tuple[list[int], int]:
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return bpfmap.cgroup_programs(fd, SOCK_OPS), bpfmap.cgroup_attach_flags(fd, SOCK_OPS)
    finally:
        os.close(fd)


def topmost(cgroups: Sequence[Path]) -> list[Path]:
    """Without those that lie below others: a program that is attached twice would see everything twice."""
    return [one for one in dict.fromkeys(cgroups) if not any(other in one.parents for other in cgroups)]
