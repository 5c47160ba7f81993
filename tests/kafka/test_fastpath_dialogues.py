"""Kafka by way of a relay with lanes: whatever goes straight, each end gets what it would have got of the proxy."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import pytest

from l7proxy.kafka import KafkaConversation
from l7proxy.kafka_known import KafkaKnown
from l7proxy.timeouts import stop
from parsers.options import KafkaOptions
from policies.verdict import Verdict
from sockmap.splice_lanes import NOTES
from tests.dialogues import REQUESTS, Dialogue
from tests.kafka.rig import IDS, SERVER, Teller, ask, key, metadata, parse, produce, produced
from tests.lanes import Scene
from tests.matching import REQUEST, RESPONSE
from tests.rim.test_relay import run

pytestmark = pytest.mark.sources
SEEDS = range(33)
PRODUCE, METADATA = key("Produce"), key("Metadata")
TOPICS = {one: name for name, one in IDS.items()}


def scene(judge: Teller | None = None, *, slow: bool = False) -> Scene:
    decides: Any = judge or Teller()
    return Scene(KafkaConversation(decides, KafkaKnown(100, 100), SERVER, 300), SERVER, slow=slow)


def warm(here: Scene, topic: str = "orders", version: int = 7, times: int = 4) -> Scene:
    """The client has asked for the same until it is known, and nothing is due."""
    for number in range(1, times + 1):
        here.send(REQUEST, produce(topic, version=version, number=number))
        if version >= 13 and number == 1:
            here.send(RESPONSE, every_topic(1))
        here.send(RESPONSE, produced(topic, version=version, number=number))
    assert here.opened[REQUEST] and not here.failures
    here.fast.look()
    return here


def every_topic(number: int) -> bytes:
    return metadata(number, **{name.replace("-", "_"): one for name, one in IDS.items()})


def frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole ones, and what is left."""
    found = []
    while len(data) >= 4 and len(data) >= (size := 4 + int.from_bytes(data[:4], "big")):
        found.append(data[:size])
        data = data[size:]
    return found, data


def number_of(answer: bytes) -> int:
    return int.from_bytes(answer[4:8], "big")


def served(here: Scene) -> list[int]:
    """Numbers of the requests that the server got."""
    return [parse(frame)[0].correlation_id for frame in frames(bytes(here.got[REQUEST]))[0]]


def heard(here: Scene) -> list[int]:
    """Numbers of the answers that the client got."""
    return [number_of(frame) for frame in frames(bytes(here.got[RESPONSE]))[0]]


def one(number: int, topic: str = "orders", size: int = 10) -> bytes:
    return produce(topic, version=7, number=number, size=size)


def its(number: int, topic: str = "orders") -> bytes:
    """The answer."""
    return produced(topic, version=7, number=number)


class Talk(Dialogue):
    """Of a client that mostly asks for what is known."""

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        self.version = 3 + seed % 11
        super().__init__(random, warm(scene(), version=self.version))
        del self.scene.told[:]
        self.wanted: deque[bytes] = deque()
        """What the server has to get, and the numbers that the client waits for."""
        self.due: deque[int] = deque()
        self.said: dict[int, bytes] = {}
        """By the server, and what is to be recorded."""
        self.verdicts: list[tuple[int, str]] = []
        self._parts = [b"", b""]

    def ask(self) -> bytes:
        if len(self.due) >= self.random.choice((1, 20)):
            return b""
        self.asked += 1
        number, chance, verdict = 100 + self.asked, self.random.random(), Verdict.FORWARDED
        size = self.random.choice((1, 9, 300, 70_000 if self.random.random() < 0.2 else 30))
        topics: tuple[str, ...] = ("orders",)
        if chance > self.usual:
            kind = self.random.randrange(3)
            verdict = Verdict.DROPPED if not kind else verdict
            topics = (("secret-x",), ("payments", "orders"), ())[kind]
        request = produce(*topics, version=self.version, number=number, size=size)
        if not topics:
            request = ask("Metadata", 12, {"topics": None}, number)
        if verdict is Verdict.FORWARDED:
            self.wanted.append(request)
        self.due.append(number)
        self.verdicts.append((number, verdict.value))
        return request

    def serve(self, data: bytes) -> bytes:
        out = b""
        found, self._parts[0] = frames(self._parts[0] + data)
        for frame in found:
            head, tree = parse(frame)
            number = head.correlation_id
            if head.api_key == METADATA:
                out += every_topic(number)
            else:
                names = [one.get("name") or TOPICS[one["topic_id"]] for one in tree["topic_data"]]
                self.said[number] = produced(*names, version=head.version, number=number)
                out += self.said[number]
            assert frame == self.wanted.popleft()
        return out

    def hear(self, data: bytes) -> None:
        found, self._parts[1] = frames(self._parts[1] + data)
        for frame in found:
            number = number_of(frame)
            assert number == self.due.popleft()
            assert frame == self.said.get(number, frame)

    def judge(self) -> Any:
        return Teller()

    @property
    def answered(self) -> bool:
        return not self.due


