"""A consumer that goes on whatever it is told: follow.py BROKER GROUP TOPIC"""

from __future__ import annotations

import sys

from confluent_kafka import Consumer


def main(broker: str, group: str, topic: str) -> None:
    """Print each message and each error."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    while True:
        message = consumer.poll(1.0)
        if message is not None:
            print(message.error().str() if message.error() else message.value().decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
