"""What is measured of Cassandra, with a real server, and with whom."""

from __future__ import annotations

import argparse
from functools import partial

from bench import load, load_cassandra
from bench.contenders import Contender
from bench.contenders_cassandra import place, rules
from bench.contenders_tcp import contenders
from bench.report import CASSANDRA
from bench.suite import Phase, Suite

_BULK = ("read", "read5")


def phases(arguments: argparse.Namespace) -> dict[str, Phase]:
    """What is measured, in this order."""
    return {
        "one": lambda one: load_cassandra.one_by_one(one, arguments.seconds),
        "many": lambda one: load_cassandra.many(one, arguments.seconds),
        "many5": lambda one: load_cassandra.many_in_segments(one, arguments.seconds),
        "query": lambda one: load_cassandra.simple(one, arguments.seconds),
        "read": lambda one: load_cassandra.bulk_read(one, arguments.big),
        "read5": lambda one: load_cassandra.bulk_read_in_segments(one, arguments.big),
    }


def warm_up(one: Contender) -> None:
    """A server is several times as slow at first."""
    for run in (load_cassandra.many, load_cassandra.many_in_segments, load_cassandra.simple):
        run(one, 2)
    for read in (load_cassandra.bulk_read, load_cassandra.bulk_read_in_segments):
        read(one, 64 << 20)


def first(_: argparse.Namespace, __: Contender) -> dict[str, load.Figures]:
    """Nothing."""
    return {}


SUITE = Suite("cassandra", CASSANDRA, partial(contenders, place, rules, _BULK), phases, warm_up, first)
