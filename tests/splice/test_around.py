"""Pairs with an end in one cgroup, and pairs of other cgroups, by one set of programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sockmap.cgroups import cgroup_id
from sockmap.selfbench import Bench, Wrong
from sockmap.splice import ON_NEIGHBOUR, Scope, Splicer
from tests.splice.bench import cgroup, go, live, program, talk, until

pytestmark = pytest.mark.privileged


@dataclass
class Places:
    """The cgroups of `splice: true` and `accelerate`; `other` is looked at for the first only."""

    bench: Bench
    workers: Path
    chosen: Path
    below: Path
    other: Path

    def start(self, **scope: Any) -> None:
        """Anew, in this scope."""
        self.bench.splicer.forget()
        self.bench.splicer.start(Scope(**{"learn": False, "around": cgroup_id(self.workers)} | scope))

    def path(self, client: Path, server: Path) -> str:
        """Which one the bytes of a connection take."""
        go(server)
        listener = self.bench.listen()
        go(client)
        ends = self.bench.connect(listener)
        talk(*ends)
        try:
            found = "spliced" if self.bench.sent(ends[0]).spliced else "stack"
        except Wrong:
            found = "not looked at"
        for end in (*ends, listener):
            end.close()
        until(lambda: not live(self.bench.splicer))
        return found


@pytest.fixture
def places() -> Iterator[Places]:
    with ExitStack() as stack:
        outer = stack.enter_context(cgroup())
        workers, chosen, other = (stack.enter_context(cgroup(outer)) for _ in range(3))
        below = stack.enter_context(cgroup(chosen))
        splicer = stack.enter_context(closing(Splicer()))
        splicer.attach_around(workers)
        splicer.attach(outer, ON_NEIGHBOUR)
        splicer.attach(chosen)
        yield Places(stack.enter_context(program(splicer, other)), workers, chosen, below, other)


def test_each_end_has_its_say(places: Places) -> None:
    workers, chosen, below, other = places.workers, places.chosen, places.below, places.other
    places.start()
    assert {places.path(workers, server) for server in (workers, chosen, below, other)} == {"spliced"}
    assert {places.path(client, workers) for client in (chosen, below, other)} == {"spliced"}
    assert {places.path(*ends) for ends in ((chosen, chosen), (below, chosen), (chosen, below))} == {"spliced"}
    assert {places.path(*ends) for ends in ((other, other), (chosen, other), (other, chosen))} == {"not looked at"}
    counts = places.bench.splicer.counts()
    assert (counts["paired"], counts["ended"], counts["out_of_scope"], counts["enrol_failed"]) == (10, 10, 0, 0)


def test_what_restricts_the_chosen_does_not_restrict_the_workers(places: Places) -> None:
    for scope in ({"ports": [1]}, {"names": ["nobody"]}, {"namespaces": [1]}):
        places.start(**scope)
        assert places.path(places.chosen, places.workers) == "spliced"
        assert places.path(places.chosen, places.chosen) == "not looked at"
    places.start(dry_run=True)
    assert places.path(places.workers, places.chosen) == "spliced"
    assert places.path(places.chosen, places.chosen) == "stack"


def test_the_workers_need_no_learning_and_their_peers_do(places: Places) -> None:
    places.start(learn=True)
    assert places.path(places.workers, places.workers) == "spliced"
    assert places.path(places.chosen, places.workers) == "stack"
    assert places.path(places.chosen, places.workers) == "spliced"
    assert places.path(places.chosen, places.chosen) == "spliced"  # by what was learnt with the workers


def test_without_workers_only_the_chosen(places: Places) -> None:
    places.start(around=0)
    assert places.path(places.chosen, places.chosen) == "spliced"
    assert places.path(places.workers, places.chosen) == "not looked at"
