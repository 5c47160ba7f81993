"""Envoy's configuration: HTTP with RBAC and a JSON access log, the nearest relative of what Cilium installs.

For Kafka it is a proxy of TCP: the filter that knows Kafka's APIs (not topics) is a contrib extension, which the Envoy
that is measured has not been built with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

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


class Way(NamedTuple):
    """Where it listens, the server behind, and the filter that holds the rules."""

    listen: tuple[str, int]
    backend: tuple[str, int]
    rbac: dict[str, Any]


def configuration(ways: Sequence[Way], log: str, codec: str) -> str:
    """The whole file, as JSON; `codec` is HTTP1 or HTTP2, on both sides."""
    runtime = {"overload": {"global_downstream_max_connections": 50000}}
    static = {
        "listeners": [_listener(way, f"way{n}", log, codec) for n, way in enumerate(ways)],
        "clusters": [_cluster(way.backend, f"way{n}", codec) for n, way in enumerate(ways)],
    }
    whole = {
        "static_resources": static,
        "layered_runtime": {"layers": [{"name": "s", "static_layer": runtime}]},
    }
    return json.dumps(whole)


def tcp(listen: tuple[str, int], backend: tuple[str, int], log: str) -> str:
    """The whole file of a proxy of TCP, as JSON: it judges nothing, and has one line of log for each connection."""
    carry = {
        "@type": f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": "tcp",
        "access_log": [_file_log(log, {key: value for key, value in _LOG.items() if "REQ(" not in value})],
    }
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": carry}]
    listener = {"name": "tcp", "address": _address(listen), "filter_chains": [{"filters": filters}]}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [_cluster(backend, "tcp", "HTTP1")]}})


def _file_log(path: str, fields: dict[str, str]) -> dict[str, Any]:
    log_format = {"json_format": fields}
    config = {"@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog", "path": path, "log_format": log_format}
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def _listener(way: Way, name: str, log: str, codec: str) -> dict[str, Any]:
    chain = {"filters": [_manager(way.rbac, name, log, codec)]}
    return {"name": name, "address": _address(way.listen), "filter_chains": [chain]}


def _address(address: tuple[str, int]) -> dict[str, Any]:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}


def _manager(rbac: dict[str, Any], name: str, log: str, codec: str) -> dict[str, Any]:
    router = {"@type": f"{_TYPES}.filters.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
    config = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": codec,
        "generate_request_id": False,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [rbac, {"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "access_log": [_file_log(log, _LOG)],
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _cluster(backend: tuple[str, int], name: str, codec: str) -> dict[str, Any]:
    plenty = {"max_connections": 100000, "max_requests": 100000, "max_pending_requests": 100000}
    endpoint = {"endpoint": {"address": _address(backend)}}
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    second = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [plenty]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **(second if codec == "HTTP2" else {}),
    }
