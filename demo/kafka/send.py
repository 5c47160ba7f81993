"""Sends a message to each of some topics, all in one request, and says what became of each: send.py BROKER TOPIC..."""

from __future__ import annotations

import sys

from kafka import KafkaProducer
from kafka.errors import KafkaError


def main(broker: str, topics: list[str]) -> None:
    """What waits for 500 ms goes to a broker in one Produce request."""
    producer = KafkaProducer(bootstrap_servers=broker, linger_ms=500)
    for topic in topics:
        producer.partitions_for(topic)
    futures = {topic: producer.send(topic, b"both at once") for topic in topics}
    for topic, future in futures.items():
        try:
            print(f"{topic}: stored at offset {future.get(30).offset}")
        except KafkaError as error:
            print(f"{topic}: {error}")
    producer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
