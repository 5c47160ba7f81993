"""What is measured of Kafka, with a real broker, and with whom."""

from __future__ import annotations

import argparse
from functools import partial

from bench import load, load_kafka
from bench.contenders import Contender
from bench.contenders_kafka import place, rules
from bench.contenders_tcp import contenders
from bench.report import KAFKA
from bench.suite import Phase, Suite

_BULK = ("produce", "consume")


def phases(arguments: argparse.Namespace) -> dict[str, Phase]:
    """What is measured, in this order."""
    return {
        "one": lambda one: load_kafka.one_by_one(one, arguments.seconds),
        "produce": lambda one: load_kafka.bulk_produce(one, arguments.big),
        "consume": lambda one: load_kafka.bulk_consume(one, arguments.big),
    }


def warm_up(one: Contender) -> None:
    """A broker is several times as slow at first."""
    load_kafka.one_by_one(one, 2)
    for run in (load_kafka.bulk_produce, load_kafka.bulk_consume):
        run(one, 64 << 20)


def first(_: argparse.Namespace, __: Contender) -> dict[str, load.Figures]:
    """Nothing."""
    return {}


SUITE = Suite("kafka", KAFKA, partial(contenders, place, rules, _BULK), phases, warm_up, first)
