"""Who is measured: a direct connection, three proxies people have, and l7proxy; and the networks they stand in."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import envoy, processes
from bench.rules import Rules, for_envoy, for_haproxy, for_l7proxy, for_nginx
from tests import netns
from tests.lab import GATEWAY4, Lab
from tests.node import NodeHandle

TEMPLATES = Path(__file__).parent / "peers"
PORT = 8080
LOOPBACK = "127.0.0.1"
LARGE = ", large buffers"


@dataclass
class Road:
    """A network with a server in it, and where its client and its proxies stand."""

    name: str
    lab: Lab
    client_ns: str
    backend_ns: str
    backend: tuple[str, int]
    proxy_host: str
    client_cgroup: Path | None = None
    backend_cgroup: Path | None = None

    @property
    def big(self) -> Path:
        """The large file."""
        return self.lab.folder / "big.bin"

    def serve(self, size: int) -> None:
        """Start the server; `size` is that of its large file."""
        with self.big.open("wb") as file:
            file.truncate(size)
        self.start(self.backend, nginx_command(self, fill("backend.nginx.conf", self, "backend", {})))

    def start(self, address: tuple[str, int], argv: list[str]) -> None:
        """Start a server and wait until it accepts connections."""
        wait_for(self.backend_ns, address, self.lab.popen(self.backend_ns, argv, cgroup=self.backend_cgroup))

    def endpoints(self) -> list[dict[str, Any]]:
        """Client and server, as l7proxy is told of them."""
        services = {"client": self.client_cgroup, "server": self.backend_cgroup}
        named = [{"name": n, "labels": {"app": n}, "cgroup": c.name} for n, c in services.items() if c is not None]
        return [*(pod.endpoint() for pod in self.lab.pods.values()), *named]

    def run(self, argv: list[str], timeout: float) -> str:
        """What a command of the client's printed. Raises AssertionError if it fails."""
        return self.lab.run(self.client_ns, argv, timeout=timeout, cgroup=self.client_cgroup).stdout


def pods(name: str = "pods") -> Road:
    """A client's pod, the node, a server's pod: the proxies stand on the node."""
    lab = Lab().__enter__()
    client, server = lab.pod("client"), lab.pod("server")
    return Road(name, lab, client.ns, server.ns, (server.v4, PORT), GATEWAY4)


def loopback() -> Road:
    """Client, proxies and server on the loopback interface of one host."""
    lab = Lab().__enter__()
    return Road("loopback", lab, lab.node_ns, lab.node_ns, (LOOPBACK, PORT), LOOPBACK)


def services() -> Road:
    """Client and server are services of the node itself, in cgroups; l7proxy is between them on loopback."""
    road = loopback()
    road.client_cgroup, road.backend_cgroup = road.lab.cgroup("client"), road.lab.cgroup("server")
    return road


@dataclass
class Contender:
    """Somebody to be measured: where the client sends to, and whose work counts as the proxy's."""

    name: str
    road: Road
    address: tuple[str, int]
    process: subprocess.Popen[str] | None = None
    node: NodeHandle | None = None
    calls: tuple[str, int] = ("", 0)
    """Where gRPC calls go to, where they are measured."""

    def pids(self) -> list[int]:
        """The proxy's processes."""
        return [] if self.process is None else processes.family(self.process.pid)

    def lost_records(self) -> int:
        """Requests whose record l7proxy could not write; its peers do not say."""
        return 0 if self.node is None else int(self.node.status()["flows_lost"])

    def url(self, path: str) -> str:
        """The URL of a path as the client asks for it."""
        return f"http://{colon(self.address)}{path}"


def direct(road: Road) -> Contender:
    """No proxy."""
    return Contender(f"direct ({road.name})", road, road.backend)


def haproxy(road: Road, rules: Rules, port: int, *, large: bool = False) -> Contender:
    """HAProxy, one thread, logging to a file; `large`: with large buffers, as one would have it for bulk."""
    buffers = "  tune.bufsize 262144" if large else ""
    values = {"LISTEN": colon((road.proxy_host, port)), "RULES": for_haproxy(rules), "BUFFERS": buffers}
    config = fill("haproxy.cfg", road, f"haproxy-{port}", values)
    return proxy("HAProxy" + LARGE * large, road, ["haproxy", "-db", "-f", str(config)], port)


