"""A real Cassandra of one node, as scripts/install.sh brings it into build/cassandra/lib.

With `authorizer` it has Cassandra's own logins and permissions: the role cassandra (its password is the name) may do
everything and others what it grants them, at once; without it everybody may do everything, whatever name and password
they give. Materialized views, functions and SASI indexes, which Cassandra has off, are on.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import AddressTranslator, WhiteListRoundRobinPolicy

from tests import jvm, netns

_BUILD = Path(__file__).parents[2] / "build" / "cassandra"
_EXPORTS = (
    *(f"java.base/{name}" for name in ("jdk.internal.misc", "jdk.internal.ref", "sun.nio.ch")),
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    *(f"java.rmi/sun.rmi.{name}" for name in ("registry", "server", "transport.tcp")),
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
)
_JDK_INTERNAL = ("loader", "ref", "reflect", "math", "module", "util.jar")
_OPENS = (
    *(f"java.base/java.{name}" for name in ("io", "lang", "lang.module", "lang.reflect", "math", "net", "nio", "util")),
    *(f"java.base/java.util.{name}" for name in ("concurrent", "concurrent.atomic")),
    *(f"java.base/jdk.internal.{name}" for name in _JDK_INTERNAL),
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
)
_ADD = tuple(
    word
    for option, names in (("--add-exports", _EXPORTS), ("--add-opens", _OPENS))
    for name in names
    for word in (option, f"{name}=ALL-UNNAMED")
)
JAVA = (
    "java",
    *jvm.COMMON,
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:+AllowArchivingWithJavaAgent",
    f"-javaagent:{_BUILD}/lib/jamm-0.4.0.jar",
    "-Djdk.attach.allowAttachSelf=true",
    *_ADD,
)
"""How Cassandra's classes are run; the class path and the class follow."""
CLASSES = f"{_BUILD}/lib/*"
_OPTIONS = (
    "-Xms512m",
    "-Xmx768m",
    "-Dcassandra-foreground=yes",
    "-Dcassandra.skip_wait_for_gossip_to_settle=0",
    "-Dcassandra.ring_delay_ms=100",
    "-Dcassandra.superuser_setup_delay_ms=0",
    "-Dcassandra.initial_token=0",
    "-Dcassandra.auth_bcrypt_gensalt_log2_rounds=4",
)
_READY, _READY_WITHIN = "Starting listening for CQL clients", 180.0
_LOGBACK = """<configuration>
<appender name="out" class="ch.qos.logback.core.ConsoleAppender">
<encoder><pattern>%-5level %logger{0} %msg%n</pattern></encoder></appender>
<root level="INFO"><appender-ref ref="out"/></root></configuration>
"""
SUPERUSER = "cassandra"


@dataclass(frozen=True)
class Server(jvm.Running):
    """A running server; `address` is where its clients connect."""

    address: jvm.Address
    namespace: str | None

    @contextmanager
    def session(self, user: str = SUPERUSER, keyspace: str | None = None, **options: Any) -> Iterator[Session]:
        """A driver's session from where the tests run (see `connect`)."""
        with connect(self.address, user, keyspace, **options) as session:
            yield session


class _Same(AddressTranslator):
    """All nodes are reached where the driver was told to connect to."""

    def __init__(self, host: str) -> None:
        self._host = host

    def translate(self, addr: str) -> str:
        return self._host


@contextmanager
def connect(
    address: jvm.Address,
    user: str = SUPERUSER,
    keyspace: str | None = None,
    *,
    timeout: float = 30.0,
    **options: Any,
) -> Iterator[Session]:
    """A session of cassandra-driver to `address`, and to nothing else; the user's password is the name. `timeout`: of
    each request, in seconds. `options` are its Cluster's, as ``protocol_version=4``."""
    host, port = address
    profile = ExecutionProfile(WhiteListRoundRobinPolicy([host]), request_timeout=timeout)
    settings: dict[str, Any] = {
        "port": port,
        "auth_provider": PlainTextAuthProvider(user, user),
        "address_translator": _Same(host),
        "execution_profiles": {EXEC_PROFILE_DEFAULT: profile},
        "connect_timeout": timeout,
        "control_connection_timeout": timeout,
    }
    cluster = Cluster([host], **settings | options)
    try:
        yield cluster.connect(keyspace)
    finally:
        cluster.shutdown()


