"""Servers in Java that tests start, from what is prepared once for all test workers."""

from __future__ import annotations

import fcntl
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import netns

COMMON = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
"""Options with which a server of one test starts soon."""
Address = tuple[str, int]


@dataclass(frozen=True)
class Running:
    """A server. `folder` has its files, and what it says in `log`."""

    process: subprocess.Popen[bytes]
    folder: Path

    def log(self) -> str:
        """The end of what it has said."""
        return _log(self.folder)[-4000:]

    def wait_for(self, words: str, within: float) -> None:
        """Until it has said so. Raises AssertionError after `within` seconds, or if it ends before."""
        end = time.monotonic() + within
        while words not in _log(self.folder):
            status = self.process.poll()
            if status is not None or time.monotonic() > end:
                what = "is not ready" if status is None else f"ended with status {status}"
                raise AssertionError(f"{self.folder.name} {what}")
            time.sleep(0.05)

    def stop(self) -> None:
        """An orderly end, at which a JVM writes the archive of its classes."""
        self.process.terminate()
        self.process.wait(180)


def _log(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")


@contextmanager
def started(argv: Sequence[str], folder: Path, namespace: str | None = None) -> Iterator[Running]:
    """A server in the namespace (or where the tests run); it ends with the context, or with the thread that started it,
    as when tests are killed. Its log is printed if the context ends by an error."""
    if namespace is not None:
        argv = netns.inside(namespace, argv)
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    running = Running(process, folder)
    try:
        yield running
    except BaseException:
        print(f"the log of {folder.name} ends:\n{running.log()}", file=sys.stderr)
        raise
    finally:
        process.kill()
        process.wait(30)


def prepared(build: Path, prepare: Callable[[Path], None]) -> Path:
    """A folder that `prepare` has filled, below `build`, where the server's classes are in lib."""
    made = build / "prepared"
    assert (build / "lib").is_dir(), f"{build}/lib is missing: scripts/install.sh test"
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(prefix="prepare-", dir=build) as name:
                (folder := Path(name, "made")).mkdir()
                prepare(folder)
                shutil.copytree(folder, made.with_suffix(".new"), dirs_exist_ok=True)
            made.with_suffix(".new").rename(made)
    return made


def free_ports(namespace: str | None, host: str, count: int) -> list[int]:
    """Ports that nobody has."""

    def find() -> list[int]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with ExitStack() as stack:
            made = [stack.enter_context(socket.create_server((host, 0), family=family)) for _ in range(count)]
            return [one.getsockname()[1] for one in made]

    return find() if namespace is None else netns.call(namespace, find)


def text(address: Address) -> str:
    """An address as clients are told it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
