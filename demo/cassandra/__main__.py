"""A play in twelve scenes: a Cassandra without any logins, who may read and write what, and what became of the others.

Everything happens in network namespaces made for it and removed afterwards; it can be run again at once. The exit
code is 0 only if everything was as told.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from demo.stage import Stage, Times, line_of, perform
from tests.cassandra.server import Server, server
from tests.lab import Lab, Pod
from tests.node import NodeHandle

HERE = Path(__file__).parent
NETWORK = """
  shop       10.77.0.2 ──┐
  reports    10.77.0.3 ──┼── node ── outside
  cassandra  10.77.0.4 ──┘
"""
CQLSH = str(Path(sys.executable).with_name("cqlsh"))
AUDIT = {"audit_logging_options": {"enabled": True, "logger": [{"class_name": "FileAuditLogger"}]}}
SETUP = (
    "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
    "CREATE TABLE shop.orders (id int PRIMARY KEY, item text)",
    "CREATE TABLE shop.prices (item text PRIMARY KEY, cents int)",
    "CREATE TABLE shop.cards (id int PRIMARY KEY, number text)",
    "INSERT INTO shop.prices (item, cents) VALUES ('espresso', 180)",
)
EXECUTES = 3000
_NOISE = "cqlsh was built against"
"""What it says of the server's version whenever it starts."""
REFUSED = "Unauthorized"
REASON = "ask the payments team (#cards)"


