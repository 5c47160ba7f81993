"""The worker's side of the fast path: what it opens, shuts, reads and holds back, with a kernel of the test's own."""

from __future__ import annotations

import asyncio
import mmap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from l7proxy.fastpath import FastPath, begin
from l7proxy.offers import Group, Offer
from l7proxy.ops import Direction, Op, Record
from l7proxy.timeouts import enforce, rejudge, stop
from parsers.malformed import Malformed
from sockmap.splice_lanes import ANSWER_NOTE, ANSWERS, NOTES, REQUEST_NOTE, REQUESTS, SIZE, Form, Lane
from tests.kafka.rig import Teller
from tests.rim.test_frames import Echoes, _record
from tests.rim.test_relay import rig, run
from tests.rim.test_straight import Bridge, happens

pytestmark = [pytest.mark.privileged, pytest.mark.sources]
REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE
FORM = Form(0, 1, 300, 1, 2, 0, 0, False, bytes(16), bytes(16))


class Repeater(Echoes):
    """Offers whatever passes. `notes`: what it was told of."""

    def __init__(self, judge: Teller) -> None:
        super().__init__(judge)
        self.offers = []
        self.notes: list[tuple[str, int, float]] = []
        self.own = Group()
        self.may, self.most = True, 10

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Any:
        ops: list[Op] = list(super().receive(direction, data, end, now))
        if not direction and self.offers is not None and data:
            self._offers(Offer(self.own, data[1:2], b"\xff", 4, 0, 0, data[1:2].decode()))
        return ops

    def form(self) -> Form:
        return FORM

    def group(self) -> Group:
        return self.own

    def repeats(self, now: float) -> bool:
        return self.may and self._quiet_here() and not self._waits

    def room(self) -> int:
        return self.most - len(self._due)

    def hears(self) -> bool:
        return not any(self._due)

    def went(self, entry: Any, identity: int, now: float) -> None:
        self.notes.append((entry, identity, now))
        self._due.append(None)

    def heard(self, identity: int, data: bytes, now: float) -> Record:
        if not self._due:
            raise Malformed(0, "nobody asked")
        self.notes.append((data.decode(), identity, now))
        self._due.pop(0)
        return _record("heard")


