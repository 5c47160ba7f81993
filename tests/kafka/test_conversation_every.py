"""Requests of every API and version, made by the schema: what reaches the server is judged and allowed, what reaches
the client is a response, and nothing is left hanging."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parsers.kafka import Head, answered, read_head, read_response
from parsers.kafka_codec import decode, encode
from parsers.kafka_denials import CLOSED
from parsers.kafka_names import asked
from parsers.kafka_schema import REQUEST, RESPONSE, message
from tests.conversations import REQUEST as TO_SERVER
from tests.conversations import RESPONSE as TO_CLIENT
from tests.kafka.requests import EVERY, IDS, trees
from tests.kafka.rig import Rig, Teller, framed, parse, say

NAMES = {IDS[1]: "a", IDS[2]: "b"}
PRODUCE, METADATA = 0, 3


def request(key: int, version: int, tree: dict[str, Any], number: int) -> bytes:
    head = struct.pack(">hhih", key, version, number, 2) + b"me"
    return framed(head + b"\0" * message(key, version, REQUEST).flexible + encode(key, version, REQUEST, tree))


def response(head: Head, tree: dict[str, Any]) -> bytes:
    tags = b"\0" * (head.api_key != 18 and message(head.api_key, head.version, RESPONSE).flexible)
    body = encode(head.api_key, head.version, RESPONSE, tree)
    return framed(struct.pack(">i", head.correlation_id) + tags + body)


def named(head: Head, tree: dict[str, Any]) -> bytes:
    """What the server says of ids, by a Metadata response."""
    topics = [
        {"topic_id": one["topic_id"], "name": NAMES.get(one["topic_id"]), "error_code": one["topic_id"] not in NAMES}
        for one in tree["topics"]
    ]
    return say("Metadata", 12, {"topics": topics}, head.correlation_id)


def allowed(frame: bytes, refused: str) -> bool:
    """Whether nothing that a request names is refused."""
    head = read_head(frame, 4, len(frame))
    for item in asked(head, frame).items:
        name = item.topic if item.topic_id is None else NAMES.get(item.topic_id)
        if refused in (name, item.group, item.transactional_id) or (item.topic_id is not None and name is None):
            return False
    return True


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_request(data: st.DataObject) -> None:
    refused = data.draw(st.sampled_from(["a", "b", "nothing"]))
    rig = Rig(Teller(refused=[refused]))
    sent: list[Head] = []
    for number in range(1, 4):
        key, version = data.draw(st.sampled_from(EVERY))
        frame = request(key, version, data.draw(trees(key, version)), number)
        if rig.ending:
            break
        sent.append(read_head(frame, 4, len(frame)))
        rig.ask(frame)
        serve(rig, data, refused)
    heard = rig.heard()
    assert rig.read[TO_CLIENT] == len(rig.client) and rig.read[TO_SERVER] == len(rig.server)
    silent = [head for head in sent if head.api_key == PRODUCE]
    assert rig.ending or len(sent) - len(silent) <= len(heard) <= len(sent)
    for frame in heard:
        (number,) = struct.unpack_from(">i", frame, 4)
        head = sent[number - 1]
        _, body = read_response(head, frame, 4, len(frame))
        head = answered(head, frame, body)
        decode(head.api_key, head.version, RESPONSE, frame, body, len(frame))
    rig.finish()
    assert len(rig.records) == len(sent) and rig.known.held == 0


def serve(rig: Rig, data: st.DataObject, refused: str) -> None:
    """Answer what reached the server, as any server might."""
    for _ in range(3):
        frames = rig.frames(TO_SERVER)
        for frame in frames:
            head, tree = parse(frame)
            assert head.api_key not in CLOSED
            if rig.talk._waits and (head.api_key, head.version) == (METADATA, 12) and asks_by_id(tree):
                rig.say(named(head, tree))
                continue
            if rig.talk._waits and (head.api_key, tree.get("topics", 0)) == (METADATA, None):
                rig.say(say("Metadata", 12, {"topics": [{"name": name} for name in "abc"]}, head.correlation_id))
                continue
            assert allowed(frame, refused), (head, tree)
            if rig.ending or (head.api_key == PRODUCE and tree["acks"] == 0):
                continue
            rig.say(response(head, data.draw(trees(head.api_key, head.version, RESPONSE))))
        if not frames:
            return


def asks_by_id(tree: dict[str, Any]) -> bool:
    topics = tree["topics"] or []
    return bool(topics) and all(one["name"] is None for one in topics)


@pytest.mark.parametrize(("key", "version"), EVERY)
def test_an_api_that_is_refused(key: int, version: int) -> None:
    rig = Rig(Teller(apis=[key])).ask(request(key, version, {}, 1))
    if key == METADATA:  # which brokers do not refuse: a client needs to know where they are
        ((head, tree),) = rig.served()
        assert not tree["topics"]
        rig.say(response(head, {"topics": [{"name": "a"}]} if version == 0 else {}))
        assert not decode(key, version, RESPONSE, rig.client, 8 + (version > 8), len(rig.client))["topics"]
    assert rig.server == b"" or key == METADATA
    assert [one[0] for one in rig.told] == ["DROPPED"]
    assert rig.closed or len(rig.client) >= 8
