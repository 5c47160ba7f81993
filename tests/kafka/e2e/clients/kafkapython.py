"""kafka-python; see shared.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import shared
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from shared import ACKS, LOGIN, TIMEOUT

_KINDS: dict[str, dict[str, Any]] = {kind: {"acks": acks, "enable_idempotence": False} for kind, acks in ACKS.items()}
_KINDS |= {"idempotent": {"enable_idempotence": True}, "gzip": {"compression_type": "gzip"}}
_LOGIN: dict[str, Any] = {}
if LOGIN is not None:
    _LOGIN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    _LOGIN |= {"sasl_plain_username": LOGIN, "sasl_plain_password": LOGIN}


def _attempt(action: Callable[[], Any]) -> str:
    try:
        action()
        return "ok"
    except KafkaError as error:
        return type(error).__name__


def _send(bootstrap: str, topic: str, value: bytes, **keys: Any) -> str:
    producer = KafkaProducer(bootstrap_servers=bootstrap, **_LOGIN, **keys)
    found = _attempt(lambda: producer.send(topic, value).get(TIMEOUT))
    producer.close()
    return found


def _read(bootstrap: str, topics: list[str], count: int, group: str | None, **keys: Any) -> list[str]:
    """So many values or errors, none twice, sorted. Without a group: of the first partitions."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, **_LOGIN, group_id=group, auto_offset_reset="earliest", **keys
    )
    if group is None:
        consumer.assign([TopicPartition(topic, 0) for topic in topics])
    else:
        consumer.subscribe(topics)
    found: set[str] = set()
    end = time.monotonic() + TIMEOUT
    while len(found) < count and time.monotonic() < end:
        try:
            found |= {one.value.decode().strip() for some in consumer.poll(500).values() for one in some}
        except KafkaError as error:
            found.add(type(error).__name__)
    consumer.close()
    return sorted(found)


def kinds(bootstrap: str, name: str) -> Any:
    """Every kind of acks, and what a group reads of it."""
    topic = f"open-{name}"
    sent = {kind: _send(bootstrap, topic, kind.ljust(2000).encode(), **keys) for kind, keys in _KINDS.items()}
    return {"sent": sent, "classic": _read(bootstrap, [topic], len(_KINDS), topic)}


def transactions(bootstrap: str, name: str) -> Any:
    """Read and write in transactions, of which one is aborted."""
    there, here = f"open-{name}-in", f"open-{name}-out"
    _send(bootstrap, there, b"input")
    keys = {"bootstrap_servers": bootstrap, "group_id": f"open-{name}-txn", "enable_auto_commit": False}
    source = KafkaConsumer(there, auto_offset_reset="earliest", consumer_timeout_ms=1000 * TIMEOUT, **keys)
    message = next(source)
    producer = KafkaProducer(bootstrap_servers=bootstrap, **_LOGIN, transactional_id=f"open-{name}")
    producer.init_transactions()
    for value in ("one", "aborted", "two"):
        producer.begin_transaction()
        producer.send(here, value.encode()).get(TIMEOUT)
        if value == "one":
            offsets = {TopicPartition(there, 0): OffsetAndMetadata(message.offset + 1, "", -1)}
            producer.send_offsets_to_transaction(offsets, source.group_metadata())
        if value == "aborted":
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    committed = source.committed(TopicPartition(there, 0))
    source.close()
    producer.close()
    out = _read(bootstrap, [here], 2, f"open-{name}-out", isolation_level="read_committed")
    return {"out": out, "committed": committed}


def refused(bootstrap: str, name: str) -> Any:
    """What clients are told of names that they may not use."""
    transactional = KafkaProducer(bootstrap_servers=bootstrap, **_LOGIN, transactional_id=f"secret-{name}")
    return {
        "produce": _send(bootstrap, f"secret-{name}", b"x"),
        "produce to what may be read": _send(bootstrap, f"read-{name}", b"x"),
        "produce on": _send(bootstrap, f"open-{name}", b"x"),
        "consume": _read(bootstrap, [f"write-{name}"], 1, None),
        "group": _read(bootstrap, [f"open-{name}"], 1, f"secret-{name}"),
        "transaction": _attempt(transactional.init_transactions),
    }


def mixed(bootstrap: str, name: str) -> Any:
    """Two topics in one request, of which one is refused."""
    topics = [f"open-{name}-mixed", f"read-{name}"]
    producer = KafkaProducer(bootstrap_servers=bootstrap, **_LOGIN, linger_ms=50)
    for topic in topics:
        producer.partitions_for(topic)
    sent = {topic: producer.send(topic, b"mixed") for topic in topics}
    told = {topic: _attempt(partial(one.get, TIMEOUT)) for topic, one in sent.items()}
    producer.close()
    return {"produce": told, "consume": _read(bootstrap, [topics[0], f"write-{name}"], 2, None)}


def _described(client: KafkaAdminClient, topic: str) -> Any:
    """Settings of a topic; none if this is refused, of which this client says nothing."""
    return client.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")["topic"][topic]


def admin(bootstrap: str, name: str) -> Any:
    """Topics listed, made, described and deleted, or not."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap, **_LOGIN)
    names = [f"open-{name}-made", f"secret-{name}-made"]
    new = {"num_partitions": 1, "replication_factor": 1}
    made = {
        "list": sorted(client.list_topics()),
        "create": {one: _attempt(partial(client.create_topics, {one: new})) for one in names},
        "describe": {one: "ok" if _described(client, one) else "nothing" for one in (f"open-{name}", f"secret-{name}")},
        "delete": {one: _attempt(partial(client.delete_topics, [one])) for one in names},
    }
    client.close()
    return made


def large(bootstrap: str, name: str) -> Any:
    """20 MB in one batch, there and back."""
    topic, value = f"open-{name}-large", shared.large()
    sent = _send(bootstrap, topic, value, max_request_size=2 * shared.LARGE)
    keys = {"max_partition_fetch_bytes": 2 * shared.LARGE, "consumer_timeout_ms": 1000 * TIMEOUT}
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, **_LOGIN, auto_offset_reset="earliest", **keys)
    same = shared.digest(next(consumer).value) == shared.digest(value)
    consumer.close()
    return [sent, same]


def watch(bootstrap: str, name: str) -> None:
    """Say what comes, for ever."""
    topic = f"open-{name}-watch"
    keys = {"group_id": topic, "auto_offset_reset": "earliest", "metadata_max_age_ms": 1000}
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, **_LOGIN, **keys)
    while True:
        try:
            for some in consumer.poll(500).values():
                for one in some:
                    shared.say(one.value.decode())
        except KafkaError as error:
            shared.say(type(error).__name__)
            time.sleep(0.1)


if __name__ == "__main__":
    shared.main({one.__name__: one for one in (kinds, transactions, refused, mixed, admin, large, watch)})
