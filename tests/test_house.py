"""The house rules that scripts and the test set-up promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SKIPPING = """
import pytest
{line}
def test_one():
    pytest.skip("nginx is missing")
@pytest.mark.xfail(reason="known", strict=True)
def test_two():
    assert False
"""


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in the project's folder."""
    full = os.environ | environment
    return subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, env=full, timeout=60, stdin=subprocess.DEVNULL
    )


@pytest.mark.privileged
@pytest.mark.parametrize("line", ["", "pytest.importorskip('no_such_module')"], ids=["test", "module"])
def test_a_skip_is_a_failure_where_everything_can_run(tmp_path: Path, line: str) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *  # noqa\n")
    (tmp_path / "test_skipping.py").write_text(SKIPPING.format(line=line))
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path))
    assert done.returncode != 0, done.stdout
    assert "skipped on a machine where nothing may be" in done.stdout


def test_privileged_tests_are_skipped_with_a_reason_where_they_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import tests.conftest as shared\nshared.privileged_refusal = lambda: 'needs root'\n"
        "from tests.conftest import *  # noqa\n"
    )
    (tmp_path / "test_it.py").write_text("import pytest\n@pytest.mark.privileged\ndef test_one(): assert False\n")
    done = run(sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(tmp_path))
    assert done.returncode == 0 and "1 skipped" in done.stdout and "needs root" in done.stdout, done.stdout


def test_make_says_what_there_is() -> None:
    done = run("make", "help", MAKEFLAGS="")
    named = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")}
    demos = {"demo", "demo-kafka", "demo-cassandra"}
    assert demos | {"install", "test", "bench", "lint", "type", "format", "clean"} <= named


def test_installing_refuses_what_it_does_not_know() -> None:
    done = run("scripts/install.sh", "everything")
    assert (
        done.returncode == 1 and "'everything' is none of: compile, test, lint, bench, kafka, cassandra" in done.stderr
    )


def test_no_file_names_a_machine_or_a_registry() -> None:
    listed = run("git", "ls-files", "-z").stdout.split("\0")
    forbidden = ("/wo" + "rk/", "pypi" + ".org", "deb." + "debian.org", "artifact" + "ory", "/ro" + "ot/")
    found = [
        f"{name}: {word}"
        for name in listed
        if name and (ROOT / name).is_file()
        for word in forbidden
        if word in (ROOT / name).read_text(errors="replace")
    ]
    assert found == []
