"""Header blocks that server and client must read alike although the server never sees some of them."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import NeverIndexedHeaderTuple

from l7proxy.http2_blocks import Blocks
from tests.conversations import REQUEST
from tests.http1.rig import PublicOnly
from tests.http2 import frames
from tests.http2.frames import encoder, indexed, inserting, plain, request, table_size
from tests.http2.peers import OK, Peer, Wire, denied
from tests.http2.rig import Stage, whole_and_cut

SECRET, PUBLIC = request("/secret"), request("/public/x")
TOKEN, SUM = (b"x-token", b"known by heart"), (b"x-sum", b"of all")


def paths(stage: Stage) -> list[bytes]:
    """What the server was asked, in the order of streams."""
    return [dict(seen.fields)[b":path"] for _, seen in sorted(stage.server.seen.items())]


def wire(*blocks: bytes, **more: Any) -> Stage:
    """A stage, settled, whose client sends these blocks as requests without a body, and does not shrink its table."""
    stage = Stage(client=Wire(client=True), **more)
    for number, block in enumerate(blocks):
        stage.client.raw(frames.headers(2 * number + 1, block))
        stage.settle()
    return stage


@whole_and_cut
@pytest.mark.parametrize("size", [0, 64, 4096, 65_536])
def test_a_client_that_uses_its_table_before_it_knows_better(cut: int, size: int) -> None:
    stage = Stage(cut, server=Peer(client=False, options={1: size}), begin=False)
    for number in range(12):
        which = "/secret" if number % 3 == 1 else "/public"
        stage.client.ask([*request(f"{which}/{number // 6}"), (b"x-token", b"%d" % (number // 2))])
    stage.arrive(REQUEST)
    stage.settle()
    assert paths(stage) == [b"/public/%d" % (number // 6) for number in range(12) if number % 3 != 1]
    for number, (_, seen) in zip((0, 2, 3, 5, 6, 8, 9, 11), sorted(stage.server.seen.items()), strict=True):
        assert dict(seen.fields)[b"x-token"] == b"%d" % (number // 2)
    stage.works()


@pytest.mark.parametrize("size", [4096, 65_536])
def test_a_client_that_never_shrinks_its_table(size: int) -> None:
    """The server allows 4096 for the time being; what it says itself is said to nobody."""
    stage = Stage(client=Wire(client=True), server=Peer(client=False, options={1: size}))
    for number in range(40):
        stage.client.ask([*request(("/public", "/secret")[number % 2] + f"/{number // 4}"), TOKEN])
        stage.settle()
    assert paths(stage) == [b"/public/%d" % (number // 4) for number in range(0, 40, 2)]
    stage.works()


@whole_and_cut
def test_a_server_whose_table_changes_in_mid_connection(cut: int) -> None:
    stage = Stage(cut)
    for size in (64, 4096, 0, 100_000, 4096):
        stage.get("/secret", [TOKEN])
        stage.server.change({1: size})
        stage.get("/public/1", [TOKEN])
        stage.get("/secret", [TOKEN])
        stage.get("/public/2", [TOKEN])
    assert [one.get(1) for one in stage.client.settings] == [0] * 6
    assert paths(stage) == [b"/public/1", b"/public/2"] * 5


def test_settings_that_do_not_speak_of_the_table_leave_it_at_nothing() -> None:
    stage = Stage()
    stage.server.change({3: 50})
    stage.settle()
    stage.works()
    assert stage.client.settings[-1] in ({3: 50}, {1: 0, 3: 50})


@pytest.mark.parametrize(
    ("between", "index"), [((), 62), ((plain(PUBLIC),), 62), ((plain(SECRET), inserting(PUBLIC)), 66)]
)
def test_a_refused_block_that_would_have_inserted(between: tuple[bytes, ...], index: int) -> None:
    stage = wire(inserting([*SECRET, TOKEN]), *between, plain(PUBLIC) + indexed(index))
    assert stage.server.seen[2 * len(between) + 3].fields == [*PUBLIC, TOKEN]
    stage.works()


def test_a_refused_block_whose_entries_are_used_by_index() -> None:
    stage = wire(inserting([*SECRET, TOKEN]), plain(PUBLIC) + indexed(62))
    assert stage.server.seen[3].fields == [*PUBLIC, TOKEN]
    stage = wire(inserting(PUBLIC), inserting([*SECRET, TOKEN]), plain(PUBLIC[:2]) + indexed(68) + plain(PUBLIC[3:]))
    assert paths(stage) == [b"/public/x"] * 2


def with_path(path: bytes, block: bytes = b"") -> bytes:
    """A request that inserts its path, or (`block`) takes it from the table."""
    return plain(PUBLIC[:2]) + (block or inserting([(b":path", path)])) + plain(PUBLIC[3:])


def test_the_same_bytes_mean_another_path() -> None:
    """What a block meant once it does not mean behind another table; nor on another connection under the same rules."""
    judge, newest = PublicOnly(), with_path(b"", indexed(62))
    for first, second in ((b"/public/1", b"/secret"), (b"/secret", b"/public/1")):
        blocks = (with_path(first), newest, newest, with_path(second), newest, with_path(first), newest)
        stage = wire(*blocks, judge=judge)
        wanted = [first] * 3 + [second] * 2 + [first] * 2
        assert paths(stage) == [path for path in wanted if path != b"/secret"]
        assert [one[2].encode() for one in stage.log if one[0] == "DROPPED"] == [b"/secret"] * wanted.count(b"/secret")


def test_a_block_that_has_grown_a_table_is_read_again() -> None:
    """On the next connection, too, it does not only ask for something."""
    judge, grow = PublicOnly(), table_size(4096) + with_path(b"/public/1")
    for _ in range(2):
        stage = Stage(client=Wire(client=True, polite=False), judge=judge)
        for number, block in enumerate((table_size(0) + plain(PUBLIC), grow, with_path(b"", indexed(62)))):
            stage.client.raw(frames.headers(2 * number + 1, block))
            stage.settle()
        assert paths(stage) == [b"/public/x", b"/public/1", b"/public/1"]


def test_the_same_bytes_mean_another_status() -> None:
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    for number, block in enumerate(
        (inserting([(b":status", b"418")]), indexed(62), inserting([(b":status", b"299")]), indexed(62), indexed(63))
    ):
        stage.client.ask(PUBLIC)
        stage.settle()
        stage.server.raw(frames.headers(2 * number + 1, block))
        stage.settle()
    assert [one[3] for one in stage.log] == [418, 418, 299, 299, 418]


def test_a_name_alone_by_index() -> None:
    stage = wire(inserting([*SECRET, TOKEN]), plain(PUBLIC) + b"\x7e\x01z" + b"\x0f\x2f\x01y")
    assert stage.server.seen[3].fields == [*PUBLIC, (b"x-token", b"z"), (b"x-token", b"y")]


def test_an_entry_that_a_refused_block_has_driven_out() -> None:
    first, second = (b"x-big", b"a" * 3000), (b"x-big", b"b" * 3000)
    stage = wire(inserting([*PUBLIC, first]), inserting([*SECRET, second]), plain(PUBLIC) + indexed(62))
    assert stage.server.seen[5].fields[-1] == second
    stage = wire(inserting([*PUBLIC, first]), inserting([*SECRET, second]), plain(PUBLIC) + indexed(67))
    assert 5 not in stage.server.seen and stage.codes[0] == 9


def test_a_table_size_update_in_a_refused_block() -> None:
    """A server that has shrunk its table waits for the client's word on it, in the first block that it sees."""
    server = Peer(client=False, options={1: 0})
    stage = wire(table_size(0) + plain(SECRET), plain(PUBLIC), plain(PUBLIC), server=server)
    assert paths(stage) == [b"/public/x"] * 2
    server = Peer(client=False, options={1: 64})
    stage = Stage(server=server)
    stage.get("/secret")
    stage.works()


