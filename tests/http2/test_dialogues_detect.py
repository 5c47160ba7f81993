"""HTTP/1.1 or HTTP/2: by what the client begins with, or by the server's own 101."""

from __future__ import annotations

import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l7proxy.detect import HttpConversation
from l7proxy.http1 import Http1Conversation
from l7proxy.ops import Close
from tests.conversations import REQUEST, RESPONSE
from tests.http1.rig import DENIED, OK, get
from tests.http2 import frames
from tests.http2.frames import PREFACE, grpc, indexed, inserting, message, plain, request, table_size
from tests.http2.peers import Peer, Wire, denied, denied_grpc
from tests.http2.rig import Rig, Stage, whole_and_cut

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
GET = get()


def http1(make: type = HttpConversation) -> Rig:
    rig = Rig(make=make)
    rig.framed = False
    return rig


def upgrading(path: str = "/public/x", *lines: str, setting: str = "AAQAAP__", method: str = "GET") -> bytes:
    """A request as Java's HttpClient begins with it."""
    wish = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"HTTP2-Settings: {setting}")
    return get(path, *wish, *lines, method=method)


def offered(head: bytes) -> bytes:
    """What a server is told in HTTP2-Settings."""
    found = re.search(rb"\r\nHTTP2-Settings: (.*)\r\n", head)
    return found[1] if found else b""


class Upgraded(Stage):
    """A connection that became HTTP/2 by the server's 101."""

    def __init__(self, cut: int = 0, path: str = "/public/x") -> None:
        super().__init__(cut, make=HttpConversation, client=Peer(client=True), server=Peer(client=False), begin=False)
        self.rig.framed = False
        self.client, self.server = Peer(client=True, begin=False), Peer(client=False, begin=False)
        self.ends = (self.client, self.server)
        setting = self.client.h2.initiate_upgrade_connection()
        self.head = upgrading(path, setting=setting.decode())
        self.rig.arrive(REQUEST, self.head)
        self.passed = self.rig.server
        self.handed[REQUEST] = len(self.passed)
        self.server.h2.initiate_upgrade_connection(offered(self.passed) or setting)

        assert self.passed in (b"", upgrading(path, setting=offered(self.passed).decode()))

    def switch(self) -> Upgraded:
        self.rig.arrive(RESPONSE, SWITCH)
        assert self.rig.client == SWITCH
        self.handed[RESPONSE] = len(SWITCH)
        self.settle()
        return self


@whole_and_cut
def test_prior_knowledge(cut: int) -> None:
    stage = Stage(cut, make=HttpConversation)
    stage.works()
    assert denied(stage.client.seen[stage.get("/secret")])
    call = stage.client.ask(grpc("/secret.S/M"), end=False)
    stage.settle()
    assert denied_grpc(stage.client.seen[call]) is not None
    stage.works()


@pytest.mark.parametrize("size", range(1, len(PREFACE)))
def test_a_preface_in_two_pieces(size: int) -> None:
    stage = Stage(make=HttpConversation, begin=False)
    stage.client.ask(request("/secret"))
    stage.arrive(REQUEST, size)
    assert stage.rig.server == stage.rig.client == b""
    stage.settle().works()
    assert denied(stage.client.seen[1])


@whole_and_cut
def test_http1_on_the_same_port(cut: int) -> None:
    rig, data = http1(), GET + get("/secret") + GET
    for start in range(0, len(data), cut or len(data)):
        rig.arrive(REQUEST, data[start : start + (cut or len(data))])
    rig.arrive(RESPONSE, OK * 2).finish()
    assert (rig.server, rig.client) == (GET * 2, OK + DENIED + OK)
    assert [one[3] for one in rig.log] == [200, 403, 200]


LIKE = [
    b"P",
    b"PRI",
    b"PRI * HTTP/2.0\r\n\r\n",
    PREFACE[:-1],
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
    b"PRI /public HTTP/1.1\r\n",
]


