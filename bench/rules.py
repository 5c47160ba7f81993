"""The rules that every proxy enforces, written for each of them."""

from __future__ import annotations

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
SMALL, BIG, UPLOAD = "/api/items/42", "/api/big.bin", "/users/1"
"""Targets that the last rules allow: a small answer, a large one, and a large body (PUT)."""


def rules(count: int) -> Rules:
    """`count` rules, of which the last ones are those that the load meets: literal paths and expressions in turn."""
    spare = count - len(_BASE)
    extra = [("GET", f"/tenant{n}/status" if n % 2 else f"/tenant{n}/orders/[0-9]+") for n in range(spare)]
    return extra + _BASE


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


def for_l7proxy(chosen: Rules, port: int) -> str:
    """A CiliumNetworkPolicy for the pod ``server``."""
    http = [{"method": method, "path": path} for method, path in chosen]
    ports = [{"ports": [{"port": str(port), "protocol": "TCP"}], "rules": {"http": http}}]
    ingress = [{"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": ports}]
    document = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "bench"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": ingress},
    }
    return yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False)