def test_table_size_updates_that_grow_again() -> None:
    """As long as the client has not acknowledged that it may have no table."""
    stage = Stage(client=Wire(client=True, polite=False))
    blocks = (table_size(0, 4096) + inserting(SECRET), table_size(64, 4096) + inserting(PUBLIC), plain(PUBLIC))
    more = (inserting([*SECRET, TOKEN]), table_size(4096) + plain(PUBLIC) + indexed(62))
    for number, block in enumerate(blocks + more):
        stage.client.raw(frames.headers(2 * number + 1, block))
        stage.settle()
    assert paths(stage) == [b"/public/x"] * 3 and stage.server.seen[9].fields[-1] == TOKEN


@pytest.mark.parametrize("path", ["/public/x", "/secret"])
def test_a_table_that_grows_although_the_client_knows_better(path: str) -> None:
    stage = wire(plain(PUBLIC), table_size(0) + plain(PUBLIC), table_size(4096) + plain(request(path)))
    assert paths(stage) == [b"/public/x"] * 2 and stage.codes[0] == 9


def test_the_entries_of_a_malformed_block() -> None:
    stage = wire(inserting([*PUBLIC, (b"X-Upper", b"1")]), plain(PUBLIC[:2]) + indexed(64) + plain(PUBLIC[3:]))
    assert stage.client.seen[1].reset == 1 and list(stage.server.seen) == [3]
    assert stage.server.seen[3].fields == PUBLIC
    stage = wire(inserting([(b"x-evil", b"a\r\nb"), *PUBLIC]), plain(PUBLIC) + indexed(66))
    assert stage.server.seen == {} and stage.client.seen[3].reset == 1


