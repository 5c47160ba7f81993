"""CQL by way of a relay with lanes: whatever goes straight, each end gets what it would have got of the proxy."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from random import Random
from time import monotonic
from typing import Any

import pytest

from l7proxy.cassandra import CassandraConversation
from l7proxy.cassandra_known import NEVER, CassandraKnown
from l7proxy.cassandra_repeat import _mask
from l7proxy.cassandra_views import VIEWS_FOR
from l7proxy.timeouts import stop
from parsers.cassandra import Opcode, write_envelope
from parsers.options import CassandraOptions
from policies.verdict import Verdict
from sockmap.splice_lanes import PREFIX
from tests.cassandra import words
from tests.cassandra.rig import SERVER, Rig, Teller, code_of, id_of, own, size_of, split, stream_of, tells
from tests.dialogues import REQUESTS, Dialogue
from tests.lanes import Scene
from tests.matching import REQUEST, RESPONSE
from tests.rim.test_relay import run

pytestmark = pytest.mark.sources
SEEDS = range(30)
INSERT, SELECT = "INSERT INTO shop.t (a) VALUES (?)", "SELECT a FROM shop.t WHERE b = ?"
VERSIONS = (3, 4, 5)
TIMED_OUT = 0x1100


class Envelopes:
    """Out of bytes, once these are in segments if they are `framed`."""

    def __init__(self) -> None:
        self.framed = False
        self._data = self._plain = b""

    def take(self, data: bytes) -> list[bytes]:
        """Whole ones."""
        self._data += data
        if not self.framed:
            self._plain, self._data = self._plain + self._data, b""
        while self._data and (size := size_of(self._data, 0, False)) <= len(self._data):
            self._plain += words.unsegment(self._data[:size])[0][0]
            self._data = self._data[size:]
        found = split(self._plain)
        self._plain = self._plain[sum(map(len, found)) :]
        return found


class Shop(Scene):
    """A connection of CQL. Its server answers what the proxy asks for itself: `views` are those that it has, as in
    `Rig`. `served`, `heard`: what the ends got."""

    def __init__(
        self, version: int = 4, judge: Teller | None = None, *, slow: bool = False, beside: Shop | None = None
    ) -> None:
        self.version, self.framed = version, False
        self.known: CassandraKnown = beside.known if beside else CassandraKnown(100, 100_000, 100)
        self.shops: list[Shop] = beside.shops if beside else []
        self.shops.append(self)
        super().__init__(CassandraConversation(judge or Teller(), self.known, SERVER), SERVER, slow=slow, beside=beside)  # type: ignore[arg-type]
        self.known.changed = self._changed
        self.views: Iterable[tuple[str, str, str]] = ()
        self.served: list[bytes] = []
        self.heard: list[bytes] = []
        self.read, self._looked = (Envelopes(), Envelopes()), [0, 0]
        self.ask(words.startup(version))
        self.say(words.ready(version))
        self.framed = self.read[0].framed = self.read[1].framed = version > 4

    def _changed(self, _: tuple[str, int]) -> None:
        for shop in self.shops:
            if shop.relay.fast is not None:
                shop.fast.shut()

    def wire(self, *envelopes: bytes) -> bytes:
        """As they travel."""
        data = b"".join(envelopes)
        return words.segments(data) if self.framed and data else data

    def ask(self, *envelopes: bytes) -> bool:
        """The client sends. True: it went straight."""
        return self.bring(REQUEST, self.wire(*envelopes))

    def say(self, *envelopes: bytes) -> bool:
        """The server sends."""
        return self.bring(RESPONSE, self.wire(*envelopes))

    def bring(self, way: int, data: bytes) -> bool:
        """Either."""
        went = self.send(way, data)
        while True:
            new = [self.read[one].take(self._new(one)) for one in (REQUEST, RESPONSE)]
            self.heard += new[RESPONSE]
            self.served += (one for one in new[REQUEST] if not own(one))
            questions = [one for one in new[REQUEST] if own(one)]
            if not questions:
                return went
            self.send(RESPONSE, self.wire(*(tells(one, self.views) for one in questions)))

    def _new(self, way: int) -> bytes:
        place, self._looked[way] = self._looked[way], len(self.got[way])
        return bytes(self.got[way][place:])

    def execute(self, stream: int = 5, value: bytes = b"v", text: str = INSERT) -> bytes:
        return words.execute(id_of(text), self.version, stream, [value])

    def void(self, stream: int = 5) -> bytes:
        return words.void(self.version, stream)

    def options(self) -> None:
        """A driver's heartbeat, and its answer."""
        self.ask(words.options(self.version, 9))
        self.say(words.say(Opcode.SUPPORTED, bytes(2), self.version, 9))

    def warm(self, text: str = INSERT) -> Shop:
        """The client has prepared and run the statement until it is known."""
        self.ask(words.prepare(text, self.version, 1))
        self.say(words.prepared(id_of(text), self.version, 1))
        return self.again(text)

    def again(self, text: str = INSERT) -> Shop:
        """It runs it."""
        for _ in range(4):
            self.ask(self.execute(5, text=text))
            self.say(self.void(5))
        return self

    def told_of(self) -> list[tuple[int, str]]:
        """Records since this was asked last."""
        self.fast.look()
        found = self.told.told()
        del self.told[:]
        return found


