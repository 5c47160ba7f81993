"""Times messages that are sent one at a time, each acknowledged: prints the median and the 99th percentile in
microseconds. cost.py BROKER TOPIC COUNT"""

from __future__ import annotations

import sys
from time import perf_counter

from kafka.record import MemoryRecordsBuilder

from demo.stage import percentiles
from parsers.kafka_codec import encode
from parsers.kafka_schema import BY_NAME, REQUEST
from tests.kafka.wire import Wire

PRODUCE, VERSION = BY_NAME["produce"].key, 9


def main(broker: str, topic: str, count: int) -> None:
    """Send `count` times, the first half to warm up."""
    batch = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=1000)
    batch.append(None, None, b"x" * 100)
    batch.close()
    partition = {"index": 0, "records": bytes(batch.buffer())}
    tree = {"acks": -1, "timeout": 10000, "topic_data": [{"name": topic, "partition_data": [partition]}]}
    body, times = encode(PRODUCE, VERSION, REQUEST, tree), []
    host, _, port = broker.rpartition(":")
    with Wire((host, int(port))) as wire:
        for _ in range(count):
            began = perf_counter()
            wire.send(PRODUCE, VERSION, body)
            wire.receive()
            times.append((perf_counter() - began) * 1e6)
    print(percentiles(times[count // 2 :]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
