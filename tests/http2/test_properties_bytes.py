"""Arbitrary frames and arbitrary bytes: nothing is raised, and nothing passes that was not judged and allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from hpack import Decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from l7proxy.detect import HttpConversation
from l7proxy.ops import Direction, Op, Pass
from tests.conversations import REQUEST, RESPONSE
from tests.http1.rig import PublicOnly, get
from tests.http2 import frames
from tests.http2.frames import grpc, indexed, inserting, message, plain, raw, request, table_size
from tests.http2.peers import Peer, Wire
from tests.http2.rig import Rig, Stage
from tests.http2.test_dialogues_detect import SWITCH
from tests.http2.test_dialogues_malformed import MALFORMED
from tests.http2.test_properties import NAMES, Play

PARTS = st.one_of(
    st.sampled_from([request(), request("/secret"), grpc(), request("/audit", method="POST"), request("/public/2")]),
    st.sampled_from(sorted(MALFORMED)).map(MALFORMED.__getitem__),
)
BLOCKS = st.one_of(
    PARTS.map(plain),
    PARTS.map(inserting),
    st.tuples(st.lists(st.sampled_from([0, 64, 4096, 4097]), max_size=2), PARTS).map(
        lambda both: table_size(*both[0]) + inserting(both[1])
    ),
    st.tuples(PARTS, st.lists(st.integers(1, 75), max_size=3)).map(lambda both: plain(both[0]) + indexed(*both[1])),
    st.lists(st.integers(1, 75), max_size=5).map(lambda numbers: indexed(*numbers)),
    st.binary(max_size=30),
)
STREAMS = st.sampled_from([0, 1, 1, 3, 3, 5, 7, 9, 2, 1 << 30, (1 << 31) - 1])
SOME = st.one_of(st.binary(max_size=40), st.just(message()), st.just(b"x" * 16_384))
HEADERS = st.builds(
    frames.headers,
    STREAMS.filter(bool),
    BLOCKS,
    end=st.booleans(),
    pieces=st.integers(1, 3),
    pad=st.one_of(st.none(), st.integers(0, 255)),
    priority=st.one_of(st.none(), st.tuples(st.sampled_from([0, 1, 3, 99]), st.integers(0, 255), st.booleans())),
)
FRAMES = st.one_of(
    HEADERS,
    HEADERS,
    HEADERS,
    st.builds(
        frames.data, STREAMS.filter(bool), SOME, end=st.booleans(), pad=st.one_of(st.none(), st.integers(0, 255))
    ),
    st.builds(frames.update, STREAMS, st.sampled_from([0, 1, 65_535, 1 << 30, (1 << 31) - 1])),
    st.builds(frames.rst, STREAMS, st.integers(0, 20)),
    st.builds(
        lambda name, value: frames.settings((name, value)),
        st.integers(0, 9),
        st.sampled_from([0, 1, 2, 64, 16_384, 65_535, 1 << 31]),
    ),
    st.builds(frames.priority, STREAMS, STREAMS),
    st.builds(frames.goaway, STREAMS, st.integers(0, 20), st.binary(max_size=9)),
    st.builds(frames.ping, ack=st.booleans()),
    st.just(frames.SETTINGS_ACK),
    st.builds(frames.push, STREAMS, STREAMS, BLOCKS),
    st.builds(raw, st.integers(0, 12), st.integers(0, 255), STREAMS, st.binary(max_size=30)),
    st.builds(raw, st.integers(0, 12), st.integers(0, 255), STREAMS, BLOCKS, st.integers(0, 80)),
    st.binary(max_size=20),
)
SAID = st.lists(FRAMES, min_size=4, max_size=16)
SIZES = st.integers(1, 50)


def requests_in(data: bytes) -> list[tuple[str, str]]:
    """(method, path) of each request that a server makes of what it was sent; all of it can be read."""
    assert data.startswith(frames.PREFACE[: len(data)])
    decoder, streams, found, block, stream = Decoder(), set(), [], b"", 0
    for one in frames.split(data[len(frames.PREFACE) :]):
        if one.kind in (frames.HEADERS, frames.CONTINUATION):
            block, stream = block + one.content, one.stream
            if one.flags & frames.END_HEADERS:
                fields = {
                    bytes(name): bytes(value).decode("latin-1") for name, value in decoder.decode(block, raw=True)
                }
                if stream not in streams:
                    found.append((fields[b":method"], fields[b":path"]))
                assert stream not in streams or b":path" not in fields
                streams.add(stream)
                block = b""
    return found


def allowed_only(rig: Rig, server: bytes) -> None:
    """Every request that the server makes of these bytes was judged, allowed, and has its record."""
    found = Counter(requests_in(server))
    judged = {one for one in rig.judge.judged if one[1].startswith(("/public", "/audit"))}
    assert set(found) <= judged
    assert found <= Counter((one.request.method, one.request.url) for one in rig.records)


class Through:
    """Passes everything: what the two ends would make of each other alone."""

    idle = head_pending = receiving = False

    def __init__(self, judge: PublicOnly) -> None:
        self.judge = judge

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        return [Pass(len(data))] if data else []

    def finish(self, now: float) -> Sequence[Op]:
        return []


def perform(said: list[bytes], answers: list[bytes], size: int, stage: Stage) -> Stage:
    """Both sides' words in turn, pieces of `size` bytes."""
    stage.cut = size
    for number in range(max(len(said), len(answers))):
        for end, lines in ((stage.client, said), (stage.server, answers)):
            if number < len(lines):
                end.raw(lines[number])
        stage.settle()
    return stage.finish()


