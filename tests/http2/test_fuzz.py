"""A short run of the fuzzer, whose inputs are the same each time; longer ones are for people (tests/http2/fuzz.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzzing import short_run


@pytest.mark.slow
def test_a_short_run_of_the_fuzzer(tmp_path: Path) -> None:
    short_run("tests.http2.fuzz", 1500, tmp_path)
