"""A broker in a pod, clients in another one, and l7proxy with a policy between them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from parsers.kafka_codec import encode
from parsers.kafka_schema import BY_NAME, REQUEST
from tests.e2e.common import from_app, policy
from tests.jvm import text
from tests.kafka import wire
from tests.kafka.broker import Broker, broker, tool
from tests.kafka.wire import Wire
from tests.lab import Lab, Pod
from tests.node import NodeHandle

T = TypeVar("T")
HERE = Path(__file__).parent
CLIENTS = HERE / "clients"
_ADMIN = ("createtopics", "deletetopics", "describeconfigs")
RULES: tuple[dict[str, Any], ...] = (
    {"role": "produce", "topics": ["open-*", "write-*"], "transactionalIDs": ["open-*"]},
    {"role": "consume", "topics": ["open-*", "read-*"], "groups": ["open-*"]},
    *({"apiKey": name, "topics": ["open-*"]} for name in _ADMIN),
)
_SETTINGS: dict[str, object] = {
    "message.max.bytes": 40 << 20,
    "auto.create.topics.enable": "false",
    "unstable.feature.versions.enable": "true",
    # Groups of the new kinds change at a heartbeat, for which nobody should wait.
    **{f"group.{kind}.{least}heartbeat.interval.ms": 500 for kind in ("consumer", "share") for least in ("", "min.")},
}
TOPICS = (
    "open-{}", "open-{}-in", "open-{}-out", "open-{}-mixed", "open-{}-large", "open-{}-watch",
    "read-{}", "write-{}", "secret-{}",
)  # fmt: skip
"""Topics of a client, by its name."""


@dataclass
class Net:
    """`front` has the clients."""

    lab: Lab
    node: NodeHandle
    front: Pod
    broker: Broker

    def run(self, client: str, scenario: str, name: str = "", *, user: str | None = None) -> Any:
        """What a scenario of a client gives; with a user it logs in."""
        words = argv(self.broker, client, scenario, name, user=user)
        done = self.lab.run(self.front.ns, words, timeout=150, check=False)
        assert done.returncode == 0, f"{done.stderr}{self.node.output.read_text()}{self.records()[-9:]}"
        return json.loads(done.stdout.splitlines()[-1])

    @contextmanager
    def running(self, client: str, scenario: str, name: str = "") -> Iterator[subprocess.Popen[str]]:
        """A client that goes on saying things."""
        words = argv(self.broker, client, scenario, name)
        with self.lab.popen(self.front.ns, words, stdout=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    def wire(self, *, sasl: bool = False) -> Wire:
        """A connection of our own through l7proxy, perhaps to where one has to log in."""
        return Wire(self.broker.sasl if sasl else self.broker.address, namespace=self.front.ns)

    def rules(self, *rules: dict[str, Any], mode: str = "enforce") -> None:
        """Replace the policy."""
        self.node.write_policy(kafka_policy(self.broker, rules or RULES, mode=mode))

    def records(self) -> list[dict[str, Any]]:
        """What flow records say of Kafka's requests."""
        return [
            _told(record["flow"]) for record in self.node.flows() if "kafka" in record.get("flow", {}).get("l7", {})
        ]


def _told(flow: dict[str, Any]) -> dict[str, Any]:
    kafka, own = flow["l7"]["kafka"], flow["extensions"]["value"]["l7proxy"]
    found = {
        "api": kafka["api_key"],
        "version": kafka["api_version"],
        "code": kafka.get("error_code", 0),
        "verdict": flow["verdict"],
        "client": own["kafka"]["client_id"],
        "number": kafka["correlation_id"],
        "topics": {one["name"]: one["verdict"] for one in own["kafka"].get("topics", ())},
    }
    return found | {"reason": own["reason"]}


def kafka_policy(running: Broker, rules: Sequence[dict[str, Any]] = RULES, *, mode: str = "enforce") -> str:
    """The rules on the broker's ports, for clients in front."""
    return policy("kafka", "kafka", {"l7proxy.io/mode": mode}, ingress=[kafka_ingress(running, "front", rules)])


def kafka_ingress(running: Broker, app: str, rules: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What clients of one app may do."""
    ports = [{"port": str(port), "protocol": "TCP"} for _, port in (running.address, running.sasl)]
    return {**from_app(app), "toPorts": [{"ports": ports, "rules": {"kafka": list(rules)}}]}


def batch(value: str) -> bytes:
    """A batch of one record, as it is stored."""
    made = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    made.append(0, int(time.time() * 1000), None, value.encode(), [])
    return bytes(made.build())


def request(api: str, version: int, tree: dict[str, Any], *, client: str) -> bytes:
    """The frame of a request."""
    key = BY_NAME[api.lower()].key
    return wire.framed(wire.request(key, version, encode(key, version, REQUEST, tree), client=client))


@contextmanager
def all_of(some: Iterable[AbstractContextManager[T]]) -> Iterator[list[T]]:
    """Several contexts at once."""
    with ExitStack() as stack:
        yield [stack.enter_context(one) for one in some]


def argv(running: Broker, client: str, scenario: str, name: str = "", *, user: str | None = None) -> list[str]:
    """The command of a client; with a user it logs in."""
    address = running.bootstrap if user is None else text(running.sasl)
    words = [address, name or client, scenario]
    login = [] if user is None else ["env", f"KAFKA_LOGIN={user}"]
    if client == "java":
        return [*login, *tool(str(CLIENTS / "Client.java"), *words)]
    return [*login, sys.executable, str(CLIENTS / f"{client}.py"), *words]


def prepare(running: Broker, client: str) -> None:
    """A client's topics."""
    running.create(*(one.format(client) for one in TOPICS))


def let_share(running: Broker) -> None:
    """Switch share groups on."""
    feature = {"feature": "share.version", "max_version_level": 1, "upgrade_type": 1}
    with running.wire() as wire:
        done = wire.ask("UpdateFeatures", 1, {"timeout": 20000, "feature_updates": [feature]})
    assert not done["error_code"], done


@contextmanager
def net(family: int = 4, **config: Any) -> Iterator[Net]:
    """All of it, the broker at an address of this family."""
    with Lab() as lab:
        front, pod = lab.pod("front"), lab.pod("kafka")
        host = pod.v4 if family == 4 else pod.v6
        with broker(namespace=pod.ns, host=host, settings=_SETTINGS) as running:
            node = lab.start_l7proxy(kafka_policy(running), **config)
            try:
                yield Net(lab, node, front, running)
            finally:
                node.stop()  # or what splices would stay in the machine's cgroup
