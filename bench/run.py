"""`make bench`: l7proxy beside a direct connection, HAProxy, nginx and Envoy, with HTTP/1.1, HTTP/2, gRPC, a WebSocket,
Kafka and Cassandra; and what splicing (`l7proxy accelerate`) makes of plain sockets and of other people's sidecars.

All take turns in every round, so that what else happens on the machine meets all of them alike; medians of the rounds
are shown. Each proxy has one worker, the same rules, and writes one line of JSON for each request.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from bench import cassandra, http1, http2, kafka, report, sidecars, sockets, websocket
from bench.contenders import command
from bench.suite import CONTENDERS, Alternation, Suite
from tests.splice import accelerated

HERE = Path(__file__).parent
_ALL: tuple[Suite | Alternation, ...] = (
    http1.SUITE,
    http2.SUITE,
    websocket.SUITE,
    kafka.SUITE,
    cassandra.SUITE,
    sockets.SUITE,
    sidecars.SUITE,
)
SUITES = {suite.name: suite for suite in _ALL}
LOOPBACK = "loopback"
_OPEN_FILES = 65_536


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, and roughly how fast")
    parser.add_argument("--rounds", type=int, default=0, help="default 3")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each load; default 3")
    parser.add_argument("--workers", type=int, default=1, help="of l7proxy; its peers have one thread each")
    names = f"{', '.join(SUITES)} (of all, these), {', '.join(CONTENDERS)} (of all, these), {LOOPBACK} (there too)"
    parser.add_argument("--only", default="", help=f"comma-separated: {names}")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args(argv)
    arguments.suites, arguments.wanted = _chosen(parser, arguments.only)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (1.0 if arguments.quick else 3.0)
    arguments.big = (256 if arguments.quick else 1024) << 20
    arguments.idle = 200 if arguments.quick else 1000
    return arguments


def _chosen(parser: argparse.ArgumentParser, only: str) -> tuple[list[str], set[str]]:
    """The suites and what is measured in them; the parser ends the program if that is nothing or not known."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    known = {*SUITES, *CONTENDERS, LOOPBACK}
    if wrong := [word for word in words if word not in known]:
        parser.error(f"--only: {', '.join(wrong)}: not one of {', '.join(sorted(known))}")
    suites = [name for name in SUITES if name in words] or list(SUITES)
    wanted = {word for word in words if word not in SUITES}
    if wanted == {LOOPBACK}:
        parser.error(f"--only: {LOOPBACK} is a place: say who is to be measured there, of {', '.join(CONTENDERS)}")
    return suites, wanted or {*CONTENDERS, LOOPBACK}


def versions() -> dict[str, str]:
    """Versions of the proxies, as they say them."""
    commands = {"haproxy": ["haproxy", "-v"], "nginx": ["/usr/sbin/nginx", "-v"], "wrk": ["wrk", "-v"]}
    commands |= {name: [command(name), "--version"] for name in ("envoy", "ghz")}
    commands |= {name: [name, "--version"] for name in ("h2load", "nghttpd")}
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
    if not accelerated.available():
        print("bench: l7proxy has no `accelerate` here: what is called accelerated is not", file=sys.stderr)
    settings = {key: str(getattr(arguments, key)) for key in ("rounds", "seconds", "workers", "only", "big", "idle")}
    settings["accelerate"] = str(accelerated.available())
    for name in arguments.suites:
        suite = SUITES[name]
        results = suite.measure(arguments, arguments.wanted)
        if not results:
            continue  # none of those wanted is in this suite
        report.write(arguments.output, name, results, settings, versions())
        print(suite.table(results), end="\n\n")
    print(f"{arguments.rounds} rounds in {time.monotonic() - start:.0f} s; every value: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