@pytest.mark.parametrize("seed", SEEDS)
def test_a_dialogue_goes_as_if_all_of_it_came_by_the_proxy(seed: int) -> None:
    async def scenario() -> None:
        talk = Talk(seed)
        await talk.play()
        assert not talk.wanted and talk.asked == REQUESTS
        assert sorted(talk.scene.told.told()) == sorted(talk.verdicts)

    run(scenario)


@pytest.mark.parametrize("when", ["within the second request", "before the answers", "behind them"])
def test_what_an_old_policy_has_offered_is_not_known_under_the_new_one(when: str) -> None:
    async def scenario() -> None:
        here = scene()
        here.send(REQUEST, one(1, "payments"))
        here.send(RESPONSE, its(1, "payments"))
        both = one(2, "payments") + one(3, "payments")
        here.send(REQUEST, both[:-5])
        refusing = Teller(refused=["payments"])
        if when == "within the second request":
            here.judged_by(refusing)
        here.send(REQUEST, both[-5:])
        if when == "before the answers":
            here.judged_by(refusing)
        here.send(RESPONSE, its(2, "payments"))
        if when != "within the second request":
            here.send(RESPONSE, its(3, "payments"))
        if when == "behind them":
            here.judged_by(refusing)
        before = served(here)
        assert not here.send(REQUEST, one(4, "payments"))
        for number in range(5, 9):
            here.send(REQUEST, one(number))
            here.send(RESPONSE, its(number))
        assert here.opened == (True, True)
        assert not here.send(REQUEST, one(9, "payments")) and here.send(REQUEST, one(10))
        here.send(RESPONSE, its(10))
        assert served(here) == [*before, 5, 6, 7, 8, 10] and heard(here)[-3:] == [8, 9, 10]

    run(scenario)


def test_what_was_offered_while_requests_waited_is_not_known_under_the_new_policy() -> None:
    async def scenario() -> None:
        options = KafkaOptions(max_pipeline=20)
        here = scene(Teller(options))
        here.send(REQUEST, one(0, "payments"))
        here.send(RESPONSE, its(0, "payments"))
        here.send(REQUEST, b"".join(one(number, "payments") for number in range(1, 50)))
        for number in range(50, 150):
            here.send(RESPONSE, its(number - 49, "payments"))
            here.send(REQUEST, one(number, "payments"))
        assert here.relay.requests.waiting and here.relay.frames is not None
        assert len(here.relay.frames.offers or ()) < 100
        here.judged_by(Teller(options, refused=["payments"]))
        for number in range(101, max(served(here)) + 1):
            here.send(RESPONSE, its(number, "payments"))
        warm(here)
        assert heard(here)[:150] == list(range(150))
        assert not here.send(REQUEST, one(200, "payments"))
        assert 200 not in served(here) and heard(here)[-1] == 200 and not here.failures

    run(scenario)


