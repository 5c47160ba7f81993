"""The demos run, twice, and the README shows what they really print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.privileged

ROOT = Path(__file__).parents[2]


def play(module: str) -> subprocess.CompletedProcess[str]:
    """One performance."""
    argv = [sys.executable, "-m", module]
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=240, stdin=subprocess.DEVNULL)


def essence(text: str) -> list[str]:
    """The words of a text, without what differs from one performance to the next: dates, numbers, order."""
    text = re.sub(r"\b[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d", "", text)
    return sorted(re.sub(r"[\d.]+", "#", text).split())


@pytest.mark.parametrize(
    ("target", "module"), [("demo", "demo"), ("demo-kafka", "demo.kafka"), ("demo-cassandra", "demo.cassandra")]
)
def test_a_demo_runs_twice_and_the_readme_shows_it(target: str, module: str) -> None:
    readme = (ROOT / "README.md").read_text()
    shown = re.search(rf"What `make {target}` shows:\n```\n(.*?)\n```\n", readme, re.DOTALL)
    assert shown, f"the README does not show what `make {target}` does"
    for _ in range(2):
        done = play(module)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert essence(done.stdout) == essence(shown[1])