def changes(version: int) -> bytes:
    """An event: there is another table."""
    what = ("SCHEMA_CHANGE", "CREATED", "TABLE", "shop", "x")
    return words.say(Opcode.EVENT, b"".join(map(words.string, what)), version, -1)


class Talk(Dialogue):
    """Of a client that mostly runs what it has prepared."""

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        self.shop = Shop(VERSIONS[seed % 3])
        super().__init__(random, self.shop.warm(SELECT))
        assert self.shop.opened[REQUEST]
        self.shop.told_of()
        self.wanted: deque[bytes] = deque()
        """What the server has to get."""
        self.free = list(range(20, 50))
        self.busy: dict[int, bytes] = {}
        """Streams, and what the server has said there."""
        self.answers: list[bytes] = []
        self.verdicts: list[tuple[int, str]] = []

    def ask(self) -> bytes:
        return self.shop.wire(*(self._one() for _ in range(self.random.choice((1, 1, 2))) if self.free))

    def _one(self) -> bytes:
        self.asked += 1
        stream = self.free.pop(self.random.randrange(len(self.free)))
        self.busy[stream] = b""
        version, verdict = self.shop.version, Verdict.FORWARDED
        kind = (
            self.random.choice(("query", "prepare", "refused", "options")) if self.random.random() > self.usual else ""
        )
        if kind == "options":
            request = words.options(version, stream)
        elif kind == "prepare":
            request = words.prepare(SELECT, version, stream)
        elif kind:
            verdict = Verdict.DROPPED if kind == "refused" else verdict
            request = words.query(f"SELECT a FROM shop.{'secret' if kind == 'refused' else 't'}", version, stream)
        else:
            request = self.shop.execute(stream, b"v" * self.random.choice((1, 40, 3000)), SELECT)
        if verdict is Verdict.FORWARDED:
            self.wanted.append(request)
        if kind != "options":
            self.verdicts.append((stream, verdict.value))
        return request

    def serve(self, data: bytes) -> bytes:
        version, random = self.shop.version, self.random
        for request in self.shop.read[REQUEST].take(data):
            stream = stream_of(request)
            if own(request):
                self.answers.append(tells(request))
                continue
            assert request == self.wanted.popleft()
            answer = words.rows(version, stream, random.choice((1, 30, 500, 5000)))
            if request[4] == Opcode.OPTIONS:
                answer = words.say(Opcode.SUPPORTED, bytes(2), version, stream)
            elif request[4] == Opcode.PREPARE:
                answer = words.prepared(id_of(SELECT), version, stream)
            elif random.random() < 0.05:
                answer = words.error(TIMED_OUT, "late", version, stream)
            self.busy[stream] = answer
            self.answers.append(answer)
        random.shuffle(self.answers)
        count = random.choice((0, 1, 1, 3))
        said, self.answers = self.answers[:count], self.answers[count:]
        if random.random() < 0.002:
            said.append(changes(version))
        return self.shop.wire(*said)

    def hear(self, data: bytes) -> None:
        for answer in self.shop.read[RESPONSE].take(data):
            stream = stream_of(answer)
            said = self.busy.pop(stream)
            assert answer == said if said else code_of(answer)
            self.free.append(stream)

    def judge(self) -> Any:
        return Teller()

    @property
    def answered(self) -> bool:
        return not self.busy