class Spliced(Bridge):
    """A bridge that a lane may use. `busy`: its sender is in the middle of a send."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = 0
        self.busy = False

    def by_lane(self, lane: Lane) -> None:
        if self.full:
            raise OSError("full")
        self.lanes += 1

    def deciding(self) -> bool:
        return self.busy


class Kernel(Lane):
    """A lane, and what the programs do with it."""

    def __init__(self) -> None:
        super().__init__(mmap.mmap(-1, SIZE), 0)
        self.given: list[tuple[str, int]] = []

    def take(self, form: Form) -> Lane:
        self.begin(1, form)
        return self

    def state(self, way: int) -> tuple[bool, int]:
        """Whether it is open, and from how many bytes on."""
        place = self._ways[way]
        return self._words[place] != 0, self._words[place + 1]

    def ask(self, number: int, identity: int, at: float) -> None:
        self._put(REQUEST, REQUESTS, REQUEST_NOTE.pack(int(at * 1e9), identity, number))

    def answer(self, text: bytes, identity: int, at: float) -> None:
        self._put(RESPONSE, ANSWERS, ANSWER_NOTE.pack(int(at * 1e9), identity, len(text), text))

    def _put(self, way: int, start: int, note: bytes) -> None:
        made = Lane.made(self, way)
        place = start + made % NOTES * len(note)
        self.memory[place : place + len(note)] = note
        self._words[self._ways[way] + 5] = (made + 1) & 0xFFFFFFFF

    def rest(self, way: int, left: int) -> None:
        """So much is still to come of a message."""
        self._words[self._ways[way] + 6] = left


async def _same(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def opened(first: bytes = b"\1a") -> AsyncIterator[SimpleNamespace]:
    """A connection with a fast path, both directions open behind `first` and its answer."""
    kernel, bridges = Kernel(), [Spliced(), Spliced()]
    talk = Repeater(Teller())
    async with rig(_same, talk=lambda: talk) as r:
        made: list[FastPath | None] = []
        there = iter(bridges)
        r.owner.bridges = lambda: next(there)
        r.owner.hasten = lambda relay: made.append(begin(relay, kernel))
        r.owner.know = lambda group, offer, number: kernel.given.append((offer.entry, number))
        reader, writer = await r.connect()
        found = SimpleNamespace(r=r, kernel=kernel, talk=talk, bridges=bridges, reader=reader, writer=writer)
        for _ in range(2):
            writer.write(first)
            assert await reader.readexactly(len(first)) == first
        await happens(lambda: kernel.state(REQUEST)[0] and kernel.state(RESPONSE)[0])
        found.fast, found.relay = made[-1], r.owner.relays[0]
        yield found


def test_both_ways_open_behind_what_was_read_and_written() -> None:
    async def scenario() -> None:
        async with opened() as o:
            assert o.kernel.state(REQUEST) == (True, 4) and o.kernel.state(RESPONSE) == (True, 4)
            assert o.kernel.given == [("a", 0)] and o.bridges[0].lanes == o.bridges[1].lanes == 1
            o.writer.write(b"\1b")
            assert await o.reader.readexactly(2) == b"\1b"
            await happens(lambda: o.kernel.state(RESPONSE) == (True, 6))
            assert o.kernel.given == [("a", 0), ("b", 1)] and o.bridges[0].lanes == 1

    run(scenario)


def test_notes_are_told_in_the_order_in_which_all_happened() -> None:
    async def scenario() -> None:
        async with opened() as o:
            for number in range(3):
                o.kernel.ask(0, number, 10 + number)
                o.kernel.answer(b"A%d" % number, number, 10.5 + number)
            o.kernel.ask(0, 3, 13)
            assert o.fast.work() == 7 and o.fast.work() == 0
            assert [text for text, *_ in o.talk.notes] == ["a", "A0", "a", "A1", "a", "A2", "a"]
            assert o.talk.notes[1] == ("A0", 0, 10.5) and not o.talk.idle
            o.kernel.answer(b"A3", 3, 13.5)
            o.fast.look()
            assert o.talk.idle and o.talk.notes[-1] == ("A3", 3, 13.5)

    run(scenario)


def test_an_answer_that_comes_while_notes_are_read_is_told_of_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with opened() as o:
            o.kernel.ask(0, 1, 1.0)
            calls = []

            def made(way: int) -> int:
                found = Lane.made(o.kernel, way)
                calls.append(way)
                if len(calls) == 1:  # behind the count of answers: an answer, and another request and its answer
                    o.kernel.answer(b"A", 1, 2.0)
                    o.kernel.ask(0, 2, 3.0)
                elif len(calls) == 2:
                    o.kernel.answer(b"B", 2, 4.0)
                return found

            monkeypatch.setattr(o.kernel, "made", made)
            o.fast.work()
            assert [text for text, *_ in o.talk.notes] == ["a", "A", "a"]
            o.fast.work()
            assert [text for text, *_ in o.talk.notes] == ["a", "A", "a", "B"]

    run(scenario)


def test_many_notes_are_read_before_there_are_too_many() -> None:
    async def scenario() -> None:
        async with opened() as o:
            for number in range(1200):
                o.kernel.ask(0, number, number)
                o.kernel.answer(b"A", number, number + 0.5)
                if number % 100 == 99:
                    if number == 99:
                        o.fast.look()
                    await happens(lambda wanted=number: len(o.talk.notes) == 2 * wanted + 2)
            assert [identity for _, identity, _ in o.talk.notes[::2]] == list(range(1200))

    run(scenario)


def test_a_request_that_comes_here_shuts_both_ways_and_waits_for_their_readers() -> None:
    async def scenario() -> None:
        async with opened() as o:
            there, back = o.bridges
            o.kernel.ask(0, 1, 1.0)
            o.kernel.answer(b"A", 1, 2.0)
            there.sent, there.left, back.sent, back.left, back.busy = 20, 1, 30, 1, True
            o.writer.write(b"\1x")
            for change in (("left", there), ("busy", back), ("left", back)):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(o.reader.read(9), 0.1)
                assert o.relay.requests.held and not o.kernel.state(REQUEST)[0] and not o.kernel.state(RESPONSE)[0]
                setattr(change[1], change[0], 0)
            assert await o.reader.readexactly(3) == b"\2no"
            assert [text for text, *_ in o.talk.notes] == ["a", "A"] and not o.relay.requests.held
            assert (o.relay.requests.total, o.relay.responses.total) == (26, 34)
            await happens(lambda: o.kernel.state(REQUEST) == (True, 6) and o.kernel.state(RESPONSE) == (True, 4))

    run(scenario)


@pytest.mark.parametrize("way", [REQUEST, RESPONSE])
def test_the_rest_of_a_message_that_comes_here_passes_by_count(way: Direction) -> None:
    async def scenario() -> None:
        async with opened() as o:
            o.kernel.ask(0, 1, 1.0)
            if way is RESPONSE:
                o.kernel.answer(b"A", 1, 2.0)
            o.bridges[way].sent = 10
            o.kernel.rest(way, 3)
            if way is RESPONSE:
                o.r.owner.relays[0].side(way).data_received(b"xyz")  # of the server
                assert await o.reader.readexactly(3) == b"xyz"
                o.writer.write(b"\1c")
                assert await o.reader.readexactly(2) == b"\1c"
            else:
                o.writer.write(b"xyz\1c")
                assert await o.reader.readexactly(5) == b"xyz\1c"
            assert o.relay.half[way].total == 4 + 10 + 3 + 2

    run(scenario)


def test_what_the_conversation_cannot_believe_resets_the_connection() -> None:
    async def scenario() -> None:
        async with opened() as o:
            o.kernel.answer(b"A", 1, 2.0)
            o.relay.guard(o.fast.look)
            with pytest.raises(ConnectionResetError):
                await o.reader.read(9)
            assert "nobody asked" in o.r.owner.failures[0]

    run(scenario)


def test_words_of_our_own_never_come_before_what_goes_straight() -> None:
    async def scenario() -> None:
        async with opened() as o:
            with pytest.raises(RuntimeError):
                o.fast.before(o.relay.responses)
            with pytest.raises(RuntimeError):
                o.fast.before(o.relay.requests)

    run(scenario)


def test_nothing_opens_while_the_conversation_looks_at_more() -> None:
    async def scenario() -> None:
        async with opened() as o:
            o.talk.may = False
            o.writer.write(b"\1b")
            assert await o.reader.readexactly(2) == b"\1b"
            assert not o.kernel.state(REQUEST)[0] and not o.kernel.state(RESPONSE)[0]
            o.talk.may, o.talk.own.until = True, time.monotonic() - 1
            o.writer.write(b"\1b")
            assert await o.reader.readexactly(2) == b"\1b"
            assert not o.kernel.state(REQUEST)[0]

    run(scenario)


def test_another_policy_shuts_it_until_it_has_decided() -> None:
    async def scenario() -> None:
        async with opened() as o:
            origin = o.relay.origin
            judge: Any = Teller()
            rejudge(o.relay, lambda _: replace(origin, judge=judge))
            assert not o.kernel.state(REQUEST)[0] and not o.kernel.state(RESPONSE)[0]
            o.kernel.ask(0, 1, 1.0)  # it was on its way
            o.kernel.answer(b"A", 1, 2.0)
            o.talk.own = Group()
            o.writer.write(b"\1b")
            assert await o.reader.readexactly(2) == b"\1b"
            assert [text for text, *_ in o.talk.notes] == ["a", "A"]
            await happens(lambda: o.kernel.state(REQUEST)[0])
            assert o.kernel.given == [("a", 0), ("b", 0)]

    run(scenario)


def test_ends_and_time_outs_know_of_it() -> None:
    async def scenario() -> None:
        async with opened() as o:
            o.relay.last = 0.0
            o.kernel.ask(0, 1, 1.0)
            o.fast.look()
            assert o.relay.last
            o.bridges[0].sent, o.relay.last = 5, 0.0
            enforce(o.relay, time.monotonic())
            assert o.relay.last and not o.relay.lingering
            o.kernel.answer(b"A", 1, 2.0)
            o.writer.write_eof()
            assert await o.reader.read() == b""
            assert o.talk.idle and o.talk.notes[-1][0] == "A"
        async with opened() as o:
            o.kernel.ask(0, 1, 1.0)
            o.kernel.answer(b"A", 1, 2.0)
            stop(o.relay)
            assert o.talk.notes[-1][0] == "A" and not o.kernel.state(REQUEST)[0]
            assert await o.reader.read() == b""

    run(scenario)
