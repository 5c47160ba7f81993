"""The network of tests/lab.py with a Datapath on its node, driven from the test."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

from sockmap.datapath import DatapathConfig, DatapathError, Event, IpEntry, PolicyRow, RowVerdict, port_prefixes
from tests import netns
from tests.datapath.agent import read, write
from tests.lab import GATEWAY4, GATEWAY6, NODE4, NODE6, Lab, Pod

ROOT = Path(__file__).parents[2]
Network = IPv4Network | IPv6Network
INGRESS, EGRESS = 0, 1
TCP, UDP, OTHER = 6, 17, 0
ALLOW, DENY, PROXY = RowVerdict.ALLOW, RowVerdict.DENY, RowVerdict.PROXY
HOST, WORLD = 1, 2
FIRST_IDENTITY = 1001


def rows(
    endpoint: int, direction: int, default: RowVerdict, *ports: tuple[int, RowVerdict], identity: int = 0,
    audit: bool = False,
) -> list[PolicyRow]:  # fmt: skip
    """All rows of one peer: `default` but for these TCP ports."""
    taken = sorted(ports)
    found = [PolicyRow(endpoint, direction, identity, TCP, port, 16, verdict) for port, verdict in taken]
    edges = [-1, *(port for port, _ in taken), 0x10000]
    for low, high in pairwise(edges):
        if low + 1 < high:
            for port, bits in port_prefixes(low + 1, high - 1):
                found.append(PolicyRow(endpoint, direction, identity, TCP, port, bits, default, audit))
    for protocol in (UDP, 132, OTHER):
        found.append(PolicyRow(endpoint, direction, identity, protocol, 0, 0, default, audit))
    return found


class Node:
    """A process on the lab's node with a Datapath in it; attributes of Datapath are called there."""

    def __init__(self, lab: Lab, **config: Any) -> None:
        self.lab = lab
        self.config = DatapathConfig(**{"state_dir": lab.folder / "datapath", **config})
        argv = netns.inside(lab.node_ns, [sys.executable, "-m", "tests.datapath.agent"])
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self.generation = 0
        self._ask(self.config)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.call("datapath", name, *args, **kwargs)

    def call(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call something in the process; its exceptions are raised here."""
        return self._ask((target, method, args, kwargs))

    def _ask(self, message: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        write(self.process.stdin, message)  # type: ignore[arg-type]
        answer = read(self.process.stdout)  # type: ignore[arg-type]
        if answer is None:
            raise AssertionError(f"the datapath's process ended with {self.process.wait(10)}")
        ok, value = answer
        if not ok:
            raise value
        return value

    def policy(self, *parts: list[PolicyRow], entries: dict[Network, IpEntry] | None = None) -> None:
        """Put rows in force, and with them the addresses of `entries()` or others."""
        self.generation += 1
        flat = [row for part in parts for row in part]
        self.stage_policy(flat, self.entries() if entries is None else entries, generation=self.generation)
        self.switch_policy()

    def entries(self, prefixes: dict[str, int] | None = None) -> dict[Network, IpEntry]:
        """Who has which address: the host, each pod (endpoint id from 1, identity from FIRST_IDENTITY), and `prefixes`
        with their identities."""
        entries: dict[Network, IpEntry] = {ip_network(a): IpEntry(HOST) for a in (GATEWAY4, GATEWAY6, NODE4, NODE6)}
        for number, pod in enumerate(self.lab.pods.values(), 1):
            entry = IpEntry(FIRST_IDENTITY + number - 1, number)
            entries |= {ip_network(pod.v4): entry, ip_network(pod.v6): entry}
        return entries | {ip_network(prefix): IpEntry(identity) for prefix, identity in (prefixes or {}).items()}

    def attach_all(self) -> None:
        """Everything: lo, eth0 and each pod."""
        if not self.generation:
            self.policy([])
        self.attach_loopback()
        self.attach_node_interface("eth0")
        for number, pod in enumerate(self.lab.pods.values(), 1):
            self.attach_endpoint(pod.interface, number, FIRST_IDENTITY + number - 1, [pod.v4, pod.v6])

    def proxy(self, workers: int = 1, *, relay: bool = False) -> None:
        """Start the stand-in for the worker processes."""
        self.call("proxy", "start", workers, relay=relay)

    def seen(self) -> list[tuple[Any, ...]]:
        """What the proxy has accepted since the last call."""
        seen: list[tuple[Any, ...]] = self.call("proxy", "seen")
        return seen

    def drops(self, *, changed: bool = False) -> list[Event]:
        """Drop events since the last call. Those of connections that a new policy cuts only if asked for: one of an
        earlier test may still be dying."""
        drops = [event for event in self.events() if event.kind == "drop"]
        return [event for event in drops if changed or event.reason != "Policy denied (changed)"]

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """An orderly end."""
        if self.process.poll() is None:
            self.close()
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(10)

    def end(self) -> None:
        """Whatever happened, the process ends."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


def start(nodes: list[Node], lab: Lab, **config: object) -> Node:
    """A node of the test's own, put where it is ended."""
    node = Node(lab, **config)
    nodes.append(node)
    return node


def cleanup(lab: Lab) -> list[str]:
    """What `cleanup` says, run on the node by a process of its own; its error is raised."""
    code = (
        "import json, sys; from pathlib import Path; from sockmap.datapath import cleanup, DatapathError\n"
        "try: print(json.dumps(cleanup(Path(sys.argv[1]))))\n"
        "except DatapathError as error: print(json.dumps(str(error)))"
    )
    argv = netns.inside(lab.node_ns, [sys.executable, "-c", code, str(lab.folder / "datapath")])
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=True, timeout=30)
    said = json.loads(done.stdout)
    if isinstance(said, str):
        raise DatapathError(said)
    return list(said)


class Echo:
    """A TCP server that answers ``(peer's address) data`` to everything, on both families."""

    def __init__(self, ns: str, port: int, host: str = "::") -> None:
        self.listener = netns.call(ns, lambda: _dual(host, port))
        self.peers: list[tuple[str, int]] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                sock, peer = self.listener.accept()
                self.peers.append((peer[0].removeprefix("::ffff:"), peer[1]))
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            while data := sock.recv(65536):
                sock.sendall(b"server:" + data)

    def close(self) -> None:
        """Stop accepting."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def _dual(host: str, port: int) -> socket.socket:
    if host != "::":
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)


def ask(ns: str, address: str, port: int, data: bytes = b"hello", timeout: float = 5.0, **options: Any) -> bytes:
    """The first answer to `data` on a fresh connection. Raises OSError."""
    with netns.connect(ns, (address, port), timeout=timeout, **options) as sock:
        sock.sendall(data)
        return sock.recv(65536)


def reaches(ns: str, address: str, port: int) -> bool:
    """Whether a connection gets an answer within a second."""
    try:
        return bool(ask(ns, address, port, timeout=1.0))
    except OSError:
        return False


def addresses(pod: Pod) -> tuple[str, str]:
    """Both of a pod's addresses."""
    return pod.v4, pod.v6
