"""What is alike in conversations of protocols with frames: a request is held until it is whole, then it goes on or not.

Such a conversation reads requests one after the other (`Frames._step`) until it has to wait, or nothing is left. One
that cannot be read ends the connection behind what is due; where nothing is enforced, all goes on unread instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum, auto
from typing import Any

from l7proxy.held import HELD_LONG, SMALL, Frame, Gather
from l7proxy.http1_exchange import Judge
from l7proxy.limits import Limits
from l7proxy.offers import Group, Offer
from l7proxy.ops import FOREVER, Abort, Close, Direction, Drop, Inject, Op, Pass, Record, Wait
from l7proxy.output import Output
from parsers.malformed import Malformed
from sockmap.splice_lanes import Form

_MOST_OFFERS = 16
MOST_HEARD = 256
"""Answers that are due, of which it is looked whether all may go straight."""
_CHANGED = "a policy enforces now what this connection was not read for"


class State(IntEnum):
    """Where the client's direction stands. FRAMES: at or in a request. LARGE: in one that goes on as it comes. UNREAD:
    nothing is understood any more, and nothing enforced. DISCARD: nothing more is taken."""

    FRAMES = auto()
    LARGE = auto()
    UNREAD = auto()
    DISCARD = auto()


class Frames(ABC):
    """The state of such a conversation, and what it does whatever its frames are. The class of a protocol adds
    `receive`, `idle`, `receiving` and `upstream_failed` (`l7proxy.conversation.Conversation`)."""

    __slots__ = ("_carried", "_ended", "_ending", "_gather", "_held", "_state", "head_pending", "judge", "offers")

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.head_pending = False
        self.offers: list[Offer] | None = None
        """For the fast path, since they were taken last; None: nobody takes them."""
        self._state = State.FRAMES
        self._gather: Gather | None = None
        """The frame of the client's that is held back until it is whole, and has not to wait for the server."""
        self._held: Gather | None = None
        """The frame of the server's that is held back until it is whole."""
        self._carried = False
        """The relay has been given a count of the server's bytes that it has not yet met."""
        self._ending = ""
        """Why the connection closes once nothing is due."""
        self._ended = False
        """It was said that it closes."""

    # -- what a protocol has to say ------------------------------------------------------------------------------

    @abstractmethod
    def _step(self, data: bytes, position: int, now: float, output: Output) -> int:
        """Take what can be taken; how many bytes that was, or -1 if nothing more can be done now: `_next`, unless
        something else comes first. Raises Malformed."""

    @abstractmethod
    def _frame(self, data: bytes, position: int, now: float, output: Output) -> int:
        """Take what of a frame begins here; how many bytes that was, or -1 if nothing more can be done now. One that is
        not all there may become `_gather`. Raises Malformed."""

    @abstractmethod
    def _whole_frame(self, frame: Frame, now: float, output: Output) -> bool:
        """Decide on a request. False: it has to wait, and that has been said. Raises Malformed."""

    @abstractmethod
    def _may_take(self, gather: Gather, available: int) -> None:
        """Raise Malformed if a frame is not to be held (any longer), of which so many bytes more are there."""

    @abstractmethod
    def _malformed(self, error: Malformed, now: float, output: Output) -> None:
        """A request ends its connection: `_go_on_unread`, or an answer and `_close_behind`."""

    @abstractmethod
    def _unfinished(self, now: float) -> Record:
        """Of a request within which the client has ended."""

    @abstractmethod
    def _within(self) -> bool:
        """Whether a part of a request is held, or decided on, beside `_gather`."""

    def _little(self) -> bool:
        """Whether what is there of a request that has begun is little: it has to come in time."""
        return self._gather is None or self._gather.have < SMALL

    @abstractmethod
    def _waiting(self) -> bool:
        """Whether the next request waits for an answer of the server's."""

    @abstractmethod
    def _overdue(self, before: float) -> bool:
        """Whether one that the next request waits for is due since before then."""

    @abstractmethod
    def _crowds(self, before: float, direction: Direction) -> bool:
        """Whether what is held of a direction since before then has to make room (`Pool.wants`)."""

    @abstractmethod
    def _halfway(self) -> bool:
        """Whether one end waits for more, or for less, than the other has said."""

    @abstractmethod
    def _release(self, now: float, output: Output) -> None:
        """Send the answers of our own whose turn has come, and end if nothing is due behind them."""

    @abstractmethod
    def _response(self, data: bytes, position: int, now: float, output: Output) -> int:
        """Take what of an answer begins here, or goes on; how many bytes that was (more than are there: the rest goes
        by count), or 0 if nothing more can be done now. Raises Malformed."""

    @abstractmethod
    def _bad_response(self, error: Malformed, size: int, now: float, output: Output) -> None:
        """An answer, of which so many bytes are not taken, cannot be understood."""

    @abstractmethod
    def _records(self, now: float) -> list[Record]:
        """Of everything that is due, which gets no answer any more."""

    def _forget(self) -> bytes:
        """Let go of a request that is held, or on its way; what was held."""
        gather, self._gather = self._gather, None
        return gather.release() if gather is not None else b""

    def _let_go(self) -> bytes:
        """Let go of `_held`; what was held."""
        held, self._held = self._held, None
        return held.release() if held is not None else b""

    # -- what the fast path asks (l7proxy.fastpath): a protocol that makes no offers is not asked ----------------

    def form(self) -> Form:
        """How the messages of this connection are found and paired, where it has made an offer."""
        raise NotImplementedError

    def group(self) -> Group:
        """What its offers are for."""
        raise NotImplementedError

    def repeats(self, now: float) -> bool:
        """Whether what was offered may go on now, and come behind everything that was read."""
        return False

    def room(self) -> int:
        """How many more requests may be under way."""
        return 0

    def hears(self) -> bool:
        """Whether of all answers that are due nothing but a note is taken, and nothing is to be said before them; it is
        asked where it `repeats`."""
        return False

    def went(self, entry: Any, identity: int, now: float) -> None:
        """A request that was offered with this entry has gone straight. Raises Malformed."""
        raise NotImplementedError

    def heard(self, identity: int, data: bytes, now: float) -> Record:
        """An answer has, which begins with `data`. Raises Malformed."""
        raise NotImplementedError

    def within_answer(self) -> None:
        """An answer has begun to go straight; its rest comes by the relay, by count."""
        self._carried = True

    @property
    def ending(self) -> bool:
        """It closes once nothing is due."""
        return bool(self._ending)

    def _offers(self, offer: Offer) -> None:
        """Make one. Those that nobody takes are not kept."""
        if self.offers is not None and len(self.offers) < _MOST_OFFERS:
            self.offers.append(offer)

    def _quiet_here(self) -> bool:
        """Between messages in both directions, and to go on reading them. Where nothing is enforced, what cannot be
        read is no reason to end a connection, so all is looked at before it goes on."""
        if self.judge.audit_only:
            return False
        if self._gather is not None or self._held is not None or self._carried or self.head_pending:
            return False
        return self._state is State.FRAMES and not (self._ending or self._ended)

    # -- what the relay asks -------------------------------------------------------------------------------------

    @abstractmethod
    def upstream_failed(self, reason: str, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""

    def late(self, now: float, limits: Limits) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        if self._ended or self._state is State.UNREAD:
            return ()
        waiting = self._waiting()
        if waiting and self._overdue(now - limits.idle_timeout):
            return self.upstream_failed("no answer in time to what the next requests wait for", now)
        output, before = Output(), now - limits.head_timeout
        # Where nothing is enforced, what waits goes on when the server has answered, and not before.
        if not (waiting and self.judge.audit_only) and self._crowds(before, Direction.REQUEST):
            self._malformed(Malformed(None, HELD_LONG), now, output)
            self._settle(now, output)
        elif self._crowds(before, Direction.RESPONSE):
            self._bad_response(Malformed(None, HELD_LONG), 0, now, output)
        return output.done()

    def head_timeout(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. Later calls say nothing more."""
        output = Output()
        if self.head_pending:
            self.head_pending = False
            reason = "the request did not come in time"
            self._malformed(Malformed(None, reason), now, output)
            if self.judge.audit_only and not self._ended:
                self._end(output, Close(reason))
            self._settle(now, output)
        return output.done()

    def draining(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        output = Output()
        if self._state is not State.UNREAD:
            self._ending = self._ending or "the proxy is stopping"
            if self._state is State.FRAMES:
                self._close_behind(self._ending)
            self.head_pending = False
            self._settle(now, output)
        return output.done()

    def finish(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        self._forget()
        self._let_go()
        return self._records(now)

    # -- requests ------------------------------------------------------------------------------------------------

    def _requests(self, data: bytes, position: int, end: bool, now: float, output: Output) -> None:
        """Go on behind the `position` bytes that pass."""
        whole = position > 0
        while not self._ended:
            try:
                size = self._step(data, position, now, output)
            except Malformed as error:
                self._malformed(error, now, output)
                size = 0
            if size < 0:
                break
            position += size
            whole = whole or (self._gather is None and not self._within())
        if position >= len(data) and self._gather is None and not self._within():
            self.head_pending = False
            return
        waits = bool(output.ops) and type(output.ops[-1]) is Wait
        # Where requests come one close behind the other, most reads end within one.
        self.head_pending = not (whole or waits) and self._state is State.FRAMES and self._little()
        if end and not (waits or self._ended) and self._state in (State.FRAMES, State.LARGE):
            self._cut_short(len(data) - position, now, output)

    def _next(self, data: bytes, position: int, now: float, output: Output) -> int:
        """What `_step` does for every protocol alike."""
        left = len(data) - position
        if self._state is not State.FRAMES:
            if left > 0:
                self._unasked(left, output)
            return -1
        gather = self._gather
        if gather is not None and gather.whole:
            return self._gathered(gather, now, output)
        if left <= 0:
            return -1
        if gather is not None:
            return self._take(gather, data, position, output)
        return self._frame(data, position, now, output)

    def _take(self, gather: Gather, data: bytes, position: int, output: Output) -> int:
        """Hold what of a frame is there, of either direction; how many bytes that is. Raises Malformed."""
        self._may_take(gather, len(data) - position)
        size = gather.take(data, position)
        output.take(Drop, size)
        return size

    def _gathered(self, gather: Gather, now: float, output: Output) -> int:
        frame = gather.peek()
        done = self._whole_frame(Frame(frame, 0, len(frame), True), now, output)
        if done and self._gather is gather:
            gather.release()
            self._gather = None
        return 0 if done else -1

    # -- responses -----------------------------------------------------------------------------------------------

    def _responses_from(self, data: bytes, end: bool, now: float, output: Output) -> Sequence[Op]:
        """Go on behind what `output` has taken."""
        position = output.taken
        if self._carried and not end:
            self._carried = False
        try:
            while not (self._carried or self._ended):
                self._release(now, output)
                left = len(data) - position
                if left <= 0 or self._ended:
                    break
                if self._state is State.UNREAD:
                    size = self._unread(left, output)
                else:
                    size = self._response(data, position, now, output)
                if not size:
                    break
                position += size
                self._carried = size > left
        except Malformed as error:
            self._bad_response(error, len(data) - output.taken, now, output)
        if end and not self._ended and self._state is not State.UNREAD:
            self._end(output, Close("the server has ended the connection"))
        return output.done()

    def _settle(self, now: float, output: Output) -> None:
        """Say what is ours to say, but not within an answer of the server's."""
        if not (self._carried or self._ended):
            self._release(now, output)

    # -- endings -------------------------------------------------------------------------------------------------

    def _end(self, output: Output, op: Close | Abort) -> None:
        """Nothing is said behind this."""
        self._ended = True
        output.add(op)

    def _close_behind(self, reason: str) -> None:
        """Take nothing more, and close once all is answered."""
        self._ending, self._state = self._ending or reason, State.DISCARD
        self._forget()

    def _go_on_unread(self, reason: str, now: float, output: Output) -> None:
        """Nothing is enforced: what cannot be read goes on, unless part of what was said is ours."""
        if self._halfway():
            self._end(output, Abort(reason))
            return
        self._state = State.UNREAD
        for record in self._records(now):
            output.add(record)
        if held := self._forget():
            output.add(Inject(Direction.REQUEST, held))

    def _unasked(self, size: int, output: Output) -> None:
        """What comes where no request is read."""
        if self._state is State.DISCARD:
            output.take(Drop, FOREVER)
        else:
            self._unread(size, output)

    def _unread(self, size: int, output: Output) -> int:
        """What is not read any more, of either direction, by pieces, so that a new policy can end it; how many bytes
        that is."""
        if not self.judge.audit_only:
            self._end(output, Abort(_CHANGED))
            return 0
        output.take(Pass, size)
        return size

    def _cut_short(self, size: int, now: float, output: Output) -> None:
        """The client has ended within a request."""
        record = self._unfinished(now)
        self._forget()
        self._state = State.DISCARD
        output.add(record)
        if size > 0:
            output.take(Drop, size)
