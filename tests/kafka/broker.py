"""A real Kafka broker of one node, as scripts/install.sh brings it into build/kafka/lib.

Two listeners: one without a login, whose clients are User:ANONYMOUS, and one for SASL/PLAIN, where the password is the
name. With `acls` the broker has Kafka's own authorizer, for which ANONYMOUS is a super user and everyone else is
refused what nobody allowed; `refuse` denies again, so that refusals of one kind can be looked at alone.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import netns
from tests.kafka.wire import Wire

_BUILD = Path(__file__).parents[2] / "build" / "kafka"
_JAVA = (
    "java",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
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
class Broker:
    """A running broker. `address` is for clients that do not log in, `sasl` for those that do."""

    address: tuple[str, int]
    sasl: tuple[str, int]
    namespace: str | None
    process: subprocess.Popen[bytes]
    folder: Path

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

    def log(self) -> str:
        """The end of what it has said."""
        return (self.folder / "log").read_text(errors="replace")[-4000:]


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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kafka-", dir=under)))
        plain, sasl, controller = _free_ports(namespace, host)
        plain = port or plain
        address, login = (host, plain), (host, sasl)
        rows = _properties(folder, host, (plain, sasl, controller), users, acls) | dict(settings or {})
        file = folder / "server.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in rows.items()))
        made = _prepared()
        shutil.copytree(made, folder / "data", ignore=shutil.ignore_patterns("*.jsa"))
        options = [f"-XX:SharedArchiveFile={made}/broker.jsa", *java]
        argv = [*_JAVA[:-2], *options, *_JAVA[-2:], "kafka.Kafka", str(file)]
        if namespace is not None:
            argv = netns.inside(namespace, argv)
        process = _start(argv, folder / "log")
        stack.callback(_end, process)
        running = Broker(address, login, namespace, process, folder)
        try:
            _wait_ready(process, folder / "log")
            yield running
        except BaseException:
            print(f"the broker's log ends:\n{running.log()}", file=sys.stderr)
            raise


def tool(name: str, *argv: str) -> list[str]:
    """The command of a program of Kafka's own by its class, as ``org.apache.kafka.tools.ConsoleProducer``: the client
    in Java that others are compared with."""
    return [*_JAVA, name, *argv]


def _properties(
    folder: Path, host: str, ports: tuple[int, int, int], users: Sequence[str], acls: bool
) -> dict[str, object]:
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


def _prepared() -> Path:
    """A formatted folder for data, and the archive of loaded classes with which a broker starts in a second."""
    made = _BUILD / "prepared"
    assert (_BUILD / "lib").is_dir(), f"{_BUILD}/lib is missing: scripts/install.sh test"
    with (_BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(prefix="prepare-", dir=_BUILD) as name:
                _prepare(Path(name))
                shutil.copytree(Path(name) / "formatted", made.with_suffix(".new"), dirs_exist_ok=True)
            made.with_suffix(".new").rename(made)
    return made


def _prepare(folder: Path) -> None:
    host, file = "127.0.0.1", folder / "server.properties"
    rows = _properties(folder, host, _free_ports(None, host), ("nobody",), False)
    file.write_text("".join(f"{key}={value}\n" for key, value in rows.items()))
    netns.run([*_JAVA, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(file)], timeout=120)
    shutil.copytree(folder / "data", folder / "formatted")
    archive = f"-XX:ArchiveClassesAtExit={folder}/formatted/broker.jsa"
    process = _start([*_JAVA[:-2], archive, *_JAVA[-2:], "kafka.Kafka", str(file)], folder / "log")
    try:
        _wait_ready(process, folder / "log")
        process.terminate()  # what is loaded is written at an orderly end
        process.wait(120)
    finally:
        _end(process)


def _start(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """It ends when the thread that started it does, as when tests are killed."""
    with log.open("wb") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(30)


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _READY_WITHIN
    while _READY not in (text := log.read_text(errors="replace")):
        status = process.poll()
        if status is not None or time.monotonic() > end:
            what = "is not ready" if status is None else f"ended with status {status}"
            raise AssertionError(f"the broker {what}:\n{text[-4000:]}")
        time.sleep(0.05)


def _free_ports(namespace: str | None, host: str) -> tuple[int, int, int]:
    def find() -> tuple[int, int, int]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with ExitStack() as stack:
            made = [stack.enter_context(socket.create_server((host, 0), family=family)) for _ in range(3)]
            first, second, third = (one.getsockname()[1] for one in made)
            return first, second, third

    return find() if namespace is None else netns.call(namespace, find)


def text(address: tuple[str, int]) -> str:
    """An address as clients are told it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
