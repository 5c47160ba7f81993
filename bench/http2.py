"""What is measured of HTTP/2 and gRPC, and with whom."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from bench import load, load_http2
from bench.contenders import Contender, Road, loopback, pods, services
from bench.contenders_http2 import PEERS, direct, envoy_proxy, haproxy, l7proxy, serve
from bench.report import HTTP2
from bench.suite import FEW, MANY, Phase, Suite, Turns, plain

SMALL = ("h2", "grpc", "stream")
"""What many rules can matter to."""
BULK = ("down", "up")
PRIOR = "--http2-prior-knowledge"


def phases(arguments: argparse.Namespace) -> dict[str, Phase]:
    """What is measured, in this order."""
    seconds = arguments.seconds
    return {
        "h2": lambda one: load_http2.requests(one, seconds),
        "grpc": lambda one: load_http2.unary(one, seconds),
        "stream": lambda one: load_http2.streams(one, seconds),
        "down": lambda one: load.download(one, PRIOR),
        "up": lambda one: load.upload(one, one.road.big, PRIOR),
    }


@contextmanager
def contenders(arguments: argparse.Namespace, wanted: set[str]) -> Iterator[Turns]:
    """Everybody, started."""
    with ExitStack() as stack:

        def road(made: Road) -> Road:
            stack.callback(made.lab.close)
            serve(made, arguments.big)
            return made

        found: Turns = []
        if wanted & {"direct", *PEERS}:
            open_road = road(pods())
            found += [(one, ()) for one in plain(open_road, wanted, direct, PEERS, FEW)]
            found += _others(open_road, wanted)
        for name, count in (("l7proxy", FEW), ("many", MANY)):
            if name in wanted:
                found.append((l7proxy(road(pods()), count, arguments.workers), () if count == FEW else SMALL))
        if "loopback" in wanted and wanted & {"direct", *PEERS}:
            found += [(one, ("h2", *BULK)) for one in plain(road(loopback()), wanted, direct, PEERS, FEW)]
        if {"loopback", "l7proxy"} <= wanted:
            found.append((l7proxy(road(services()), FEW, arguments.workers), ("h2", *BULK)))
        yield found


def _others(road: Road, wanted: set[str]) -> Iterator[tuple[Contender, tuple[str, ...]]]:
    """HAProxy as one would have it for bulk; the peers with as many rules as l7proxy."""
    if "haproxy" in wanted:
        yield haproxy(road, FEW, 9011, large=True), BULK
    if {"haproxy", "many"} <= wanted:
        yield haproxy(road, MANY, 9021), SMALL
    if {"envoy", "many"} <= wanted:
        yield envoy_proxy(road, MANY, 9023), SMALL


def warm_up(one: Contender) -> None:
    """What is compiled or cached at first use."""
    for run in (load_http2.requests, load_http2.unary):
        with suppress(AssertionError):  # HAProxy takes seconds for its first answers, with many rules
            run(one, 1)


def first(_: argparse.Namespace, __: Contender) -> dict[str, load.Figures]:
    """Nothing."""
    return {}


SUITE = Suite("http2", HTTP2, contenders, phases, warm_up, first)
