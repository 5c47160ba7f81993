"""aiokafka; see shared.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import shared
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from shared import ACKS, LOGIN, TIMEOUT

_KINDS: dict[str, dict[str, Any]] = {kind: {"acks": acks} for kind, acks in ACKS.items()}
_KINDS |= {"idempotent": {"enable_idempotence": True}, "gzip": {"compression_type": "gzip"}}
_LOGIN: dict[str, Any] = {}
if LOGIN is not None:
    _LOGIN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    _LOGIN |= {"sasl_plain_username": LOGIN, "sasl_plain_password": LOGIN}


async def _attempt(action: Awaitable[Any]) -> str:
    try:
        await asyncio.wait_for(action, TIMEOUT)
        return "ok"
    except KafkaError as error:
        return type(error).__name__


async def _send(bootstrap: str, topic: str, value: bytes, **keys: Any) -> str:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **_LOGIN, **keys) as producer:
        return await _attempt(producer.send_and_wait(topic, value))


async def _read(bootstrap: str, topics: list[str], count: int, group: str | None, **keys: Any) -> list[str]:
    """So many values or errors, none twice, sorted. Without a group: of the first partitions."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", **_LOGIN, **keys
    )
    found: set[str] = set()

    async def read() -> None:
        await consumer.start()
        if group is None:
            consumer.assign([TopicPartition(topic, 0) for topic in topics])
        else:
            consumer.subscribe(topics)
        while len(found) < count:
            try:
                found.add((await consumer.getone()).value.decode().strip())
            except KafkaError as error:
                found.add(type(error).__name__)

    try:
        found |= {name} if (name := await _attempt(read())) != "ok" else set()
    finally:
        await consumer.stop()
    return sorted(found)


async def kinds(bootstrap: str, name: str) -> Any:
    """Every kind of acks, and what a group reads of it."""
    topic = f"open-{name}"
    sent = {kind: await _send(bootstrap, topic, kind.ljust(2000).encode(), **keys) for kind, keys in _KINDS.items()}
    return {"sent": sent, "classic": await _read(bootstrap, [topic], len(_KINDS), topic)}


async def transactions(bootstrap: str, name: str) -> Any:
    """Read and write in transactions, of which one is aborted."""
    there, here, group = f"open-{name}-in", f"open-{name}-out", f"open-{name}-txn"
    await _send(bootstrap, there, b"input")
    keys = {"bootstrap_servers": bootstrap, "group_id": group, "enable_auto_commit": False}
    async with (
        AIOKafkaConsumer(there, auto_offset_reset="earliest", **keys) as source,
        AIOKafkaProducer(bootstrap_servers=bootstrap, **_LOGIN, transactional_id=f"open-{name}") as producer,
    ):
        message = await asyncio.wait_for(source.getone(), TIMEOUT)
        for value in ("one", "aborted", "two"):
            await producer.begin_transaction()
            await producer.send_and_wait(here, value.encode())
            if value == "one":
                offsets = {TopicPartition(there, 0): message.offset + 1}
                await producer.send_offsets_to_transaction(offsets, group)
            if value == "aborted":
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
        committed = await source.committed(TopicPartition(there, 0))
    out = await _read(bootstrap, [here], 2, f"open-{name}-out", isolation_level="read_committed")
    return {"out": out, "committed": committed}


async def refused(bootstrap: str, name: str) -> Any:
    """What clients are told of names that they may not use."""
    transactional = AIOKafkaProducer(bootstrap_servers=bootstrap, **_LOGIN, transactional_id=f"secret-{name}")
    return {
        "produce": await _send(bootstrap, f"secret-{name}", b"x"),
        "produce to what may be read": await _send(bootstrap, f"read-{name}", b"x"),
        "produce on": await _send(bootstrap, f"open-{name}", b"x"),
        "consume": await _read(bootstrap, [f"write-{name}"], 1, None),
        "group": await _read(bootstrap, [f"open-{name}"], 1, f"secret-{name}"),
        "transaction": await _attempt(transactional.start()),
    }


async def mixed(bootstrap: str, name: str) -> Any:
    """Two topics in one request, of which one is refused."""
    topics = [f"open-{name}-mixed", f"read-{name}"]
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **_LOGIN, linger_ms=50) as producer:
        await asyncio.gather(*map(producer.partitions_for, topics))
        sent = [await producer.send(topic, b"mixed") for topic in topics]
        told = {topic: await _attempt(future) for topic, future in zip(topics, sent, strict=True)}
    return {"produce": told, "consume": await _read(bootstrap, [topics[0], f"write-{name}"], 2, None)}


async def admin(bootstrap: str, name: str) -> Any:
    """Topics listed, made, described and deleted, or not. Codes are those of the protocol."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **_LOGIN)
    await client.start()
    try:
        names = [f"open-{name}-made", f"secret-{name}-made"]
        listed = await client.list_topics()
        created = await client.create_topics([NewTopic(one, 1, 1) for one in names])
        some = [ConfigResource(ConfigResourceType.TOPIC, one) for one in (f"open-{name}", f"secret-{name}")]
        described = (await client.describe_configs(some))[0].resources
        deleted = await client.delete_topics(names)
        return {
            "create": {row[0]: row[1] for row in created.topic_errors},
            "describe": {row[3]: row[0] for row in described},
            "list": sorted(listed),
            "delete": {row[0]: row[1] for row in deleted.topic_error_codes},
        }
    finally:
        await client.close()


async def large(bootstrap: str, name: str) -> Any:
    """20 MB in one batch, there and back."""
    topic, value = f"open-{name}-large", shared.large()
    sent = await _send(bootstrap, topic, value, max_request_size=2 * shared.LARGE)
    keys = {"max_partition_fetch_bytes": 2 * shared.LARGE, "auto_offset_reset": "earliest"}
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, **_LOGIN, **keys) as consumer:
        message = await asyncio.wait_for(consumer.getone(), TIMEOUT)
    return [sent, shared.digest(message.value) == shared.digest(value)]


async def watch(bootstrap: str, name: str) -> None:
    """Say what comes, for ever."""
    topic = f"open-{name}-watch"
    keys = {"group_id": topic, "auto_offset_reset": "earliest", "metadata_max_age_ms": 1000}
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, **_LOGIN, **keys) as consumer:
        while True:
            try:
                shared.say((await consumer.getone()).value.decode())
            except KafkaError as error:
                shared.say(type(error).__name__)
                await asyncio.sleep(0.1)


if __name__ == "__main__":
    shared.main({one.__name__: one for one in (kinds, transactions, refused, mixed, admin, large, watch)})
