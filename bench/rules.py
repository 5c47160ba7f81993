"""The rules that every proxy enforces, written for each of them."""

from __future__ import annotations

import re
from typing import Any

import yaml

Rules = list[tuple[str, str]]
"""(method, expression for the whole path), in the order in which they are tried."""
_BASE: Rules = [
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("POST", "/login"),
    ("GET", "/static/.*"),
    ("HEAD", "/public/.*"),
    ("GET", "/users/[0-9]+/profile"),
    ("PUT", "/users/[0-9]+"),
    ("POST", "/orders/?"),
    ("GET", "/orders/[0-9]+"),
    ("GET", "/api/.*"),
]
Calls = list[tuple[str, str]]
"""(gRPC service, expression for the method's name), in the order in which they are tried."""
SMALL, BIG, UPLOAD = "/api/items/42", "/api/big.bin", "/users/1"
"""Targets that the last rules allow: a small answer, a large one, and a large body (PUT)."""


def rules(count: int) -> Rules:
    """`count` rules, of which the last ones are those that the load meets: literal paths and expressions in turn."""
    spare = count - len(_BASE)
    extra = [("GET", f"/tenant{n}/status" if n % 2 else f"/tenant{n}/orders/[0-9]+") for n in range(spare)]
    return extra + _BASE


def calls(count: int) -> Calls:
    """`count` rules, of which the last one is that of bench/grpc/echo.proto."""
    extra = [(f"tenant{n}.Orders", "List" if n % 2 else "Get[A-Z].*") for n in range(count - 1)]
    return [*extra, ("bench.Echo", "Unary|Stream")]


def as_rules(chosen: Calls) -> Rules:
    """The same, for those who know no gRPC rules: gRPC is POST /service/method."""
    return [("POST", f"/{re.escape(service)}/({method})") for service, method in chosen]


def for_nginx(chosen: Rules) -> str:
    """Lines of a map on "METHOD path"."""
    return "\n".join(f'    "~^{method} {path}$" 1;' for method, path in chosen)


def for_haproxy(chosen: Rules) -> str:
    """http-request lines."""
    return "\n".join(
        f"  http-request allow if {{ method {method} }} {{ path_reg ^{path}$ }}" for method, path in chosen
    )


def for_envoy(chosen: Rules) -> dict[str, Any]:
    """The RBAC filter."""
    policies = {f"r{n:05d}": _permission(method, path) for n, (method, path) in enumerate(chosen)}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": policies},
        },
    }


def _permission(method: str, path: str) -> dict[str, Any]:
    asked = {"header": {"name": ":method", "string_match": {"exact": method}}}
    there = {"url_path": {"path": {"safe_regex": {"regex": f"^{path}$"}}}}
    return {"permissions": [{"and_rules": {"rules": [asked, there]}}], "principals": [{"any": True}]}


def for_l7proxy(chosen: Rules, port: int, chosen_calls: Calls | None = None, calls_port: int = 0) -> str:
    """A CiliumNetworkPolicy for the pod ``server``."""
    http = [{"method": method, "path": path} for method, path in chosen]
    grpc = [{"service": service, "method": method} for service, method in chosen_calls or ()]
    ports = [_ports(port, "http", http)]
    if grpc:
        ports.append(_ports(calls_port, "grpc", grpc))
    ingress = [{"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": ports}]
    document = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "bench"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": ingress},
    }
    return yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False)


def _ports(port: int, kind: str, entries: list[dict[str, str]]) -> dict[str, Any]:
    return {"ports": [{"port": str(port), "protocol": "TCP"}], "rules": {kind: entries}}
