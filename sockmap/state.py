"""What was changed on the node, written down before each change, and the lock that makes it one instance's."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sockmap.config import DatapathError

_STATE, _LOCK = "state.json", "lock"
_ABSTRACT = "\0l7proxy-datapath"


@dataclass(slots=True)
class State:
    """Changes, as lists that JSON keeps. Interfaces are [index, name]."""

    boot_id: str
    netns: int
    qdiscs: list[list[Any]] = field(default_factory=list)
    """Interfaces whose clsact we made."""
    filters: list[list[Any]] = field(default_factory=list)
    """[index, name, hook, priority]."""
    rules: list[list[int]] = field(default_factory=list)
    """[family, priority, mark, mask, table]."""
    routes: list[list[int]] = field(default_factory=list)
    """[family, table]."""
    sysctls: list[list[str]] = field(default_factory=list)
    """[path, value before]."""
    cgroups: list[list[Any]] = field(default_factory=list)
    """[path, program id, mark bits]."""
    flows_map: int = 0
    """The connection track's id, for a successor."""

    def is_empty(self) -> bool:
        """Whether nothing is changed."""
        return not any((self.qdiscs, self.filters, self.rules, self.routes, self.sysctls, self.cgroups))

    @classmethod
    def here(cls) -> State:
        """Nothing changed yet, in this boot and network namespace."""
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return cls(boot_id, os.stat("/proc/self/ns/net").st_ino)


class StateFile:
    """The state of one directory, held under its lock until close()."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _STATE
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(state_dir / _LOCK)
        except OSError as error:
            raise DatapathError(f"{state_dir}: {error.strerror}") from error
        try:
            self._namespace_lock = _take_namespace_lock()
            self.state = _read(self._path)
        except BaseException:
            os.close(self._lock)
            raise

    def add(self, kind: str, entry: list[Any]) -> None:
        """Write down a change that is about to be made."""
        entries: list[list[Any]] = getattr(self.state, kind)
        if entry not in entries:
            entries.append(entry)
            self.write()

    def remove(self, kind: str, entry: list[Any]) -> None:
        """A change was undone."""
        entries: list[list[Any]] = getattr(self.state, kind)
        if entry in entries:
            entries.remove(entry)
            self.write()

    def write(self) -> None:
        """Replace the file in one step."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self.state), indent=1), encoding="utf-8")
        os.replace(fresh, self._path)

    def close(self, *, forget: bool) -> None:
        """Give up the lock. With `forget`, nothing is changed any more and the file goes."""
        if forget:
            self._path.unlink(missing_ok=True)
        self._namespace_lock.close()
        os.close(self._lock)


def _take_lock(path: Path) -> int:
    """A locked descriptor; children do not inherit it. Raises DatapathError if another process has the lock."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        raise DatapathError(f"another l7proxy (process {holder}) runs with {path.parent}") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _take_namespace_lock() -> socket.socket:
    """An abstract Unix name, of which each network namespace has its own: one instance for each, whatever its files."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind(_ABSTRACT)
    except OSError as error:
        sock.close()
        raise DatapathError("another l7proxy runs on this node, with another state directory") from error
    return sock


def _read(path: Path) -> State:
    """What a predecessor left; nothing, if the node was started anew since."""
    here = State.here()
    try:
        state = State(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return here
    except (OSError, ValueError, TypeError) as error:
        raise DatapathError(f"{path}: {error}") from error
    if state.boot_id != here.boot_id:
        return here
    if state.netns != here.netns:
        raise DatapathError(f"{path} belongs to another network namespace ({state.netns}, this one is {here.netns})")
    return state


def peek(state_dir: Path) -> tuple[State | None, int]:
    """What is written down, and the process that runs (0 if none does)."""
    try:
        state = State(**json.loads((state_dir / _STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        state = None
    try:
        fd = os.open(state_dir / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return state, 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return state, int(os.read(fd, 32) or b"0")
    finally:
        os.close(fd)
    return state, 0
