"""What stands behind librdkafka's request for all topics is what is let through there (`parsers.kafka`)."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, KafkaException

from parsers.kafka import read_head, response
from parsers.kafka_codec import decode
from parsers.kafka_schema import REQUEST

API_VERSIONS, METADATA = 18, 3


@contextmanager
def old_broker(version: int) -> Iterator[tuple[str, list[bytes]]]:
    """A broker that knows Metadata up to this version alone: its address, and the Metadata requests that it gets."""
    seen: list[bytes] = []

    class Answers(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while len(size := self.rfile.read(4)) == 4:
                frame = size + self.rfile.read(*struct.unpack(">i", size))
                head = read_head(frame, 4, len(frame))
                if head.api_key == API_VERSIONS:
                    known = ((API_VERSIONS, 0, 3), (METADATA, 0, version), (0, 3, 9), (1, 4, 12))
                    rows = [{"api_key": key, "min_version": low, "max_version": high} for key, low, high in known]
                    self.wfile.write(response(head, {"api_keys": rows}))
                    continue
                if head.api_key != METADATA:
                    continue
                seen.append(frame)
                brokers = [{"node_id": 1, "host": "127.0.0.1", "port": port}]
                self.wfile.write(response(head, {"brokers": brokers, "cluster_id": "c", "controller_id": 1}))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{port}", seen
        finally:
            server.shutdown()


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("version", [8, 9, 10, 11, 12, 13])
def test_its_request_for_all_topics_is_read(version: int, create: bool) -> None:
    keys = {"group.id": "g", "allow.auto.create.topics": create, "log_level": 0}
    with old_broker(version) as (address, seen):
        client = Consumer({"bootstrap.servers": address, **keys})
        try:
            client.list_topics(timeout=20)
        except KafkaException as error:
            raise AssertionError(f"no answer: {error}") from error
        finally:
            client.close()
    behind = set()
    for frame in seen:
        head = read_head(frame, 4, len(frame))
        assert head.version == version
        tree = decode(METADATA, version, REQUEST, frame, head.body, head.end)
        if tree["topics"] is None:
            behind.add(frame[head.end :])
    # Once librdkafka writes it right, nothing stands there, and nothing has to be let through.
    if version == 8:
        assert behind == {b""}
    elif version <= 10:
        assert behind == {b"\0" if create else bytes(3)}
    else:
        assert behind == {bytes((create, 0, 0))}
