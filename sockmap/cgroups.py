"""Host services by cgroup: the program that marks their new sockets, and the marks of the sockets they have already."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from sockmap.config import DatapathError

INET_SOCK_CREATE = 2
"""enum bpf_attach_type BPF_CGROUP_INET_SOCK_CREATE."""
_PIDFD_GETFD = 438
_MAX_DEPTH = 15

_libc = ctypes.CDLL(None, use_errno=True)


def cgroup_root() -> Path:
    """Where the cgroup2 hierarchy is mounted. Raises DatapathError."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] == "cgroup2":
            return Path(left.split()[4])
    raise DatapathError("no cgroup2 hierarchy is mounted (`ip netns exec` hides it; `nsenter --net=` does not)")


def path_of(cgroup: str) -> Path:
    """The directory of a cgroup given as its path below the hierarchy's root, or in full. Raises DatapathError."""
    root = cgroup_root()
    return Path(cgroup) if Path(cgroup).is_relative_to(root) else root / cgroup.lstrip("/")


def resolve(cgroup: str) -> Path:
    """path_of, for a cgroup that is there. Raises DatapathError."""
    root, path = cgroup_root(), path_of(cgroup)
    if not (path / "cgroup.procs").exists():
        raise DatapathError(f"there is no cgroup {cgroup} below {root}")
    if len(path.relative_to(root).parts) > _MAX_DEPTH:
        raise DatapathError(f"cgroup {cgroup} is more than {_MAX_DEPTH} levels deep")
    return path


def cgroup_id(path: Path) -> int:
    """What bpf_get_current_ancestor_cgroup_id returns for it."""
    return path.stat().st_ino


def _processes(path: Path) -> Iterator[int]:
    for procs in [path / "cgroup.procs", *path.rglob("cgroup.procs")]:
        try:
            yield from map(int, procs.read_text(encoding="ascii").split())
        except OSError:
            continue  # a cgroup may go away at any time


def _borrow(pidfd: int, number: int) -> socket.socket | None:
    """A duplicate of another process's socket, or None if that is gone."""
    fd = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        return None
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except OSError:
        return False


def _sockets(pid: int) -> Iterator[socket.socket]:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        numbers = [entry for entry in os.listdir(f"/proc/{pid}/fd") if _is_socket(f"/proc/{pid}/fd/{entry}")]
        borrowed = (_borrow(pidfd, int(number)) for number in numbers)
        yield from (sock for sock in borrowed if sock is not None)
    except OSError:
        return
    finally:
        os.close(pidfd)


def mark_existing(path: Path, mark: int, ours: int) -> int:
    """Set our bits of the mark of every IP socket that the cgroup's processes hold now; returns how many.

    `mark` 0 takes our bits away again.
    """
    marked = 0
    for pid in set(_processes(path)):
        for sock in _sockets(pid):
            with sock:
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    marked += _mark(sock, mark, ours)
    return marked


def _mark(sock: socket.socket, mark: int, ours: int) -> bool:
    try:
        old = sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF
        fresh = (old & ~ours) | mark
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, fresh - (1 << 32) if fresh >> 31 else fresh)
    except OSError:
        return False
    return True