@pytest.mark.parametrize("seed", SEEDS)
def test_a_dialogue_goes_as_if_all_of_it_came_by_the_proxy(seed: int) -> None:
    async def scenario() -> None:
        talk = Talk(seed)
        await talk.play()
        assert not talk.wanted and talk.asked >= REQUESTS
        assert sorted(talk.shop.told_of()) == sorted(talk.verdicts)

    run(scenario)


VIEW = ("shop", "t_view", "t")


@pytest.mark.parametrize("heartbeat", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_nothing_goes_straight_under_views_that_may_have_changed(heartbeat: bool, here: bool) -> None:
    async def scenario() -> None:
        shop = Shop(judge=Teller(refused=["t_view"])).warm()
        assert shop.ask(shop.execute(6)) and shop.say(shop.void(6))
        shop.views = [VIEW]
        if here:
            shop.say(changes(4))
        else:
            shop.known.outdated(SERVER)
        assert shop.opened == (False, False)
        if heartbeat:
            shop.options()
            assert shop.opened == (False, False)
        served = list(shop.served)
        assert not shop.ask(shop.execute(7))
        assert shop.served == served and code_of(shop.heard[-1]) and not shop.failures

    run(scenario)


def test_a_change_that_is_told_of_while_a_heartbeat_is_under_way_keeps_it_shut() -> None:
    async def scenario() -> None:
        shop = Shop(judge=Teller(refused=["t_view"])).warm()
        shop.views = [VIEW]
        shop.ask(words.options(4, 9))
        shop.say(changes(4))
        shop.say(words.say(Opcode.SUPPORTED, bytes(2), 4, 9))
        served = list(shop.served)
        assert not shop.ask(shop.execute(7)) and shop.served == served and code_of(shop.heard[-1])

    run(scenario)


def test_views_that_were_asked_for_anew_let_it_go_on() -> None:
    async def scenario() -> None:
        shop = Shop().warm()
        group, views = shop.relay.frames.group(), shop.known.views.get(SERVER)  # type: ignore[union-attr]
        assert views is not None and shop.ask(shop.execute(6)) and shop.say(shop.void(6))
        views.asked -= VIEWS_FOR + 1
        group.until = views.asked + VIEWS_FOR
        shop.fast.lane.allow(group.number, group.until)
        assert not shop.ask(shop.execute(6))
        shop.say(shop.void(6))
        assert monotonic() - views.asked < VIEWS_FOR / 2
        assert shop.again().ask(shop.execute(6)) and not shop.failures

    run(scenario)


@pytest.mark.parametrize("slow", [False, True])
def test_a_group_that_is_made_while_views_are_not_known_does_no_harm(slow: bool) -> None:
    async def scenario() -> None:
        shop, judge = Shop(slow=slow).warm(), Teller()
        shop.judged_by(judge)
        shop.known.outdated(SERVER)
        shop.options()
        assert shop.opened == (False, False)
        views = shop.known.views.get(SERVER)
        assert views is not None and views.asked == NEVER
        shop.again()
        second = Shop(judge=judge, beside=shop).warm()
        assert second.opened == (True, True)
        assert second.ask(second.execute(6)) and second.say(second.void(6))
        assert not (shop.failures or second.failures)

    run(scenario)


@pytest.mark.parametrize("stream", [6, 8])
def test_a_refusal_never_comes_within_an_answer_that_goes_straight(stream: int) -> None:
    async def scenario() -> None:
        shop = Shop().warm(SELECT)
        assert shop.ask(shop.execute(6, text=SELECT))
        rows = words.rows(4, 6, 100_000)
        assert shop.bring(RESPONSE, rows[:60_000])
        shop.ask(words.query("SELECT a FROM shop.secret", 4, stream))
        shop.bring(RESPONSE, rows[60_000:])
        assert shop.heard[-2] == rows and code_of(shop.heard[-1]) and stream_of(shop.heard[-1]) == stream
        assert shop.again(SELECT).ask(shop.execute(6, text=SELECT)) and not shop.failures

    run(scenario)


@pytest.mark.parametrize("noted", [False, True])
def test_an_answer_that_is_half_told_is_told_to_its_end_before_a_stop(noted: bool) -> None:
    async def scenario() -> None:
        shop = Shop().warm(SELECT)
        shop.ask(shop.execute(6, text=SELECT))
        rows = words.rows(4, 6, 100_000)
        assert shop.bring(RESPONSE, rows[:60_000])
        if noted:
            shop.fast.look()
        stop(shop.relay)
        assert not (shop.ends[REQUEST].closed or shop.ends[RESPONSE].closed)
        shop.bring(RESPONSE, rows[60_000:])
        assert shop.heard[-1] == rows and shop.ends[REQUEST].closed and not shop.failures

    run(scenario)


def test_whatever_went_straight_is_recorded_though_some_requests_cannot_be() -> None:
    async def scenario() -> None:
        shop = Shop().warm()
        shop.told_of()
        streams = [7, 7, 8, 8, *range(100, 500), 8, 9]
        assert all(shop.ask(shop.execute(stream)) for stream in streams)
        shop.relay.guard(shop.fast.look)
        assert shop.ends[REQUEST].aborted and "a second request on stream 7" in str(shop.failures[0])
        for half in shop.relay.half:
            shop.relay.lost(half, ConnectionResetError())
        assert [stream for stream, _ in shop.told.told()] == [7, 8, *range(100, 500), 9]

    run(scenario)


def test_no_more_requests_are_under_way_than_may_be() -> None:
    async def scenario() -> None:
        shop = Shop(judge=Teller(CassandraOptions(max_in_flight=10))).warm()
        went = [shop.ask(shop.execute(stream)) for stream in range(100, 130)]
        assert went == [True] * 10 + [False] * 20 and len({stream_of(one) for one in shop.served[-10:]}) == 10
        for stream in range(100, 130):
            shop.say(shop.void(stream))
        assert [stream_of(one) for one in shop.heard[-30:]] == list(range(100, 130)) and not shop.failures
        assert shop.again().ask(shop.execute(6))

    run(scenario)


def test_prefixes_that_are_too_long_are_not_offered_nor_remembered() -> None:
    rig = Rig(5)
    rig.talk.offers = []
    rig.ask(rig.prepare(INSERT, 1)).say(rig.prepared(id_of(INSERT), 1))
    rig.ask(rig.execute(id_of(INSERT), 2)).say(rig.void(2))
    assert len(rig.talk.offers) == 1
    before = _mask.cache_info().currsize
    for size in range(PREFIX, 1000, 20):
        body = struct.pack(">H", 16) + id_of(INSERT) + struct.pack(">H", size) + bytes(size)
        request = write_envelope(5, size, Opcode.EXECUTE, body + struct.pack(">HIH", 1, 1, 0))
        rig.ask(request).say(rig.void(size))
        assert rig.served()[-1:] == [request]
    assert len(rig.talk.offers) == 1 and _mask.cache_info().currsize == before
