"""`make bench`: l7proxy beside a direct connection, HAProxy, nginx and Envoy.

All take turns in every round, so that what else happens on the machine meets all of them alike; medians of the rounds
are shown. Each proxy has one worker, the same ten rules, and writes one line of JSON for each request.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import load, report
from bench.contenders import PEERS, Contender, Road, direct, haproxy, l7proxy, loopback, nginx, pods, services
from bench.rules import rules

HERE = Path(__file__).parent
MANY = 10_000
BULK = ("down", "up")
_OPEN_FILES = 65_536
Phase = Callable[[Contender], load.Figures]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, and roughly how fast")
    parser.add_argument("--rounds", type=int, default=0, help="default 3")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each load; default 3")
    parser.add_argument("--workers", type=int, default=1, help="of l7proxy; its peers have one thread each")
    parser.add_argument(
        "--only", default="", help="comma-separated: direct, haproxy, nginx, envoy, l7proxy, many, loopback"
    )
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args(argv)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (1.0 if arguments.quick else 3.0)
    arguments.big = (256 if arguments.quick else 1024) << 20
    arguments.idle = 200 if arguments.quick else 1000
    return arguments


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
def contenders(arguments: argparse.Namespace) -> Iterator[list[tuple[Contender, tuple[str, ...]]]]:
    """Everybody, started, each with the phases that are measured with it (none named: all)."""
    wanted = set(filter(None, arguments.only.split(","))) or {"direct", *PEERS, "l7proxy", "many", "loopback"}
    with ExitStack() as stack:

        def road(made: Road) -> Road:
            stack.callback(made.lab.close)
            made.serve(arguments.big)
            return made

        found: list[tuple[Contender, tuple[str, ...]]] = []
        if wanted & {"direct", *PEERS}:
            plain = road(pods())
            found += [(one, ()) for one in _plain(plain, wanted)]
            found += [(one, BULK) for one in _large(plain, wanted)]
        if "l7proxy" in wanted:
            found.append((l7proxy(road(pods()), rules(10), arguments.workers), ()))
        if "many" in wanted:
            many = l7proxy(road(pods()), rules(MANY), arguments.workers, f"l7proxy, {MANY:,} rules")
            found.append((many, ("c1", "c32")))
        if "loopback" in wanted:
            found += [(one, ("c1", "c32", *BULK)) for one in _plain(road(loopback()), wanted)]
            if "l7proxy" in wanted:
                found.append((l7proxy(road(services()), rules(10), arguments.workers), ("c1", "c32", *BULK)))
        yield found


def _plain(road: Road, wanted: set[str]) -> Iterator[Contender]:
    """A direct connection and the proxies that are not in the way by themselves."""
    if "direct" in wanted:
        yield direct(road)
    for number, (name, start) in enumerate(PEERS.items()):
        if name in wanted:
            yield start(road, rules(10), 9001 + number)


def _large(road: Road, wanted: set[str]) -> Iterator[Contender]:
    """Those that carry bulk better with large buffers, so that nobody can say they were not given them."""
    if "haproxy" in wanted:
        yield haproxy(road, rules(10), 9011, large=True)
    if "nginx" in wanted:
        yield nginx(road, rules(10), 9012, large=True)


def measure(arguments: argparse.Namespace) -> report.Results:
    """All rounds."""
    results: report.Results = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with contenders(arguments) as found:
        for one, chosen in found:
            if not chosen:  # first of all: later, memory that was freed would be used again
                _note(results, one, "idle", load.idle(one, arguments.idle), 0)
            load.requests(one, 8, 1)  # what is compiled or cached at first use
            load.download(one)
        for number in range(arguments.rounds):
            turn = number % len(found)
            for one, chosen in found[turn:] + found[:turn]:
                for phase, run in phases(arguments).items():
                    if not chosen or phase in chosen:
                        _note(results, one, phase, run(one), number)
        for one, _ in found:
            if lost := one.lost_records():
                print(f"{one.name}: {lost} flow records were lost", file=sys.stderr)
                results[one.name]["log"]["lost"].append(lost)
    return {one.name: results[one.name] for one, _ in found}


def _note(results: report.Results, one: Contender, phase: str, figures: load.Figures, number: int) -> None:
    shown = ", ".join(f"{key} {value:,.2f}" for key, value in figures.items())
    print(f"round {number + 1}: {one.name}, {phase}: {shown}", file=sys.stderr, flush=True)
    for key, value in figures.items():
        results[one.name][phase][key].append(value)


def versions() -> dict[str, str]:
    """Versions of the proxies, as they say them."""
    commands = {"haproxy": ["haproxy", "-v"], "nginx": ["/usr/sbin/nginx", "-v"], "wrk": ["wrk", "-v"]}
    commands["envoy"] = [str(Path(sys.executable).with_name("envoy")), "--version"]
    found = {"python": sys.version.split()[0], "cpus": str(os.cpu_count())}
    for name, argv in commands.items():
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        found[name] = lines[0].strip().replace(argv[0], name) if lines else "unknown"  # no path of this machine
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure, write the file, print the table."""
    arguments = parse(argv)
    if os.geteuid() != 0:
        print("bench: needs root (network namespaces and BPF)", file=sys.stderr)
        return 1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = _OPEN_FILES if hard < 0 else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    start = time.monotonic()
    results = measure(arguments)
    settings = {key: str(value) for key, value in vars(arguments).items() if key != "output"}
    report.write(arguments.output, results, settings, versions())
    print(report.table(results))
    print(f"\n{arguments.rounds} rounds in {time.monotonic() - start:.0f} s; every value: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
