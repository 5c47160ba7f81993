"""Host services by cgroup: the program that marks their new sockets, and the marks of the sockets they have already."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

from sockmap.config import DatapathError

INET_SOCK_CREATE = 2
"""enum bpf_attach_type BPF_CGROUP_INET_SOCK_CREATE."""
_PIDFD_GETFD = 438
_MAX_DEPTH = 15
_LISTEN = "0A"
"""TCP_LISTEN, as /proc/net/tcp has it."""

_libc = ctypes.CDLL(None, use_errno=True)


def cgroup_root() -> Path:
    """Where the cgroup2 hierarchy is mounted. Raises DatapathError."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] == "cgroup2":
            return Path(left.split()[4])
    raise DatapathError("no cgroup2 hierarchy is mounted (`ip netns exec` hides it; `nsenter --net=` does not)")


def own_cgroup() -> Path:
    """That of this process. Raises DatapathError."""
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        if line.startswith("0::"):
            return path_of(line[3:])
    raise DatapathError("this process is in no cgroup of the cgroup2 hierarchy")


def version_1(controller: str) -> Path | None:
    """Where this controller is, if that is in a hierarchy of cgroup v1 (cgroup(7))."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] == "cgroup" and controller in right.split()[2].split(","):
            return Path(left.split()[4])
    return None


def remove(cgroup: Path) -> None:
    """Remove a cgroup whose processes have ended."""
    for _ in range(50):  # the kernel lets go of a process a little after it was waited for
        with suppress(OSError):
            cgroup.rmdir()
            return
        time.sleep(0.01)


def remove_left(prefix: str) -> list[Path]:
    """Remove the empty cgroups, of this name with a process id behind it, whose process is gone; which they were."""
    removed = []
    for path in cgroup_root().rglob(f"{prefix}*"):
        number = path.name.removeprefix(prefix)
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            with suppress(OSError):
                path.rmdir()
                removed.append(path)
    return removed


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


def processes(path: Path) -> Iterator[tuple[int, int]]:
    """Those of a cgroup and the ones below: process id and the id of its own cgroup."""
    for procs in [path / "cgroup.procs", *path.rglob("cgroup.procs")]:
        try:
            number = cgroup_id(procs.parent)
            yield from ((int(pid), number) for pid in procs.read_text(encoding="ascii").split())
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


def _inode(path: str) -> str:
    """Of a socket; "" if it is none, or gone."""
    try:
        kind, _, number = os.readlink(path).partition(":")
    except OSError:
        return ""
    return number.strip("[]") if kind == "socket" else ""


def listening(pid: int) -> set[str]:
    """Inodes of the TCP listeners in a process's network namespace. Raises OSError."""
    found = set()
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):  # without IPv6
            for line in Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    found.add(fields[9])
    return found


def sockets(pid: int, inodes: Container[str] | None = None) -> Iterator[socket.socket]:
    """Duplicates of a process's sockets, of these inodes if any are given, which the caller closes. As long as there
    is one, a socket that its process closes stays open, and in its epoll sets."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        held = [(entry, _inode(f"/proc/{pid}/fd/{entry}")) for entry in os.listdir(f"/proc/{pid}/fd")]
        numbers = [entry for entry, inode in held if inode and (inodes is None or inode in inodes)]
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
    for pid in dict(processes(path)):
        for sock in sockets(pid):
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
