"""librdkafka; see shared.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import shared
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from shared import ACKS, LOGIN, TIMEOUT

_KINDS: dict[str, dict[str, Any]] = {kind: {"acks": acks} for kind, acks in ACKS.items()}
_KINDS |= {"idempotent": {"enable.idempotence": True}}
_KINDS |= {kind: {"compression.type": kind} for kind in ("gzip", "snappy", "lz4", "zstd")}


def _keys(bootstrap: str) -> dict[str, Any]:
    keys: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 0}
    if LOGIN is None:
        return keys
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
    return keys | login | {"sasl.username": LOGIN, "sasl.password": LOGIN}


def _producer(bootstrap: str, **keys: Any) -> Producer:
    return Producer(_keys(bootstrap) | {key.replace("_", "."): value for key, value in keys.items()})


def _consumer(bootstrap: str, group: str, **keys: Any) -> Consumer:
    base = _keys(bootstrap) | {"group.id": group, "auto.offset.reset": "earliest"}
    return Consumer(base | {key.replace("_", "."): value for key, value in keys.items()})


def _read(consumer: Consumer, topics: list[str], count: int) -> list[str]:
    """So many values, sorted; errors are among them."""
    consumer.subscribe(topics)
    found: list[str] = []
    end = time.monotonic() + TIMEOUT
    while len(found) < count and time.monotonic() < end:
        message = consumer.poll(1)
        if message is not None:
            error = message.error()
            found.append(error.name() if error else message.value().decode()[:20])
    consumer.close()
    return sorted(found)


def _send(producer: Producer, topic: str, value: bytes) -> str:
    """An error's name, or ``NO_ERROR``."""
    told: list[KafkaError | None] = []
    producer.produce(topic, value, on_delivery=lambda error, _: told.append(error))
    producer.flush(TIMEOUT)
    (error,) = told
    return "NO_ERROR" if error is None else error.name()


def _attempt(action: Callable[[], Any]) -> Any:
    try:
        found = action()
        return "NO_ERROR" if found is None else found
    except KafkaException as error:
        return error.args[0].name()


def kinds(bootstrap: str, name: str) -> Any:
    """Every kind of acks and compression, and what two kinds of groups read of it."""
    topic, sent = f"open-{name}", {}
    for kind, keys in _KINDS.items():
        producer = _producer(bootstrap, client_id=f"{name}-{kind}", **keys)
        sent[kind] = _send(producer, topic, kind.ljust(2000).encode())
    groups = {
        kind: [
            value.strip()
            for value in _read(_consumer(bootstrap, f"{topic}-{kind}", group_protocol=kind), [topic], len(_KINDS))
        ]
        for kind in ("classic", "consumer")
    }
    return {"sent": sent, **groups}


def transactions(bootstrap: str, name: str) -> Any:
    """Read and write in transactions, of which one is aborted."""
    there, here = f"open-{name}-in", f"open-{name}-out"
    _send(_producer(bootstrap), there, b"input")
    source = _consumer(bootstrap, f"open-{name}-txn", enable_auto_commit=False)
    source.subscribe([there])
    (message,) = source.consume(1, TIMEOUT)
    producer = _producer(bootstrap, transactional_id=f"open-{name}")
    producer.init_transactions(TIMEOUT)
    for value in ("one", "aborted", "two"):
        producer.begin_transaction()
        producer.produce(here, value.encode())
        if value == "one":
            offsets = [TopicPartition(there, 0, message.offset() + 1)]
            producer.send_offsets_to_transaction(offsets, source.consumer_group_metadata(), TIMEOUT)
        if value == "aborted":
            producer.flush(TIMEOUT)
            producer.abort_transaction(TIMEOUT)
        else:
            producer.commit_transaction(TIMEOUT)
    (committed,) = source.committed([TopicPartition(there, 0)], TIMEOUT)
    source.close()
    out = _read(_consumer(bootstrap, f"open-{name}-out", isolation_level="read_committed"), [here], 2)
    return {"out": out, "committed": committed.offset}


