"""Rigs for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.accelerate.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A rig of the test's own."""
    with closing(Rig(tmp_path)) as made:
        yield made