@settings(max_examples=200)
@given(
    st.one_of(st.sampled_from([*LIKE, GET, get("/secret"), GET + PREFACE]), st.binary(max_size=40)),
    st.one_of(st.just(b""), st.binary(max_size=30), st.just(GET)),
    st.integers(1, 30),
    st.booleans(),
)
def test_whatever_is_no_preface_is_http1(first: bytes, second: bytes, size: int, ends: bool) -> None:
    data = first + second
    if data.startswith(PREFACE):
        return
    rigs = http1(), http1(Http1Conversation)
    for rig in rigs:
        for start in range(0, len(data), size):
            rig.arrive(REQUEST, data[start : start + size])
        rig.arrive(RESPONSE, OK if rig.server else b"")
        rig.arrive(REQUEST, b"", ends)
        rig.finish()
    here, there = rigs
    if not PREFACE.startswith(data):
        assert (here.server, here.client, here.log, here.ending) == (
            there.server,
            there.client,
            there.log,
            there.ending,
        )
    assert here.server == there.server


def test_a_client_that_stops_within_the_preface() -> None:
    rig = http1().arrive(REQUEST, PREFACE[:10])
    assert rig.talk.head_pending and not rig.talk.idle
    rig.apply(rig.talk.head_timeout(9.0))
    assert isinstance(rig.ending, Close) and rig.server == b""
    rig = http1().arrive(REQUEST, PREFACE[:10], True)
    assert rig.server == b"" and (isinstance(rig.ending, Close) or rig.halves[REQUEST].ended)


def test_before_anything_came() -> None:
    rig = http1()
    assert rig.talk.idle and not rig.talk.head_pending and not rig.talk.receiving
    assert list(rig.talk.head_timeout(1.0)) == [] and list(rig.talk.finish(1.0)) == []


@pytest.mark.parametrize("before", [GET, get("/secret"), b"\r\n"])
@whole_and_cut
def test_a_preface_behind_a_request_is_refused(cut: int, before: bytes) -> None:
    rig = http1()
    for data in (before, PREFACE + frames.settings() + frames.headers(1, plain(request("/secret")))):
        for start in range(0, len(data), cut or len(data)):
            rig.arrive(REQUEST, data[start : start + (cut or len(data))])
    rig.arrive(RESPONSE, OK)
    assert rig.server in (b"", GET) and isinstance(rig.ending, Close)


# -- Upgrade: h2c ----------------------------------------------------------------------------------------------------


@whole_and_cut
def test_an_upgrade_that_the_server_takes(cut: int) -> None:
    stage = Upgraded(cut).switch()
    assert b"h2c" in stage.passed
    stage.server.reply(1, body=b"first")
    stage.settle()
    assert stage.client.seen[1].data == b"first" and stage.client.seen[1].ended
    assert stage.log == [("FORWARDED", "GET", "/public/x", 200)]
    assert denied(stage.client.seen[stage.get("/secret")])
    stage.works()
    assert stage.log[1:] == [("DROPPED", "GET", "/secret", 403), ("FORWARDED", "GET", "/public/still", 200)]
    assert 3 not in stage.server.seen


def test_the_servers_answer_and_its_101_at_once() -> None:
    stage = Upgraded()
    stage.server.reply(1, body=b"first")
    stage.rig.arrive(RESPONSE, SWITCH + stage.server.take())
    stage.handed[RESPONSE] = len(SWITCH)
    stage.settle()
    assert stage.client.seen[1].data == b"first"
    stage.works()


def test_nothing_that_comes_before_the_101_reaches_the_server() -> None:
    stage = Upgraded()
    stage.client.ask(request("/secret"))
    stage.client.ask(request("/public/x"))
    stage.arrive(REQUEST)
    assert stage.rig.server == stage.passed
    stage.switch()
    assert denied(stage.client.seen[3]) and 5 in stage.server.seen and 3 not in stage.server.seen
    stage.works()


def test_a_server_that_does_not_upgrade() -> None:
    stage = Upgraded()
    stage.rig.arrive(RESPONSE, OK)
    assert stage.rig.client == OK
    stage.rig.arrive(REQUEST, get("/secret") + GET).arrive(RESPONSE, OK)
    assert stage.rig.client == OK + DENIED + OK and stage.rig.server == stage.passed + GET


def test_frames_for_a_server_that_does_not_upgrade() -> None:
    stage = Upgraded()
    stage.client.ask(request("/secret"))
    stage.arrive(REQUEST)
    stage.rig.arrive(RESPONSE, OK)
    assert stage.rig.server == stage.passed and stage.ending is not None


