"""Policies and questions that the end-to-end tests share."""

from __future__ import annotations

import socket
from typing import Any

import yaml

from tests.lab import Lab, Server
from tests.node import NodeHandle

DENIED = "Access denied\r\n"
PUBLIC = ({"method": "GET", "path": "/public/.*"}, {"method": "POST", "path": "/public/.*"})
Peer = dict[str, Any]


def http(*rules: dict[str, Any], port: int = 80) -> dict[str, Any]:
    """An entry of toPorts with HTTP rules; `PUBLIC` if none are given."""
    return {"ports": [{"port": str(port), "protocol": "TCP"}], "rules": {"http": list(rules or PUBLIC)}}


def l4(port: int, protocol: str = "TCP") -> dict[str, Any]:
    """An entry of toPorts without an L7 part."""
    return {"ports": [{"port": str(port), "protocol": protocol}]}


def from_app(name: str) -> Peer:
    """A peer of an ingress rule, by the label app."""
    return {"fromEndpoints": [{"matchLabels": {"app": name}}]}


def policy(name: str, app: str, annotations: dict[str, str] | None = None, **spec: Any) -> str:
    """A CiliumNetworkPolicy for the endpoints labelled ``app: APP``; `spec` holds ingress, egress..."""
    document = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, **spec},
    }
    return "---\n" + yaml.safe_dump(document, sort_keys=False)


def url(address: str, path: str, port: int = 80) -> str:
    """The URL of a path at an address of either family."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}{path}"


def assert_judged(
    lab: Lab, ns: str, address: str, server: Server, *, port: int = 80, client: str | None = None
) -> None:
    """GET /public/ is served and the server sees its real client; /secret is refused and never reaches it."""
    server.forget()
    assert lab.curl(ns, url(address, "/public/a", port))[0] == 200
    assert lab.curl(ns, url(address, "/secret", port)) == (403, DENIED)
    assert lab.curl(ns, url(address, "/public/b", port), "-d", "x=1")[0] == 200
    assert lab.curl(ns, url(address, "/public/c", port), "-X", "DELETE") == (403, DENIED)
    lab.wait(lambda: len(server.requests()) >= 2)
    assert server.seen() == [("GET", "/public/a"), ("POST", "/public/b")]
    assert {request["peer"][0].removeprefix("::ffff:") for request in server.requests()} == {client}


def l7(node: NodeHandle, verdict: str, path: str) -> list[dict[str, Any]]:
    """Flow records of requests with this verdict and path."""
    records = [record["flow"] for record in node.flows() if "l7" in record.get("flow", {})]
    return [r for r in records if r["verdict"] == verdict and r["l7"]["http"]["url"].endswith(path)]


def received(connection: socket.socket, until: bytes = b"", limit: int = 1 << 20) -> bytes:
    """Bytes up to and including `until`, or to the end if it is empty. A reset ends them as well."""
    data = b""
    while len(data) < limit and not (until and until in data):
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        data += part
    return data
