"""The policy changes at any moment between two h2 ends: no call is left in between, and nothing parts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.verdict import Verdict
from tests.conversations import REQUEST
from tests.http1.rig import PublicOnly
from tests.http2 import frames
from tests.http2.changes import CANCEL, SECOND, Now, change, whole_messages
from tests.http2.frames import grpc, message, plain
from tests.http2.peers import Seen, denied, denied_grpc
from tests.http2.rig import Stage
from tests.http2.test_properties import NAMES, Play, Said, same
from tests.http2.test_properties_bytes import SAID, SIZES, Silent


def audited() -> Now:
    """Some policy is in force, and refuses nothing."""
    judge = Now(Verdict.AUDIT)
    judge.audit_only = False
    return judge


JUDGES = (PublicOnly, PublicOnly, Now, Now, audited, lambda: Now(Verdict.FORWARDED), lambda: Now(cut=False))


class Changing(Play):
    """With two steps more, and without HEAD, whose answer would have a body."""

    def step_ask(self, n: int) -> None:
        super().step_ask(n + (n % 7 == 6))

    def step_change(self, n: int) -> None:
        """Of tables alone: where a window has shrunk below 0, even an empty frame is too much for h2."""
        super().step_change(n - n // 2 % 3 * 2)

    def step_policy(self, n: int) -> None:
        self.rig.filled = 1 << 30
        self.rig.talk.judge = JUDGES[n % len(JUDGES)]()

    def step_several(self, n: int) -> None:
        """Messages in one frame, of which part has come when something else happens."""
        running = [one for one, said in self.asked.items() if not said.ended and self.client.alive(one)]
        if running:
            stream = running[n % len(running)]
            data = b"".join(message(b"%d" % one * (n % 90)) for one in range(2 + n % 3))
            self.asked[stream].data += data
            self.client.send(stream, data)
            self.arrive(REQUEST, n // 3 % (len(data) + 40))

    def check_all(self) -> None:
        """Every stream is whole, or refused, or cut between two messages of the client's."""
        assert self.ending is None
        for stream in self.asked.keys() - self.cancelled:
            asked, seen, heard = self.asked[stream], self.client.seen[stream], self.server.seen.get(stream)
            if heard is None:
                assert denied_grpc(seen) or denied(seen) or denied(seen, b"Ask the owner\r\n") or seen.code == 403
            elif heard.reset is None:
                same(asked, heard)
                same(self.answered[stream], seen)
            else:
                self._cut(asked, heard, self.answered.get(stream), seen)
        up, down = self.windows()
        assert up == 0 and abs(down) < 16_384, "windows differ at rest"
        assert len(self.rig.records) == len(self.asked)
        assert all(one.call for one in self.rig.records if one.request.decision.reason.startswith("policy changed"))

    @staticmethod
    def _cut(asked: Said, heard: Seen, answered: Said | None, seen: Seen) -> None:
        assert heard.reset == CANCEL and seen.ended and seen.reset in (None, 0)
        passed = whole_messages(heard.data)
        assert passed == whole_messages(asked.data)[: len(passed)] and len(passed) < len(whole_messages(asked.data))
        if answered is not None and answered.data:
            assert answered.data.startswith(seen.data)
        if not denied_grpc(seen) and (answered is None or seen.trailers != answered.trailers):
            assert dict(seen.trailers) == {b"grpc-status": b"7", b"grpc-message": b"Access denied"}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [*NAMES, *["policy", "several", "come", "hand"] * 3, "ask", "send", "send", "reply", "send_back"]
        ),
        st.integers(0, 1 << 16),
    ),
    min_size=25,
    max_size=90,
)
CALLS = [("ask", 3), ("ask", 45), ("ask", 87), ("come", 6), ("come", 3), ("come", 3), ("hand", 0), ("hand", 1)]


@settings(max_examples=300)
@given(st.integers(0, 5), STEPS)
def test_calls_are_whole_or_refused_or_cut(table: int, steps: list[tuple[str, int]]) -> None:
    play = Changing(table, CALLS + steps)
    play.come_to_an_end()
    play.check_all()
    play.rig.talk.judge = PublicOnly()
    play.works()


@settings(max_examples=150)
@given(st.integers(0, len(SECOND)), SAID, SAID, SIZES)
def test_arbitrary_frames_behind_a_change(begun: int, said: list[bytes], late: list[bytes], size: int) -> None:
    """Nothing is raised, and none of the messages behind the change comes through as one."""
    stage = Stage(size, client=Silent(client=True), server=Silent(client=False))
    streams = (1, 3, 5, 7)
    calls = [frames.headers(one, plain(grpc()), end=False) + frames.data(one, message()) for one in streams]
    stage.rig.filled = 1 << 30
    stage.client.raw(b"".join(calls + [frames.data(one, SECOND[:begun]) for one in streams]))
    stage.settle()
    change(stage)
    for number, words in enumerate(said):
        rest = SECOND[begun:] if number < 4 else b""
        stage.client.raw(frames.data(streams[number % 4], rest + message(b"refused") * 2) + words)
        stage.server.raw(late[number % len(late)])
        stage.settle()
    data = dict.fromkeys(streams, b"")
    for heard in frames.split(stage.finish().rig.server.removeprefix(frames.PREFACE)):
        if heard.kind == frames.DATA and heard.stream in data:
            data[heard.stream] += heard.content
    assert not [one for one in data.values() if message(b"refused") in whole_messages(one)]
