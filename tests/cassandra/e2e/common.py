"""A Cassandra in a pod, clients in another one, and l7proxy with a policy between them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import netns
from tests.cassandra.server import Server, server
from tests.e2e.common import from_app, policy
from tests.lab import Lab, Pod
from tests.node import NodeHandle

CLIENTS = Path(__file__).parent / "clients"
REPLICATION = "WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
TABLES = (
    f"CREATE KEYSPACE shop {REPLICATION}",
    "CREATE TABLE shop.orders (id int PRIMARY KEY, name text)",
    "CREATE TABLE shop.secrets (id int PRIMARY KEY, name text)",
    "CREATE TABLE shop.blobs (id int PRIMARY KEY, data blob)",
    *(
        f"CREATE MATERIALIZED VIEW shop.{table}_by_name AS SELECT * FROM shop.{table} "
        "WHERE id IS NOT NULL AND name IS NOT NULL PRIMARY KEY (name, id)"
        for table in ("orders", "secrets")
    ),
    "INSERT INTO shop.secrets (id, name) VALUES (0, 'hidden')",
)
RULES: tuple[dict[str, Any], ...] = (
    {"action": ["select", "modify"], "keyspace": "shop", "table": ["orders", "orders_by_name", "blobs"]},
    {"action": "select", "keyspace": "shop", "table": "*_by_name"},
    {"action": "select", "keyspace": "system_traces", "table": "*"},
    {"action": "create-table", "keyspace": "shop", "table": "made"},
    {"action": "use", "keyspace": "shop"},
)


@dataclass
class Net:
    """`front` has the clients."""

    lab: Lab
    node: NodeHandle
    front: Pod
    server: Server
    login: str = ""
    reactor: str = ""

    @property
    def where(self) -> str:
        host, port = self.server.address
        return f"{host}:{port}"

    def argv(self, scenario: str, version: int | str, compression: str, client: str = "driver") -> list[str]:
        words = [self.where, str(version), compression or "-", scenario]
        how = [f"CASSANDRA_LOGIN={self.login}", f"CASSANDRA_REACTOR={self.reactor}"]
        return ["env", *how, sys.executable, str(CLIENTS / f"{client}.py"), *words]

    def run(
        self,
        scenario: str,
        version: int | str = "-",
        compression: str = "",
        client: str = "driver",
        *,
        beside: bool = False,
    ) -> Any:
        """What a scenario of a client gives; `beside` the proxy, if so wanted."""
        argv = self.argv(scenario, version, compression, client)
        done = self.lab.run(self.place(beside), argv, timeout=150, check=False)
        assert done.returncode == 0, f"{done.stderr[-4000:]}{self.node.output.read_text()[-2000:]}{self.records()[-9:]}"
        return json.loads(done.stdout.splitlines()[-1])

    def place(self, beside: bool) -> str:
        """The namespace of clients: in front of the proxy, or beside it."""
        return str(self.server.namespace) if beside else self.front.ns

    @contextmanager
    def running(
        self, scenario: str, version: int | str = "-", compression: str = ""
    ) -> Iterator[subprocess.Popen[str]]:
        """A client that goes on saying things."""
        argv = self.argv(scenario, version, compression)
        with self.lab.popen(self.front.ns, argv, stdout=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    def rules(self, *rules: dict[str, Any], mode: str = "enforce") -> None:
        """Replace the policy."""
        self.node.write_policy(cql_policy(self.server.address[1], rules or RULES, mode=mode))

    def directly(self, statement: str) -> list[Any]:
        """What the server says of it, asked beside the proxy."""
        return list(json.loads(asked(self.server, self.login, statement).splitlines()[-1]))

    def records(self) -> list[dict[str, Any]]:
        """What flow records say of CQL."""
        found = []
        for record in self.node.flows():
            flow = record.get("flow", {})
            own = flow.get("extensions", {}).get("value", {}).get("l7proxy", {})
            if "cassandra" in own:
                found.append({"verdict": flow["verdict"], "reason": own.get("reason"), **own["cassandra"]})
        return found


def cql_policy(port: int, rules: Sequence[dict[str, Any]] = RULES, *, mode: str = "enforce") -> str:
    """The rules on the server's port, for clients in front."""
    ports = [{"port": str(port), "protocol": "TCP"}]
    ingress = {**from_app("front"), "toPorts": [{"ports": ports, "rules": {"cql": list(rules)}}]}
    return policy("cassandra", "cassandra", {"l7proxy.io/mode": mode}, ingress=[ingress])


def asked(running: Server, login: str, *statements: str) -> str:
    """The rows of each, a line for each; asked from within the server's own namespace."""
    code = (
        "import json, sys; from cassandra.cluster import Cluster; from cassandra.auth import PlainTextAuthProvider; "
        "login = sys.argv[3]; auth = PlainTextAuthProvider(login, login) if login else None; "
        "s = Cluster([sys.argv[1]], port=int(sys.argv[2]), connect_timeout=60, auth_provider=auth).connect(); "
        "[print(json.dumps([list(row) for row in s.execute(one, timeout=60)])) for one in json.loads(sys.argv[4])]"
    )
    host, port = running.address
    argv = [sys.executable, "-c", code, host, str(port), login, json.dumps(statements)]
    return netns.run(netns.inside(str(running.namespace), argv), timeout=150).stdout


@contextmanager
def net(login: str = "", **config: Any) -> Iterator[Net]:
    """All of it. `login`: who has to prove it, with the name as the password; else nobody has."""
    with Lab() as lab:
        front, pod = lab.pod("front"), lab.pod("cassandra")
        with server(namespace=pod.ns, host=pod.v4, authorizer=bool(login)) as running:
            asked(running, login, *TABLES)
            node = lab.start_l7proxy(cql_policy(running.address[1]), **config)
            try:
                yield Net(lab, node, front, running, login)
            finally:
                node.stop()  # or what splices would stay in the machine's cgroup
