"""The programs loaded and attached, for tests that have sockets of their own through them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sockmap.selfbench import Bench
from sockmap.splice import Splicer
from tests.splice.bench import attached, program
from tests.splice.lanes import PLACES, TAILS, Road, roads


@pytest.fixture(scope="module")
def splicer() -> Iterator[Splicer]:
    """One for all tests of a file, with a few lanes."""
    with attached(Splicer(lanes=PLACES)) as splicer:
        yield splicer


@pytest.fixture
def bench(splicer: Splicer) -> Iterator[Bench]:
    """A program of a new name."""
    with program(splicer) as bench:
        yield bench


@pytest.fixture
def road(bench: Bench) -> Iterator[Road]:
    """With requests of each kind that are known."""
    with roads(bench) as made:
        for number, tail in enumerate(TAILS, 10):
            made.know(tail, number)
        yield made


@pytest.fixture
def fresh(splicer: Splicer) -> Iterator[Splicer]:
    """What was learned and counted before is forgotten, and the pairs that an end has gone of."""
    splicer.tidy(-1)
    splicer.forget()
    yield splicer
    splicer.stop()
