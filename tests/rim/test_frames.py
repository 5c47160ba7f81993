"""A protocol with frames needs no more than this: a byte that is a length, and so many bytes, one answer each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from l7proxy.frames import Frames, State
from l7proxy.held import HELD_LONG, Frame, Gather, Pool
from l7proxy.kafka_exchange import unread
from l7proxy.limits import Limits
from l7proxy.ops import Abort, Close, Direction, Inject, Op, Pass, Record, Wait
from l7proxy.output import Output
from parsers.malformed import Malformed
from policies.model import L7Protocol
from tests.conversations import REQUEST, RESPONSE, Conversing
from tests.kafka.rig import Teller

pytestmark = pytest.mark.sources
NO = b"\2no"
JUDGE = Teller()


class Echoes(Frames):
    """Refuses what begins with "x", and cannot read "?". A "w" has to be answered before anything else goes on."""

    __slots__ = ("_due", "_most", "_pool", "_waits")
    protocol: ClassVar[L7Protocol] = L7Protocol.KAFKA

    def __init__(self, judge: Teller) -> None:
        super().__init__(judge)
        self._due: list[bytes | None] = []
        self._pool, self._most, self._waits = Pool(), 100, False

    @property
    def idle(self) -> bool:
        return not (self._due or self._gather)

    @property
    def receiving(self) -> bool:
        return self._gather is not None

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        output = Output()
        if direction:
            return self._responses_from(data, end, now, output)
        self._requests(data, 0, end, now, output)
        self._settle(now, output)
        return output.done()

    def upstream_failed(self, reason: str, now: float) -> Sequence[Op]:
        return (Close(reason),)

    def _step(self, data: bytes, position: int, now: float, output: Output) -> int:
        if self._waits and self._state is State.FRAMES:
            output.add(Wait())
            return -1
        return self._next(data, position, now, output)

    def _frame(self, data: bytes, position: int, now: float, output: Output) -> int:
        size = 1 + data[position] if data[position] < 0xFF else 1 << 17
        if len(data) - position < size:
            self._gather = Gather(size, self._pool, now)
            return 0
        return size if self._whole_frame(Frame(data, position, position + size, False), now, output) else -1

    def _whole_frame(self, frame: Frame, now: float, output: Output) -> bool:
        first = frame.data[frame.start + 1 : frame.start + 2]
        if first == b"?":
            raise Malformed(1, "a question")
        if first == b"x" and not self.judge.audit_only:
            frame.ends(output)
            self._due.append(NO)
            return True
        frame.goes(output)
        self._due.append(None)
        self._waits = first == b"w"
        return True

    def _response(self, data: bytes, position: int, now: float, output: Output) -> int:
        if not self._due:
            raise Malformed(0, "nobody asked")
        self._due.pop(0)
        self._waits = False
        output.take(Pass, 1 + data[position])
        return 1 + data[position]

    def _release(self, now: float, output: Output) -> None:
        while self._due and self._due[0] is not None:
            output.add(Inject(RESPONSE, self._due.pop(0) or b""))
        if self._ending and not self._due and self._state is State.DISCARD:
            self._end(output, Close(self._ending))

    def _may_take(self, gather: Gather, available: int) -> None:
        if gather.exceeds(available, self._most):
            raise Malformed(0, "too much")

    def _malformed(self, error: Malformed, now: float, output: Output) -> None:
        output.add(_record(str(error)))
        if self.judge.audit_only:
            self._go_on_unread(str(error), now, output)
        else:
            self._close_behind(str(error))

    def _bad_response(self, error: Malformed, size: int, now: float, output: Output) -> None:
        self._end(output, Abort(str(error)))

    def _unfinished(self, now: float) -> Record:
        return _record("cut short")

    def _within(self) -> bool:
        return False

    def _waiting(self) -> bool:
        return self._waits

    def _overdue(self, before: float) -> bool:
        return before > 0

    def _crowds(self, before: float, direction: Direction) -> bool:
        return self._pool.wants(self._most, before, (self._held if direction else self._gather,))

    def _halfway(self) -> bool:
        return self._waits or any(one is not None for one in self._due)

    def _records(self, now: float) -> list[Record]:
        self._due.clear()
        return []


def _record(text: str) -> Record:
    return Record(unread(text, JUDGE), 0, 0.0, 0.0)


def rig(**how: bool) -> Conversing[Echoes]:
    return Conversing(Echoes(Teller(**how)))


def reasons(rig: Conversing[Echoes]) -> list[str]:
    return [one.request.decision.reason for one in rig.records]


SCENES = [
    (b"\1a\1x\1b", b"\1A\1B", b"\1a\1b", b"\1A\2no\1B", None),
    (b"\1w\1a", b"\1W\1A", b"\1w\1a", b"\1W\1A", None),
    (b"\1a\1?\1b", b"\1A", b"\1a", b"\1A", "a question at byte 1"),
    (b"\0\3abc", b"\0\3ABC", b"\0\3abc", b"\0\3ABC", None),
    (b"\1x", b"\1X", b"", b"\2no", "nobody asked at byte 0"),
]


@pytest.mark.parametrize(("asked", "said", "server", "client", "ending"), SCENES)
def test_whole_and_at_every_split(asked: bytes, said: bytes, server: bytes, client: bytes, ending: str | None) -> None:
    for place in range(len(asked) + 1):
        made = rig().arrive(REQUEST, asked[:place]).arrive(REQUEST, asked[place:])
        for number in range(len(said)):
            made.arrive(RESPONSE, said[number : number + 1])
        assert (made.server, made.client) == (server, client), place
        assert (made.ending and made.ending.reason) == ending
        made.finish()
        assert made.talk.idle and made.talk._pool.held == 0


def test_what_a_request_waits_for() -> None:
    made = rig().arrive(REQUEST, b"\1w\1a")
    assert made.server == b"\1w" and made.halves[REQUEST].waiting and not made.talk.head_pending
    assert made.arrive(RESPONSE, b"\1W").server == b"\1w\1a"


def test_time_outs() -> None:
    made = rig().arrive(REQUEST, b"\1a\5b")
    assert not made.talk.head_pending, "a request has just come"
    made.arrive(REQUEST, b"b")
    assert made.talk.head_pending and made.talk.receiving
    made.apply(made.talk.head_timeout(1.0))
    assert reasons(made) == ["the request did not come in time"] and made.ending is None and made.talk._pool.held == 0
    assert not made.talk.head_timeout(1.0)
    assert isinstance(made.arrive(RESPONSE, b"\1A").ending, Close)
    made = rig(audit_only=True).arrive(REQUEST, b"\5").arrive(REQUEST, b"b")
    made.apply(made.talk.head_timeout(1.0))
    assert made.server == b"\5b" and isinstance(made.ending, Close)


def test_what_comes_too_late() -> None:
    limits = Limits(head_timeout=10, idle_timeout=60)
    made = rig().arrive(REQUEST, b"\1w\1a")
    assert not made.talk.late(59.0, limits)
    assert made.apply(made.talk.late(62.0, limits)).ending == Close(
        "no answer in time to what the next requests wait for"
    )
    made = rig()
    made.talk._most = 1 << 17
    made.arrive(REQUEST, b"\xff" + bytes(70_000))
    assert made.talk._pool.held == 70_001 and not made.talk.late(9.9, limits), "it may take its time"
    assert made.apply(made.talk.late(10.1, limits)).talk._pool.held == 0, "others have no room"
    assert reasons(made) == [HELD_LONG] and isinstance(made.ending, Close)


def test_a_client_that_ends_within_a_request() -> None:
    made = rig().arrive(REQUEST, b"\1a\5b", end=True)
    assert reasons(made) == ["cut short"] and made.server == b"\1a"
    assert not rig().arrive(REQUEST, b"\1a", end=True).records


def test_a_stop() -> None:
    made = rig().arrive(REQUEST, b"\1a\5b")
    made.apply(made.talk.draining(1.0)).arrive(REQUEST, b"\1c")
    assert made.server == b"\1a" and made.ending is None
    assert made.arrive(RESPONSE, b"\1A").ending == Close("the proxy is stopping")


def test_where_nothing_is_enforced_all_goes_on_unread_until_a_policy_does() -> None:
    for direction in (REQUEST, RESPONSE):
        made = rig(audit_only=True).arrive(REQUEST, b"\1a\1?\7").arrive(RESPONSE, b"any").arrive(REQUEST, b"thing")
        assert made.server == b"\1a\1?\7thing" and made.client == b"any" and reasons(made) == ["a question at byte 1"]
        made.talk.judge = Teller()
        ending = made.arrive(direction, b"more").ending
        assert isinstance(ending, Abort) and "a policy enforces now" in ending.reason
    # But not where one end has heard less than the other has said.
    made = rig().arrive(REQUEST, b"\1a\1x")
    made.talk.judge = Teller(audit_only=True)
    assert isinstance(made.arrive(REQUEST, b"\1?").ending, Abort)


def test_what_is_held_has_a_limit() -> None:
    made = rig().arrive(REQUEST, b"\xf0" + bytes(90))
    assert made.talk._pool.held == 91 and not made.records
    made.arrive(REQUEST, bytes(90))
    assert reasons(made) == ["too much at byte 0"] and made.talk._pool.held == 0 and isinstance(made.ending, Close)
