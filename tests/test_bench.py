"""The bench's own arithmetic: what it reads, counts and shows."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml
from kafka.record.default_records import DefaultRecordBatch

from bench import load, load_cassandra, load_http2, load_kafka, processes, report, run, sockets
from bench.rules import SMALL, UPLOAD, as_rules, calls, for_envoy, for_haproxy, for_l7proxy, for_nginx, rules
from bench.suite import Alternation, Pair
from parsers.cassandra import HEADER, read_request_envelope
from parsers.cassandra_requests import read_request
from parsers.cassandra_segments import read_head as read_segment_head
from parsers.cassandra_segments import read_payload
from parsers.kafka import read_head
from parsers.kafka_codec import decode
from parsers.kafka_schema import REQUEST


def test_all_proxies_get_the_same_rules() -> None:
    chosen = rules(25)
    assert len(chosen) == len(set(chosen)) == 25
    http = yaml.safe_load(for_l7proxy(chosen, 80))["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"]
    assert [(rule["method"], rule["path"]) for rule in http] == chosen
    nginx, haproxy = for_nginx(chosen).splitlines(), for_haproxy(chosen).splitlines()
    envoy = list(for_envoy(chosen)["typed_config"]["rules"]["policies"].values())
    assert len(nginx) == len(haproxy) == len(envoy) == 25
    for line, other, policy, (method, path) in zip(nginx, haproxy, envoy, chosen, strict=True):
        assert f"^{method} {path}$" in line
        assert f"method {method} " in other and f"path_reg ^{path}$" in other
        assert f"^{path}$" in str(policy) and f"'{method}'" in str(policy)


def test_the_load_is_allowed_by_the_last_rules_only() -> None:
    chosen = rules(1000)
    matching = [n for n, (_, path) in enumerate(chosen) if re.fullmatch(path, SMALL)]
    assert matching == [999]
    assert any(method == "PUT" and re.fullmatch(path, UPLOAD) for method, path in chosen)


def test_calls_are_the_same_for_those_who_know_no_grpc() -> None:
    chosen = calls(20)
    entries = yaml.safe_load(for_l7proxy(rules(10), 80, chosen, 81))["spec"]["ingress"][0]["toPorts"]
    assert [entry["ports"][0]["port"] for entry in entries] == ["80", "81"]
    assert [(rule["service"], rule["method"]) for rule in entries[1]["rules"]["grpc"]] == chosen
    paths = as_rules(chosen)
    assert {method for method, _ in paths} == {"POST"}
    assert [n for n, (_, path) in enumerate(paths) if re.fullmatch(path, "/bench.Echo/Unary")] == [19]
    assert not [path for _, path in paths if re.fullmatch(path, "/benchxEcho/Unary")]


def test_latencies_are_read_in_every_unit() -> None:
    output = "  Latency Distribution\n     50%  512.00us\n     75%    1.50ms\n     90%    2.00s \n     99%    1.00m \n"
    assert [load.latency(p, output) for p in ("50%", "75%", "90%", "99%")] == [512, 1500, 2e6, 60e6]
    with pytest.raises(AssertionError, match="no 98%"):
        load.latency("98%", output)


def test_what_h2load_writes_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"1700000000000000\t200\t{n}\n" for n in range(1, 1000)))
    assert load_http2.percentiles(log) == (500.0, 990.0)


def test_kafkas_requests_are_such(tmp_path: Path) -> None:
    load_kafka.prepare(tmp_path, bytes(15) + b"\1")
    for name, key, version in (("one", 0, load_kafka.PRODUCE), ("bulk", 0, load_kafka.PRODUCE), ("read", 1, 16)):
        frame = (tmp_path / name).read_bytes()
        head = read_head(frame, 4, len(frame))
        assert (head.api_key, head.version, int.from_bytes(frame[:4], "big")) == (key, version, len(frame) - 4)
        assert decode(key, version, REQUEST, frame, head.body, len(frame))


def test_cassandras_requests_are_such(tmp_path: Path) -> None:
    load_cassandra.prepare(tmp_path)
    for name, version, flight, opcode in (
        ("one", 4, 1, 10),
        ("many", 4, 64, 10),
        ("many5", 5, 64, 10),
        ("query", 4, 64, 7),
    ):
        data, place, found = (tmp_path / name).read_bytes(), 0, []
        while place < len(data):
            size = int.from_bytes(data[place : place + 4], "big")
            found.append(data[place + 4 : place + 4 + size])
            place += 4 + size
        bare = [one if version < 5 else read_payload(one, 0, read_segment_head(one, 0, False)) for one in found[1:]]
        heads = [read_request_envelope(one, 0, version, len(one)) for one in bare]
        assert read_request_envelope(found[0], 0, version, 99).opcode == 1 and heads[0].opcode == 9
        assert [head.stream for head in heads[1:]] == [number % flight for number in range(len(heads) - 1)]
        assert {head.opcode for head in heads[1:]} == {opcode} and len(heads) % flight == 1 % flight
        for head, one in zip(heads, bare, strict=True):
            read_request(head.opcode, version, head.flags, one, HEADER, len(one), 0)


def test_kafkas_records_are_such() -> None:
    batch = DefaultRecordBatch(load_kafka.batch(3, 100))
    assert batch.validate_crc() and len(list(batch)) == 3
    assert {len(record.value) for record in DefaultRecordBatch(load_kafka.batch(200, 10_000))} <= set(
        range(9_980, 10_000)
    )


def test_only_says_what_it_does_not_know_or_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    everybody = {"direct", "haproxy", "nginx", "envoy", "l7proxy", "spliced", "many", "loopback"}
    assert run.parse([]).suites == ["http1", "http2", "websocket", "kafka", "cassandra", "sockets", "sidecars"]
    assert run.parse([]).wanted == everybody
    assert run.parse(["--only", "http2"]).suites == ["http2"] and run.parse(["--only", "http2"]).wanted == everybody
    some = run.parse(["--only", "http2, l7proxy,loopback"])
    assert (some.suites, some.wanted) == (["http2"], {"l7proxy", "loopback"})
    for words, said in (
        ("loopback", "loopback is a place"),
        ("http2,loopback", "loopback is a place"),
        ("direct,squid", "--only: squid: not one of"),
    ):
        with pytest.raises(SystemExit):
            run.parse(["--only", words])
        assert said in capsys.readouterr().err


def test_processor_time_of_a_family_is_counted() -> None:
    work = "import subprocess, sys, time\n"
    work += "subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", work]) as parent:
        end = time.monotonic() + 20
        while len(family := processes.family(parent.pid)) < 2 or processes.cpu_seconds(family) < 0.2:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert processes.cpu_seconds([parent.pid]) < processes.cpu_seconds(family)
        assert processes.memory(family) > processes.memory([parent.pid]) > 1 << 20
        for pid in family:
            os.kill(pid, 9)


def test_the_table_shows_medians_and_their_spread() -> None:
    results: report.Results = {
        "direct": {"c32": {"rps": [10.0, 30.0, 20.0], "proxy_us": [0.0, 0.0, 0.0]}},
        "l7proxy": {"c32": {"rps": [7.0], "proxy_us": [41.04]}},
    }
    head, _, direct, ours = report.table(results, report.HTTP1).splitlines()
    column = [cell.strip() for cell in head.split("|")].index("CPU us/req")
    assert "20 (10-30)" in direct and direct.split("|")[column].strip() == "-"
    assert ours.split("|")[column].strip() == "41.0"
    assert report.summary(results)["direct"]["c32"]["rps"] == {"median": 20, "min": 10, "max": 30}


def test_a_pair_s_third_row_is_the_median_of_the_rounds_ratios() -> None:
    results: report.Results = {
        "loopback": {"rtt64": {"p50_us": [10.0, 20.0, 40.0]}, "connect": {"per_s": [0.0]}},
        "loopback, accelerated": {"rtt64": {"p50_us": [5.0, 5.0, 30.0]}, "connect": {"per_s": [7.0]}},
    }
    head, _, plain, other, ratio = report.paired(results, report.SOCKETS).splitlines()
    titles = [cell.strip() for cell in head.split("|")]
    cells = [dict(zip(titles, (cell.strip() for cell in row.split("|")), strict=True)) for row in (plain, other, ratio)]
    assert [row["64 B: p50 us"] for row in cells] == ["20.0", "5.0", "0.50"]
    assert cells[2]["connections/s"] == "-" and cells[2]["64 KiB writes: GB/s"] == "-"


def test_the_turns_of_a_pair_are_next_to_each_other_and_change_places() -> None:
    seen: list[tuple[str, bool]] = []

    @contextmanager
    def turn(name: str, on: bool) -> Iterator[dict[str, Callable[[], load.Figures]]]:
        seen.append((name, on))
        yield {"c1": lambda: {"rps": 2.0 if on else 1.0}}

    @contextmanager
    def pairs(_: argparse.Namespace, __: set[str]) -> Iterator[list[Pair]]:
        yield [Pair(name, partial(turn, name)) for name in ("x", "y")]

    results = Alternation("some", report.SIDECARS, pairs).measure(argparse.Namespace(rounds=2), set())
    first = [("x", False), ("x", True), ("y", False), ("y", True)]
    second = [("x", True), ("x", False), ("y", True), ("y", False)]
    assert seen == [*first, *second]
    assert [(name, phases["c1"]["rps"]) for name, phases in results.items()] == [
        ("x", [1.0, 1.0]), ("x, accelerated", [2.0, 2.0]), ("y", [1.0, 1.0]), ("y, accelerated", [2.0, 2.0]),
    ]  # fmt: skip


def test_a_hop_measures_what_it_says(tmp_path: Path) -> None:
    binary, place = tmp_path / "hop", ("127.0.0.7", "38471")
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", binary, sockets.SOURCE], check=True)

    def hop(*words: str) -> dict[str, float]:
        done = subprocess.run([binary, words[0], *place, *words[1:]], capture_output=True, check=True, timeout=30)
        return dict(json.loads(done.stdout))

    with subprocess.Popen([binary, "serve", *place], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        for mode, *words in (("rtt", "64"), ("rtt", "16384"), ("connect",)):
            found = hop(mode, *words, "0.2")
            assert 0 < found["p50_us"] <= found["p99_us"] and found["count"] >= 1
        assert hop("stream", "65536", "0.2")["bytes"] % 65536 == 0
        server.terminate()


def test_what_was_measured_of_another_protocol_stays_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    for name, rate in (("http1", 1.0), ("http2", 2.0), ("http1", 3.0)):
        report.write(file, name, {"direct": {"c32": {"rps": [rate]}}}, {"rounds": "1"}, {"python": "3"})
    whole = json.loads(file.read_text())
    found = {name: suite["summary"]["direct"]["c32"]["rps"]["median"] for name, suite in whole.items()}
    assert found == {"http1": 3.0, "http2": 2.0}
