"""Counts: plain numbers in the workers, Prometheus metrics in the supervisor."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from l7proxy.ops import CqlStatement, KafkaRequest, Request

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram, in seconds; one more bucket has no bound."""
_PROTOCOLS = frozenset({"HTTP/1.0", "HTTP/1.1", "HTTP/2", "Kafka", "Cassandra"})
"""A peer chooses what stands as its protocol: only these get cells of their own."""
_MAX_ENDPOINTS = 1000
_KNOWN_CELLS = 4096
_OTHER = "other"
"""The label of what would otherwise be one label value too many."""

_Key = tuple[str, str, str]
_Request: TypeAlias = Request | KafkaRequest | CqlStatement


class WorkerMetrics:
    """What one worker has seen since it started. `active` (connections) and `lost` (flow records) are set from
    outside."""

    def __init__(self) -> None:
        self.active = 0
        self.lost = 0
        self._refused = 0
        self._bytes = [0, 0]
        self._failures: Counter[str] = Counter()
        self._cells: dict[_Key, list[float]] = {}
        self._known_cells: dict[tuple[_Request, str, bool], list[float]] = {}
        """Where equal requests are counted: quicker than the names that make a cell's key."""
        self._endpoints: set[str] = set()

    def request(self, request: _Request, endpoint: str, latency: float, grpc: bool = False) -> None:
        """Count a request. `latency` is in seconds, from its head to its response's end. `grpc`: it is a gRPC call,
        and counts as one whatever carried it."""
        cell = self._known_cells.get((request, endpoint, grpc))
        if cell is None:
            protocol = request.protocol if request.protocol in _PROTOCOLS else _OTHER
            cell = self._cell("gRPC" if grpc else protocol, request.decision.verdict, endpoint)
            if len(self._known_cells) >= _KNOWN_CELLS:
                self._known_cells.clear()
            self._known_cells[request, endpoint, grpc] = cell
        cell[bisect_left(BUCKETS, latency)] += 1
        cell[-1] += latency

    def refused_connection(self) -> None:
        """Count a connection that was reset before any request."""
        self._refused += 1

    def upstream_failed(self, endpoint: str) -> None:
        """Count a server that could not be reached."""
        self._failures[self._known(endpoint)] += 1

    def bytes(self, requests: int, responses: int) -> None:
        """Count the bytes of a connection, from the client and from the server."""
        self._bytes[0] += requests
        self._bytes[1] += responses

    def snapshot(self) -> dict[str, Any]:
        """Everything, as JSON. `requests` is a list of [protocol, verdict, endpoint, counts by bucket, sum]."""
        return {
            "active": self.active,
            "lost": self.lost,
            "refused": self._refused,
            "bytes": list(self._bytes),
            "failures": dict(self._failures),
            "requests": [[*key, cell[:-1], cell[-1]] for key, cell in self._cells.items()],
        }

    def _cell(self, protocol: str, verdict: str, endpoint: str) -> list[float]:
        """The cell to count in."""
        key = (protocol, str(verdict), self._known(endpoint))
        return self._cells.setdefault(key, [0] * (len(BUCKETS) + 1) + [0.0])

    def _known(self, endpoint: str) -> str:
        if endpoint not in self._endpoints:
            if len(self._endpoints) >= _MAX_ENDPOINTS:
                return _OTHER
            self._endpoints.add(endpoint)
        return endpoint


class NodeMetrics:
    """The sum over all workers. What a worker counted stays when it dies, so that no counter goes back.

    `on_lost` is told of flow records lost in workers, as they are reported.
    """

    def __init__(self, on_lost: Callable[[int], None] | None = None) -> None:
        self._on_lost = on_lost
        self._workers: dict[int, tuple[int, dict[str, Any]]] = {}
        self._past = Totals()

    def worker(self, index: int, pid: int, snapshot: dict[str, Any]) -> None:
        """Take the counts of worker `index`, whose process is `pid`."""
        before = 0
        if index in self._workers:
            old_pid, old = self._workers[index]
            if old_pid == pid:
                before = old["lost"]
            else:
                self._past.add(old)
        self._workers[index] = (pid, snapshot)
        if self._on_lost is not None and snapshot["lost"] > before:
            self._on_lost(snapshot["lost"] - before)

    def totals(self) -> Totals:
        """The sum of all workers, past ones included."""
        totals = Totals()
        totals.merge(self._past)
        for _, snapshot in self._workers.values():
            totals.add(snapshot)
            totals.active += snapshot["active"]
        return totals

    def text(
        self,
        *,
        drops: Mapping[str, int],
        generation: int,
        load_errors: int,
        lost: int,
        restarts: int,
        more: Iterable[Metric] = (),
    ) -> str:
        """Prometheus' text format. `drops` are the datapath's counters; `lost` are records the supervisor lost (with
        `on_lost`, all of them); `more` is put behind."""
        totals = self.totals()
        singles = {
            "policy_epoch": (GaugeMetricFamily, "Generation of the policy in force", generation),
            "policy_load_errors": (CounterMetricFamily, "Policy reloads that failed and changed nothing", load_errors),
            "worker_restarts": (CounterMetricFamily, "Workers that died and were started again", restarts),
            "flow_records_lost": (
                CounterMetricFamily,
                "Flow records that could not be written",
                lost + (0 if self._on_lost else totals.lost),
            ),
        }
        families = [*totals.collect(), *_datapath(drops)]
        families += [kind(f"l7proxy_{name}", text, value=value) for name, (kind, text, value) in singles.items()]
        return generate_latest(_Fixed([*families, *more])).decode()