@settings(max_examples=200)
@given(SAID, SIZES, st.integers(0, 3))
def test_an_h2_server_sees_no_error_but_the_clients_own(said: list[bytes], size: int, table: int) -> None:
    no_error_but_its_own(said, size, {1: (0, 64, 4096, 65_536)[table]})


def no_error_but_its_own(said: list[bytes], size: int, options: dict[int, int]) -> None:
    """An h2 server behind the proxy sees no refused request, and no error that it would not see alone."""
    server = Peer(client=False, options=options, patient=True)
    stage = perform(said, [], size, Stage(client=Wire(client=True), server=server))
    allowed_only(stage.rig, stage.rig.server)
    for seen in server.seen.values():
        assert not seen.fields or dict(seen.fields)[b":path"].startswith((b"/public", b"/audit"))
    if server.failure:
        alone = Stage(client=Wire(client=True), server=Peer(client=False, options=options, patient=True), make=Through)
        alone.rig.framed = False
        perform(said, [], 0, alone)
        assert alone.server.failure, f"not without the proxy: {server.failure}"


@settings(max_examples=150)
@given(SAID, SAID, SIZES)
def test_whatever_both_ends_say_only_what_is_allowed_passes(said: list[bytes], answers: list[bytes], size: int) -> None:
    client, server = Silent(client=True), Silent(client=False)
    stage = perform(said, answers, size, Stage(client=client, server=server))
    allowed_only(stage.rig, stage.rig.server)


@settings(max_examples=100)
@given(SAID, SAID, SIZES)
def test_how_they_are_cut_changes_nothing(said: list[bytes], answers: list[bytes], size: int) -> None:
    no_matter_how_cut(said, answers, size)


def no_matter_how_cut(said: list[bytes], answers: list[bytes], size: int) -> None:
    """What both ends say comes to the same in pieces of `size` bytes, and only what is allowed passes."""
    whole, cut = (
        perform(said, answers, way, Stage(client=Silent(client=True), server=Silent(client=False))) for way in (0, size)
    )
    allowed_only(cut.rig, cut.rig.server)
    assert cut.rig.server == whole.rig.server and cut.log == whole.log and cut.rig.client == whole.rig.client
    assert cut.ending == whole.ending


@settings(max_examples=100)
@given(SAID, SAID, SIZES)
def test_behind_an_upgrade_the_same_holds(said: list[bytes], answers: list[bytes], size: int) -> None:
    stage = Stage(client=Silent(client=True), server=Silent(client=False), make=HttpConversation, begin=False)
    stage.rig.framed = False
    asked = get("/public/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAIAAAAA")
    stage.rig.arrive(REQUEST, asked).arrive(RESPONSE, SWITCH)
    perform(said, answers, size, stage)
    assert stage.rig.server.startswith(asked) and stage.rig.judge.judged
    allowed_only(stage.rig, stage.rig.server[len(asked) :])


@settings(max_examples=150)
@given(st.integers(0, 1 << 32), st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=3), SIZES)
def test_bytes_that_were_changed_on_their_way(seed: int, changes: list[tuple[int, int]], size: int) -> None:
    random = Random(seed)
    play = Play(seed % 6, [(random.choice(NAMES), random.randrange(1 << 16)) for _ in range(60)])
    play.settle()
    said = b"".join(data for direction, data in play.lines if direction is REQUEST)
    for where, value in changes:
        where = where % len(said)
        said = said[:where] + bytes([value]) + said[where + 1 :]
    rig = Rig()
    for start in range(0, len(said), size * 40):
        rig.arrive(REQUEST, said[start : start + size * 40])
        rig.arrive(RESPONSE, frames.settings() if not start else b"")
    allowed_only(rig.finish(), rig.server)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans(), SIZES)
def test_arbitrary_bytes(said: bytes, answer: bytes, preface: bool, size: int) -> None:
    stage = Stage(client=Silent(client=True), server=Silent(client=False), begin=False)
    stage.client.outgoing = bytearray(frames.PREFACE if preface else b"")
    stage.server.outgoing = bytearray()
    perform([said], [answer], size, stage)
    allowed_only(stage.rig, stage.rig.server)


ASIDE = (frames.SETTINGS, frames.RST_STREAM, frames.WINDOW_UPDATE, frames.PRIORITY)
"""What may be worded anew, or has no meaning on a stream that is over."""


def requests_and_data(data: bytes) -> bytes:
    """Frames of other types, and what is behind the last whole one."""
    found = list(frames.split(data))
    rest = data[sum(frames.HEAD + len(one.payload) for one in found) :]
    return b"".join(raw(*one[:3], one.payload) for one in found if one.kind not in ASIDE) + rest


@settings(max_examples=200)
@given(SAID, SIZES)
def test_where_nothing_is_enforced_everything_goes_on(said: list[bytes], size: int) -> None:
    stage = Stage(
        client=Silent(client=True), server=Silent(client=False), judge=PublicOnly(audit_only=True), begin=False
    )
    stage.rig.framed = False
    perform(said, [], size, stage)
    assert "DROPPED" not in [one[0] for one in stage.log] and stage.ending is None
    got = requests_and_data(stage.rig.server.removeprefix(frames.PREFACE))
    rest = stage.rig.halves[0].pending
    assert got + rest == requests_and_data(b"".join(said))


class Silent(Wire):
    """Says what it is told, and makes nothing of what it hears."""

    def receive(self, data: bytes) -> None:
        pass