@whole_and_cut
def test_the_trailers_of_a_refused_stream_feed_the_table(cut: int) -> None:
    stage = Stage(cut, client=Wire(client=True))
    stage.client.raw(frames.headers(1, plain(SECRET), end=False) + frames.headers(1, inserting([TOKEN])))
    stage.client.raw(frames.headers(3, plain(PUBLIC) + indexed(62)))
    stage.settle()
    assert stage.server.seen[3].fields == [*PUBLIC, TOKEN] and list(stage.server.seen) == [3]


def test_the_trailers_of_an_allowed_stream_after_a_refusal() -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.raw(frames.headers(1, inserting(PUBLIC), end=False) + frames.headers(3, inserting([*SECRET, SUM])))
    stage.client.raw(frames.data(1, b"x") + frames.headers(1, indexed(62)))
    stage.settle()
    assert stage.server.seen[1].trailers == [SUM] and stage.server.seen[1].ended
    assert list(stage.server.seen) == [1]


def test_what_must_never_be_indexed_stays_so() -> None:
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    stage.client.raw(frames.headers(1, inserting([*SECRET, TOKEN])))
    secret = (b"authorization", b"Basic c2VjcmV0")
    stage.client.raw(frames.headers(3, plain(PUBLIC) + indexed(62) + plain([secret], never=True)))
    stage.settle()
    blocks = [one.content for one in stage.server.kinds(frames.HEADERS)]
    assert len(blocks) == 1
    decoder = type(stage.server.decoder)()
    last = list(decoder.decode(blocks[0], raw=True))[-1]
    assert isinstance(last, NeverIndexedHeaderTuple) and tuple(last) == secret


def test_a_block_that_changes_no_table_means_the_same_again() -> None:
    blocks = Blocks(65_536)
    blocks.decode(inserting([TOKEN]))
    assert blocks.epoch == 1
    for _ in range(3):
        blocks.decode(plain(PUBLIC))
    assert blocks.epoch == 1


def test_a_block_that_grows_beyond_a_frame() -> None:
    big = [(b"x-big", b"a" * 900 + b"%d" % number) for number in range(4)]
    many = indexed(*[62 + number % 4 for number in range(40)])
    stage = wire(inserting([*SECRET[:3], (b":authority", b"a"), *big]), plain(PUBLIC) + many)
    assert len(stage.server.seen[3].fields) == 44
    sizes = [len(one.payload) for one in frames.split(stage.rig.server.removeprefix(frames.PREFACE))]
    assert max(sizes) <= 16_384
    stage.works()


@whole_and_cut
def test_what_a_written_anew_block_keeps(cut: int) -> None:
    """Priority, END_STREAM and its stream; and an h2 server takes it."""
    stage = Stage(cut, client=Wire(client=True), server=Wire(client=False))
    stage.client.raw(frames.headers(1, inserting([*SECRET, TOKEN]), pieces=3, pad=3))
    block = plain(PUBLIC) + indexed(62)
    stage.client.raw(frames.headers(3, block, end=False, pieces=3, pad=30, priority=(1, 77, True)))
    stage.client.raw(frames.data(3, b"body", end=True))
    stage.settle()
    assert stage.server.seen[3].fields == [*PUBLIC, TOKEN] and stage.server.seen[3].data == b"body"
    (first,) = stage.server.kinds(frames.HEADERS)
    assert first.flags & frames.PRIORITISED and not first.flags & frames.END_STREAM
    start = 1 if first.flags & frames.PADDED else 0
    assert first.payload[start : start + 5] == b"\x80\x00\x00\x01\x4d"


