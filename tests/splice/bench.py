"""A cgroup for the test's process, and sockets there (sockmap/selfbench.py)."""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sockmap.cgroups import cgroup_root
from sockmap.selfbench import Bench, ready, take
from sockmap.splice import Pair, Splicer

_numbers = itertools.count()
_homes: dict[Splicer, Path] = {}


def go(path: Path) -> None:
    """Move this process into a cgroup."""
    (path / "cgroup.procs").write_text("0", encoding="ascii")


@contextmanager
def cgroup(parent: Path | None = None) -> Iterator[Path]:
    """One that this process is in."""
    root = cgroup_root()
    path = (parent or root) / f"l7proxy-test-{os.getpid()}-{next(_numbers)}"
    path.mkdir()
    try:
        go(path)
        yield path
    finally:
        go(parent or root)
        path.rmdir()


@contextmanager
def attached(splicer: Splicer) -> Iterator[Splicer]:
    """To a cgroup that `program` moves this process into."""
    with cgroup() as path:
        splicer.attach(path)
        _homes[splicer] = path
        try:
            yield splicer
        finally:
            splicer.close()


def home(splicer: Splicer) -> Path:
    """The cgroup that it is attached to."""
    return _homes[splicer]


@contextmanager
def program(splicer: Splicer, place: Path | None = None) -> Iterator[Bench]:
    """A program of a new name, in its `home` or another cgroup; what it had is gone when the next begins."""
    comm = Path("/proc/thread-self/comm")
    before = comm.read_text(encoding="ascii")
    splicer.forget()
    go(place or _homes[splicer])
    try:
        with Bench(splicer) as bench:
            bench.use(f"program{next(_numbers)}")
            yield bench
    finally:
        splicer.stop()
        comm.write_text(before, encoding="ascii")
        until(lambda: not live(splicer))


def live(splicer: Splicer) -> list[Pair]:
    """The pairs whose two ends are there. Of others, the kernel may have skipped the program that sees the last end: of
    both ends at once it cannot, and tidy() takes away what is left."""
    return [pair for pair in splicer.pairs() if not any(pair.gone)]


def until(happened: Callable[[], object], seconds: float = 10.0) -> None:
    """Raises AssertionError if it does not."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def talk(client: socket.socket, server: socket.socket, times: int = 3) -> None:
    """Both ways, read without waiting in recv (a time-out is O_NONBLOCK)."""
    for turn in range(times):
        for writer, reader in ((client, server), (server, client)):
            writer.sendall(b"%04d" % turn)
            assert ready(reader, 1000)
            assert take(reader, 4) == b"%04d" % turn


def disconnect(sock: socket.socket) -> None:
    """connect(2) with AF_UNSPEC, which the socket module has not."""
    nobody = ctypes.create_string_buffer(16)
    assert ctypes.CDLL(None).connect(sock.fileno(), nobody, 16) == 0


def close(ends: tuple[socket.socket, socket.socket]) -> None:
    """Both ends."""
    for end in ends:
        end.close()


def another_is_spliced(bench: Bench) -> bool:
    """Whether the next connection is."""
    client, _ = bench.connect(bench.listen())
    return bench.is_spliced(client)
