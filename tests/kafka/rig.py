"""A conversation of Kafka to play with, a judge for it, a server that answers, and words for them."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from l7proxy.held import Server
from l7proxy.http1_exchange import Exchange
from l7proxy.kafka import KafkaConversation
from l7proxy.kafka_known import KafkaKnown
from l7proxy.ops import Direction, KafkaCall, KafkaRequest
from parsers import facts
from parsers.kafka import Head, flexible, read_head, read_response
from parsers.kafka_codec import decode, encode
from parsers.kafka_schema import BY_NAME
from parsers.kafka_schema import REQUEST as ASKED
from parsers.kafka_schema import RESPONSE as ANSWERED
from parsers.options import HttpOptions, KafkaOptions
from policies.model import L7Protocol
from policies.verdict import L7Decision, RuleRef, Verdict
from tests.conversations import REQUEST, RESPONSE, Conversing, Half

RULE = RuleRef("default/p", "ingress[0].toPorts[0].rules.kafka[0]", "p.yaml", 9)
SERVER = ("10.0.0.9", 9092)
IDS = {name: bytes(15) + bytes([number]) for number, name in enumerate(("orders", "payments", "secret-x"), 1)}
"""Topics of the server that answers, with their ids."""
Told = tuple[str, str, int, int, bool]


class Teller:
    """Refuses topics, groups and transactions whose names begin with ``secret``, what `refused` holds by name, and the
    APIs in `apis`; audits names that begin with ``audit``."""

    protocol: L7Protocol | None = L7Protocol.KAFKA
    options = HttpOptions()
    header_names: frozenset[str] = frozenset()
    log_headers = cut_streams = False

    def __init__(
        self,
        options: KafkaOptions | None = None,
        *,
        audit_only: bool = False,
        refused: Iterable[str] = (),
        apis: Iterable[int] = (),
        clients: Iterable[str] = (),
    ) -> None:
        self.kafka = options or KafkaOptions()
        self.calls: dict[Hashable, Any] = {}
        self.cache: dict[bytes, Exchange] = {}
        self.audit_only = audit_only
        self.refused, self.apis, self.clients = set(refused), set(apis), set(clients)
        self.judged: list[facts.KafkaRequest] = []

    def judge(self, request: facts.Request) -> L7Decision:
        assert isinstance(request, facts.KafkaRequest)
        self.judged.append(request)
        names = [name for name in (request.topic, request.group, request.transactional_id) if name is not None]
        bad = any(name.startswith("secret") or name in self.refused for name in names)
        if bad or request.api in self.apis or request.client_id in self.clients:
            if self.audit_only:
                return L7Decision(Verdict.AUDIT, None, "would be refused")
            return L7Decision(Verdict.DROPPED, None, f"no rule allows {names}")
        if any(name.startswith("audit") for name in names):
            return L7Decision(Verdict.AUDIT, None, "would be refused")
        return L7Decision(Verdict.FORWARDED, RULE, "allowed")


class Rig(Conversing[KafkaConversation]):
    """Of Kafka."""

    def __init__(
        self, judge: Teller | None = None, known: KafkaKnown | None = None, owner: int = 300, server: Server = SERVER
    ) -> None:
        self.judge = judge or Teller()
        self.known = known or KafkaKnown(100, 100)
        super().__init__(KafkaConversation(self.judge, self.known, server, owner))
        self.read = [0, 0]

    def ask(self, data: bytes, *, end: bool = False) -> Rig:
        """The client sends."""
        return self.arrive(REQUEST, data, end)

    def say(self, data: bytes, *, end: bool = False) -> Rig:
        """The server sends."""
        return self.arrive(RESPONSE, data, end)

    def inject(self, half: Half, data: bytes) -> None:
        """Words of our own are whole frames, or begin one."""
        super().inject(half, data)

    @property
    def told(self) -> Sequence[Told]:
        """Of every record: verdict, API, correlation id, code, and whether the server answered."""
        found = []
        for record in self.records:
            asks, call = record.request, record.call
            assert isinstance(asks, KafkaRequest) and isinstance(call, KafkaCall)
            found.append((asks.decision.verdict.value, asks.api, call.correlation_id, record.code, call.answered))
        return found

    def topics(self, index: int = -1) -> dict[str, str]:
        """Topics of a record, with what became of them."""
        asks = self.records[index].request
        assert isinstance(asks, KafkaRequest)
        return {name: verdict.value for name, verdict in asks.topics}

    def served(self) -> list[tuple[Head, dict[str, Any]]]:
        """Requests that the server got since it was last looked."""
        return [parse(frame) for frame in self.frames(REQUEST)]

    def heard(self) -> list[bytes]:
        """Frames that the client got since it was last looked."""
        return self.frames(RESPONSE)

    def frames(self, direction: Direction) -> list[bytes]:
        """Of either."""
        out = bytes(self.halves[direction].out)
        found, place = [], self.read[direction]
        while len(out) - place >= 4:
            (size,) = struct.unpack_from(">i", out, place)
            if len(out) - place < 4 + size:
                break
            found.append(out[place : place + 4 + size])
            place += 4 + size
        self.read[direction] = place
        return found


def key(api: str) -> int:
    return BY_NAME[api.lower()].key


def ask(api: str, version: int, tree: Mapping[str, Any], number: int = 1, client: str | None = "shop") -> bytes:
    """The frame of a request."""
    raw = b"" if client is None else client.encode()
    head = struct.pack(">hhih", key(api), version, number, -1 if client is None else len(raw)) + raw
    return framed(head + b"\0" * flexible(key(api), version) + encode(key(api), version, ASKED, tree))


def say(api: str, version: int, tree: Mapping[str, Any], number: int = 1) -> bytes:
    """The frame of a response."""
    tags = b"\0" * (api != "ApiVersions" and flexible(key(api), version))
    return framed(struct.pack(">i", number) + tags + encode(key(api), version, ANSWERED, tree))


def framed(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


def parse(frame: bytes) -> tuple[Head, dict[str, Any]]:
    """A request."""
    head = read_head(frame, 4, len(frame))
    return head, decode(head.api_key, head.version, ASKED, frame, head.body, head.end)


def answer(frame: bytes, api: str, version: int, number: int = 1) -> dict[str, Any]:
    """What a response says."""
    head = Head(key(api), version, number, None, 0, 0)
    found, body = read_response(head, frame, 4, len(frame))
    assert found == number
    return decode(head.api_key, version, ANSWERED, frame, body, len(frame))


def produce(*topics: str | bytes, version: int = 9, acks: int = -1, size: int = 10, number: int = 1) -> bytes:
    field = "topic_id" if version >= 13 else "name"
    data = [
        {
            field: IDS.get(str(one), one) if version >= 13 else one,
            "partition_data": [{"index": 0, "records": b"r" * size}],
        }
        for one in topics
    ]
    return ask("Produce", version, {"acks": acks, "timeout": 1000, "topic_data": data}, number)


def produced(*topics: str, version: int = 9, number: int = 1, error: int = 0) -> bytes:
    field = "topic_id" if version >= 13 else "name"
    data = [
        {
            field: IDS[one] if version >= 13 else one,
            "partition_responses": [{"index": 0, "error_code": error, "base_offset": 7}],
        }
        for one in topics
    ]
    return say("Produce", version, {"responses": data}, number)


def fetch(
    *topics: str | bytes,
    version: int = 12,
    session: int = 0,
    epoch: int = 0,
    number: int = 1,
    forgotten: Sequence[str] = (),
) -> bytes:
    ids = version >= 13
    field = "topic_id" if ids else "topic"
    partition = {"partition": 0, "fetch_offset": 5, "partition_max_bytes": 1000}
    tree = {
        "replica_id": -1,
        "session_id": session,
        "session_epoch": epoch,
        "topics": [{field: IDS.get(str(one), one) if ids else one, "partitions": [partition]} for one in topics],
        "forgotten_topics_data": [{field: IDS[one] if ids else one, "partitions": [0]} for one in forgotten],
    }
    return ask("Fetch", version, tree, number)


def fetched(
    *topics: str, version: int = 12, session: int = 0, number: int = 1, error: int = 0, size: int = 20
) -> bytes:
    field = "topic_id" if version >= 13 else "topic"
    data = [
        {
            field: IDS[one] if version >= 13 else one,
            "partitions": [{"partition_index": 0, "high_watermark": 9, "records": b"r" * size}],
        }
        for one in topics
    ]
    return say("Fetch", version, {"error_code": error, "session_id": session, "responses": data}, number)


def metadata(number: int = 1, **known: bytes) -> bytes:
    """The answer to the proxy's question for topic ids."""
    topics = [{"name": name.replace("_", "-"), "topic_id": one} for name, one in known.items()]
    return say("Metadata", 12, {"topics": topics}, number)
