"""The same contenders with HTTP/2 and gRPC, on both sides of every proxy."""

from __future__ import annotations

from collections.abc import Callable

from bench import envoy
from bench.contenders import (
    LARGE,
    PORT,
    Contender,
    Road,
    colon,
    command,
    envoy_command,
    fill,
    nginx_command,
    proxy,
)
from bench.rules import BIG, SMALL, UPLOAD, as_rules, calls, for_envoy, for_haproxy, for_l7proxy, for_nginx, rules

CALLS_PORT = 8082
ITEM = '{"id":42,"name":"an item with some text in the body so that it is close to 100 bytes long","ok":true}\n'
_FURTHER = 100
"""From a proxy's port to the one where it takes gRPC calls."""


def serve(road: Road, size: int) -> None:
    """Start nghttpd (three times as quick as nginx) and a gRPC server in Go, one thread each; `size` is that of the
    large file."""
    with road.big.open("wb") as file:
        file.truncate(size)
    folder = road.lab.folder / "www"
    for path in (SMALL, UPLOAD):
        page = folder / path[1:]
        page.parent.mkdir(parents=True)
        page.write_text(ITEM)
    (folder / BIG[1:]).symlink_to(road.big)
    windows = ["-w24", "-W24", "-m1024"]
    host, port = road.backend
    road.start(road.backend, ["nghttpd", "--no-tls", "-a", host, "-d", str(folder), *windows, str(port)])
    behind = _calls_behind(road)
    road.start(behind, ["env", "GOMAXPROCS=1", command("grpc-echo"), colon(behind)])


def _calls_behind(road: Road) -> tuple[str, int]:
    return road.backend[0], CALLS_PORT


def direct(road: Road) -> Contender:
    """No proxy."""
    return Contender(f"direct ({road.name})", road, road.backend, calls=_calls_behind(road))


def haproxy(road: Road, count: int, port: int, *, large: bool = False) -> Contender:
    """HAProxy, one thread; `large`: with buffers, frames and windows that suit bulk."""
    larger = "  tune.bufsize 262144\n  tune.h2.max-frame-size 131072\n  tune.h2.initial-window-size 4194304"
    values = _values(road, port, count, for_haproxy) | {"BUFFERS": larger if large else ""}
    config = fill("haproxy-http2.cfg", road, f"haproxy-{port}", values)
    return _named(proxy("HAProxy" + LARGE * large, road, ["haproxy", "-db", "-f", str(config)], port), port, count)


def nginx(road: Road, count: int, port: int) -> Contender:
    """nginx, one worker. It opens a connection of HTTP/2 to the server for each request it has in hand."""
    config = fill("nginx-http2.conf", road, f"nginx-{port}", _values(road, port, count, for_nginx))
    return _named(proxy("nginx", road, nginx_command(road, config), port), port, count)


def envoy_proxy(road: Road, count: int, port: int) -> Contender:
    """Envoy, one worker thread."""
    config = road.lab.folder / f"envoy-{port}.json"
    ways = [
        envoy.Way((road.proxy_host, port), road.backend, for_envoy(rules(count))),
        envoy.Way((road.proxy_host, port + _FURTHER), _calls_behind(road), for_envoy(as_rules(calls(count)))),
    ]
    config.write_text(envoy.configuration(ways, str(road.lab.folder / f"envoy-{port}.log"), "HTTP2"))
    return _named(proxy("Envoy", road, envoy_command(config), port), port, count)


PEERS: dict[str, Callable[[Road, int, int], Contender]] = {"haproxy": haproxy, "nginx": nginx, "envoy": envoy_proxy}


def l7proxy(road: Road, count: int, workers: int) -> Contender:
    """l7proxy; its rules for calls are gRPC rules."""
    policy = for_l7proxy(rules(count), PORT, calls(count), CALLS_PORT)
    node = road.lab.start_l7proxy(policy, timeout=180, workers=workers, endpoints=road.endpoints())
    found = Contender(f"l7proxy ({road.name})", road, road.backend, node.running, node, _calls_behind(road))
    return _renamed(found, count)


def _values(road: Road, port: int, count: int, worded: Callable[[list[tuple[str, str]]], str]) -> dict[str, str]:
    return {
        "LISTEN": colon((road.proxy_host, port)),
        "RULES": worded(rules(count)),
        "CALLS_LISTEN": colon((road.proxy_host, port + _FURTHER)),
        "CALLS_BACKEND": colon(_calls_behind(road)),
        "CALLS_RULES": worded(as_rules(calls(count))),
    }


def _named(found: Contender, port: int, count: int) -> Contender:
    found.calls = (found.address[0], port + _FURTHER)
    return _renamed(found, count)


def _renamed(found: Contender, count: int) -> Contender:
    """With the number of rules, where that is not the usual one."""
    if count > 10:
        found.name = found.name.replace(" (", f", {count:,} rules (")
    return found
