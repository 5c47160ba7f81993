"""What is measured of two plain sockets, on loopback and across pods, spliced and not: bench/splice/hop.c.

Client and server are bound to one CPU, or to one each: left alone, the scheduler has them now so and now so, and that
makes more of a difference than all else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import LOOPBACK, PORT
from bench.load import Figures
from bench.report import SOCKETS
from bench.suite import Alternation, Pair
from tests import netns
from tests.lab import Lab
from tests.splice.accelerated import accelerated

SOURCE = Path(__file__).parent / "splice/hop.c"
# A connection that was closed keeps its port for a minute, unless the next one may have it.
_PORTS = {"net/ipv4/ip_local_port_range": "1024 65535", "net/ipv4/tcp_tw_reuse": 1}


@dataclass(frozen=True)
class Hop:
    """Where the two sockets are: namespaces, cgroups and CPUs of client and server."""

    lab: Lab
    binary: Path
    client_ns: str
    server_ns: str
    host: str
    cgroups: tuple[Path, Path]
    cpus: tuple[int, int]

    @contextmanager
    def turn(self, on: bool, seconds: float) -> Iterator[dict[str, Callable[[], Figures]]]:
        """The phases. The server is a new one, and has closed connections before anything is measured: those of a
        program that nothing is known of are not spliced."""
        with accelerated(on, self.cgroups, "--no-learn"), self._serving():
            self._run("connect", 0.2)
            yield {
                "rtt64": lambda: self._run("rtt", 64, seconds),
                "rtt16k": lambda: self._run("rtt", 16 << 10, seconds),
                "stream1k": lambda: self._run("stream", 1 << 10, seconds),
                "stream64k": lambda: self._run("stream", 64 << 10, seconds),
                "stream1m": lambda: self._run("stream", 1 << 20, seconds),
                "connect": lambda: self._run("connect", seconds),
            }

    @contextmanager
    def _serving(self) -> Iterator[None]:
        argv = ["taskset", "-c", str(self.cpus[1]), str(self.binary), "serve", self.host, str(PORT)]
        server = self.lab.popen(self.server_ns, argv, cgroup=self.cgroups[1], stdout=subprocess.PIPE)
        with server:
            assert server.stdout is not None
            try:
                if server.stdout.readline() != "ready\n":
                    raise AssertionError(f"{argv}: not ready")
                yield
            finally:
                server.terminate()

    def _run(self, mode: str, *words: float) -> Figures:
        argv = ["taskset", "-c", str(self.cpus[0]), str(self.binary), mode, self.host, str(PORT), *map(str, words)]
        done = self.lab.run(self.client_ns, argv, timeout=words[-1] + 30, cgroup=self.cgroups[0])
        return {key: float(value) for key, value in json.loads(done.stdout).items()}


@contextmanager
def pairs(arguments: argparse.Namespace, wanted: set[str]) -> Iterator[list[Pair]]:
    """Sockets of one namespace, and of two pods; measured where a direct connection is wanted."""
    if "direct" not in wanted:
        yield []
        return
    seconds = arguments.seconds / 4 if arguments.quick else arguments.seconds
    with Lab() as lab:
        binary = lab.folder / "hop"
        netns.run(["gcc", "-O2", "-Wall", "-o", str(binary), str(SOURCE)])
        client, server = lab.pod("client"), lab.pod("server")
        netns.sysctl(client.ns, _PORTS)
        cgroups = lab.cgroup("client"), lab.cgroup("server")
        places = {"across pods": (client.ns, server.ns, server.v4)}
        if "loopback" in wanted:
            places = {"loopback": (client.ns, client.ns, LOOPBACK)} | places
        yield [
            _pair(f"{name}, {cpus}", Hop(lab, binary, *place, cgroups, chosen), seconds)
            for name, place in places.items()
            for cpus, chosen in _placements().items()
        ]


def _placements() -> dict[str, tuple[int, int]]:
    cpus = sorted(os.sched_getaffinity(0))
    two = {"two CPUs": (cpus[0], cpus[1])} if len(cpus) > 1 else {}
    return {"one CPU": (cpus[0], cpus[0])} | two


def _pair(name: str, hop: Hop, seconds: float) -> Pair:
    return Pair(name, lambda on: hop.turn(on, seconds))


SUITE = Alternation("sockets", SOCKETS, pairs)