def nginx(road: Road, rules: Rules, port: int, *, large: bool = False, upgrade: bool = False) -> Contender:
    """nginx, one worker; `large`: with large buffers; `upgrade`: for WebSockets, and nothing else."""
    buffers = "  proxy_buffer_size 64k; proxy_buffers 8 128k; proxy_busy_buffers_size 256k;" if large else ""
    connection = '  proxy_set_header Connection "";'
    if upgrade:
        connection = "  proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade;"
    values = {"LISTEN": colon((road.proxy_host, port)), "RULES": for_nginx(rules), "BUFFERS": buffers}
    values["CONNECTION"] = connection
    config = fill("nginx.conf", road, f"nginx-{port}", values)
    return proxy("nginx" + LARGE * large, road, nginx_command(road, config), port)


def envoy_proxy(road: Road, rules: Rules, port: int) -> Contender:
    """Envoy, one worker thread."""
    config = road.lab.folder / f"envoy-{port}.json"
    log = str(road.lab.folder / f"envoy-{port}.log")
    way = envoy.Way((road.proxy_host, port), road.backend, for_envoy(rules))
    config.write_text(envoy.configuration([way], log, "HTTP1"))
    return proxy("Envoy", road, envoy_command(config), port)


def l7proxy(road: Road, rules: Rules, workers: int, name: str = "l7proxy", splice: bool = False) -> Contender:
    """l7proxy, in the way between client and server without their knowing. Raises AssertionError if it shall splice
    and cannot."""
    policy, endpoints = for_l7proxy(rules, PORT), road.endpoints()
    node = road.lab.start_l7proxy(policy, timeout=180, workers=workers, endpoints=endpoints, splice=splice)
    if splice and not (state := node.status()["splice"])["on"]:
        raise AssertionError(f"{name}: {state['detail']}")
    return Contender(f"{name} ({road.name})", road, road.backend, node.running, node)


PEERS: dict[str, Callable[[Road, Rules, int], Contender]] = {"haproxy": haproxy, "nginx": nginx, "envoy": envoy_proxy}


def proxy(name: str, road: Road, argv: list[str], port: int) -> Contender:
    """Start a proxy on the node; it accepts connections when this returns. Raises AssertionError with what it said."""
    with (road.lab.folder / f"{name}-{port}.out").open("w") as output:
        process = road.lab.popen(road.lab.node_ns, argv, stdout=output, stderr=output)
    address = (road.proxy_host, port)
    try:
        wait_for(road.client_ns, address, process)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}\n{Path(output.name).read_text()[-2000:]}") from error
    return Contender(f"{name} ({road.name})", road, address, process)


def envoy_command(config: Path) -> list[str]:
    """How Envoy is started, with one worker thread."""
    return [command("envoy"), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def command(name: str) -> str:
    """A program that scripts/install.sh puts beside Python."""
    return str(Path(sys.executable).with_name(name))


def nginx_command(road: Road, config: Path) -> list[str]:
    """How nginx is started."""
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    return [binary, "-e", str(road.lab.folder / "nginx.err"), "-c", str(config)]


def fill(template: str, road: Road, name: str, values: dict[str, str]) -> Path:
    """A template of bench/peers filled in, as a file in a folder of its own."""
    folder = road.lab.folder / name
    folder.mkdir()
    server = {"DIR": str(folder), "BIG": str(road.big), "BACKEND": colon(road.backend)}
    text = (TEMPLATES / template).read_text()
    for key, value in (server | values).items():
        text = text.replace(f"@{key}@", value)
    file = folder / template
    file.write_text(text)
    return file


def colon(address: tuple[str, int]) -> str:
    """HOST:PORT."""
    return f"{address[0]}:{address[1]}"


def wait_for(namespace: str, address: tuple[str, int], process: subprocess.Popen[str], timeout: float = 30.0) -> None:
    """Until the process accepts connections there. Raises AssertionError."""
    end = time.monotonic() + timeout
    while True:
        try:
            netns.connect(namespace, address, timeout=2).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"nothing accepts connections at {address}: {error}") from error
            time.sleep(0.05)
