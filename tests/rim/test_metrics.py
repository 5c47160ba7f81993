"""Metrics: sums over workers that never go back, in a form Prometheus' own parser reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics_core import Sample
from prometheus_client.parser import text_string_to_metric_families

from l7proxy.flowjson import FlowEncoder
from l7proxy.flowlog import BatchSink
from l7proxy.metrics import NodeMetrics, WorkerMetrics
from l7proxy.ops import CqlCall, CqlStatement, Grpc, KafkaCall, KafkaRequest, Record, Request
from l7proxy.recorder import ConnectionRecords, Recorder
from policies.identity import reserved
from policies.verdict import L7Decision, Verdict
from tests.conversations import changed


class Samples(dict[tuple[str, ...], float]):
    """Samples by name and label values, these in any order."""

    def __init__(self, found: Iterable[Sample]) -> None:
        super().__init__(((sample.name, *sorted(sample.labels.values())), sample.value) for sample in found)

    def __getitem__(self, key: tuple[str, ...]) -> float:
        return super().__getitem__((key[0], *sorted(key[1:])))


def samples(node: NodeMetrics, **changes: Any) -> Samples:
    values: dict[str, Any] = {"drops": {}, "generation": 1, "load_errors": 0, "lost": 0, "restarts": 0, **changes}
    text = node.text(**values)
    return Samples(sample for family in text_string_to_metric_families(text) for sample in family.samples)


def asked(verdict: Verdict, protocol: str = "HTTP/1.1") -> Request:
    return Request(L7Decision(verdict, None, "because"), protocol=protocol)


def report(node: NodeMetrics, index: int, pid: int, worker: WorkerMetrics) -> None:
    node.worker(index, pid, json.loads(json.dumps(worker.snapshot())))


def test_sums_over_workers() -> None:
    node = NodeMetrics()
    for index, count in ((0, 2), (1, 3)):
        worker = WorkerMetrics()
        for _ in range(count):
            worker.request(asked(Verdict.FORWARDED), "api", 0.002)
        worker.request(asked(Verdict.DROPPED), "api", 7.0)
        worker.active = 4
        worker.bytes(10, 100)
        worker.upstream_failed("api")
        worker.refused_connection()
        report(node, index, 100 + index, worker)
    found = samples(node)
    assert found["l7proxy_requests_total", "HTTP/1.1", "FORWARDED", "api"] == 5
    assert found["l7proxy_requests_total", "HTTP/1.1", "DROPPED", "api"] == 2
    assert found["l7proxy_connections_active",] == 8
    assert found["l7proxy_bytes_total", "client"] == 20
    assert found["l7proxy_bytes_total", "server"] == 200
    assert found["l7proxy_upstream_failures_total", "api"] == 2
    assert found["l7proxy_connections_refused_total",] == 2


def test_latency_counts_what_reached_a_server() -> None:
    node, worker = NodeMetrics(), WorkerMetrics()
    for latency in (0.0005, 0.0006, 0.3, 99.0):
        worker.request(asked(Verdict.FORWARDED), "api", latency)
    worker.request(asked(Verdict.AUDIT), "api", 0.3)
    worker.request(asked(Verdict.DROPPED), "api", 0.3)
    report(node, 0, 1, worker)
    found = samples(node)
    name = "l7proxy_request_duration_seconds"
    bounds = ("0.0005", "0.001", "0.25", "0.5", "10.0", "+Inf")
    assert [found[f"{name}_bucket", "HTTP/1.1", "api", bound] for bound in bounds] == [1, 2, 2, 4, 4, 5]
    assert found[f"{name}_count", "HTTP/1.1", "api"] == 5
    assert abs(found[f"{name}_sum", "HTTP/1.1", "api"] - 99.6011) < 1e-9


def test_grpc_is_a_protocol_of_its_own() -> None:
    node, worker = NodeMetrics(), WorkerMetrics()
    call = asked(Verdict.FORWARDED, "HTTP/2")
    for grpc in (True, False, True, True):
        worker.request(call, "api", 0.1, grpc)
    worker.request(asked(Verdict.FORWARDED, "gRPC"), "api", 0.1)
    report(node, 0, 1, worker)
    found = samples(node)
    counts = [found["l7proxy_requests_total", name, "FORWARDED", "api"] for name in ("gRPC", "HTTP/2", "other")]
    assert counts == [3, 1, 1]
    assert found["l7proxy_request_duration_seconds_count", "gRPC", "api"] == 3


def test_recorded_calls_are_counted() -> None:
    worker = WorkerMetrics()
    recorder = Recorder(BatchSink(lambda batch: True), worker)
    ends = (reserved("host"), 0, ""), (reserved("world"), 0, "")
    flows = FlowEncoder("n").connection(*ends, ("10.0.0.1", 1), ("10.0.0.2", 2))
    connection = ConnectionRecords(recorder, "api", lambda: flows)
    record = Record(asked(Verdict.FORWARDED, "HTTP/2"), 200, 1.0, 1.5)
    connection.add(record)
    connection.add(changed(record, call=Grpc("a.B", "C", 0, 1, 1)))
    decision = L7Decision(Verdict.FORWARDED, None, "because")
    connection.add(Record(KafkaRequest(decision, "Fetch", 12), 0, 1.0, 1.5, KafkaCall(1, True)))
    connection.add(Record(CqlStatement(decision, "QUERY", "use"), -1, 1.0, 1.5, CqlCall(1, -1, True)))
    recorder.work()
    assert [row[0] for row in worker.snapshot()["requests"]] == ["HTTP/2", "gRPC", "Kafka", "Cassandra"]


def test_a_dead_workers_counts_stay() -> None:
    node, worker = NodeMetrics(), WorkerMetrics()
    worker.request(asked(Verdict.FORWARDED), "api", 0.1)
    worker.lost, worker.active = 3, 5
    report(node, 0, 100, worker)
    report(node, 0, 100, worker)
    fresh = WorkerMetrics()
    report(node, 0, 101, fresh)
    key = ("l7proxy_requests_total", "HTTP/1.1", "FORWARDED", "api")
    assert samples(node)[key] == 1
    fresh.request(asked(Verdict.FORWARDED), "api", 0.1)
    report(node, 0, 101, fresh)
    found = samples(node, lost=2)
    assert found[key] == 2
    assert found["l7proxy_flow_records_lost_total",] == 5
    assert found["l7proxy_connections_active",] == 0


def test_lost_records_are_handed_on_once() -> None:
    told: list[int] = []
    node, worker = NodeMetrics(told.append), WorkerMetrics()
    for lost in (0, 4, 4, 6):
        worker.lost = lost
        report(node, 0, 100, worker)
    worker.lost = 1
    report(node, 0, 101, worker)
    assert told == [4, 2, 1]
    assert samples(node, lost=7)["l7proxy_flow_records_lost_total",] == 7


def test_a_peer_cannot_make_labels() -> None:
    node, worker = NodeMetrics(), WorkerMetrics()
    for number in range(5000):
        worker.request(asked(Verdict.DROPPED, f"HTTP/{number}.9"), "api", 0.1)
        worker.request(asked(Verdict.DROPPED), f"endpoint-{number}", 0.1)
    report(node, 0, 1, worker)
    found = samples(node)
    assert found["l7proxy_requests_total", "other", "DROPPED", "api"] == 5000
    assert found["l7proxy_requests_total", "HTTP/1.1", "DROPPED", "other"] == 4001
    assert len(worker.snapshot()["requests"]) == 1001


def test_the_nodes_own_figures() -> None:
    drops = {"Policy denied": 7, "Invalid source ip": 1, "steered": 9}
    found = samples(NodeMetrics(), drops=drops, generation=12, load_errors=3, restarts=2)
    assert found["l7proxy_datapath_drops_total", "Policy denied"] == 7
    assert found["l7proxy_datapath_events_total", "steered"] == 9
    assert found["l7proxy_policy_epoch",] == 12
    assert found["l7proxy_policy_load_errors_total",] == 3
    assert found["l7proxy_worker_restarts_total",] == 2
    assert ("l7proxy_datapath_drops_total", "steered") not in found
