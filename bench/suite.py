"""A protocol's part of the benchmark, and how it is carried out: in turns, so that all meet the same weather."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from bench import load, report
from bench.contenders import Contender, Road

_Rules = TypeVar("_Rules")
Phase = Callable[[Contender], load.Figures]
Turns = list[tuple[Contender, tuple[str, ...]]]
"""Everybody, started, each with the phases that are measured with it (none named: all)."""
FEW, MANY = 10, 10_000
"""Numbers of rules."""
CONTENDERS = ("direct", "haproxy", "nginx", "envoy", "l7proxy", "spliced", "many")
"""Whom `--only` can name."""


@dataclass(frozen=True)
class Suite:
    """`contenders` starts those of the names given that it knows; `first` is measured once, before the rounds."""

    name: str
    columns: report.Columns
    contenders: Callable[[argparse.Namespace, set[str]], AbstractContextManager[Turns]]
    phases: Callable[[argparse.Namespace], dict[str, Phase]]
    warm_up: Callable[[Contender], None]
    first: Callable[[argparse.Namespace, Contender], dict[str, load.Figures]]

    def measure(self, arguments: argparse.Namespace, wanted: set[str]) -> report.Results:
        """All rounds."""
        results = _no_results()
        with self.contenders(arguments, wanted) as found:
            for one, chosen in found:
                for phase, figures in self.first(arguments, one).items() if not chosen else ():
                    _note(results, one.name, phase, figures, 0)
                self.warm_up(one)
            for number in range(arguments.rounds):
                turn = number % len(found)
                for one, chosen in found[turn:] + found[:turn]:
                    for phase, run in self.phases(arguments).items():
                        if not chosen or phase in chosen:
                            _note(results, one.name, phase, run(one), number)
            for one, _ in found:
                if lost := one.lost_records():
                    print(f"{one.name}: {lost} flow records were lost", file=sys.stderr)
                    results[one.name]["log"]["lost"].append(lost)
        return {one.name: results[one.name] for one, _ in found}

    def table(self, results: report.Results) -> str:
        """As Markdown."""
        return report.table(results, self.columns)


class Pair(NamedTuple):
    """Somebody measured twice in each round: `turn`, told whether accelerated, makes ready and gives the phases."""

    name: str
    turn: Callable[[bool], AbstractContextManager[dict[str, Callable[[], load.Figures]]]]


@dataclass(frozen=True)
class Alternation:
    """A suite of pairs: the two turns of each are next to each other, and each is the first in every other round."""

    name: str
    columns: report.Columns
    pairs: Callable[[argparse.Namespace, set[str]], AbstractContextManager[list[Pair]]]

    def measure(self, arguments: argparse.Namespace, wanted: set[str]) -> report.Results:
        """All rounds; empty if nobody is wanted."""
        results = _no_results()
        with self.pairs(arguments, wanted) as found:
            for number in range(arguments.rounds):
                for pair in found:
                    for on in (False, True) if number % 2 == 0 else (True, False):
                        with pair.turn(on) as phases:
                            for phase, run in phases.items():
                                _note(results, pair.name + report.ACCELERATED * on, phase, run(), number)
            names = [pair.name + suffix for pair in found for suffix in ("", report.ACCELERATED)]
        return {name: results[name] for name in names}

    def table(self, results: report.Results) -> str:
        """As Markdown, with the ratio of each pair."""
        return report.paired(results, self.columns)


def _no_results() -> report.Results:
    return defaultdict(lambda: defaultdict(lambda: defaultdict(list)))


def plain(
    road: Road,
    wanted: set[str],
    direct: Callable[[Road], Contender],
    peers: Mapping[str, Callable[[Road, _Rules, int], Contender]],
    rules: _Rules,
) -> Iterator[Contender]:
    """A direct connection and the proxies that are not in the way by themselves."""
    if "direct" in wanted:
        yield direct(road)
    for number, (name, start) in enumerate(peers.items()):
        if name in wanted:
            yield start(road, rules, 9001 + number)


def _note(results: report.Results, name: str, phase: str, figures: load.Figures, number: int) -> None:
    shown = ", ".join(f"{key} {value:,.2f}" for key, value in figures.items())
    print(f"round {number + 1}: {name}, {phase}: {shown}", file=sys.stderr, flush=True)
    for key, value in figures.items():
        results[name][phase][key].append(value)