@whole_and_cut
def test_a_refused_upgrade_is_refused_in_http1(cut: int) -> None:
    stage = Upgraded(cut, "/secret")
    assert stage.rig.server == b"" and stage.rig.client == DENIED and stage.ending is None
    stage.rig.arrive(REQUEST, GET).arrive(RESPONSE, OK)
    assert stage.rig.client == DENIED + OK and stage.log[0] == ("DROPPED", "GET", "/secret", 403)


@pytest.mark.parametrize("sent", [frames.data(1, b"more"), frames.headers(1, plain(request("/secret")))])
def test_the_client_has_ended_stream_1(sent: bytes) -> None:
    stage = Stage(make=HttpConversation, client=Wire(client=True), server=Wire(client=False), begin=False)
    stage.rig.framed = False
    stage.rig.arrive(REQUEST, upgrading()).arrive(RESPONSE, SWITCH)
    before = len(stage.rig.server)
    stage.handed = [before, len(SWITCH)]
    stage.client.raw(sent)
    stage.settle()
    assert stage.ending is not None or stage.client.seen[1].reset in (1, 5)
    assert [one.kind for one in frames.split(stage.rig.server[before + len(PREFACE) :])].count(sent[3]) == 0


def test_no_preface_behind_the_101() -> None:
    rig = http1().arrive(REQUEST, upgrading()).arrive(RESPONSE, SWITCH)
    sent = rig.server
    rig.arrive(REQUEST, GET * 3)
    assert rig.server == sent and rig.ending is not None