@pytest.mark.parametrize(
    "block",
    [
        plain(PUBLIC) + indexed(62),
        plain(PUBLIC) + b"\x80",
        plain(PUBLIC) + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        plain(PUBLIC) + b"\x00\x05abc",
        plain(PUBLIC) + b"\x00\x81\xff\x00",
        plain(PUBLIC) + b"\x00\x01a\x84\xff\xff\xff\xff",
        plain(PUBLIC) + b"\x40",
        plain(PUBLIC) + table_size(100),
        table_size(4097) + plain(PUBLIC),
        table_size(1 << 20) + plain(PUBLIC),
        plain(SECRET) + indexed(62),
    ],
    ids=range(11),
)
@whole_and_cut
def test_a_block_that_cannot_be_read_ends_the_connection(cut: int, block: bytes) -> None:
    stage = Stage(cut, client=Wire(client=True))
    stage.client.raw(frames.headers(1, block))
    stage.settle()
    assert stage.codes == (9, None) and stage.ending is not None
    assert stage.server.seen == {}
    assert b" at 0x" not in stage.rig.client, "an address of ours is nobody's business"


# -- the other way: what the client's decoder is told ----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 64, 4096, 100_000])
@whole_and_cut
def test_answers_that_use_the_clients_table(cut: int, size: int) -> None:
    stage = Stage(cut, client=Peer(client=True, options={1: size, 2: 0}))
    for number in range(12):
        stream = stage.get("/secret" if number % 3 == 1 else "/public/x")
        if number % 3 != 1:
            stage.server.reply(stream, [(b":status", b"418"), TOKEN, (b"x-number", b"%d" % (number // 4))], b"tea")
        stage.settle()
    assert [one[3] for one in stage.log] == [418, 403, 418] * 4
    assert all((seen.code == 418 and TOKEN in seen.fields) or denied(seen) for seen in stage.client.seen.values())


@pytest.mark.parametrize("sizes", [(0,), (64,), (64, 4096), (100_000,), (0, 100), (100, 0, 4096)])
def test_a_refusal_is_the_first_block_that_a_client_gets_after_its_table_changed(sizes: tuple[int, ...]) -> None:
    stage = Stage()
    for size in sizes:
        stage.works()
        stage.client.change({1: size})
        stage.settle()
        assert denied(stage.client.seen[stage.get("/secret")])
        assert denied(stage.client.seen[stage.get("/secret")])
        stage.works()


def test_a_status_of_the_servers_dynamic_table_is_known() -> None:
    stage = Stage(server=Wire(client=False))
    first, second, third = stage.get(), stage.get(), stage.get()
    stage.server.raw(frames.headers(first, inserting([(b":status", b"418")])))
    stage.server.raw(frames.headers(second, indexed(62)))
    stage.server.raw(frames.headers(third, table_size(0) + plain([(b":status", b"299")])))
    stage.settle()
    assert [one[3] for one in stage.log] == [418, 418, 299]


def test_a_refusal_leaves_the_clients_table_alone() -> None:
    stage = Stage(server=Wire(client=False))
    first = stage.get()
    stage.server.raw(frames.headers(first, inserting([*OK, (b"content-length", b"0"), TOKEN])))
    stage.settle()
    assert denied(stage.client.seen[stage.get("/secret")])
    second = stage.get()
    stage.server.raw(frames.headers(second, indexed(64, 63, 62)))
    stage.settle()
    assert stage.client.seen[second].fields == [*OK, (b"content-length", b"0"), TOKEN]


def test_a_server_whose_block_cannot_be_read() -> None:
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    stage.client.ask(PUBLIC)
    stage.settle()
    stage.server.raw(frames.headers(1, plain(OK) + indexed(90)))
    stage.settle()
    assert stage.ending is not None and stage.client.seen.get(1, None) is None
    stage.finish()
    assert ("FORWARDED", "GET", "/public/x") in [one[:3] for one in stage.log]


def test_h2s_own_encoder_at_the_largest_table() -> None:
    """The client's table is as large as the server said it may be before anybody told it otherwise: 4096."""
    made = encoder()
    stage = Stage(client=Wire(client=True), server=Peer(client=False, options={1: 65_536}))
    stage.client.encoder = made
    for number in range(200):
        stage.client.ask([*request(("/public", "/secret")[number % 2]), (b"x-n", b"%d" % (number % 50) * 40)])
    stage.settle()
    assert len(stage.server.seen) == 100


def test_a_server_that_lowers_its_largest_frame() -> None:
    stage = Stage(client=Wire(client=True), server=Peer(client=False, options={5: 65_536}))
    stage.server.change({5: 16_384})
    stage.settle()
    big = [(b"x-big", b"a" * 900 + b"%d" % number) for number in range(4)]
    stage.client.raw(frames.headers(1, inserting([*SECRET, *big])))
    stage.client.raw(frames.headers(3, plain(PUBLIC) + indexed(*[62 + number % 4 for number in range(40)])))
    stage.settle()
    assert len(stage.server.seen[3].fields) == 44
