"""A real Kafka broker of one node, as scripts/install.sh brings it into build/kafka/lib.

Two listeners: one without a login, whose clients are User:ANONYMOUS, and one for SASL/PLAIN, where the password is the
name. With `acls` the broker has Kafka's own authorizer, for which ANONYMOUS is a super user and everyone else is
refused what nobody allowed; `refuse` denies again, so that refusals of one kind can be looked at alone.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import jvm, netns
from tests.jvm import text
from tests.kafka.wire import Wire

_BUILD = Path(__file__).parents[2] / "build" / "kafka"
_JAVA = (
    "java",
    "-Xmx512m",
    *jvm.COMMON,
    "-Djdk.net.hosts.file=/etc/hosts",  # or each login would wait for a name of an address that has none
    "-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=warn",  # not a line for each refusal
    "-cp",
    f"{_BUILD}/lib/*",
)
_READY, _READY_WITHIN = "Kafka Server started", 120.0
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_CLUSTER = "bDdwcm94eS10ZXN0cy0tLQ"
TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID = 2, 3, 4, 5
"""Types of resources in ACLs."""
ALL, READ, WRITE = 2, 3, 4
"""Operations in ACLs."""
_LITERAL, _PREFIXED, _DENY, _ALLOW = 3, 4, 2, 3


@dataclass(frozen=True)
class Broker(jvm.Running):
    """A running broker. `address` is for clients that do not log in, `sasl` for those that do."""

    address: jvm.Address
    sasl: jvm.Address
    namespace: str | None

    @property
    def bootstrap(self) -> str:
        """`address` as clients are told it."""
        return text(self.address)

    def wire(self, user: str | None = None, timeout: float = 20.0) -> Wire:
        """A connection from the broker's own namespace."""
        address = self.address if user is None else self.sasl
        return Wire(address, user=user, namespace=self.namespace, timeout=timeout)

    def create(self, *topics: str, partitions: int = 1) -> dict[str, bytes]:
        """Make topics, wait until they are there, and return their ids."""
        rows = [{"name": name, "num_partitions": partitions, "replication_factor": 1} for name in topics]
        with self.wire() as wire:
            made = wire.ask("CreateTopics", 7, {"topics": rows, "timeout": 20000})
            assert all(row["error_code"] == 0 for row in made["topics"]), made
            end = time.monotonic() + 20
            while True:
                found = wire.ask("Metadata", 12, {"topics": [{"name": name} for name in topics]})["topics"]
                if all(row["error_code"] == 0 and len(row["partitions"]) == partitions for row in found):
                    return {row["name"]: row["topic_id"] for row in made["topics"]}
                assert time.monotonic() < end, found
                time.sleep(0.02)

    def allow(self, user: str, resource: int, name: str = "*", *, prefix: bool = False) -> None:
        """Allow a user everything on a resource by its name, or on those whose names begin so."""
        self._acl(user, resource, name, _PREFIXED if prefix else _LITERAL, _ALLOW)

    def refuse(self, user: str, resource: int, prefix: str, operation: int = ALL) -> None:
        """Deny a user an operation on resources whose names begin so."""
        self._acl(user, resource, prefix, _PREFIXED, _DENY, operation)

    def _acl(self, user: str, resource: int, name: str, pattern: int, permission: int, operation: int = ALL) -> None:
        """Make a rule, and wait until the broker goes by it."""
        row = {
            "resource_type": resource,
            "resource_name": name,
            "resource_pattern_type": pattern,
            "principal": f"User:{user}",
            "host": "*",
            "operation": operation,
            "permission_type": permission,
        }
        wanted = {
            "resource_type_filter": resource,
            "resource_name_filter": name,
            "pattern_type_filter": pattern,
            "principal_filter": f"User:{user}",
            "operation": operation,
            "permission_type": permission,
        }
        with self.wire() as wire:
            (found,) = wire.ask("CreateAcls", 3, {"creations": [row]})["results"]
            assert found["error_code"] == 0, found
            end = time.monotonic() + 20
            while not wire.ask("DescribeAcls", 3, wanted)["resources"]:
                assert time.monotonic() < end, row
                time.sleep(0.02)