@pytest.mark.parametrize(
    "head",
    [
        get("/public/x", "Connection: Upgrade", "Upgrade: h2c"),
        get("/public/x", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        upgrading(setting="AAMAAABk, AAMAAABk"),
        upgrading("/public/x", "HTTP2-Settings: AAMAAABk"),
        upgrading(setting="!!"),
        upgrading(setting="AAMAAAA"),
        upgrading("/public/x", "Upgrade: websocket"),
        get("/public/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2", "HTTP2-Settings: AAMAAABk"),
    ],
    ids=range(8),
)
def test_an_upgrade_that_is_none(head: bytes) -> None:
    """Whatever is made of it, a server that says 101 opens no way past the rules."""
    rig = http1().arrive(REQUEST, head)
    if rig.ending is None:
        rig.arrive(RESPONSE, SWITCH)
    sent = rig.server
    rig.arrive(REQUEST, PREFACE + frames.settings() + frames.headers(3, plain(request("/secret"))))
    rig.arrive(REQUEST, get("/secret"))
    assert b"/secret" not in rig.server[len(sent) :]


def test_a_101_that_nobody_asked_for() -> None:
    rig = http1().arrive(REQUEST, GET).arrive(RESPONSE, SWITCH)
    sent = rig.server
    rig.arrive(REQUEST, PREFACE + frames.settings() + frames.headers(3, plain(request("/secret"))))
    assert rig.server == sent and rig.ending is not None


def test_settings_of_the_upgrade_hold() -> None:
    """The client's window of streams is what HTTP2-Settings said: no room for our words."""
    stage = Stage(make=HttpConversation, client=Wire(client=True), server=Wire(client=False), begin=False)
    stage.rig.framed = False
    assert urlsafe_b64decode("AAQAAAAF") == b"\0\4\0\0\0\5"
    stage.rig.arrive(REQUEST, upgrading(setting="AAQAAAAF")).arrive(RESPONSE, SWITCH)
    stage.handed = [len(stage.rig.server), len(SWITCH)]
    stage.client.outgoing = bytearray(PREFACE + frames.settings())
    stage.client.raw(frames.headers(3, plain(request("/secret"))))
    stage.settle()
    seen = stage.client.seen[3]
    assert (seen.code, seen.data, seen.ended) == (403, b"", True)


def setting(*values: tuple[int, int]) -> str:
    """SETTINGS as HTTP2-Settings has them."""
    return urlsafe_b64encode(b"".join(struct.pack(">HL", *one) for one in values)).rstrip(b"=").decode()


AS_TOLD = [
    ([(2, 0)], [(2, 0)]),
    ([(4, 5), (2, 0), (1, 65_536)], [(4, 5), (2, 0), (1, 65_536)]),
    ([], [(2, 0)]),
    ([(1, 16_384), (2, 1), (3, 100)], [(1, 16_384), (2, 0), (3, 100)]),
    ([(1, 1 << 20)], [(1, 65_536), (2, 0)]),
    ([(0xFE03, 1), (2, 1), (2, 0)], [(0xFE03, 0), (2, 0), (2, 0)]),
]


@pytest.mark.parametrize(("said", "told"), AS_TOLD)
@pytest.mark.parametrize("name", ["HTTP2-Settings", "http2-settings"])
@whole_and_cut
def test_settings_of_the_upgrade_are_bounded_as_those_of_a_frame_are(
    cut: int, name: str, said: list[tuple[int, int]], told: list[tuple[int, int]]
) -> None:
    head, wanted = (
        upgrading("/public/HTTP2-Settings:", "X-Last: HTTP2-Settings: 1", setting=setting(*one)).replace(
            b"\r\nHTTP2-Settings:", b"\r\n" + name.encode() + b":"
        )
        for one in (said, told)
    )
    rig = http1()
    for start in range(0, len(head), cut or len(head)):
        rig.arrive(REQUEST, head[start : start + (cut or len(head))])
    assert rig.server == wanted
    stage = Stage(client=Wire(client=True, options=tuple(said)), server=Wire(client=False))
    assert stage.server.heard[0].payload == b"".join(struct.pack(">HL", *one) for one in told)
    rig.arrive(RESPONSE, SWITCH)
    assert rig.client == SWITCH and rig.ending is None


def test_a_server_that_would_push_before_it_has_the_clients_frames() -> None:
    stage = Upgraded().switch()
    assert stage.server.h2.remote_settings.enable_push == 0
    stage.works()


def test_a_table_that_the_upgrade_allows_is_used() -> None:
    stage = Stage(make=HttpConversation, client=Wire(client=True), server=Wire(client=False), begin=False)
    stage.rig.framed = False
    stage.client.decoder.max_allowed_table_size = 1 << 20
    stage.rig.arrive(REQUEST, upgrading(setting=setting((1, 1 << 20)))).arrive(RESPONSE, SWITCH)
    stage.handed = [len(stage.rig.server), len(SWITCH)]
    answer = [(b":status", b"200"), *((b"x-%d" % number, b"y" * 1000) for number in range(12))]
    stage.server.raw(frames.headers(1, table_size(65_536) + inserting(answer), end=False))
    stage.server.raw(frames.headers(1, indexed(*range(62, 75))))
    stage.settle()
    assert stage.ending is None and stage.log == [("FORWARDED", "GET", "/public/x", 200)]


@pytest.mark.parametrize("size", [0, 100])
def test_a_table_that_the_upgrade_makes_smaller(size: int) -> None:
    """It holds from the 101 on: the first block behind it says so, whosever it is (RFC 7541, section 4.2)."""
    stage = Stage(make=HttpConversation, client=Wire(client=True), server=Wire(client=False), begin=False)
    stage.rig.framed = False
    stage.rig.arrive(REQUEST, upgrading(setting=setting((1, size)))).arrive(RESPONSE, SWITCH)
    stage.handed = [len(stage.rig.server), len(SWITCH)]
    stage.client.outgoing = bytearray(PREFACE + frames.settings() + frames.headers(3, plain(request("/secret"))))
    stage.settle()
    block = next(one for one in stage.client.heard if one.kind == frames.HEADERS)
    assert block.payload.startswith(table_size(size)) and denied(stage.client.seen[3])


def test_every_split_of_a_whole_call() -> None:
    stage = Stage(make=HttpConversation)
    stream = stage.client.ask(grpc(), end=False)
    stage.client.send(stream, message(), end=True)
    stage.settle()
    refused = stage.client.ask(grpc("/secret.S/M"))
    stage.settle()
    stage.server.reply(stream, [(b":status", b"200")], message(b"hi"), trailers=[(b"grpc-status", b"0")])
    stage.settle().finish()
    assert denied_grpc(stage.client.seen[refused]) is not None
    for number, (direction, data) in enumerate(stage.lines):
        for cut in range(1, len(data)):
            rig = Rig(make=HttpConversation)
            rest = [(direction, data[:cut]), (direction, data[cut:]), *stage.lines[number + 1 :]]
            for way, piece in (*stage.lines[:number], *rest):
                rig.arrive(way, piece)
            rig.finish()
            assert (rig.server, rig.client, rig.told) == (stage.rig.server, stage.rig.client, stage.rig.told)
