"""Random dialogues by way of a relay with lanes: sends that go straight or not, in one piece or in several, readers
that are slow, and lanes that are shut for no reason.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from random import Random
from time import monotonic

from l7proxy.http1_exchange import Judge
from l7proxy.timeouts import enforce
from tests.lanes import Scene
from tests.matching import REQUEST, RESPONSE

REQUESTS = 150
_STEPS, _QUICK = 20_000, 2_000
_ALL = 1 << 30


class Dialogue(ABC):
    """Of one seed. What a protocol adds keeps account of who has to get what."""

    def __init__(self, random: Random, scene: Scene) -> None:
        self.random, self.scene = random, scene
        self.out = [b"", b""]
        """What the peers have still to send."""
        self.asked = 0
        self._room = random.choice((0.7, 0.9, 1.0))
        self._pieces = random.choice((0.0, 0.1, 0.3))
        self._slow = random.choice((0.0, 0.3))
        self.usual = random.choice((0.7, 0.95, 0.99))
        """So many requests are of those that are known."""
        self._before = self.went

    @abstractmethod
    def ask(self) -> bytes:
        """Some more requests, which count as `asked`; b"" if there are enough under way."""

    @abstractmethod
    def serve(self, data: bytes) -> bytes:
        """What the server says to what it reads."""

    @abstractmethod
    def hear(self, data: bytes) -> None:
        """The client reads."""

    @abstractmethod
    def judge(self) -> Judge:
        """Another policy that decides as the first one does."""

    @property
    @abstractmethod
    def answered(self) -> bool:
        """All that was asked."""

    @property
    def went(self) -> tuple[int, int]:
        """Sends that went straight in each direction."""
        return self.scene.ways[REQUEST].sends, self.scene.ways[RESPONSE].sends

    async def play(self) -> None:
        """Until all is answered. Whoever gets what is not his says so."""
        scene, chance = self.scene, self.random.random
        for step in range(_STEPS):
            if chance() < 0.25 and not self.out[REQUEST]:
                for _ in range(self.random.choice((1, 1, 1, 3))):
                    self.out[REQUEST] += self.ask() if self.asked < REQUESTS else b""
            for way in (REQUEST, RESPONSE):
                self._send(way)
            size = self.random.choice((1, 5, 20, 100, 1000)) if chance() < self._pieces else _ALL
            scene.arrives(self.random.randrange(2), size)
            for end in scene.ends:
                if chance() < 0.7:
                    end.flush()
                end.slow = chance() < self._slow
            if chance() < 0.5:
                self.out[RESPONSE] += self.serve(self._read(REQUEST))
            if chance() < 0.5:
                self.hear(self._read(RESPONSE))
            self._disturb(chance())
            patient = step < _QUICK or step % 20
            await asyncio.sleep(0 if patient else 0.001)
            assert not scene.failures
            if self.asked >= REQUESTS and self.answered:
                break
        assert self.answered, (scene.relay.requests.held, scene.relay.responses.held)
        scene.fast.look()
        assert sum(self.went) > sum(self._before)

    def _send(self, way: int) -> None:
        scene, chance = self.scene, self.random.random
        if scene.ways[way].middle is None:
            data = self.out[way]
            if not data or chance() < 0.5:
                return
            size = self.random.randrange(1, len(data) + 1) if chance() < self._pieces else len(data)
            self.out[way] = data[size:]
            if not scene.begins(way, data[:size]) or chance() < 0.3:
                return
        elif chance() < 0.5:
            return
        scene.settles(way, chance() < self._room)

    def _read(self, way: int) -> bytes:
        return self.scene.hears(way, self.random.choice((3, 50, _ALL)))

    def _disturb(self, chance: float) -> None:
        relay = self.scene.relay
        if chance < 0.05:
            relay.guard(self.scene.fast.look)
        elif chance < 0.06:
            enforce(relay, monotonic())
        elif chance < 0.08:
            self.scene.fast.shut()
        elif chance < 0.09:
            self.scene.judged_by(self.judge())
