"""A play in twelve scenes: a Kafka broker without any ACLs, who may write and read what, and what became of the others.

Everything happens in network namespaces made for it and removed afterwards; it can be run again at once. The exit
code is 0 only if everything was as told.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from demo.stage import Stage, Times, line_of, perform
from tests.kafka.broker import Broker, broker, tool
from tests.lab import Lab, Pod
from tests.node import NodeHandle

HERE = Path(__file__).parent
NETWORK = """
  shop     10.77.0.2 ──┐
  billing  10.77.0.3 ──┼── node ── outside
  kafka    10.77.0.4 ──┘
"""
REQUEST_LOG = "-Dorg.slf4j.simpleLogger.log.kafka.request.logger=debug"
TOPICS = ("orders", "orders-eu", "payroll", "prices")
SENDS = 3000
SHOWN = ("PRODUCE", "FETCH", "DELETE_TOPICS")
"""Of the broker's log of requests."""
REFUSED = "Topic authorization failed"


class Play(Stage):
    """The scenes."""

    def __init__(self, lab: Lab, pods: tuple[Pod, Pod, Pod], running: Broker) -> None:
        super().__init__(lab, HERE)
        self.shop, self.billing, self.kafka = pods
        self.broker = running
        self.names = {text_of(number): name for name, number in running.create(*TOPICS).items()}
        self.policy = (HERE / "policies/kafka.yaml").read_text()

    def run(self) -> int:
        """All scenes; how many things were not as told."""
        self.without()
        direct = self.time_sends()
        self.written()
        node = self.starts()
        seen = len(self.broker_log())
        self.allowed()
        self.refused()
        self.in_part()
        self.listed()
        self.changed(node)
        self.what_the_broker_saw(seen)
        self.flow_log(node)
        self.cost(node, direct)
        self.end(node)
        return self.voice.failures

    # -- the scenes ------------------------------------------------------------------------------------------------

    def without(self) -> None:
        self.voice.scene(
            "A broker that refuses nobody",
            "Apache Kafka as it comes out of the box: no logins, no ACLs. Whoever reaches its port reads and writes "
            "all topics, payroll too.",
        )
        print(NETWORK)
        self.kcat(self.shop, "-P -t payroll -b kafka:9092", says="alice: 9000")
        self.kcat(self.billing, "-C -t payroll -b kafka:9092 -e -q", "alice: 9000", "anybody reads what anybody wrote")

    def written(self) -> None:
        self.show_policy(
            "A CiliumNetworkPolicy with Kafka rules: `shop` writes orders and reads prices, `billing` reads orders in "
            "the group `billing`. Nobody is named for payroll.",
            "kafka.yaml",
            "--from app=shop --to app=kafka --port 9092 --kafka Produce --topic prices",
        )

    def starts(self) -> NodeHandle:
        return self.start(
            "On the node. No client gets another bootstrap address, and the broker no other configuration.",
        )

    def allowed(self) -> None:
        self.voice.scene("What is allowed", "It reaches the broker byte for byte, from the client's own address.")
        self.kcat(self.shop, "-P -t orders -b kafka:9092", says="one espresso")
        self.kcat(self.billing, "-G billing -b kafka:9092 -e -q -X auto.offset.reset=earliest orders", "one espresso")

    def refused(self) -> None:
        self.voice.scene(
            "What is refused",
            "Topics, groups, administration. Nobody's connection breaks: each client is told what a broker with ACLs "
            "would tell it, in Kafka's own protocol, and says so in its own words.",
        )
        self.kcat(self.shop, "-C -t payroll -b kafka:9092 -e -q", REFUSED, "librdkafka, of a topic")
        self.kcat(
            self.billing, "-G snoop -b kafka:9092 -e -q orders", "Group authorization failed", "librdkafka, of a group"
        )
        words = "--bootstrap-server kafka:9092 --delete --topic orders"
        self.voice.command("shop", f"kafka-topics.sh {words}")
        done = self.told(self.shop, tool("org.apache.kafka.tools.TopicCommand", *self.real(words).split()))
        first = next((line for line in done.stdout.splitlines() if line.startswith("Error")), done.stdout + done.stderr)
        self.voice.output(first)
        self.voice.check(REFUSED in first, "Kafka's own tool, of deleting a topic", done)

    def in_part(self) -> None:
        self.voice.scene(
            "One request, two topics",
            "A producer sends what is due to a broker in one Produce request. `shop` may read prices, so it knows the "
            "topic, but it may not write it. The broker is asked for the part that is allowed; its answer is completed "
            "with the refusal.",
        )
        self.voice.command("shop", "python send.py kafka:9092 orders prices")
        done = self.python(self.shop, "send.py", self.broker.bootstrap, "orders", "prices")
        self.voice.output(done.stdout + done.stderr)
        stored, _, other = done.stdout.partition("\n")
        self.voice.check(stored.startswith("orders: stored"), "one is stored")
        self.voice.check("TopicAuthorizationFailedError" in other, "the other is refused")

    def listed(self) -> None:
        self.voice.scene(
            "The list of topics", "Who asks for all topics is shown those that it may use. The broker has more."
        )
        self.kcat(self.shop, "-L -b kafka:9092 | grep partitions", "orders", "payroll is not there", lacks="payroll")
        self.kcat(self.kafka, "-L -b kafka:9092 | grep partitions", "payroll", "on the broker itself it is")

    def changed(self, node: NodeHandle) -> None:
        self.voice.scene(
            "The policy changes",
            "A consumer runs. `billing` loses orders, and gets them back. A new policy counts from the next request "
            "on of connections that are open; nobody is cut off, and nobody has to start again.",
        )
        self.voice.command("billing", "python follow.py kafka:9092 billing orders &")
        with self.following(self.billing, "follow.py", self.broker.bootstrap, "billing", "orders") as lines:
            self.hears(lines, "both at once", "it reads on where its group has stopped")
            self.swap(node, "orders", "prices")
            self.hears(lines, REFUSED, "it is refused, and told so")
            self.kcat(self.shop, "-P -t orders -b kafka:9092", says="two espressi")
            self.swap(node, "prices", "orders")
            self.hears(lines, "two espressi", "it goes on, and has missed nothing")

    def what_the_broker_saw(self, since: int) -> None:
        self.voice.scene(
            "What the broker saw", "Its own log of requests, each API and topic once. What was refused never got there."
        )
        self.voice.command("kafka", f"grep -E '{'|'.join(SHOWN)}' request.log | sort -u")
        rows = sorted(set(self.requests(self.broker_log()[since:])))
        self.voice.output("\n".join(f"{api} {topic} (from {who})" for api, topic, who in rows))
        shop, billing = self.shop.v4, self.billing.v4
        wanted = [("FETCH", "orders", billing), ("PRODUCE", "orders", shop)]
        self.voice.check(rows == wanted, "exactly what was allowed, from the clients' own addresses", rows)

    def flow_log(self, node: NodeHandle) -> None:
        self.voice.scene(
            "Why", "One record for each request, in Hubble's JSON, with what became of each topic, and the rule's line."
        )
        node.wait_flows(lambda record: "'Produce'" in str(record), 3)
        done = self.l7proxy("observe", "--from", "shop", "--last", "1", node=node)
        self.voice.check(
            f"kafka.yaml:{line_of(self.policy, 'produce')}" in done.stdout, "the rule that allows it", done
        )
        done = self.l7proxy("observe", "--from", "shop", "--verdict", "DROPPED", "--last", "2", node=node)
        good = "orders DROPPED" in done.stdout and "prices DROPPED, orders client" in done.stdout
        self.voice.check(good, "what was refused of a request, and what was not", done)

    def cost(self, node: NodeHandle, direct: Times) -> None:
        self.voice.scene(
            "What it costs",
            f"{SENDS} messages over one connection, one at a time, each acknowledged, judged and logged.",
        )
        self.compare(node, direct, self.time_sends, SENDS, "message")

    def end(self, node: NodeHandle) -> None:
        self.stop(node)
        self.kcat(self.shop, "-C -t payroll -b kafka:9092 -e -q", "alice: 9000", "anybody reads payroll again")

    # -- props -----------------------------------------------------------------------------------------------------

    def real(self, words: str) -> str:
        """Words of a command with the address of kafka:9092, whose name only the audience knows."""
        return words.replace("kafka:9092", self.broker.bootstrap)

    def kcat(
        self, pod: Pod, words: str, wanted: str = "", told: str = "", *, says: str = "", lacks: str = "\0"
    ) -> None:
        """kcat in a pod, shown with its output, in which `wanted` must be. `says`: what it is to send."""
        line = f"echo {says} | kcat {words}" if says else f"kcat {words}"
        self.voice.command(pod.name, line)
        done = self.told(pod, ["sh", "-c", self.real(line)])
        self.answers(done, done.stdout + done.stderr, wanted, told or ("read" if wanted else "stored"), lacks)

    def swap(self, node: NodeHandle, old: str, new: str) -> None:
        """Another topic for billing."""
        self.edit(node, "kafka.yaml", f"topic: {old}, groups", f"topic: {new}, groups")

    def time_sends(self) -> Times:
        """Median and 99th percentile in microseconds, from shop to the broker."""
        return self.times(self.shop, "kafka.cost", self.broker.bootstrap, "orders-eu", str(SENDS))

    def broker_log(self) -> list[str]:
        """What the broker has written down."""
        return (self.broker.folder / "log").read_text(errors="replace").splitlines()

    def requests(self, lines: list[str]) -> Iterator[tuple[str, str, str]]:
        """(API, topic, client's address) of some of the requests in the broker's log."""
        for line in lines:
            _, found, text = line.partition("Completed request:")
            entry = json.loads(text) if found else {"requestHeader": {"requestApiKeyName": ""}}
            api = entry["requestHeader"]["requestApiKeyName"]
            if api in SHOWN:
                who = entry["connection"].partition("-")[2].rpartition(":")[0]
                for topic in entry["request"]["topicData" if api == "PRODUCE" else "topics"]:
                    name = topic.get("name") or topic.get("topic") or self.names.get(topic.get("topicId", ""))
                    yield api, str(name), who


def text_of(topic_id: bytes) -> str:
    """A topic's id as Kafka writes it."""
    return base64.urlsafe_b64encode(topic_id).decode().rstrip("=")


def play(lab: Lab) -> int:
    """The broker is a pod like the others."""
    shop, billing, kafka = (lab.pod(name) for name in ("shop", "billing", "kafka"))
    with broker(namespace=kafka.ns, host=kafka.v4, port=9092, java=[REQUEST_LOG]) as running:
        return Play(lab, (shop, billing, kafka), running).run()


if __name__ == "__main__":
    sys.exit(perform(play))
