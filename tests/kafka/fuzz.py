"""Coverage-guided fuzzing of the codec and of the conversation, with atheris.

``python -m tests.kafka.fuzz CORPUS [libFuzzer's options]``: ``-max_total_time=600`` ends it after ten minutes. An input
that fails is written to a file; with its name for CORPUS it is played again. An empty folder CORPUS is given recorded
requests and answers to begin with.

An input's first byte says what it is. CODEC: the number of an API's version, and a message of it. Otherwise a dialogue,
cut into pieces by that byte: events with their size in two bytes. Most of what a mutation makes are frames still.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["l7proxy", "parsers"]):
    from l7proxy import kafka_large, kafka_requests
    from parsers.kafka import Head, read_head, response_head
    from parsers.kafka_codec import decode, encode
    from parsers.kafka_denials import CLOSED
    from parsers.kafka_names import asked
    from parsers.kafka_schema import APIS, REQUEST, RESPONSE
    from parsers.malformed import Malformed
    from parsers.options import KafkaOptions
    from tests.conversations import REQUEST as TO_SERVER
    from tests.conversations import RESPONSE as TO_CLIENT
    from tests.fuzzing import fuzz
    from tests.kafka import truth
    from tests.kafka.rig import SERVER, Rig, Teller, framed
    from tests.kafka.wire import head_size, request

CODEC, LARGE = 0x80, 0x40
ASK, ANSWER, CLIENT_BYTES, SERVER_BYTES, FLIP = range(5)
EVENT = struct.Struct(">BH")
WHICH = struct.Struct(">H")
EVERY = [(key, version) for key, api in sorted(APIS.items()) for version in range(api.low, api.high + 1)]
FIRST_LARGE = 100
"""Bytes from which on a request is large, in dialogues with LARGE."""
NAN = frozenset({48, 49})
"""APIs with numbers that may not be equal to themselves."""
Event = tuple[int, bytes]


def read(data: bytes) -> Iterator[Event]:
    """The events of a dialogue, at most 30."""
    for _ in range(30):
        if len(data) < EVENT.size:
            return
        kind, size = EVENT.unpack_from(data)
        yield kind % 5, data[EVENT.size : EVENT.size + size]
        data = data[EVENT.size + size :]


def write(*events: Event) -> bytes:
    """The other way round."""
    return b"".join(EVENT.pack(kind, len(data)) + data for kind, data in events)


# -- the codec -----------------------------------------------------------------------------------------------------


def codec(data: bytes) -> None:
    """What is read is written as what reads the same; no error but Malformed; what is named is read alike."""
    if len(data) < 2:
        return
    key, version = EVERY[WHICH.unpack_from(data)[0] % len(EVERY)]
    body = data[2:]
    for kind in (REQUEST, RESPONSE):
        try:
            tree = decode(key, version, kind, body, 0, len(body))
        except Malformed:
            continue
        again = encode(key, version, kind, tree)
        assert decode(key, version, kind, again, 0, len(again)) == tree or key in NAN
        if kind == REQUEST:
            named(Head(key, version, 1, None, 0, len(body)), body)


def named(head: Head, body: bytes) -> None:
    """A whole request's names can be read, unless it is one of those that brokers never answer."""
    try:
        asked(head, body)
    except Malformed as error:
        assert "twice" in str(error) or "null where" in str(error), error


# -- the conversation ----------------------------------------------------------------------------------------------


class Play:
    """A dialogue: `size` bytes at once."""

    def __init__(self, size: int) -> None:
        self.rig = Rig(Teller(KafkaOptions(max_pipeline=4, max_held=2000, max_held_together=3000)))
        self.size = size
        self.due: list[Head] = []

    def event(self, kind: int, data: bytes) -> None:
        """One event."""
        if kind == FLIP:
            names = data.decode("latin-1").split()
            self.rig.talk.judge = Teller(self.rig.judge.kafka, refused=names)
        elif kind == ASK and len(data) >= 2:
            key, version = EVERY[WHICH.unpack_from(data)[0] % len(EVERY)]
            self.arrive(TO_SERVER, framed(request(key, version, data[2:], correlation=len(data))))
        elif kind == ANSWER and self.due:
            self.arrive(TO_CLIENT, framed(response_head(self.due.pop(0)) + data))
        elif kind in (CLIENT_BYTES, SERVER_BYTES):
            self.arrive(TO_SERVER if kind == CLIENT_BYTES else TO_CLIENT, data)

    def arrive(self, direction: int, data: bytes) -> None:
        for place in range(0, len(data), self.size):
            if self.rig.ending:
                return
            raw = self.rig.talk._sasl.raw
            self.rig.arrive(TO_CLIENT if direction else TO_SERVER, data[place : place + self.size])
            for frame in self.rig.frames(TO_SERVER):
                if not (raw or self.rig.talk._sasl.raw):
                    self.served(frame)

    def served(self, frame: bytes) -> None:
        """What reaches the server is a request that is known, and allowed by the policy that holds."""
        head = read_head(frame, 4, len(frame))
        assert head.known and head.api_key not in CLOSED, head
        wants = asked(head, frame)
        if not wants.acks0:
            self.due.append(head)
        judge = self.rig.talk.judge
        assert isinstance(judge, Teller)
        for item in wants.items:
            name = item.topic if item.topic_id is None else self.rig.known.topics.get((SERVER, item.topic_id))
            if item.topic_id is not None and name is None:
                assert self.rig.talk._waits, "an id that nobody has named"
            for one in (name, item.group, item.transactional_id):
                assert one is None or not (one.startswith("secret") or one in judge.refused), (head, item)

    def end(self) -> tuple[object, ...]:
        """What must not depend on how the bytes came."""
        if not self.rig.ending:
            self.rig.arrive(TO_SERVER, b"", True)
        self.rig.finish()
        assert self.rig.known.held == 0
        return self.rig.server, self.rig.client, self.rig.told, type(self.rig.ending)


def play(data: bytes) -> None:
    """One input. Raises AssertionError where something is done that must not be."""
    first = data[0] if data else 0
    if first & CODEC:
        codec(data[1:])
        return
    least = FIRST_LARGE if first & LARGE else 65_536
    kafka_large.LARGE_FROM = kafka_requests.LARGE_FROM = least
    found = []
    for size in (1 << 20, first % 60 + 1):
        staged = Play(size)
        for event in read(data[1:]):
            staged.event(*event)
        found.append(staged.end())
    # A large request is judged as it comes, and the answer to what has gone on already is another one.
    assert found[0] == found[1] or first & LARGE, found


def begin(corpus: Path) -> None:
    """One recorded request of each API's version, with its answer, as a dialogue and for the codec."""
    for vector in truth.load():
        which = WHICH.pack(EVERY.index((vector.key, vector.version)))
        body = vector.request[len(request(vector.key, vector.version, b"")) :]
        answer = b"" if vector.answer is None else vector.answer[head_size(vector.key, vector.version, vector.answer) :]
        name = f"{vector.key}-{vector.version}"
        (corpus / f"codec-{name}").write_bytes(bytes([CODEC]) + which + body)
        (corpus / f"answer-{name}").write_bytes(bytes([CODEC]) + which + answer)
        events = (ASK, which + body), (FLIP, b"open"), (ANSWER, answer), (ASK, which + body), (ANSWER, answer)
        (corpus / f"talk-{name}").write_bytes(bytes([vector.version]) + write(*events)[:4000])
    (corpus / "large").write_bytes((corpus / "talk-0-9").read_bytes().replace(b"\t", bytes([LARGE | 9]), 1))


if __name__ == "__main__":
    fuzz(begin, play)
