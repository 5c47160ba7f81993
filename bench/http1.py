"""What is measured of HTTP/1.1, and with whom."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import load
from bench.contenders import PEERS, Contender, Road, direct, haproxy, l7proxy, loopback, nginx, pods, services
from bench.report import HTTP1
from bench.rules import rules
from bench.suite import FEW, MANY, Phase, Suite, Turns, plain

BULK = ("down", "up")


def phases(arguments: argparse.Namespace) -> dict[str, Phase]:
    """What is measured, in this order."""
    seconds = arguments.seconds
    return {
        "c1": lambda one: load.requests(one, 1, seconds),
        "c32": lambda one: load.requests(one, 32, seconds),
        "c512": lambda one: load.requests(one, 512, seconds),
        "new": lambda one: load.fresh_connections(one, seconds),
        "down": load.download,
        "up": lambda one: load.upload(one, one.road.big),
    }


@contextmanager
def contenders(arguments: argparse.Namespace, wanted: set[str]) -> Iterator[Turns]:
    """Everybody, started."""
    with ExitStack() as stack:

        def road(made: Road) -> Road:
            stack.callback(made.lab.close)
            made.serve(arguments.big)
            return made

        found: Turns = []
        if wanted & {"direct", *PEERS}:
            open_road = road(pods())
            found += [(one, ()) for one in plain(open_road, wanted, direct, PEERS, rules(FEW))]
            found += [(one, BULK) for one in _large(open_road, wanted)]
        if "l7proxy" in wanted:
            found.append((l7proxy(road(pods()), rules(FEW), arguments.workers), ()))
        if "spliced" in wanted:
            found.append((l7proxy(road(pods()), rules(FEW), arguments.workers, "l7proxy, spliced", splice=True), ()))
        if "many" in wanted:
            many = l7proxy(road(pods()), rules(MANY), arguments.workers, f"l7proxy, {MANY:,} rules")
            found.append((many, ("c1", "c32")))
        if "loopback" in wanted and wanted & {"direct", *PEERS}:
            found += [(one, ("c1", "c32", *BULK)) for one in plain(road(loopback()), wanted, direct, PEERS, rules(FEW))]
        if {"loopback", "l7proxy"} <= wanted:
            found.append((l7proxy(road(services()), rules(FEW), arguments.workers), ("c1", "c32", *BULK)))
        yield found


def _large(road: Road, wanted: set[str]) -> Iterator[Contender]:
    """Those that carry bulk better with large buffers, so that nobody can say they were not given them."""
    if "haproxy" in wanted:
        yield haproxy(road, rules(FEW), 9011, large=True)
    if "nginx" in wanted:
        yield nginx(road, rules(FEW), 9012, large=True)


def warm_up(one: Contender) -> None:
    """What is compiled or cached at first use."""
    load.requests(one, 8, 1)
    load.download(one)


def first(arguments: argparse.Namespace, one: Contender) -> dict[str, load.Figures]:
    """Measured before anything else: later, memory that was freed would be used again."""
    return {"idle": load.idle(one, arguments.idle)}


SUITE = Suite("http1", HTTP1, contenders, phases, warm_up, first)
