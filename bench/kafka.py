"""What is measured of Kafka, with a real broker, and with whom."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import load, load_kafka
from bench.contenders import Contender
from bench.contenders_kafka import direct, envoy_tcp, haproxy, l7proxy, place
from bench.report import KAFKA
from bench.suite import FEW, MANY, Phase, Suite, Turns

BULK = ("produce", "consume")
_COUNTS = {"l7proxy": FEW, "many": MANY}


def phases(arguments: argparse.Namespace) -> dict[str, Phase]:
    """What is measured, in this order."""
    return {
        "one": lambda one: load_kafka.one_by_one(one, arguments.seconds),
        "produce": lambda one: load_kafka.bulk_produce(one, arguments.big),
        "consume": lambda one: load_kafka.bulk_consume(one, arguments.big),
    }


@contextmanager
def contenders(arguments: argparse.Namespace, wanted: set[str]) -> Iterator[Turns]:
    """Everybody, started."""
    found: Turns = []
    with ExitStack() as stack:

        def ours(made: list[Contender]) -> None:
            assert made[0].node is not None
            stack.callback(made[0].node.stop)  # what it has in the kernel goes with it
            found.extend((one, ()) for one in made)

        counts = [count for name, count in _COUNTS.items() if name in wanted]
        if counts or wanted & {"direct", "haproxy", "envoy"}:
            at = stack.enter_context(place())
            found += [(direct(at), ())] if "direct" in wanted else []
            if "haproxy" in wanted:
                found += [(haproxy(at), ()), (haproxy(at, large=True), BULK)]
            found += [(envoy_tcp(at), ())] if "envoy" in wanted else []
            if counts:
                ours(l7proxy(at, counts, arguments.workers))
        if "spliced" in wanted:
            at = stack.enter_context(place())
            ours(l7proxy(at, [FEW], arguments.workers, "l7proxy, spliced", splice=True))
        yield found


def warm_up(one: Contender) -> None:
    """A broker is several times as slow at first."""
    load_kafka.one_by_one(one, 2)
    for run in (load_kafka.bulk_produce, load_kafka.bulk_consume):
        run(one, 64 << 20)


def first(_: argparse.Namespace, __: Contender) -> dict[str, load.Figures]:
    """Nothing."""
    return {}


SUITE = Suite("kafka", KAFKA, contenders, phases, warm_up, first)
