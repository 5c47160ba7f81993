"""What the tests with real HTTP/2 and gRPC programs share: servers and clients in the lab, policies, expectations."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.common import from_app, policy
from tests.lab import SERVERS, Lab, Pod, Server

HERE = Path(__file__).parent
CLIENTS = HERE / "clients"
REASON = "ask the orders team: 100% sûr"
"""What refused clients are told. gRPC has to percent-encode it."""
REFUSED = ["PERMISSION_DENIED", REASON]
SYNC, AIO, JAVA = 9051, 9052, 9053
"""Ports of the servers, by their implementation."""
ALLOWED = (
    {"service": "orders.v1.Orders"},
    {"service": "grpc.health.v1.Health"},
    {"service": "grpc.reflection.v1alpha.ServerReflection", "method": "ServerReflection.*"},
)
_numbers = itertools.count(1)
EVERYTHING = [3000] * 20
ANSWERED = {"unary": "one", "client": "20 20000", "server": EVERYTHING, "both": ["a", "", "c"]}
"""What a client's `four` gives if all is allowed."""


def grpc_policy(app: str, *ports: int, rules: Sequence[dict[str, Any]] = ALLOWED, mode: str = "enforce") -> str:
    """The orders, health and reflection services on these ports, and nothing else, unless `rules` say otherwise."""
    entries = [{"ports": [{"port": str(port), "protocol": "TCP"}], "rules": {"grpc": list(rules)}} for port in ports]
    annotations = {"l7proxy.io/reason": REASON, "l7proxy.io/mode": mode}
    return policy(app, app, annotations, ingress=[{**from_app("front"), "toPorts": entries}])


def python_server(lab: Lab, pod: Pod, kind: str, port: int) -> Server:
    """tests/servers/grpc_KIND.py, serving when this returns."""
    return started(lab, pod, [sys.executable, str(SERVERS / f"grpc_{kind}.py")], port)


def started(lab: Lab, pod: Pod, argv: Sequence[str], port: int) -> Server:
    """A server that takes --port and --log and says ``ready``."""
    log = lab.folder / f"grpc-{next(_numbers)}.jsonl"
    process = lab.popen(pod.ns, [*argv, "--port", str(port), "--log", str(log)], stdout=-1)
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise AssertionError(f"{argv[-1]} did not start: status {process.wait(5)}")
    return Server(process, log)


def java() -> list[str]:
    """The command that runs a class of tests/grpc/java, all of which are compiled when they are installed."""
    folder = Path(sys.prefix) / "java"
    # What starts quickly matters more here than what runs quickly.
    return ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{folder}/classes:{folder}/*"]


def go() -> list[str]:
    """The command of grpc-go's client, tests/grpc/go, which is built when it is installed."""
    return [str(Path(sys.executable).with_name("grpc-client"))]


def python_client(lab: Lab, ns: str, api: str, address: str, port: int, scenario: str) -> Any:
    """What a scenario of tests/grpc/clients gives. `api`: sync or aio."""
    argv = [sys.executable, str(CLIENTS / f"{api}_client.py"), target(address, port), scenario]
    return json.loads(lab.run(ns, argv, timeout=90).stdout.splitlines()[-1])


def target(address: str, port: int) -> str:
    """An address and a port as one text."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def calls(server: Server) -> Counter[str]:
    """How often each method was called, by the server's journal."""
    return Counter(event["method"] for event in server.events() if event["event"] == "call")


def ends(server: Server) -> list[dict[str, Any]]:
    """How the calls ended that did, as the server saw them."""
    return [event for event in server.events() if event["event"] == "end"]


def orders(**counts: int) -> Counter[str]:
    """Calls of the orders service, by method."""
    return Counter({f"/orders.v1.Orders/{name}": count for name, count in counts.items()})


def assert_called(lab: Lab, server: Server, expected: Counter[str]) -> None:
    """The server was called as often as expected, and never otherwise."""
    lab.wait(lambda: sum(calls(server).values()) >= expected.total(), what=f"{expected} calls, not {calls(server)}")
    assert calls(server) == expected


def connections(server: Server) -> set[str]:
    """The client's addresses and ports of all calls that ended, but for cancelled ones whose grpcio has forgotten."""
    return {event["peer"] for event in ends(server) if event["peer"]}
