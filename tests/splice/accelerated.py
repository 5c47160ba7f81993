"""`l7proxy accelerate` for a while."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.node import COMMAND

READY = "accelerate: ready"


@cache
def available() -> bool:
    """Whether this l7proxy has the command."""
    return subprocess.run([COMMAND, "accelerate", "--help"], capture_output=True).returncode == 0


@contextmanager
def accelerated(on: bool, cgroups: Sequence[Path], *words: str, timeout: float = 60.0) -> Iterator[bool]:
    """While inside, sockets of these cgroups are spliced; says whether they are: not if `on` is false or the command
    is not there. `words`: further flags. Raises AssertionError, with what the command said, if it does not get ready or
    has ended before."""
    if not on or not available():
        yield False
        return
    flags = ["--anywhere", *words, *(word for path in cgroups for word in ("--cgroup", str(path)))]
    with tempfile.TemporaryFile("w+") as output:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # its output is a file: it would keep the line for itself
        process = subprocess.Popen(
            [COMMAND, "accelerate", *flags], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )

        def said() -> str:
            output.seek(0)
            return output.read()

        try:
            end = time.monotonic() + timeout
            while READY not in said():
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"accelerate: status {process.poll()}:\n{said()}")
                time.sleep(0.05)
            yield True
            if process.poll() is not None:
                raise AssertionError(f"accelerate ended with status {process.returncode}:\n{said()}")
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
