"""What is measured of upgraded connections: a message of 64 bytes there and back, one at a time."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench import load
from bench.contenders import PEERS, Contender, Road, direct, l7proxy, nginx, pods
from bench.report import WEBSOCKET
from bench.rules import SMALL, rules
from bench.suite import FEW, Phase, Suite, Turns, plain

_PEERS = PEERS | {"nginx": partial(nginx, upgrade=True)}
_ECHO = [sys.executable, str(Path(__file__).with_name("echo.py"))]


def phases(arguments: argparse.Namespace) -> dict[str, Phase]:
    """What is measured."""
    return {"echo": echo}


def echo(one: Contender) -> load.Figures:
    """Messages a second, latency in us, and CPU in us for each. The command is the same each time: by its words it is
    known how it reads."""
    host, port = one.address
    with load.usage(one) as used:
        output = one.road.run([*_ECHO, "ask", host, str(port), SMALL], 40)
        proxy, machine = used()
    found: load.Figures = json.loads(output)
    count = found.pop("count")
    return found | {"proxy_us": proxy / count * 1e6, "machine_us": machine / count * 1e6}


@contextmanager
def contenders(arguments: argparse.Namespace, wanted: set[str]) -> Iterator[Turns]:
    """Everybody, started."""
    with ExitStack() as stack:

        def road() -> Road:
            made = pods()
            stack.callback(made.lab.close)
            host, port = made.backend
            made.start(made.backend, [*_ECHO, "serve", host, str(port)])
            return made

        found: Turns = []
        if wanted & {"direct", *_PEERS}:
            found += [(one, ()) for one in plain(road(), wanted, direct, _PEERS, rules(FEW))]
        if "l7proxy" in wanted:
            found.append((l7proxy(road(), rules(FEW), arguments.workers), ()))
        if "spliced" in wanted:
            found.append((l7proxy(road(), rules(FEW), arguments.workers, "l7proxy, spliced", splice=True), ()))
        yield found


def warm_up(one: Contender) -> None:
    """By a first connection it is known how client and server read."""
    echo(one)


def first(arguments: argparse.Namespace, one: Contender) -> dict[str, load.Figures]:
    """Nothing."""
    return {}


SUITE = Suite("websocket", WEBSOCKET, contenders, phases, warm_up, first)
