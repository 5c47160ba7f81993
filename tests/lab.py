"""A small network for end-to-end tests: a node, pods behind veth pairs, and a host outside.

::

    pod "front" eth0 --- veth-front |        |
    pod "api"   eth0 --- veth-api   |  node  | eth0 --- eth0 outside
                                    |        |
    10.77.0.0/24, fd77::/64                    192.0.2.0/24, 2001:db8::/64

The node is itself a namespace, so the machine is not touched; all names are unique, so labs run side by side.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests import netns
from tests.node import NodeHandle

T = TypeVar("T")
SERVERS = Path(__file__).parent / "servers"
OUTSIDE4, OUTSIDE6 = "192.0.2.10", "2001:db8::10"
NODE4, NODE6 = "192.0.2.1", "2001:db8::1"
GATEWAY4, GATEWAY6 = "10.77.0.1", "fd77::1"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pod:
    """A workload in its own namespace `ns`; `interface` is the node's side of its veth pair."""

    name: str
    ns: str
    interface: str
    v4: str
    v6: str
    labels: dict[str, str]
    named_ports: dict[str, int] = field(default_factory=dict)

    def endpoint(self) -> dict[str, Any]:
        """As an entry of node.yaml's `endpoints`."""
        entry = {"name": self.name, "labels": self.labels, "interface": self.interface}
        return entry | {"addresses": [self.v4, self.v6], "named_ports": self.named_ports}


class Server:
    """A server process of tests/servers, and what it has written down."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log

    def events(self) -> list[dict[str, Any]]:
        """Everything the server has logged so far, oldest first."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]

    def requests(self) -> list[dict[str, Any]]:
        """The requests that it received whole."""
        return [event for event in self.events() if event["event"] == "request"]

    def seen(self) -> list[tuple[str, str]]:
        """(method, target) of each request received whole."""
        return [(event["method"], event["target"]) for event in self.requests()]

    def forget(self) -> None:
        """Empty the log."""
        os.truncate(self.log, 0)


