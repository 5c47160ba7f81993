"""Two h2 ends that do whatever they may, in any order and with any delay: neither can tell that somebody refuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conversations import REQUEST, RESPONSE
from tests.http2 import frames
from tests.http2.frames import Frame, grpc, message, request
from tests.http2.peers import Peer, denied, denied_grpc
from tests.http2.rig import Rig, Stage, replay

TABLES, WINDOWS = (0, 64, 4096, 100, 65_536, 1 << 20), (0, 1, 100, 20_000, 65_535, 1 << 20)
FRAMES = (16_384, 100_000, 1 << 20)
POOL = [("x-token", "a"), ("x-token", "b"), ("cookie", "c" * 30), ("x-big", "d" * 2500), ("authorization", "e" * 9)]
TRAILERS = [(b"x-sum", b"1"), (b"x-last", b"y" * 300)]
ASKED = (
    lambda n: request(f"/public/{n % 7}", POOL[n % 5]),
    lambda n: request(f"/secret/{n % 7}", POOL[n % 5], POOL[n % 3]),
    lambda n: request("/audit", *POOL[: n % 4], method="POST"),
    lambda n: grpc(f"/public.Service/M{n % 3}", POOL[n % 5]),
    lambda n: grpc(f"/secret.Service/M{n % 3}", POOL[n % 4]),
    lambda n: request("/worded", POOL[n % 5]),
    lambda n: request("/secret", method="HEAD"),
)


@dataclass
class Said:
    """What one end said on a stream."""

    fields: list[tuple[bytes, bytes]]
    data: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    ended: bool = False

    @property
    def allowed(self) -> bool:
        """What the rules of `PublicOnly` make of it."""
        return dict(self.fields)[b":path"].startswith((b"/public", b"/audit"))


class Play(Stage):
    """Steps with a number each, whose meaning depends on what is possible."""

    def __init__(self, table: int, steps: list[tuple[str, int]]) -> None:
        client = Peer(client=True, options={1: TABLES[-table % 6], 2: 0}, greedy=False)
        super().__init__(
            client=client, server=Peer(client=False, options={1: TABLES[table]}, greedy=False), begin=False
        )
        self.asked: dict[int, Said] = {}
        self.answered: dict[int, Said] = {}
        self.cancelled: set[int] = set()
        for name, number in steps:
            getattr(self, f"step_{name}")(number)

    # -- steps -------------------------------------------------------------------------------------------------------

    def step_ask(self, n: int) -> None:
        said = Said(ASKED[n % 7](n // 7), ended=n % 2 == 0)
        self.asked[self.client.ask(said.fields, end=said.ended)] = said

    def step_send(self, n: int) -> None:
        self._more(self.client, self.asked, n)

    def step_reply(self, n: int) -> None:
        waiting = [one for one, seen in self.server.seen.items() if seen.fields and one not in self.answered]
        waiting = [one for one in waiting if self.server.alive(one)]
        if waiting:
            said = Said([(b":status", b"%d" % (200 + n % 5)), (b"x-n", b"%d" % (n % 9))], ended=n % 3 == 0)
            self.answered[waiting[n % len(waiting)]] = said
            self.server.reply(waiting[n % len(waiting)], said.fields, end=said.ended)

    def step_send_back(self, n: int) -> None:
        self._more(self.server, self.answered, n)

    def step_cancel(self, n: int) -> None:
        self._cancel(self.client, self.asked, n)

    def step_cancel_back(self, n: int) -> None:
        self._cancel(self.server, self.answered, n)

    def step_change(self, n: int) -> None:
        name, values = ((1, TABLES), (4, WINDOWS), (5, FRAMES))[n // 2 % 3]
        self.ends[n % 2].change({name: values[n // 6 % len(values)]})

    def step_ping(self, n: int) -> None:
        self.ends[n % 2].h2.ping(b"%08d" % (n % 99))

    def step_give(self, n: int) -> None:
        self.ends[n % 2].give()

    def step_come(self, n: int) -> None:
        self.arrive(REQUEST if n % 2 else RESPONSE, n // 2 % 5000 if n % 3 else None)

    def step_hand(self, n: int) -> None:
        self.hand(REQUEST if n % 2 else RESPONSE)

    def _more(self, end: Peer, told: dict[int, Said], n: int) -> None:
        still = [one for one, said in told.items() if not said.ended and end.alive(one)]
        if not still:
            return
        stream = still[n % len(still)]
        data = message(b"z" * (n % 40_000 if n % 4 == 0 else n % 50)) if n % 5 else b""
        last = n % 7
        trailers = TRAILERS if last == 0 else None
        end.send(stream, data, end=last == 1, trailers=trailers)
        said = told[stream]
        said.data += data
        said.trailers, said.ended = trailers or [], last < 2

    def _cancel(self, end: Peer, told: dict[int, Said], n: int) -> None:
        alive = [one for one in told if end.alive(one)]
        if alive:
            end.cancel(alive[n % len(alive)], n % 14)
            self.cancelled.add(alive[n % len(alive)])

    # -- the end -----------------------------------------------------------------------------------------------------

    def come_to_an_end(self) -> None:
        for end in self.ends:
            end.greedy = True
            end.change({4: 1 << 20})
            end.give()
        self.settle()
        for end, told in ((self.client, self.asked), (self.server, self.answered)):
            for number in range(len(self.asked)):
                self.step_reply(number)
            for stream in [one for one, said in told.items() if not said.ended and end.alive(one)]:
                end.send(stream, end=True)
                told[stream].ended = True
            self.settle()
        for end in self.ends:
            end.give()
        self.settle().finish()

    def check_all(self) -> None:
        """Everything that was allowed is there and complete, everything else was refused."""
        assert self.ending is None
        assert not [one for end in self.ends for one in end.unsent if one not in self.cancelled]
        for stream, said in self.asked.items():
            if not said.allowed:
                assert stream not in self.server.seen
                if stream not in self.cancelled:
                    self._refused(said, self.client.seen[stream])
            elif stream not in self.cancelled:
                same(said, self.server.seen[stream])
                same(self.answered[stream], self.client.seen[stream])
        for stream, seen in self.server.seen.items():
            assert self.asked[stream].fields == seen.fields
        up, down = self.windows()
        assert up == 0 and abs(down) < 16_384, "windows differ at rest"
        assert len(self.rig.records) == len(self.asked)

    @staticmethod
    def _refused(said: Said, seen: Any) -> None:
        if (b"content-type", b"application/grpc") in said.fields:
            assert denied_grpc(seen)
        elif seen.data:
            assert denied(seen, b"Ask the owner\r\n" if (b":path", b"/worded") in said.fields else b"Access denied\r\n")
        else:
            assert seen.code == 403 and seen.ended


def same(said: Said, seen: Any) -> None:
    """One end has got what the other one said."""
    assert (seen.fields, seen.data, seen.trailers) == (said.fields, said.data, said.trailers)
    assert seen.ended and seen.reset is None


NAMES = sorted(name.removeprefix("step_") for name in vars(Play) if name.startswith("step_"))
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*NAMES, "ask", "ask", "send", "reply", "come", "come", "hand"]), st.integers(0, 1 << 16)
    ),
    min_size=25,
    max_size=90,
)


GROWN = [("ask", 0)] * 17 + [("ask", 17), ("change", 263), ("come", 0), ("hand", 0), ("come", 309), ("hand", 1)]
GROWN += [("come", 0), ("hand", 0), ("send", 16_384)]
"""A frame of the size that the server allows now comes with the acknowledgement of that."""


@settings(max_examples=120)
@given(st.integers(0, 5), STEPS)
@example(0, GROWN)
def test_neither_end_notices_what_is_refused(table: int, steps: list[tuple[str, int]]) -> None:
    play = Play(table, steps)
    play.come_to_an_end()
    play.check_all()
    play.works()


def understood(data: bytes) -> tuple[list[Frame], dict[int, int]]:
    """What an end makes of what it got: frames in order, and how much room each stream has been given."""
    found = list(frames.split(data.removeprefix(frames.PREFACE)))
    room: Counter[int] = Counter()
    for one in found:
        if one.kind == frames.WINDOW_UPDATE:
            room[one.stream] += one.number
    return [one for one in found if one.kind != frames.WINDOW_UPDATE], room


def outcome(rig: Rig) -> object:
    """All that can be seen from outside."""
    return understood(rig.server), understood(rig.client), rig.told, rig.ending


@settings(max_examples=60)
@given(st.integers(0, 5), STEPS, st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_how_bytes_are_cut_changes_nothing(table: int, steps: list[tuple[str, int]], sizes: list[int]) -> None:
    play = Play(table, steps)
    play.come_to_an_end()
    pieces = []
    for direction, data in play.lines:
        number = start = 0
        while start < len(data):
            size = sizes[number % len(sizes)] * (1 if start < 2000 else 100)
            pieces.append((direction, data[start : start + size]))
            start, number = start + size, number + 1
    assert outcome(replay(pieces)) == outcome(play.rig)


def test_every_split_of_a_busy_conversation() -> None:
    steps = [("ask", 1), ("ask", 10), ("come", 3), ("ask", 22), ("come", 3), ("hand", 1), ("reply", 1), ("send", 9)]
    steps += [("come", 6), ("come", 3), ("hand", 0), ("send", 31), ("send_back", 22), ("change", 3), ("ask", 38)]
    play = Play(1, steps)
    play.come_to_an_end()
    play.check_all()
    wanted = outcome(play.rig)
    for number, (direction, data) in enumerate(play.lines):
        for cut in range(1, len(data), 2):
            both = [(direction, data[:cut]), (direction, data[cut:])]
            assert outcome(replay([*play.lines[:number], *both, *play.lines[number + 1 :]])) == wanted
