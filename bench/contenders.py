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
from bench.rules import Rules, for_haproxy, for_l7proxy, for_nginx
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
        config = fill("backend.nginx.conf", self, "backend")
        wait_for(self.backend_ns, self.backend, self._start_backend(_nginx(self, config)))

    def _start_backend(self, argv: list[str]) -> subprocess.Popen[str]:
        return self.lab.popen(self.backend_ns, argv, cgroup=self.backend_cgroup)

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

    def pids(self) -> list[int]:
        """The proxy's processes."""
        return [] if self.process is None else processes.family(self.process.pid)

    def lost_records(self) -> int:
        """Requests whose record l7proxy could not write; its peers do not say."""
        return 0 if self.node is None else int(self.node.status()["flows_lost"])

    def url(self, path: str) -> str:
        """The URL of a path as the client asks for it."""
        return f"http://{self.address[0]}:{self.address[1]}{path}"


def direct(road: Road) -> Contender:
    """No proxy."""
    return Contender(f"direct ({road.name})", road, road.backend)


def haproxy(road: Road, rules: Rules, port: int, *, large: bool = False) -> Contender:
    """HAProxy, one thread, logging to a file; `large`: with large buffers, as one would have it for bulk."""
    buffers = "  tune.bufsize 262144" if large else ""
    listen, folder = (road.proxy_host, port), f"haproxy-{port}"
    config = fill("haproxy.cfg", road, folder, listen=listen, rules=for_haproxy(rules), buffers=buffers)
    return _proxy("HAProxy" + LARGE * large, road, ["haproxy", "-db", "-f", str(config)], port)


def nginx(road: Road, rules: Rules, port: int, *, large: bool = False) -> Contender:
    """nginx, one worker; `large`: with large buffers."""
    buffers = "  proxy_buffer_size 64k; proxy_buffers 8 128k; proxy_busy_buffers_size 256k;" if large else ""
    listen, folder = (road.proxy_host, port), f"nginx-{port}"
    config = fill("nginx.conf", road, folder, listen=listen, rules=for_nginx(rules), buffers=buffers)
    return _proxy("nginx" + LARGE * large, road, _nginx(road, config), port)


def envoy_proxy(road: Road, rules: Rules, port: int) -> Contender:
    """Envoy, one worker thread."""
    config = road.lab.folder / f"envoy-{port}.json"
    log = str(road.lab.folder / f"envoy-{port}.log")
    config.write_text(envoy.configuration(rules, (road.proxy_host, port), road.backend, log))
    binary = str(Path(sys.executable).with_name("envoy"))
    argv = [binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return _proxy("Envoy", road, argv, port)


def l7proxy(road: Road, rules: Rules, workers: int, name: str = "l7proxy") -> Contender:
    """l7proxy, in the way between client and server without their knowing."""
    policy, endpoints = for_l7proxy(rules, PORT), road.endpoints()
    node = road.lab.start_l7proxy(policy, timeout=180, workers=workers, endpoints=endpoints)
    return Contender(f"{name} ({road.name})", road, road.backend, node.running, node)


PEERS: dict[str, Callable[[Road, Rules, int], Contender]] = {"haproxy": haproxy, "nginx": nginx, "envoy": envoy_proxy}


def _proxy(name: str, road: Road, argv: list[str], port: int) -> Contender:
    with (road.lab.folder / f"{name}-{port}.out").open("w") as output:
        process = road.lab.popen(road.lab.node_ns, argv, stdout=output, stderr=output)
    address = (road.proxy_host, port)
    try:
        wait_for(road.client_ns, address, process)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}\n{Path(output.name).read_text()[-2000:]}") from error
    return Contender(f"{name} ({road.name})", road, address, process)


def _nginx(road: Road, config: Path) -> list[str]:
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    return [binary, "-e", str(road.lab.folder / "nginx.err"), "-c", str(config)]


def fill(
    template: str,
    road: Road,
    name: str,
    *,
    listen: tuple[str, int] = ("", 0),
    rules: str = "",
    buffers: str = "",
) -> Path:
    """A template of bench/peers filled in, as a file in a folder of its own."""
    folder = road.lab.folder / name
    folder.mkdir()
    values = {
        "DIR": str(folder),
        "BIG": str(road.big),
        "LISTEN": f"{listen[0]}:{listen[1]}",
        "BACKEND": f"{road.backend[0]}:{road.backend[1]}",
        "RULES": rules,
        "BUFFERS": buffers,
    }
    text = (TEMPLATES / template).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    file = folder / template
    file.write_text(text)
    return file


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
