"""A short run of the fuzzer, whose inputs are the same each time; longer ones are for people (tests/kafka/fuzz.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzzing import short_run


@pytest.mark.slow
def test_a_short_run_of_the_fuzzer(tmp_path: Path) -> None:
    short_run("tests.kafka.fuzz", 3000, tmp_path)
