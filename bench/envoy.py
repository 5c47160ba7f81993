"""Envoy's configuration: HTTP/1.1 with RBAC and a JSON access log, the nearest relative of what Cilium installs."""

from __future__ import annotations

import json
from typing import Any

from bench.rules import Rules, for_envoy

_TYPES = "type.googleapis.com/envoy.extensions"
_LOG = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "proto": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "src": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "dst": "%UPSTREAM_HOST%",
    "host": "%REQ(:AUTHORITY)%",
    "flags": "%RESPONSE_FLAGS%",
    "dur": "%DURATION%",
}


def configuration(chosen: Rules, listen: tuple[str, int], backend: tuple[str, int], log: str) -> str:
    """The whole file, as JSON."""
    listener = {"name": "in", "address": _address(listen), "filter_chains": [{"filters": [_manager(chosen, log)]}]}
    runtime = {"overload": {"global_downstream_max_connections": 50000}}
    whole = {
        "static_resources": {"listeners": [listener], "clusters": [_cluster(backend)]},
        "layered_runtime": {"layers": [{"name": "s", "static_layer": runtime}]},
    }
    return json.dumps(whole)


def _address(address: tuple[str, int]) -> dict[str, Any]:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}


def _manager(chosen: Rules, log: str) -> dict[str, Any]:
    router = {"@type": f"{_TYPES}.filters.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "be", "timeout": "0s"}}
    file_log = {
        "@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog",
        "path": log,
        "log_format": {"json_format": _LOG},
    }
    config = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "http_filters": [for_envoy(chosen), {"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": file_log}],
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _cluster(backend: tuple[str, int]) -> dict[str, Any]:
    plenty = {"max_connections": 100000, "max_requests": 100000, "max_pending_requests": 100000}
    endpoint = {"endpoint": {"address": _address(backend)}}
    return {
        "name": "be",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [plenty]},
        "load_assignment": {"cluster_name": "be", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
