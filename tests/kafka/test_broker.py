"""The broker that other tests of Kafka lean on: it serves real clients, and refuses by its own ACLs."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from tests import netns
from tests.kafka.broker import TOPIC, Broker, broker, tool
from tests.kafka.wire import Closed, framed, request

pytestmark = pytest.mark.privileged


def test_librdkafka(kafka: Broker) -> None:
    from confluent_kafka import Consumer, Producer

    kafka.create("librdkafka")
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce("librdkafka", b"one")
    assert producer.flush(30) == 0
    keys = {"bootstrap.servers": kafka.bootstrap, "group.id": "librdkafka", "auto.offset.reset": "earliest"}
    consumer = Consumer(keys)
    try:
        consumer.subscribe(["librdkafka"])
        (message,) = consumer.consume(1, 30)
        assert message.value() == b"one"
    finally:
        consumer.close()


def test_kafka_python(kafka: Broker) -> None:
    from kafka import KafkaConsumer, KafkaProducer

    kafka.create("kafka-python")
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    producer.send("kafka-python", b"one").get(30)
    producer.close()
    keys = {"bootstrap_servers": kafka.bootstrap, "auto_offset_reset": "earliest", "consumer_timeout_ms": 30000}
    consumer = KafkaConsumer("kafka-python", group_id="kafka-python", **keys)
    assert next(consumer).value == b"one"
    consumer.close()


def test_aiokafka(kafka: Broker) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    async def talk() -> bytes | None:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            await producer.send_and_wait("aiokafka", b"one")
        keys = {"bootstrap_servers": kafka.bootstrap, "auto_offset_reset": "earliest", "group_id": "aiokafka"}
        async with AIOKafkaConsumer("aiokafka", **keys) as consumer:
            return (await asyncio.wait_for(consumer.getone(), 30)).value

    kafka.create("aiokafka")
    assert asyncio.run(talk()) == b"one"


def test_the_client_in_java(kafka: Broker) -> None:
    kafka.create("java")
    producer = tool("org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", kafka.bootstrap, "--topic", "java")
    subprocess.run(producer, input=b"one\n", check=True, timeout=60)
    words = ("--from-beginning", "--max-messages", "1", "--group", "java")
    name = "org.apache.kafka.tools.consumer.ConsoleConsumer"
    consumer = tool(name, "--bootstrap-server", kafka.bootstrap, "--topic", "java", *words)
    assert netns.run(consumer, timeout=60).stdout == "one\n"


def test_users_are_refused_what_nobody_allowed(kafka_acls: Broker) -> None:
    kafka_acls.create("broker-orders", "broker-secret")
    kafka_acls.allow("alice", TOPIC)
    kafka_acls.refuse("alice", TOPIC, "broker-secret")
    found = {}
    for user in (None, "alice", "bob"):
        with kafka_acls.wire(user) as wire:
            topics = [{"name": name} for name in ("broker-orders", "broker-secret")]
            found[user] = [row["error_code"] for row in wire.ask("Metadata", 12, {"topics": topics})["topics"]]
    assert {user: sorted(codes) for user, codes in found.items()} == {None: [0, 0], "alice": [0, 29], "bob": [29, 29]}


def test_a_closed_connection_and_one_that_waits_are_told_apart(kafka: Broker) -> None:
    with kafka.wire() as wire:
        assert wire.silent(0.1)
        wire.put(framed(b"\x7f\xff" + request(3, 0, b"")[2:]))
        with pytest.raises(Closed):
            wire.receive()
        assert not wire.silent(5)


def test_a_broker_in_a_namespace() -> None:
    name = f"kafka-{os.getpid()}"
    netns.add(name)
    try:
        with broker(namespace=name, host="::1") as running, running.wire() as wire:
            (node,) = wire.ask("Metadata", 9, {"topics": []})["brokers"]
            assert (node["host"], node["port"]) == running.address
            assert running.process.pid in netns.members(name)
        assert netns.members(name) == []
    finally:
        netns.delete(name)
