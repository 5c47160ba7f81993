"""Calls that run while the policy changes, and what tests of it say and look for."""

from __future__ import annotations

from parsers.facts import HttpRequest
from policies.verdict import L7Decision, Verdict
from tests.http1.rig import RULE, PublicOnly
from tests.http2 import frames
from tests.http2.frames import grpc, message, plain
from tests.http2.peers import OK, Peer, Seen
from tests.http2.rig import End, Stage

GRPC_OK = (*OK, (b"content-type", b"application/grpc"))
DONE = [(b"grpc-status", b"0")]
CANCEL, NO_ERROR = 8, 0
FIRST, SECOND, THIRD = message(b"first"), message(b"second"), message(b"third")


class Now(PublicOnly):
    """The same verdict on every request but those of /public/still."""

    def __init__(self, verdict: Verdict = Verdict.DROPPED, *, text: str | None = None, cut: bool = True) -> None:
        super().__init__(audit_only=verdict is Verdict.AUDIT)
        self.verdict, self.text, self.cut_streams = verdict, text, cut

    def judge(self, request: HttpRequest) -> L7Decision:
        if request.path == "/public/still":
            return super().judge(request)
        self.judged.append((request.method, request.path))
        return L7Decision(self.verdict, RULE, "the new rule", self.text)


def running(
    cut: int = 0, *, answered: bool = False, more: int = 0, client: End | None = None, server: End | None = None
) -> tuple[Stage, int]:
    """A call whose first message has passed. `answered`: the response has begun as well; `more`: further calls of the
    kind that stay open."""
    stage = Stage(cut, client=client, server=server)
    streams = [stage.client.ask(grpc(), end=False) for _ in range(more + 1)]
    stage.settle()
    for stream in streams:
        say(stage, frames.data(stream, FIRST))
        if answered:
            begin_answer(stage, stream)
    return stage, streams[0]


def begin_answer(stage: Stage, stream: int) -> None:
    if isinstance(stage.server, Peer):
        stage.server.reply(stream, GRPC_OK, end=False)
    else:
        stage.server.raw(frames.headers(stream, plain(GRPC_OK), end=False))
    stage.settle()


def say(stage: Stage, data: bytes) -> None:
    """DATA frames of the client."""
    if isinstance(stage.client, Peer):
        for one in frames.split(data):
            stage.client.send(one.stream, one.content, end=bool(one.flags & frames.END_STREAM))
    else:
        stage.client.raw(data)
    stage.settle()


def change(stage: Stage, judge: PublicOnly | None = None) -> PublicOnly:
    judge = judge or Now()
    stage.rig.talk.judge = judge
    return judge


def refused_late(seen: Seen, text: bytes = b"Access denied") -> bool:
    """Whether the response had begun, and ended with status 7."""
    trailers = {b"grpc-status": b"7", b"grpc-message": text}
    return seen.fields == list(GRPC_OK) and dict(seen.trailers) == trailers and seen.ended


def whole_messages(data: bytes) -> list[bytes]:
    """The messages that a server makes of a stream's data."""
    found = []
    while len(data) >= 5 and len(data) >= 5 + (size := int.from_bytes(data[1:5], "big")):
        found.append(data[: 5 + size])
        data = data[5 + size :]
    return found