class Totals:
    """Sums of workers' snapshots."""

    def __init__(self) -> None:
        self.active = self.lost = self.refused = 0
        self.bytes = [0, 0]
        self.failures: Counter[str] = Counter()
        self.cells: dict[_Key, list[float]] = {}

    def add(self, snapshot: Mapping[str, Any]) -> None:
        """Add a worker's counts (but not its active connections, which die with it)."""
        self.lost += snapshot["lost"]
        self.refused += snapshot["refused"]
        self.bytes = [a + b for a, b in zip(self.bytes, snapshot["bytes"], strict=True)]
        self.failures.update(snapshot["failures"])
        for protocol, verdict, endpoint, counts, total in snapshot["requests"]:
            self._add_cell((protocol, verdict, endpoint), [*counts, total])

    def merge(self, other: Totals) -> None:
        """Add another sum."""
        self.lost += other.lost
        self.refused += other.refused
        self.bytes = [a + b for a, b in zip(self.bytes, other.bytes, strict=True)]
        self.failures.update(other.failures)
        for key, cell in other.cells.items():
            self._add_cell(key, cell)

    def _add_cell(self, key: _Key, cell: list[float]) -> None:
        mine = self.cells.get(key)
        self.cells[key] = list(cell) if mine is None else [a + b for a, b in zip(mine, cell, strict=True)]

    def collect(self) -> Iterator[Metric]:
        """The workers' metrics."""
        labels = ["protocol", "verdict", "endpoint"]
        requests = CounterMetricFamily("l7proxy_requests", "Requests judged", labels=labels)
        for key, cell in self.cells.items():
            requests.add_metric(key, sum(cell[:-1]))
        yield requests
        yield self._latency()
        yield GaugeMetricFamily("l7proxy_connections_active", "Connections open now", value=self.active)
        refused = "Connections reset before any request"
        yield CounterMetricFamily("l7proxy_connections_refused", refused, value=self.refused)
        sizes = CounterMetricFamily("l7proxy_bytes", "Bytes received, of connections that have ended", labels=["from"])
        sizes.add_metric(["client"], self.bytes[0])
        sizes.add_metric(["server"], self.bytes[1])
        yield sizes
        failures = CounterMetricFamily("l7proxy_upstream_failures", "Servers not reached", labels=["endpoint"])
        for endpoint, count in self.failures.items():
            failures.add_metric([endpoint], count)
        yield failures

    def _latency(self) -> Metric:
        """Over the requests that reached a server: refused ones would only show how fast we say no."""
        text = "Seconds from a request's head to the end of its exchange, refused ones left out"
        family = HistogramMetricFamily("l7proxy_request_duration_seconds", text, labels=["protocol", "endpoint"])
        sums: dict[tuple[str, str], list[float]] = {}
        for (protocol, verdict, endpoint), cell in self.cells.items():
            if verdict != "DROPPED":
                mine = sums.get((protocol, endpoint), [0.0] * len(cell))
                sums[protocol, endpoint] = [a + b for a, b in zip(mine, cell, strict=True)]
        for key, cell in sums.items():
            family.add_metric(key, _buckets(cell[:-1]), cell[-1])
        return family


def _buckets(counts: Iterable[float]) -> list[tuple[str, float]]:
    """Prometheus' cumulative buckets."""
    found: list[tuple[str, float]] = []
    total = 0.0
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], counts, strict=True):
        total += count
        found.append((bound, total))
    return found


def _datapath(counters: Mapping[str, int]) -> list[Metric]:
    """Drops by reason; counters in lower case alone are no drops but what else the datapath counts."""
    drops = CounterMetricFamily("l7proxy_datapath_drops", "Packets dropped, by reason", labels=["reason"])
    events = CounterMetricFamily("l7proxy_datapath_events", "What else the datapath counts", labels=["event"])
    for name, count in counters.items():
        (events if name in _NO_DROPS else drops).add_metric([name], count)
    return [drops, events]


_NO_DROPS = frozenset({"forwarded", "steered", "audited", "events_lost", "events"})


class _Fixed(Collector):
    """Metrics that are already there, for prometheus_client to print."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
