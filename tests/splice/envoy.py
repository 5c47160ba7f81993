"""Envoy as a sidecar: it asks the kernel where a redirected connection was going to, as in Istio."""

from __future__ import annotations

import json
from typing import Any

_TYPES = "type.googleapis.com/envoy.extensions"
_ORIGINAL = "envoy.filters.listener.original_dst"
_LOG = {"listen": "%DOWNSTREAM_LOCAL_ADDRESS%", "upstream": "%UPSTREAM_HOST%", "bytes": "%BYTES_SENT%"}


def configuration(mode: str, listen: tuple[str, int], app: tuple[str, int] | None, log: str) -> str:
    """The whole file, as JSON. `mode` is http or tcp; `app` is the app behind an inbound sidecar, and None makes an
    outbound one, which goes on to where the connection was going to."""
    original = {"name": _ORIGINAL, "typed_config": {"@type": f"{_TYPES}.filters.listener.original_dst.v3.OriginalDst"}}
    chain: dict[str, Any] = {"filters": [{"http": _http, "tcp": _tcp}[mode](log)]}
    if app is not None:
        chain["filter_chain_match"] = {"destination_port": app[1]}
    listener = {
        "name": "way",
        "address": _address(listen),
        "listener_filters": [original],
        "filter_chains": [chain],
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [_cluster(app)]}})


def _address(address: tuple[str, int]) -> dict[str, Any]:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}


def _access_log(log: str) -> list[dict[str, Any]]:
    file_log = {
        "@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog",
        "path": log,
        "log_format": {"json_format": _LOG},
    }
    return [{"name": "envoy.access_loggers.file", "typed_config": file_log}]


def _http(log: str) -> dict[str, Any]:
    router = {"@type": f"{_TYPES}.filters.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}
    config = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "way",
        "generate_request_id": False,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "access_log": _access_log(log),
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _tcp(log: str) -> dict[str, Any]:
    config = {
        "@type": f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "way",
        "cluster": "next",
        "access_log": _access_log(log),
    }
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def _cluster(app: tuple[str, int] | None) -> dict[str, Any]:
    plenty = {"max_connections": 100000, "max_requests": 100000, "max_pending_requests": 100000}
    common = {"name": "next", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [plenty]}}
    if app is None:
        return {**common, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(app)}}]}]
    return {**common, "type": "STATIC", "load_assignment": {"cluster_name": "next", "endpoints": endpoints}}