def test_offers_that_nobody_can_take_are_few() -> None:
    async def scenario() -> None:
        here = scene()
        for number in range(50):
            request = one(number, size=300_000)
            here.send(REQUEST, request[:262_144])
            here.send(REQUEST, request[262_144:])
            here.send(RESPONSE, its(number))
            assert here.relay.frames is not None and len(here.relay.frames.offers or ()) < 20
        assert served(here) == heard(here) == list(range(50)) and not here.failures

    run(scenario)


@pytest.mark.parametrize("slow", [False, True])
def test_many_refusals_and_a_request_that_passes_may_come_in_one_read(slow: bool) -> None:
    async def scenario() -> None:
        here = warm(scene(slow=slow))
        here.send(REQUEST, b"".join(one(number, "secret") for number in range(10, 1010)) + one(1010))
        here.send(RESPONSE, its(1010))
        assert not here.failures and heard(here)[4:] == list(range(10, 1011)) and served(here) == [1, 2, 3, 4, 1010]

    run(scenario)


def test_no_more_requests_are_under_way_than_a_pipeline_may_have() -> None:
    async def scenario() -> None:
        here = warm(scene(Teller(KafkaOptions(max_pipeline=10))))
        went = [here.send(REQUEST, one(number)) for number in range(10, 40)]
        assert went == [True] * 10 + [False] * 20 and served(here)[4:] == list(range(10, 20))
        for number in range(10, 40):
            here.send(RESPONSE, its(number))
        assert served(here)[4:] == heard(here)[4:] == list(range(10, 40))
        warm(here)
        assert here.send(REQUEST, one(50)) and not here.failures

    run(scenario)


def test_messages_of_one_send_are_counted_one_by_one() -> None:
    async def scenario() -> None:
        here = warm(scene(Teller(KafkaOptions(max_pipeline=10))))
        assert not here.send(REQUEST, b"".join(one(number) for number in range(10, 21)))
        for number in range(10, 21):
            here.send(RESPONSE, its(number))
        warm(here)
        assert here.send(REQUEST, b"".join(one(number) for number in range(30, 40)))
        here.send(RESPONSE, b"".join(its(number) for number in range(30, 40)))
        assert not here.failures and heard(here)[-10:] == list(range(30, 40))

    run(scenario)


def test_nothing_goes_straight_that_there_is_no_room_to_note() -> None:
    async def scenario() -> None:
        here = warm(scene())
        del here.told[:]
        went = [(here.send(REQUEST, one(number)), here.send(RESPONSE, its(number))) for number in range(NOTES + 10)]
        assert went[:NOTES] == [(True, True)] * NOTES and went[NOTES][0] is False
        here.fast.look()
        assert [number for number, _ in here.told.told()] == heard(here)[4:] == list(range(NOTES + 10))

    run(scenario)


def test_a_refusal_comes_behind_an_answer_that_is_half_told() -> None:
    async def scenario() -> None:
        here = warm(scene())
        assert here.send(REQUEST, one(10))
        answer = its(10)
        assert here.send(RESPONSE, answer[:40])
        here.send(REQUEST, one(11, "secret") + one(12))
        here.send(RESPONSE, answer[40:] + its(12))
        assert heard(here)[4:] == [10, 11, 12] and bytes(here.got[RESPONSE]).count(answer) == 1 and not here.failures

    run(scenario)


@pytest.mark.parametrize("noted", [False, True])
@pytest.mark.parametrize("way", [REQUEST, RESPONSE])
def test_a_message_that_is_half_told_is_told_to_its_end_before_a_stop(way: int, noted: bool) -> None:
    async def scenario() -> None:
        here = warm(scene())
        asks, answer = one(10), its(10)
        assert here.send(REQUEST, asks if way else asks[:-5])
        if way:
            assert here.send(RESPONSE, answer[:40])
        if noted:
            here.fast.look()
        stop(here.relay)
        assert not (here.ends[REQUEST].closed or here.ends[RESPONSE].closed)
        if not way:
            assert not here.send(REQUEST, asks[-5:])
        assert not here.send(RESPONSE, answer[40:] if way else answer)
        assert served(here)[-1] == heard(here)[-1] == 10 and here.ends[REQUEST].closed and not here.failures

    run(scenario)
