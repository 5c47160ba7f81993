"""`l7proxy observe` and `status`: what people read, from a running proxy or from a file."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from l7proxy import observe
from l7proxy.admin import make_app, serve
from l7proxy.config import AdminConfig, FlowLogConfig
from l7proxy.flowfilter import FlowFilter
from l7proxy.flowjson import FlowEncoder, lost_line
from l7proxy.flowlog import FlowWriter
from l7proxy.flowtext import flow_text
from l7proxy.ops import CqlCall, CqlStatement, Grpc, KafkaCall, KafkaRequest, Record, Request
from parsers.facts import CqlRequest
from policies.identity import Identity, reserved, workload
from policies.verdict import L7Decision, RuleRef, Verdict

FRONTEND, API = workload(256, {"app": "frontend"}), workload(257, {"app": "api"})
RULE = RuleRef("default/api-policy", "ingress[0].toPorts[0].rules.http[0]", "policies/api.yaml", 12)
WHEN = 1764093600.123


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def flow(
    url: str = "/public/x",
    verdict: Verdict = Verdict.FORWARDED,
    rule: RuleRef | None = RULE,
    code: int = 200,
    protocol: str = "HTTP/1.1",
    call: Grpc | None = None,
) -> bytes:
    ends = (FRONTEND, 1, "frontend"), (API, 2, "api")
    connection = FlowEncoder("n").connection(*ends, ("10.77.0.2", 4000), ("10.77.0.3", 80))
    decision = L7Decision(verdict, rule, "no rule allows it")
    request = Request(decision, "GET", url, protocol, host="api")
    return connection.l7(Record(request, code, 1.0, 1.00125, call), WHEN)


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    observe.add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(words)
    return int(arguments.handler(arguments))


def text(line: bytes, color: bool = False) -> str:
    return flow_text(json.loads(line), color)


def test_a_line_for_people() -> None:
    assert text(flow()) == (
        "Nov 25 18:00:00.123: default/frontend:4000 -> default/api:80 http-request FORWARDED "
        "(HTTP/1.1 GET http://api/public/x 200 1.2ms) by default/api-policy "
        "ingress[0].toPorts[0].rules.http[0] policies/api.yaml:12"
    )
    assert text(flow("/x", Verdict.DROPPED, None, 403)).endswith(
        "http-request DROPPED (HTTP/1.1 GET http://api/x 403 1.2ms): no rule allows it"
    )
    assert "\x1b[31mDROPPED\x1b[0m" in text(flow("/x", Verdict.DROPPED, None, 403), color=True)
    assert text(lost_line("n", 3, WHEN)) == "Nov 25 18:00:00.123: EVENTS LOST: 3 (OBSERVER_EVENTS_QUEUE)"


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [(0, 200, "OK"), (14, 200, "UNAVAILABLE"), (-1, 503, "no status, HTTP 503"), (-1, 0, "no response")],
)
def test_a_grpc_call(status: int, code: int, shown: str) -> None:
    line = flow("/orders.v1.Orders/GetOrder", code=code, call=Grpc("orders.v1.Orders", "GetOrder", status, 1, 20))
    assert f" grpc-request FORWARDED (orders.v1.Orders/GetOrder {shown} 1.2ms, 1 -> 20 messages) by default/" in text(
        line
    )
    refused = flow("/a.B/C", Verdict.DROPPED, None, call=Grpc("a.B", "C", 7, 0, 0))
    shown = "grpc-request DROPPED (a.B/C PERMISSION_DENIED 1.2ms, 0 -> 0 messages): no rule allows it"
    assert text(refused).endswith(shown)


def kafka(verdict: Verdict = Verdict.FORWARDED, code: int = 0) -> bytes:
    ends = (FRONTEND, 1, "frontend"), (API, 2, "api")
    connection = FlowEncoder("n").connection(*ends, ("10.77.0.2", 4000), ("10.77.0.3", 9092))
    decision = L7Decision(verdict, None, "no rule allows it")
    topics = (("orders", Verdict.FORWARDED), ("secret\x1b[2J", verdict))
    asked = KafkaRequest(decision, "Produce", 9, "shop", topics, 3, ("g",), ("t",))
    return connection.l7(Record(asked, code, 1.0, 1.00125, KafkaCall(1, not code)), WHEN)


def test_a_kafka_request() -> None:
    named = "Produce v9 orders, secret\\x1b[2J DROPPED, 3 more group g transaction t client shop"
    assert f"kafka-request DROPPED ({named} error 29 1.2ms): no rule allows it" in text(kafka(Verdict.DROPPED, 29))
    assert "kafka-request FORWARDED (Produce v9 orders, secret" in text(kafka())


def cql(verdict: Verdict = Verdict.FORWARDED, code: int = -1) -> bytes:
    ends = (FRONTEND, 1, "frontend"), (API, 2, "api")
    connection = FlowEncoder("n").connection(*ends, ("10.77.0.2", 4000), ("10.77.0.3", 9042))
    decision = L7Decision(verdict, None, "no rule allows it")
    actions = (CqlRequest("update", "shop", "pay\x1b[2J"), verdict), (CqlRequest("list-roles"), Verdict.FORWARDED)
    asked = CqlStatement(decision, "BATCH", "batch", actions, 3)
    return connection.l7(Record(asked, code, 1.0, 1.00125, CqlCall(1, 4, code < 0)), WHEN)


def test_a_cql_request() -> None:
    shown = "BATCH update shop.pay\\x1b[2J DROPPED, list-roles, 3 more QUORUM error 0x2100"
    assert f"cql-request DROPPED ({shown} 1.2ms): no rule allows it" in text(cql(Verdict.DROPPED, 0x2100))
    shown = "BATCH update shop.pay\\x1b[2J, list-roles, 3 more QUORUM 1.2ms"
    assert f"cql-request FORWARDED ({shown})" in text(cql())


def test_protocols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "flows.jsonl"
    call = flow("/a.B/C", protocol="HTTP/2", call=Grpc("a.B", "C", 0, 1, 1))
    log.write_bytes(flow() + flow(protocol="HTTP/2") + call + kafka() + cql())
    for protocol, count in (
        ("http", 3),
        ("tcp", 5),
        ("kafka", 1),
        ("cassandra", 1),
        ("HTTP2", 2),
        ("grpc", 1),
        ("udp", 0),
    ):
        assert run("observe", "--file", str(log), "--protocol", protocol) == 0
        assert capsys.readouterr().out.count("FORWARDED") == count


def test_ends_that_are_no_endpoints() -> None:
    world = Identity(40000, {"cidr:2001:db8::/32": "", "reserved:world": ""})
    ends = (world, 0, ""), (reserved("host"), 0, "")
    connection = FlowEncoder("n").connection(*ends, ("2001:db8::1", 9), ("10.0.0.1", 80))
    line = connection.l7(Record(Request(L7Decision(Verdict.AUDIT, None, "x"), "GET", "/"), 0, 1.0, 1.0), WHEN)
    assert " [2001:db8::1]:9 (world) -> 10.0.0.1:80 (host) http-request AUDIT (HTTP/1.1 GET / 0.0ms): x" in text(line)


def test_a_terminal_is_not_obeyed() -> None:
    hostile = "/\x1b]0;owned\x07\r\n\x9b31m\u202e"
    shown = text(flow(hostile))
    assert shown.isprintable()
    assert "\\x1b]0;owned\\x07\\r\\n\\x9b31m" in shown


@pytest.mark.parametrize(
    "value",
    [
        {"flow": {}},
        {"flow": {"time": 7, "IP": [], "source": {"labels": 3}, "l4": {"TCP": None}, "l7": {"http": {"code": []}}}},
        {"flow": {"l7": {"latency_ns": [], "http": {"url": None}}, "extensions": "x", "verdict": []}},
        {"flow": {"l7": {"http": {"url": "/"}}, "extensions": {"value": {"l7proxy": {"grpc": {"status": "\x1b"}}}}}},
        {"flow": {"l7": {"http": {"url": "/"}}, "extensions": {"value": {"l7proxy": {"grpc": [1]}}}}},
    ],
)
def test_records_of_strangers_do_no_harm(value: dict[str, Any]) -> None:
    assert flow_text(value)
    assert flow_text(value, color=True)
    assert FlowFilter(source="x").flow(value["flow"]) is False


def test_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "flows.jsonl"
    lines = [flow(f"/{number}", Verdict.DROPPED if number % 2 else Verdict.FORWARDED) for number in range(50)]
    log.write_bytes(b"".join(lines) + b"garbage\n" + b'{"flow": {"verdict"')
    assert run("observe", "--file", str(log), "--json") == 0
    assert capsys.readouterr().out.encode() == b"".join(lines[-20:])
    assert run("observe", "--file", str(log), "--last", "1", "--verdict", "dropped", "--from", "frontend") == 0
    assert "http://api/49" in capsys.readouterr().out
    assert run("observe", "--file", str(log), "--to", "world") == 0
    assert capsys.readouterr().out == ""


def test_following_a_file_that_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "f"
    half = flow("/1")
    log.write_bytes(flow("/0") + half[:50])
    monkeypatch.setattr(observe.time, "sleep", lambda _: None)
    lines = observe._from_file(log, FlowFilter(), 1, True)
    assert next(lines) == flow("/0")
    with log.open("ab") as file:
        file.write(half[50:])
    assert next(lines) == half
    log.rename(tmp_path / "f.1")
    log.write_bytes(flow("/2"))
    assert next(lines) == flow("/2")
    os.truncate(log, 0)
    log.write_bytes(b"")
    with log.open("ab") as file:
        threading.Timer(0.1, lambda: (file.write(flow("/3")), file.flush())).start()
        assert next(lines) == flow("/3")


class Node:
    """As much of a node as the two commands ask for."""

    def __init__(self, ready: bool) -> None:
        self.flow_writer = FlowWriter(FlowLogConfig(), "n")
        self.is_ready = ready

    def status(self) -> dict[str, Any]:
        return {"ready": self.is_ready, "generation": 3, "workers": [11, 12], "datapath": {"Policy denied": 7}, "e": ""}


@contextmanager
def running(listen: str, ready: bool = True) -> Iterator[tuple[str, Node, asyncio.AbstractEventLoop]]:
    """The admin API in a thread of its own."""
    loop, node, started = asyncio.new_event_loop(), Node(ready), threading.Event()
    address: list[str] = [listen]

    async def main() -> None:
        runner = await serve(make_app(node), AdminConfig(listen))  # type: ignore[arg-type]
        if not listen.startswith("unix:"):
            address[0] = f"127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stop.wait()
        node.flow_writer.close()
        await runner.cleanup()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert started.wait(10)
        yield address[0], node, loop
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "unix:{}"])
def test_from_a_running_proxy(listen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(listen.format(tmp_path / "s")) as (admin, node, loop):
        for number in range(3):
            loop.call_soon_threadsafe(node.flow_writer.write, flow(f"/{number}"), 1)
        assert run("observe", "--admin", admin, "--last", "2") == 0
        shown = capsys.readouterr().out.splitlines()
        assert [line.partition("http://api/")[2][0] for line in shown] == ["1", "2"]
        assert run("observe", "--admin", admin, "--json", "--verdict", "DROPPED") == 0
        assert capsys.readouterr().out == ""


def test_following_a_running_proxy(capsys: pytest.CaptureFixture[str]) -> None:
    with running("127.0.0.1:0") as (admin, node, loop):

        def later() -> None:
            while not node.flow_writer.followers:
                time.sleep(0.01)
            loop.call_soon_threadsafe(node.flow_writer.write, flow("/live"), 1)
            loop.call_soon_threadsafe(node.flow_writer.close)

        threading.Thread(target=later).start()
        assert run("observe", "-f", "--admin", admin) == 0
    assert "http://api/live" in capsys.readouterr().out


def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    with running("127.0.0.1:0") as (admin, node, _):
        assert run("status", "--admin", admin) == 0
        assert capsys.readouterr().out.splitlines() == [
            "ready:      yes",
            "generation: 3",
            "workers:    11, 12",
            "datapath:",
            "  Policy denied: 7",
            "e:          none",
        ]
        assert run("status", "--json", "--admin", admin) == 0
        assert json.loads(capsys.readouterr().out) == node.status()
    with running("127.0.0.1:0", ready=False) as (admin, _, _):
        assert run("status", "--admin", admin) == 1


def test_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--admin", f"unix:{tmp_path}/none") == 1
    assert "is `l7proxy run` running on this node?" in capsys.readouterr().err
    assert run("observe", "--admin", "ftp://x") == 1
    assert "bad admin address" in capsys.readouterr().err
    assert run("observe", "--file", str(tmp_path / "none")) == 1
    assert "No such file" in capsys.readouterr().err
