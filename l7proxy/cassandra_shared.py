"""The state of a CQL connection, and its hot path: answers that nobody has to read."""

from __future__ import annotations

from l7proxy.cassandra_known import CassandraKnown
from l7proxy.cassandra_parts import Due, Large
from l7proxy.frames import Frames, State
from l7proxy.http1_exchange import Judge
from l7proxy.ops import CqlCall, CqlStatement, Op, Record
from parsers.cassandra import HEADER, read_result
from parsers.cassandra_segments import head_size, read_head, read_payload
from parsers.malformed import Malformed


class Shared(Frames):
    """What both halves of a conversation know, and the hot path of answers."""

    __slots__ = (
        "_answers",
        "_compression",
        "_due",
        "_framed",
        "_known",
        "_large_response",
        "_leaning",
        "_left",
        "_open",
        "_ready",
        "_version",
    )

    def __init__(self, judge: Judge, known: CassandraKnown) -> None:
        super().__init__(judge)
        self._known = known
        self._due: dict[int, Due] = {}
        """By stream."""
        self._leaning = 0
        """Of these, how many depend on the session's keyspace."""
        self._answers: list[bytes] = []
        """Our own, which wait until the server is not in the midst of one."""
        self._version = 0
        """That of STARTUP."""
        self._compression = ""
        self._framed = self._open = self._ready = False
        """Whether there are segments, whether STARTUP was answered, and whether the client was let in."""
        self._left = 0
        """Bytes of a large message that its next segments have, and that pass unread."""
        self._large_response: Large | None = None

    @property
    def _packed(self) -> bool:
        return self._compression != ""

    def _passing_answers(self, data: bytes, now: float) -> tuple[list[Op], int]:
        """The hot path: records of the whole answers that `data` begins with, as far as they pass and nobody has to
        read them, and how many bytes these are."""
        records: list[Op] = []
        if self._state is not State.FRAMES or self._left or self._held is not None or self._large_response is not None:
            return records, 0
        dues, version, place, stop = self._due, self._version, 0, len(data)
        if self._framed:
            return records, self._passing_segments(data, now, records)
        while stop - place >= HEADER:
            stream, size = read_result(data, place, version)
            due = dues.get(stream)
            if due is None or due.then is not None or due.request is None or not 0 < size <= stop - place:
                break
            del dues[stream]
            records.append(self._passed(stream, due, due.request, now))
            place += size
        return records, place

    def _passing_segments(self, data: bytes, now: float, records: list[Op]) -> int:
        """The same of segments, each of which passes with all of its answers, or not."""
        place, least = 0, head_size(self._packed)
        while len(data) - place >= least:
            try:
                segment = read_head(data, place, self._packed)
                if not segment.alone or segment.whole > len(data) - place:
                    break
                payload = read_payload(data, place, segment)
            except Malformed:
                break  # what is wrong is told where it is looked at more closely
            if not self._passing_payload(payload, now, records):
                break
            place += segment.whole
        return place

    def _passing_payload(self, payload: bytes, now: float, records: list[Op]) -> bool:
        start, stop = 0, len(payload)
        found: dict[int, Due] = {}
        while stop - start >= HEADER:
            stream, size = read_result(payload, start, self._version)
            due = self._due.get(stream)
            if due is None or due.then is not None or due.request is None or not size or stream in found:
                return False
            found[stream] = due
            start += size
        if start != stop:
            return False
        for stream, due in found.items():
            del self._due[stream]
            assert due.request is not None  # noqa: S101 -- seen just now
            records.append(self._passed(stream, due, due.request, now))
        return True

    def _passed(self, stream: int, due: Due, request: CqlStatement, now: float) -> Record:
        self._leaning -= due.leans
        return Record(request, -1, due.started, now, CqlCall(stream, due.consistency, True))
