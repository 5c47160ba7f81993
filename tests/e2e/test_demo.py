"""The demo runs, twice, and the README shows what it really prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.privileged

ROOT = Path(__file__).parents[2]


def play() -> subprocess.CompletedProcess[str]:
    """One performance."""
    argv = [sys.executable, "-m", "demo"]
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=240, stdin=subprocess.DEVNULL)


def essence(text: str) -> list[str]:
    """The words of a text, without what differs from one performance to the next: dates, numbers, order."""
    text = re.sub(r"\b[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d", "", text)
    return sorted(re.sub(r"[\d.]+", "#", text).split())


def test_the_demo_runs_twice_and_the_readme_shows_it() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"What `make demo` shows:\n```\n(.*?)\n```\n", readme, re.DOTALL)
    assert shown, "the README has no demo"
    for _ in range(2):
        done = play()
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert essence(done.stdout) == essence(shown[1])