class Play(Stage):
    """The scenes."""

    def __init__(self, lab: Lab, pods: tuple[Pod, Pod, Pod], running: Server) -> None:
        super().__init__(lab, HERE)
        self.shop, self.reports, self.cassandra = pods
        self.server = running
        self.told(self.cassandra, self.cqlsh_argv("; ".join(SETUP)))

    def run(self) -> int:
        """All scenes; how many things were not as told."""
        self.without()
        direct = self.time_executes()
        self.written()
        node = self.starts()
        seen = len(self.statements())
        self.allowed()
        self.refused()
        self.tricks()
        self.batch()
        self.changed(node)
        self.what_the_server_saw(seen)
        self.flow_log(node)
        self.cost(node, direct)
        self.end(node)
        return self.voice.failures

    # -- the scenes ------------------------------------------------------------------------------------------------

    def without(self) -> None:
        self.voice.scene(
            "A server that refuses nobody",
            "Apache Cassandra as it comes out of the box: no logins, no permissions. Whoever reaches its port reads "
            "and writes all tables, the cards of the customers too.",
        )
        print(NETWORK)
        self.cqlsh(self.shop, "INSERT INTO shop.cards (id, number) VALUES (1, '4929 1111')", told="written")
        self.cqlsh(self.reports, "SELECT * FROM shop.cards", "4929 1111", "anybody reads what anybody wrote")

    def written(self) -> None:
        self.show_policy(
            "A CiliumNetworkPolicy with CQL rules: `shop` reads and writes orders and reads prices, `reports` reads "
            "orders. Nobody is named for cards.",
            "cassandra.yaml",
            "--from app=shop --to app=cassandra --port 9042 --cql 'TRUNCATE shop.prices'",
        )

    def starts(self) -> NodeHandle:
        return self.start(
            "On the node. No client gets another address or a login, and the server no other configuration.",
        )

    def allowed(self) -> None:
        self.voice.scene("What is allowed", "It reaches the server byte for byte, from the client's own address.")
        self.cqlsh(self.shop, "INSERT INTO shop.orders (id, item) VALUES (1, 'espresso')", told="written")
        self.cqlsh(self.reports, "SELECT * FROM shop.orders", "espresso", "read")

    def refused(self) -> None:
        self.voice.scene(
            "What is refused",
            "Another table, another action, another kind of object. Nobody's connection breaks: each client is told "
            "what a server with permissions would tell it, with the reason that the policy gives.",
        )
        self.cqlsh(self.reports, "SELECT * FROM shop.cards", REASON, "another table", lacks="4929")
        self.cqlsh(self.reports, "UPDATE shop.orders SET item = 'tea' WHERE id = 1", REFUSED, "another action")
        self.cqlsh(self.shop, "DROP KEYSPACE shop", REFUSED, "the keyspace, with all that is in it")

    def tricks(self) -> None:
        self.voice.scene(
            "Words that say one thing and do another",
            "Cassandra would run each of them, on the cards. They are judged by what it would do with them.",
        )
        for text in (
            'SELECT*FROM/* shop.orders */"shop"."cards"',
            "SELECT JSON * FROM SHOP.CARDS WHERE number = 'FROM shop.orders' ALLOW FILTERING",
            "INSERT INTO shop.cards (id, number) VALUES (1, $$ INTO shop.orders $$)",
        ):
            self.cqlsh(self.shop, text, REFUSED, "refused", lacks="4929")

    def batch(self) -> None:
        self.voice.scene(
            "A batch",
            "Two statements in one request: an order, which `shop` may write and has prepared, and a card, which it "
            "may not. A batch is all or nothing in Cassandra, and so it is here.",
        )
        self.voice.command("shop", "python buy.py cassandra 2 cortado '4929 2222'")
        done = self.python(self.shop, "buy.py", self.cassandra.v4, "2", "cortado", "4929 2222")
        self.voice.output(done.stdout + done.stderr)
        self.voice.check(done.stdout.startswith(REFUSED), "the whole of it is refused", done)
        self.cqlsh(self.cassandra, "SELECT * FROM shop.orders", "espresso", "and nothing was written", lacks="cortado")

    def changed(self, node: NodeHandle) -> None:
        self.voice.scene(
            "The policy changes",
            "A session runs, with a statement that it has prepared once. `reports` loses orders, and gets them back. "
            "A new policy counts from the next request on of connections that are open: nobody connects or prepares "
            "again.",
        )
        self.voice.command("reports", "python watch.py cassandra &")
        with self.following(self.reports, "watch.py", self.cassandra.v4) as lines:
            self.hears(lines, "espresso", "it reads")
            self.swap(node, "orders", "prices")
            self.hears(lines, REFUSED, "it is refused, and told so")
            self.swap(node, "prices", "orders")
            self.hears(lines, "espresso", "it goes on")

    def what_the_server_saw(self, since: int) -> None:
        self.voice.scene(
            "What the server saw", "Its own audit log, each statement once. What was refused never got there."
        )
        self.voice.command("cassandra", "grep 'ks:shop' audit.log | sort -u")
        rows = sorted(set(self.statements()[since:]))
        self.voice.output("\n".join(f"{text} (from {who})" for text, who in rows))
        own = {who for _, who in rows} - {self.cassandra.v4}
        good = not any("cards" in text for text, _ in rows) and own == {self.shop.v4, self.reports.v4}
        self.voice.check(good, "nothing of cards, and the clients' own addresses", rows)
        self.cqlsh(self.cassandra, "SELECT * FROM shop.cards", "4929 1111", "its table is as it was", lacks="2222")

    def flow_log(self, node: NodeHandle) -> None:
        self.voice.scene(
            "Why",
            "One record for each request, in Hubble's JSON, with what the statement does and the rule's line. "
            "No record has what stands in a statement, or is bound to it.",
        )
        node.wait_flows(lambda record: "'BATCH'" in str(record))
        policy = (HERE / "policies/cassandra.yaml").read_text()
        rule = f"cassandra.yaml:{line_of(policy, 'action: select, keyspace: shop, table: orders')}"
        done = self.l7proxy("observe", "--from", "reports", "--verdict", "FORWARDED", "--last", "1", node=node)
        self.voice.check(rule in done.stdout, "the rule that allows it", done)
        done = self.l7proxy("observe", "--from", "shop", "--verdict", "DROPPED", "--last", "1", node=node)
        self.voice.check("BATCH" in done.stdout and "shop.cards" in done.stdout, "and why not", done)

    def cost(self, node: NodeHandle, direct: Times) -> None:
        self.voice.scene(
            "What it costs",
            f"A prepared statement, executed {EXECUTES} times over one connection, one at a time, judged and logged.",
        )
        self.compare(node, direct, self.time_executes, EXECUTES, "statement")

    def end(self, node: NodeHandle) -> None:
        self.stop(node)
        self.cqlsh(self.reports, "SELECT * FROM shop.cards", "4929 1111", "anybody reads the cards again")

    # -- props -----------------------------------------------------------------------------------------------------

    def cqlsh_argv(self, text: str) -> list[str]:
        """Its home is a folder that goes when the play is over."""
        patience = ["--connect-timeout=30", "--request-timeout=30"]  # for busy machines
        return ["env", f"HOME={self.lab.folder}", CQLSH, "--no-color", *patience, self.cassandra.v4, "-e", text]

    def cqlsh(self, pod: Pod, text: str, wanted: str = "", told: str = "", *, lacks: str = "\0") -> None:
        """cqlsh in a pod, shown with its output but for `_NOISE`, in which `wanted` must be."""
        quoted = text.replace('"', '\\"').replace("$", "\\$")
        self.voice.command(pod.name, f'cqlsh cassandra -e "{quoted}"')
        done = self.told(pod, self.cqlsh_argv(text))
        lines = (line for line in (done.stdout + done.stderr).splitlines() if line.strip() and _NOISE not in line)
        self.answers(done, "\n".join(lines), wanted, told, lacks)

    def swap(self, node: NodeHandle, old: str, new: str) -> None:
        """Another table for reports."""
        rule = "action: select, keyspace: shop, table: "
        self.edit(node, "cassandra.yaml", rule + old, rule + new)

    def time_executes(self) -> Times:
        """From shop to the server."""
        return self.times(self.shop, "cassandra.cost", self.cassandra.v4, str(EXECUTES))

    def statements(self) -> list[tuple[str, str]]:
        """(text, client's address) of the statements on the shop's tables in the server's audit log."""
        return list(self._audited((self.server.folder / "log").read_text(errors="replace")))

    def _audited(self, log: str) -> Iterator[tuple[str, str]]:
        expression = r"FileAuditLogger .*source:/([^|]+)\|.*\|ks:shop\|scope:\w+\|operation:([^\n|]+)"
        for who, text in re.findall(expression, log):
            yield text.strip(), who


def play(lab: Lab) -> int:
    """The server is a pod like the others."""
    shop, reports, cassandra = (lab.pod(name) for name in ("shop", "reports", "cassandra"))
    with server(namespace=cassandra.ns, host=cassandra.v4, port=9042, settings=AUDIT) as running:
        return Play(lab, (shop, reports, cassandra), running).run()


if __name__ == "__main__":
    sys.exit(perform(play))
