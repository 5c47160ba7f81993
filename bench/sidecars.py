"""What is measured of other people's sidecars (tests/splice/sidecars.py), their sockets spliced and not."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median, quantiles

from bench import load, processes
from bench.load import Figures
from bench.report import SIDECARS
from bench.suite import Alternation, Pair
from tests.splice.accelerated import accelerated
from tests.splice.sidecars import APP, PLAIN, Sidecars

CONTENDERS = {
    "Envoy": "envoy",
    "Envoy, TCP": "envoy-tcp",
    "nginx": "nginx",
    "HAProxy": "haproxy",
    "HAProxy, TCP": "haproxy-tcp",
}
"""Title of a sidecar, and its kind; the word before a hyphen is the one that `--only` takes."""
DIRECT = "no sidecars"


class Load:
    """The client of a layout, with the app at one of its ports."""

    def __init__(self, layout: Sidecars, port: int, seconds: float, amount: int) -> None:
        self.layout, self.port, self.seconds, self.amount = layout, port, seconds, amount

    def phases(self) -> dict[str, Callable[[], Figures]]:
        """In this order."""
        return {
            "c1": lambda: self.requests(64, 1),
            "64": lambda: self.requests(64, 32),
            "1k": lambda: self.requests(1 << 10, 32),
            "16k": lambda: self.requests(16 << 10, 32),
            "1m": lambda: self.requests(1 << 20, 8),
            "bulk1m": lambda: self.bulk(1 << 20),
            "bulk64m": lambda: self.bulk(64 << 20),
        }

    def requests(self, size: int, connections: int) -> Figures:
        """Keep-alive requests by wrk: per second, latency in us, and for each the CPU in us of both sidecars and of
        the machine."""
        seconds = max(1, round(self.seconds))
        url = self.layout.url(f"/body/{size}", port=self.port)
        used = self._usage()
        output = self.layout.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url], seconds + 40)
        sidecars, machine = used()
        count = load.parsed(r"(\d+) requests in", output)
        if "Non-2xx" in output or "Socket errors" in output or not count:
            raise AssertionError(output)
        return {
            "rps": load.parsed(r"Requests/sec: +([\d.]+)", output),
            "p50_us": load.latency("50%", output),
            "p99_us": load.latency("99%", output),
            "proxy_us": sidecars / count * 1e6,
            "machine_us": machine / count * 1e6,
        }

    def bulk(self, size: int) -> Figures:
        """Bodies one after the other on one connection, by curl (wrk reads 8 KiB at a time): GB/s, CPU seconds of
        both sidecars and of the machine for each GB, and the latency of a body in us."""
        count = max(2, self.amount // size)
        url = self.layout.url(f"/body/{size}?[1-{count}]", port=self.port)
        wanted = "%{http_code} %{size_download} %{time_total}\n"
        used, start = self._usage(), time.monotonic()
        output = self.layout.run(["curl", "-sS", "-o", "/dev/null", "-w", wanted, "--max-time", "100", url], 110)
        (sidecars, machine), whole = used(), time.monotonic() - start
        rows = [line.split() for line in output.splitlines()]
        if [row[:2] for row in rows] != [["200", str(size)]] * count:
            raise AssertionError(output)
        gigabytes, times = size * count / 1e9, [float(row[2]) * 1e6 for row in rows]
        return {
            "gbps": gigabytes / (sum(times) / 1e6),
            "rps": count / whole,
            "p50_us": median(times),
            "p99_us": quantiles(times, n=100, method="inclusive")[98],
            "proxy_s_per_gb": sidecars / gigabytes,
            "machine_s_per_gb": machine / gigabytes,
        }

    def warm_up(self) -> None:
        """Connections that both clients close: what nothing is known of is not spliced."""
        url, close = self.layout.url("/body/1024", port=self.port), ["-H", "Connection: close"]
        self.layout.run(["curl", "-sS", "-f", "-o", "/dev/null", *close, f"{url}?[1-10]"])
        briefly = ["timeout", "--preserve-status", "-s", "INT", "0.3"]
        self.layout.run([*briefly, "wrk", "-t1", "-c4", "-d9s", *close, url])

    def _usage(self) -> Callable[[], tuple[float, float]]:
        sidecars, machine = self.layout.cpu_seconds(), processes.machine_seconds()
        return lambda: (self.layout.cpu_seconds() - sidecars, processes.machine_seconds() - machine)


@contextmanager
def pairs(arguments: argparse.Namespace, wanted: set[str]) -> Iterator[list[Pair]]:
    """The kinds of sidecars of the names given, and the app without any where a direct connection is wanted."""
    found = {title: kind for title, kind in CONTENDERS.items() if kind.split("-")[0] in wanted}
    if not found and "direct" not in wanted:
        yield []
        return
    amount = arguments.big // (4 if arguments.quick else 2)
    with Sidecars(log_bodies=False) as layout:
        through = Load(layout, APP, arguments.seconds, amount)
        made = [_pair(title, kind, through) for title, kind in found.items()]
        if "direct" in wanted:
            made.insert(0, _pair(DIRECT, None, Load(layout, PLAIN, arguments.seconds, amount)))
        yield made


def _pair(title: str, kind: str | None, client: Load) -> Pair:
    return Pair(title, lambda on: _turn(kind, client, on))


@contextmanager
def _turn(kind: str | None, client: Load, on: bool) -> Iterator[dict[str, Callable[[], Figures]]]:
    """The mesh is there before the accelerator. It is started again behind the warming up, because what the sidecars
    keep open to each other is older than what the accelerator knows of them."""
    layout = client.layout
    layout.start(kind)
    try:
        with accelerated(on, list(layout.cgroups.values())):
            client.warm_up()
            layout.stop()
            layout.start(kind)
            yield client.phases()
    finally:
        layout.stop()


SUITE = Alternation("sidecars", SIDECARS, pairs)
