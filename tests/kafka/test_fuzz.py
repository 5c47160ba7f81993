"""A short run of the fuzzer, whose inputs are the same each time; longer ones are for people (tests/kafka/fuzz.py)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RUNS = 3000


@pytest.mark.slow
def test_a_short_run_of_the_fuzzer(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.kafka.fuzz", str(tmp_path / "corpus"), f"-artifact_prefix={tmp_path}/"]
    argv += [f"-runs={RUNS}", "-seed=1"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=250, stdin=subprocess.DEVNULL)
    runs = re.search(r"Done (\d+) runs", done.stderr)  # it may do a few more than it is asked for
    assert done.returncode == 0 and runs and int(runs[1]) >= RUNS, done.stderr[-5000:]
