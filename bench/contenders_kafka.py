"""The contenders in front of a real Kafka broker; all but one share it, each with a client of its own.

What l7proxy enforces is the egress of its clients: those of the others are not in its way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import envoy
from bench.contenders import LARGE, Contender, Road, colon, envoy_command, fill, proxy
from bench.load_kafka import BULK, SMALL, STORED, prepare
from bench.load_kafka import fill as fill_up
from bench.suite import FEW
from tests.kafka.broker import Broker, broker
from tests.lab import GATEWAY4, Lab, Pod

_MEMORY = Path("/dev/shm")
"""Where the broker's data is, so that a disk that is busy with something else does not count."""
_SETTINGS = {
    "log.segment.bytes": 128 << 20,
    "log.retention.bytes": 512 << 20,
    "log.retention.ms": -1,
    "log.retention.check.interval.ms": 1000,
    "log.segment.delete.delay.ms": 1000,
}
_JAVA = ("-Xmx1g", "-XX:TieredStopAtLevel=4")
_STORED = 64 << 20


@dataclass
class Place:
    """A lab with a broker in it."""

    lab: Lab
    server: Pod
    broker: Broker

    def road(self, client: str) -> Road:
        """To the broker, from a client of this name."""
        pod = self.lab.pods.get(client) or self.lab.pod(client)
        return Road("pods", self.lab, pod.ns, self.server.ns, self.broker.address, GATEWAY4)


@contextmanager
def place() -> Iterator[Place]:
    """A broker with topics, and records in one of them."""
    with Lab() as lab:
        server = lab.pod("server")
        under = _MEMORY if _MEMORY.is_dir() else None
        with broker(namespace=server.ns, host=server.v4, settings=_SETTINGS, java=_JAVA, under=under) as running:
            ids = running.create(SMALL, BULK, STORED)
            prepare(lab.folder, ids[STORED])
            made = Place(lab, server, running)
            fill_up(direct(made), _STORED)
            yield made


def direct(at: Place) -> Contender:
    """No proxy."""
    return Contender("direct", at.road("plain"), at.broker.address)


def haproxy(at: Place, *, large: bool = False) -> Contender:
    """HAProxy, one thread, as a proxy of TCP."""
    road, port = at.road("plain"), 9002 if large else 9001
    values = {"LISTEN": colon((GATEWAY4, port)), "BUFFERS": "  tune.bufsize 262144" if large else ""}
    config = fill("haproxy-kafka.cfg", road, f"haproxy-{port}", values)
    return _short(proxy("HAProxy, TCP" + LARGE * large, road, ["haproxy", "-db", "-f", str(config)], port))


def envoy_tcp(at: Place) -> Contender:
    """Envoy, one worker thread, as a proxy of TCP."""
    road, port = at.road("plain"), 9003
    config = at.lab.folder / "envoy-kafka.json"
    config.write_text(envoy.tcp((GATEWAY4, port), road.backend, str(at.lab.folder / "envoy-kafka.log")))
    return _short(proxy("Envoy, TCP", road, envoy_command(config), port))


def l7proxy(
    at: Place, counts: Sequence[int], workers: int, name: str = "l7proxy", *, splice: bool = False
) -> list[Contender]:
    """One l7proxy, in the way of a client for each number of rules."""
    roads = [at.road(f"rules{count}") for count in counts]
    policies = [_policy(f"rules{count}", count, at.broker.address[1]) for count in counts]
    pods = [at.server, *(at.lab.pods[f"rules{count}"] for count in counts)]
    text = yaml.dump_all(policies, Dumper=yaml.CSafeDumper, sort_keys=False)
    node = at.lab.start_l7proxy(
        text, timeout=180, workers=workers, endpoints=[pod.endpoint() for pod in pods], splice=splice
    )
    titles = [name if count == FEW else f"{name}, {count:,} rules" for count in counts]
    return [Contender(title, road, road.backend, node.running, node) for title, road in zip(titles, roads, strict=True)]


def _policy(client: str, count: int, port: int) -> dict[str, Any]:
    """Rules of which the last ones are those that the load meets."""
    topics = [f"tenant{number}.events" for number in range(count - 3)]
    rules = [{"role": "consume" if n % 2 else "produce", "topic": topic} for n, topic in enumerate(topics)]
    rules += [
        {"role": role, "topic": topic} for role, topic in (("produce", SMALL), ("produce", BULK), ("consume", STORED))
    ]
    ports = [{"ports": [{"port": str(port), "protocol": "TCP"}], "rules": {"kafka": rules}}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": client},
        "spec": {"endpointSelector": {"matchLabels": {"app": client}}, "egress": [{"toPorts": ports}]},
    }


def _short(found: Contender) -> Contender:
    """All stand at the same place, so that it need not be said."""
    found.name = found.name.removesuffix(f" ({found.road.name})")
    return found
