"""The fast path: known requests and their answers go straight from peer to peer, past this process, and are told of
afterwards (sockmap/splice_lanes.py). docs/fastpath.md says what keeps that safe.

A conversation offers what it has allowed and would allow again; once the programs have that, such requests go on by
themselves, and leave notes. What is not known comes here as ever: then nothing goes straight any more, in either
direction, until it is decided on.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from l7proxy.ops import Direction
from l7proxy.straight import Straight
from parsers.malformed import Malformed
from sockmap.splice_lanes import ANSWER_NOTE, ANSWERS, NOTES, REQUEST_NOTE, REQUESTS, Form, Lane

if TYPE_CHECKING:
    from l7proxy.frames import Frames
    from l7proxy.half import Half
    from l7proxy.relay import Relay

log = logging.getLogger("l7proxy.worker")
REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE
_ASKED, _TOLD = REQUEST_NOTE.size, ANSWER_NOTE.size
_ANEW = 1.0
"""Seconds after which what comes here all the same is given to the programs once more: they may have forgotten it."""
_BUSY, _SOONEST, _LATEST = 64, 0.002, 0.05
"""Notes at once that show that more will come before long, and seconds within which they are read then."""
_TURNS = 16
"""Turns of the loop for which a peer is waited for; then it is asked less often."""
_SOON, _LATER = 0.001, 0.05


class Lanes(Protocol):
    """See `sockmap.splice_lanes.Lanes`."""

    def take(self, form: Form) -> Lane | None:
        """A place for a connection, if there is one."""


def begin(relay: Relay, lanes: Lanes) -> FastPath | None:
    """The fast path of a relay whose conversation has made offers. None: not yet; or there is none, as one of the ends
    is on another node, or all places are taken. Then no more offers are made."""
    frames, owner, halves = relay.frames, relay.owner, relay.half
    if frames is None or relay.client is None or relay.server is None:
        return None
    if any(half.straight is not None and half.straight.opened for half in halves):
        return None
    client, server = (side.get_extra_info("socket").fileno() for side in (relay.client, relay.server))
    there, back = owner.bridge(client, server), owner.bridge(server, client)
    lane = lanes.take(frames.form()) if there is not None and back is not None else None
    if there is None or back is None or lane is None:
        frames.offers = None
        return None
    for half, bridge in zip(halves, (there, back), strict=True):
        half.straight = half.straight or Straight(bridge)
    relay.fast = FastPath(relay, frames, lane)
    relay.fast.after()
    return relay.fast


class FastPath:
    """That of one relay, whose two ends are on this node."""

    __slots__ = ("_asking", "_conversation", "_group", "_opened", "_read", "_since", "_timer", "lane", "relay")

    def __init__(self, relay: Relay, conversation: Frames, lane: Lane) -> None:
        self.relay, self._conversation, self.lane = relay, conversation, lane
        self._group = conversation.group()
        self._read = [0, 0]
        self._since = [0, 0]
        """Notes that there were when a direction was opened last."""
        self._opened = [False, False]
        """Bytes of a direction may have gone straight that are not accounted for yet."""
        self._timer = False
        self._asking = False
        """A request is decided on that has come here."""

    # -- notes ---------------------------------------------------------------------------------------------------

    def work(self) -> int:
        """Tell the conversation of what has gone straight; how many messages that were. Raises Malformed."""
        lane = self.lane
        read, heard = self._read
        # What these answer is among the requests ...
        answers = (lane.made(RESPONSE) - heard) & 0xFFFFFFFF
        requests = (lane.made(REQUEST) - read) & 0xFFFFFFFF
        done = answers + requests
        if not done:
            return 0
        # ... and these are all that came before any of those; later ones may answer others.
        earlier = (lane.made(RESPONSE) - heard) & 0xFFFFFFFF
        conversation, records, entries = self._conversation, self.relay.records, self._group.entries
        memory, asked, told = lane.memory, lane.start + REQUESTS, lane.start + ANSWERS
        while requests or answers > 0:
            at = identity = number = 0
            if requests:
                at, identity, number = REQUEST_NOTE.unpack_from(memory, asked + (read % NOTES) * _ASKED)
            if (earlier if requests else answers) > 0:
                then, paired, size, sample = ANSWER_NOTE.unpack_from(memory, told + (heard % NOTES) * _TOLD)
                if not requests or then < at:
                    heard = self._read[RESPONSE] = (heard + 1) & 0xFFFFFFFF
                    answers -= 1
                    earlier -= 1
                    records.add(conversation.heard(paired, sample[:size], then * 1e-9))
                    continue
            read = self._read[REQUEST] = (read + 1) & 0xFFFFFFFF
            requests -= 1
            conversation.went(entries[number], identity, at * 1e-9)
        lane.took(REQUEST, read)
        lane.took(RESPONSE, heard)
        self.relay.last = monotonic()
        return done

    def look(self) -> None:
        """Every 50 ms or so: read the notes, and oftener while there are many."""
        done = self.work()
        if done and self._conversation.ending:
            self.relay.put(self.relay.responses, monotonic())  # the last answer may have been heard
        if done > _BUSY and not self._timer:
            self._timer = True
            self.relay.owner.loop.call_later(_SOONEST, self._look_again)

    def _look_again(self) -> None:
        self._timer = False
        if self.relay.open:
            self.relay.guard(self._look_soon)

    def _look_soon(self) -> None:
        done = self.work()
        wait = _LATEST if not done else min(_LATEST, _SOONEST * NOTES / (4 * done))
        if wait < _LATEST:
            self._timer = True
            self.relay.owner.loop.call_later(wait, self._look_again)

    # -- between what went straight and what comes here ----------------------------------------------------------

    def waits(self, half: Half, data: bytes, turn: int = 0) -> bool:
        """Bytes have come here, perhaps behind others that went straight: take notice of those. True if they wait for
        their readers, and are put to the relay later. What follows a request that is not known has to be decided on
        as well, and may be answered here: so nothing goes straight in the other direction either."""
        relay, opened = self.relay, self._opened
        if not (opened[REQUEST] or opened[RESPONSE]):
            return False
        if half.direction is REQUEST:
            self._asking = True
            self.shut()
            settled = self._settled(REQUEST, True)
            if half.credit >= len(data) and settled:
                self.work()
                return False  # no more than the rest of a request that is known
            settled = settled and self._settled(RESPONSE, False)
        else:
            settled = self._settled(RESPONSE, True)
        self.work()
        if settled or relay.lingering:
            return False
        if not half.held:
            half.hold(True)
        if turn < _TURNS:
            relay.owner.loop.call_soon(self._again, half, data, turn + 1)
        else:
            wait = min(_LATER, _SOON * (1 << min(turn - _TURNS, 6)))
            relay.owner.loop.call_later(wait, self._again, half, data, turn + 1)
        return True

    def _again(self, half: Half, data: bytes, turn: int) -> None:
        relay = self.relay
        if relay.lingering or half.source is None:
            return
        relay.guard(self._go_on, half, data, turn)

    def _go_on(self, half: Half, data: bytes, turn: int) -> None:
        if not self.waits(half, data, turn):
            half.hold(False)
            self.relay.more(half, data, monotonic())

    def _settled(self, way: int, came: bool) -> bool:
        """Nothing goes straight in this direction any more, and its target has read what did; `came`: bytes of its
        sender are at hand, so none of its sends is on its way there still."""
        if not self._opened[way]:
            return True
        lane = self.lane
        lane.shut(way)
        half = self.relay.half[way]
        straight = half.straight
        assert straight is not None  # noqa: S101 -- made with this
        if not came and straight.deciding():
            return False
        if lane.made(way) != self._since[way] or lane.left(way):
            half.look()
            if straight.unread():
                return False
        self._account(way, half, straight)
        return True

    def _account(self, way: int, half: Half, straight: Straight) -> None:
        half.look()
        half.credit = self.lane.left(way)
        if way == RESPONSE and half.credit:
            self._conversation.within_answer()
        straight.opened = self._opened[way] = False

    def ended(self, half: Half) -> None:
        """FIN has come, behind what went straight."""
        if self._opened[half.direction]:
            self.lane.shut(half.direction)
            self.work()
            straight = half.straight
            assert straight is not None  # noqa: S101 -- made with this
            self._account(half.direction, half, straight)

    def shut(self) -> None:
        """Nothing more goes straight, until something has come here."""
        self.lane.shut(REQUEST)
        self.lane.shut(RESPONSE)

    def over(self) -> None:
        """Both sockets are closed, or will be: whatever went straight is told of, as far as it can be."""
        self.shut()
        if self._opened[RESPONSE] and (left := self.lane.left(RESPONSE)):
            responses = self.relay.responses
            responses.look()
            responses.credit = left  # or it would be put to the conversation that nothing is to come
            self._conversation.within_answer()
        while True:
            try:
                self.work()
            except Malformed as error:
                log.warning("what went straight does not go together: %s", error)
            else:
                return

    # -- opening -------------------------------------------------------------------------------------------------

    def before(self, half: Half) -> None:
        """Bytes are about to be written behind which nothing may go before them."""
        if self._opened[half.direction]:
            raise RuntimeError("bytes of our own while others may go straight")
        if half.direction is RESPONSE and not self._asking:
            self._try(REQUEST)  # in time for what its reader asks next

    def after(self) -> None:
        """Everything that was read has been written, or waits."""
        self._asking = False
        if self._conversation.offers:
            self._take_offers()
        if self._opened[REQUEST] and not self._conversation.repeats(monotonic()):
            self.shut()
            return
        self._try(REQUEST)
        if self._opened[REQUEST] and not self.relay.requests.held:
            self._try(RESPONSE)

    def _take_offers(self) -> None:
        conversation, lane, owner = self._conversation, self.lane, self.relay.owner
        group, now = conversation.group(), monotonic()  # what was offered under another policy is not this one's
        offers, conversation.offers = conversation.offers, []
        for offer in offers or ():
            key = offer.prefix, offer.tail
            then, number = group.given.get(key, (0.0, len(group.entries)))
            if offer.group is not group or not lane.has(offer.mask, offer.tail) or now - then < _ANEW:
                continue
            if number == len(group.entries):
                group.entries.append(offer.entry)
            group.given[key] = now, number
            owner.know(group.number, offer, number)

    def _try(self, way: int) -> None:
        relay, conversation, half, room = self.relay, self._conversation, self.relay.half[way], 0
        straight, sink = half.straight, half.sink
        if self._opened[way] or straight is None or straight.opened or sink is None:
            return
        if half.pending or half.credit or half.dropping or half.need or half.waiting or half.eof or half.held:
            return
        if half.paused or half.choked or half.source is None or relay.lingering or sink.get_write_buffer_size():
            return
        if way == REQUEST:
            now, room = monotonic(), conversation.room()
            if room <= 0 or not conversation.repeats(now):
                return
            group = conversation.group()
            if not group.entries or 0 != group.until < now:
                return
            self._group = group
            self.lane.allow(group.number, group.until)
        elif relay.requests.pending or not conversation.hears():
            return
        if straight.by_lane(self.lane):
            self._since[way] = self.lane.made(way)
            self.lane.open(way, half.total - straight.carried, room)
            self._opened[way] = straight.opened = True