@contextmanager
def broker(
    *,
    namespace: str | None = None,
    host: str = "127.0.0.1",
    acls: bool = False,
    users: Sequence[str] = ("alice", "bob"),
    settings: Mapping[str, object] | None = None,
    port: int | None = None,
    java: Sequence[str] = (),
    under: Path | None = None,
) -> Iterator[Broker]:
    """A broker that listens on `host` in the namespace (or where the tests run), with ports of its own, but for `port`,
    where clients find it that do not log in, and a folder (`under` another); it ends with the context, or with the
    tests. `settings` stand in server.properties last, options of `java` behind ours. Its log is printed if the context
    ends by an error."""
    with tempfile.TemporaryDirectory(prefix="kafka-", dir=under) as name:
        folder = Path(name)
        plain, sasl, controller = jvm.free_ports(namespace, host, 3)
        plain = port or plain
        rows = _properties(folder, host, (plain, sasl, controller), users, acls) | dict(settings or {})
        made = jvm.prepared(_BUILD, _prepare)
        shutil.copytree(made, folder / "data", ignore=shutil.ignore_patterns("*.jsa"))
        argv = _command(folder, rows, f"-XX:SharedArchiveFile={made}/broker.jsa", *java)
        with jvm.started(argv, folder, namespace) as running:
            running.wait_for(_READY, _READY_WITHIN)
            yield Broker(running.process, folder, (host, plain), (host, sasl), namespace)


def tool(name: str, *argv: str) -> list[str]:
    """The command of a program of Kafka's own by its class, as ``org.apache.kafka.tools.ConsoleProducer``: the client
    in Java that others are compared with."""
    return [*_JAVA, name, *argv]


def _properties(folder: Path, host: str, ports: Sequence[int], users: Sequence[str], acls: bool) -> dict[str, object]:
    open_, login, controller = (text((host, port)) for port in ports)
    logins = " ".join(f'user_{name}="{name}"' for name in users)
    found: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{open_},SASL_PLAINTEXT://{login},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{open_},SASL_PLAINTEXT://{login}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{_PLAIN} {logins};",
        "log.dirs": folder / "data",
        # What a broker of one node cannot have more of, and what makes it start and begin its groups sooner.
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.dedupe.buffer.size": 2 << 20,
        # Records of tests bear any time: nobody comes after half a minute to take away what is too old.
        "log.initial.task.delay.ms": 3_600_000,
    }
    for name in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        found |= {f"{name}.num.partitions": 1, f"{name}.replication.factor": 1}
        found |= {f"{name}.min.isr": 1} if name != "offsets.topic" else {}
    if acls:
        found |= {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
    return found


def _command(folder: Path, rows: Mapping[str, object], *options: str) -> list[str]:
    """Write the configuration into `folder`, and say how a broker with it is started."""
    file = folder / "server.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in rows.items()))
    return [*_JAVA[:-2], *options, *_JAVA[-2:], "kafka.Kafka", str(file)]


def _prepare(folder: Path) -> None:
    """A formatted folder for data, and the archive of loaded classes with which a broker starts in a second."""
    with tempfile.TemporaryDirectory(prefix="kafka-") as name:
        place, host = Path(name), "127.0.0.1"
        rows = _properties(place, host, jvm.free_ports(None, host, 3), ("nobody",), False)
        argv = _command(place, rows, f"-XX:ArchiveClassesAtExit={folder}/broker.jsa")
        netns.run([*_JAVA, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", argv[-1]], timeout=120)
        shutil.copytree(place / "data", folder, dirs_exist_ok=True)
        with jvm.started(argv, place) as running:
            running.wait_for(_READY, _READY_WITHIN)
            running.stop()