def refused(bootstrap: str, name: str) -> Any:
    """What clients are told of names that they may not use."""
    producer = _producer(bootstrap)
    transactional = _producer(bootstrap, transactional_id=f"secret-{name}")
    return {
        "produce": _send(producer, f"secret-{name}", b"x"),
        "produce to what may be read": _send(producer, f"read-{name}", b"x"),
        "produce on": _send(producer, f"open-{name}", b"x"),
        "consume": _read(_consumer(bootstrap, f"open-{name}-refused"), [f"secret-{name}"], 1),
        "group": _read(_consumer(bootstrap, f"secret-{name}"), [f"open-{name}"], 1),
        "transaction": _attempt(lambda: transactional.init_transactions(TIMEOUT)),
    }


def mixed(bootstrap: str, name: str) -> Any:
    """Two topics at a time, of which one is refused."""
    producer = _producer(bootstrap, linger_ms=50)
    told: dict[str, str] = {}
    names = [f"open-{name}-mixed", f"read-{name}"]
    for topic in names:
        producer.produce(
            topic,
            b"mixed",
            on_delivery=lambda error, message: told.update({message.topic(): error.name() if error else "NO_ERROR"}),
        )
    producer.flush(TIMEOUT)
    reads = _read(_consumer(bootstrap, f"open-{name}-two"), [names[0], f"secret-{name}"], 2)
    return {"produce": told, "consume": reads}


def admin(bootstrap: str, name: str) -> Any:
    """Topics made, listed, described and deleted, or not."""
    client = AdminClient(_keys(bootstrap))
    names = [f"open-{name}-made", f"secret-{name}-made"]

    def all_of(futures: Any) -> dict[str, Any]:
        return {
            str(getattr(key, "name", key)): _attempt(lambda one=one: one.result(TIMEOUT) and None)
            for key, one in futures.items()
        }

    described = [ConfigResource(ResourceType.TOPIC, one) for one in (f"open-{name}", f"secret-{name}")]
    return {
        "list": sorted(client.list_topics(timeout=TIMEOUT).topics),
        "create": all_of(client.create_topics([NewTopic(one, 1, 1) for one in names])),
        "describe": {key: value for one in described for key, value in all_of(client.describe_configs([one])).items()},
        "delete": all_of(client.delete_topics(names)),
    }


def large(bootstrap: str, name: str) -> Any:
    """20 MB in one batch, there and back."""
    topic = f"open-{name}-large"
    size = 2 * shared.LARGE
    producer = _producer(bootstrap, message_max_bytes=size)
    value = shared.large()
    sent = _send(producer, topic, value)
    keys = {"fetch_message_max_bytes": size, "fetch_max_bytes": size, "receive_message_max_bytes": size + 1000}
    consumer = _consumer(bootstrap, topic, **keys)
    consumer.subscribe([topic])
    (message,) = consumer.consume(1, TIMEOUT)
    same = shared.digest(message.value()) == shared.digest(value)
    consumer.close()
    return [sent, same]


def watch(bootstrap: str, name: str, protocol: str = "classic") -> None:
    """Say what comes, for ever."""
    keys = {"topic_metadata_refresh_interval_ms": 1000, "group_protocol": protocol}
    consumer = _consumer(bootstrap, f"open-{name}-watch", **keys)
    consumer.subscribe([f"open-{name}-watch"])
    while True:
        message = consumer.poll(1)
        if message is not None:
            shared.say(message.error().name() if message.error() else message.value().decode())


def watch_new(bootstrap: str, name: str) -> None:
    """The same in a group of the new kind."""
    watch(bootstrap, name, "consumer")


def steady(bootstrap: str, name: str) -> None:
    """Send one message after the other, each once the one before is stored; say how many were, and each other end."""
    producer = _producer(bootstrap, client_id=f"{name}-steady", linger_ms=0, topic_metadata_refresh_interval_ms=500)
    count = 0
    while True:
        found = _attempt(lambda size=count % 400: _send(producer, f"open-{name}-in", b"x" * size))
        count += found == "NO_ERROR"
        if found != "NO_ERROR" or count % 100 == 0:
            shared.say([count, found])
            time.sleep(0 if found == "NO_ERROR" else 0.05)


if __name__ == "__main__":
    shared.main(
        {one.__name__: one for one in (kinds, transactions, refused, mixed, admin, large, watch, watch_new, steady)}
    )