class Lab:
    """The network. Use it as a context manager: on leaving, everything in it ends and is removed."""

    def __init__(self, *, mtu: int = 1500) -> None:
        self.mtu = mtu
        self.prefix = f"l7-{os.getpid()}-{next(_numbers)}"
        self.folder = Path(tempfile.mkdtemp(prefix=self.prefix + "-"))
        self.node_ns, self.outside = f"{self.prefix}-node", f"{self.prefix}-outside"
        self.pods: dict[str, Pod] = {}
        self.nodes: list[NodeHandle] = []
        self._namespaces: list[str] = []
        self._processes: list[subprocess.Popen[Any]] = []
        self._cgroups: list[Path] = []

    def __enter__(self) -> Lab:
        _sweep()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        self._namespace(self.node_ns)
        self._namespace(self.outside)
        netns.sysctl(self.node_ns, {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1})
        self._veth("eth0", self.outside)
        for ns, v4, v6 in ((self.node_ns, NODE4, NODE6), (self.outside, OUTSIDE4, OUTSIDE6)):
            self._ip(ns, "address", "add", f"{v4}/24", "dev", "eth0")
            self._ip(ns, "address", "add", f"{v6}/64", "dev", "eth0", "nodad")
        self._ip(self.outside, "route", "add", "10.77.0.0/24", "via", NODE4)
        self._ip(self.outside, "route", "add", "fd77::/64", "via", NODE6)

    def close(self) -> None:
        """End every process and remove every namespace, cgroup and file of this lab."""
        for node in self.nodes:
            node.end()
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for namespace in self._namespaces:
            netns.delete(namespace)
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        for cgroup in self._cgroups:
            with suppress(OSError):
                self.wait(partial(_is_empty, cgroup), 5.0)
                cgroup.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- building --------------------------------------------------------------------------------------------------

    def pod(self, name: str, labels: dict[str, str] | None = None, *, named_ports: dict[str, int] | None = None) -> Pod:
        """A new pod, labelled ``app: NAME`` unless `labels` say otherwise. Names up to 10 characters."""
        number = len(self.pods) + 2
        ns, interface = f"{self.prefix}-{name}", f"veth-{name}"
        v4, v6 = f"10.77.0.{number}", f"fd77::{number:x}"
        self._namespace(ns)
        self._veth(interface, ns)
        # As container runtimes do: host routes to the pod, and the node's address on each veth as its gateway.
        for mine, gateway, bits in ((v4, GATEWAY4, 32), (v6, GATEWAY6, 128)):
            duplicates = ["nodad"] if bits == 128 else []
            self._ip(self.node_ns, "address", "add", f"{gateway}/{bits}", "dev", interface, *duplicates)
            self._ip(self.node_ns, "route", "add", f"{mine}/{bits}", "dev", interface)
            self._ip(ns, "address", "add", f"{mine}/{bits}", "dev", "eth0", *duplicates)
            self._ip(ns, "route", "add", f"{gateway}/{bits}", "dev", "eth0")
            self._ip(ns, "route", "add", "default", "via", gateway, "dev", "eth0")
        pod = Pod(name, ns, interface, v4, v6, labels or {"app": name}, named_ports or {})
        self.pods[name] = pod
        return pod

    def cgroup(self, name: str) -> Path:
        """A new cgroup (v2) for services of the node itself."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        root = Path(next(line.split()[4] for line in mounts if " - cgroup2 " in line))
        path = root / f"{self.prefix}-{name}"
        path.mkdir()
        self._cgroups.append(path)
        return path

    def _namespace(self, name: str) -> None:
        self._namespaces.append(name)
        netns.add(name)

    def _veth(self, interface: str, peer_ns: str) -> None:
        self._ip(
            self.node_ns, "link", "add", interface, "mtu", str(self.mtu), "type", "veth",
            "peer", "name", "eth0", "mtu", str(self.mtu), "netns", peer_ns,
        )  # fmt: skip
        self._ip(self.node_ns, "link", "set", interface, "up")
        self._ip(peer_ns, "link", "set", "eth0", "up")

    def _ip(self, namespace: str, *words: str) -> None:
        family = ["-6"] if any(":" in word for word in words) else []
        netns.run(["ip", *family, "-n", namespace, *words])

    # -- using -----------------------------------------------------------------------------------------------------

    def run(
        self, ns: str, argv: Sequence[str], *, timeout: float = 30.0, check: bool = True, cgroup: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a namespace (and cgroup) to its end."""
        return netns.run(netns.inside(ns, _in_cgroup(cgroup, argv)), timeout=timeout, check=check)

    def popen(
        self, ns: str, argv: Sequence[str], *, cgroup: Path | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command in a namespace (and cgroup); it is killed with the lab."""
        words = netns.inside(ns, _in_cgroup(cgroup, argv))
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, text=True, **options)
        self._processes.append(process)
        return process

    def curl(self, ns: str, url: str, *words: str, timeout: float = 20.0) -> tuple[int, str]:
        """curl's status code (0: no response) and the body."""
        argv = ["curl", "-sS", "--max-time", str(timeout), "-o", "-", "-w", "\n%{http_code}", "-g", *words, url]
        done = self.run(ns, argv, timeout=timeout + 5, check=False)
        body, _, code = done.stdout.rpartition("\n")
        return int(code or 0), body

    def serve(self, ns: str, port: int, *, host: str = "::", cgroup: Path | None = None) -> Server:
        """Start tests/servers/echo.py in a namespace; it answers when this returns."""
        log = self.folder / f"server-{len(self._processes)}.jsonl"
        argv = [sys.executable, str(SERVERS / "echo.py"), "--host", host, "--port", str(port), "--log", str(log)]
        process = self.popen(ns, argv, cgroup=cgroup, stdout=subprocess.PIPE)
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise AssertionError(f"the server in {ns} did not start: status {process.wait(5)}")
        return Server(process, log)

    def start_l7proxy(
        self, policies: dict[str, str] | str, *, timeout: float = 150.0, wait: bool = True, **config: Any
    ) -> NodeHandle:
        """`l7proxy run` on the node with these policies (file name to YAML text, or one text) and keys of node.yaml;
        all pods are endpoints and eth0 is a node interface unless `config` says otherwise."""
        texts = {"policy.yaml": policies} if isinstance(policies, str) else policies
        keys = {"endpoints": [pod.endpoint() for pod in self.pods.values()], "node_interfaces": ["eth0"]} | config
        folder = self.folder / f"l7proxy-{len(self.nodes)}"
        handle = NodeHandle(self.node_ns, folder, self.folder / "state", keys, texts)
        self.nodes.append(handle)
        handle.start(self.popen)
        if wait:
            handle.wait_ready(timeout)
        return handle

    def state(self) -> dict[str, str]:
        """All that l7proxy may change on the node, for comparing before and after (`netns.differences`)."""
        return netns.state(self.node_ns)

    @staticmethod
    def wait(condition: Callable[[], T], timeout: float = 10.0, what: str = "condition") -> T:
        """Ask until the answer is true, and return it. Raises AssertionError when the time is over."""
        end = time.monotonic() + timeout
        while not (answer := condition()):
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout} s: {what}")
            time.sleep(0.02)
        return answer


def _sweep() -> None:
    """Remove the namespaces of labs whose process was killed before it could."""
    for path in Path("/run/netns").glob("l7-*-*-*"):
        owner = path.name.split("-")[1]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            netns.delete(path.name)


def _in_cgroup(cgroup: Path | None, argv: Sequence[str]) -> list[str]:
    if cgroup is None:
        return list(argv)
    return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(cgroup / "cgroup.procs"), *argv]


def _is_empty(cgroup: Path) -> bool:
    return not (cgroup / "cgroup.procs").read_text()