@contextmanager
def server(
    *,
    namespace: str | None = None,
    host: str = "127.0.0.1",
    authorizer: bool = False,
    settings: Mapping[str, object] | None = None,
    port: int | None = None,
    java: Sequence[str] = (),
    under: Path | None = None,
) -> Iterator[Server]:
    """A server that listens on `host` in the namespace (or where the tests run), with ports of its own, but for `port`,
    where clients find it, and a folder (`under` another); it ends with the context, or with the tests. `settings` are
    further ones of cassandra.yaml, options of `java` stand behind ours. Its log is printed if the context ends by an
    error."""
    with tempfile.TemporaryDirectory(prefix="cassandra-", dir=under) as name:
        folder = Path(name)
        made = jvm.prepared(_BUILD, _prepare)
        shutil.copytree(made / "data", folder / "data")
        clients, storage = jvm.free_ports(namespace, host, 2)
        address = (host, port or clients)
        options = [f"-XX:SharedArchiveFile={made}/classes.jsa", *java]
        argv = _command(folder, address, storage, authorizer, settings or {}, options)
        with jvm.started(argv, folder, namespace) as running:
            running.wait_for(_READY, _READY_WITHIN)
            _wait_listening(address, namespace)
            yield Server(running.process, folder, address, namespace)


def _command(
    folder: Path,
    address: jvm.Address,
    storage: int,
    authorizer: bool,
    settings: Mapping[str, object],
    options: Sequence[str],
) -> list[str]:
    """Write the configuration into `folder`, and say how a server with it is started."""
    rows = _settings(folder, address, storage, authorizer) | dict(settings)
    (folder / "cassandra.yaml").write_text(json.dumps(rows, default=str))  # JSON is YAML
    (folder / "logback.xml").write_text(_LOGBACK)
    named = (
        f"-Dcassandra.config=file://{folder}/cassandra.yaml",
        f"-Dlogback.configurationFile={folder}/logback.xml",
        f"-Dcassandra.storagedir={folder}/data",
    )
    return [*JAVA, *_OPTIONS, *options, *named, "-cp", CLASSES, "org.apache.cassandra.service.CassandraDaemon"]


def _settings(folder: Path, address: jvm.Address, storage: int, authorizer: bool) -> dict[str, object]:
    host, port = address
    where = {"seeds": jvm.text((host, storage))}
    seeds = [{"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": [where]}]
    found: dict[str, object] = {
        "cluster_name": "l7proxy tests",
        "num_tokens": 1,
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "commitlog_sync": "periodic",
        "commitlog_sync_period": "10000ms",
        "data_file_directories": [folder / "data" / "data"],
        "listen_address": host,
        "rpc_address": host,
        "native_transport_port": port,
        "storage_port": storage,
        "endpoint_snitch": "SimpleSnitch",
        "seed_provider": seeds,
        "memtable_heap_space": "64MiB",
        "memtable_offheap_space": "64MiB",
        "commitlog_segment_size": "32MiB",
        "commitlog_total_space": "256MiB",
        "key_cache_size": "4MiB",
        "counter_cache_size": "4MiB",
        "file_cache_size": "32MiB",
        "materialized_views_enabled": True,
        "user_defined_functions_enabled": True,
        "sasi_indexes_enabled": True,
        # A test waits for the server's disk when two cores run everything else beside it.
        **{f"{name}_request_timeout": "60s" for name in ("read", "write", "range", "truncate")},
    }
    for name in ("commitlog", "saved_caches", "hints", "cdc_raw"):
        found[f"{name}_directory"] = folder / "data" / name
    if authorizer:
        found |= {
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "role_manager": "CassandraRoleManager",
            # What is granted and revoked acts at once.
            **{f"{name}_validity": "0ms" for name in ("permissions", "roles", "credentials")},
        }
    return found


def _prepare(folder: Path) -> None:
    """Data with Cassandra's own tables and the super user in them, and the archive of loaded classes with which a
    server starts sooner."""
    with tempfile.TemporaryDirectory(prefix="cassandra-") as name:
        place, host = Path(name), "127.0.0.1"
        clients, storage = jvm.free_ports(None, host, 2)
        archive = f"-XX:ArchiveClassesAtExit={folder}/classes.jsa"
        with jvm.started(_command(place, (host, clients), storage, True, {}, [archive]), place) as running:
            running.wait_for(_READY, _READY_WITHIN)
            _wait_listening((host, clients), None)
            running.wait_for("Created default superuser role", _READY_WITHIN)
            with connect((host, clients)) as session:  # the classes of a login and a statement are loaded too
                session.execute("SELECT release_version FROM system.local")
            running.stop()
        shutil.copytree(place / "data", folder / "data")


def _wait_listening(address: jvm.Address, namespace: str | None) -> None:
    """It says that it starts to listen before it does."""

    def attempt() -> None:
        end = time.monotonic() + 20
        while True:
            try:
                return socket.create_connection(address, 5).close()
            except ConnectionRefusedError:
                assert time.monotonic() < end, f"nobody listens at {address}"
            time.sleep(0.02)

    attempt() if namespace is None else netns.call(namespace, attempt)
