"""What real servers run of the bytes that pass: only requests that were judged and allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st

from l7proxy.http1 import Http1Conversation
from parsers.options import HttpOptions
from tests.realservers.careless import Careless
from tests.realservers.farm import IF_PRESENT, KINDS, Farm
from tests.realservers.framing import all_framing
from tests.realservers.grammar import mutations, streams
from tests.realservers.judge import PublicOnly
from tests.realservers.rig import Played, Wire, play
from tests.realservers.stream import HIDDEN, SIZE, TAG, Vector, length, request
from tests.realservers.survey import Outcome, survey
from tests.realservers.targets import all_targets

pytestmark = pytest.mark.slow
VECTORS = [*all_framing(), *all_targets()]
STRICT = HttpOptions(refuse_get_body=True, refuse_trailers=True, refuse_early_answer=True)
"""The three options that refuse what is legal and what some servers misread all the same."""


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with Farm() as started:
        yield started


def through(options: HttpOptions) -> Callable[[], Http1Conversation]:
    """Conversations that share one judge, and so its cache, as the connections of one flow do."""
    judge = PublicOnly(options)
    return lambda: Http1Conversation(judge)


def assert_judged(outcomes: Iterable[Outcome]) -> None:
    """Nothing hidden ran, and what ran had been allowed, in that order."""
    wrong = [
        f"{one.server} ran {one.hidden() or one.unjudged()} of {one.vector.name!r}: {one.vector.parts}\n"
        f"  it got {bytes(one.played.to_server)!r}; allowed were {one.played.allowed()}"
        for one in outcomes
        if one.hidden() or one.unjudged()
    ]
    assert not wrong, f"{len(wrong)} evasions, the first:\n" + "\n".join(wrong[:8])


def test_at_least_six_kinds_of_server_run(farm: Farm) -> None:
    present = {kind for command, kinds in IF_PRESENT.items() if command not in farm.missing for kind in kinds}
    assert set(farm.servers) == set(KINDS) | present
    assert len(KINDS) >= 6
    for command in farm.missing:
        print(f"no {command} on this machine: {', '.join(IF_PRESENT[command])} left out")


def test_an_honest_client_is_served_by_all(farm: Farm) -> None:
    get = b"GET /public/" + TAG + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    honest = [
        Vector("pipelined", (get * 3,)),
        Vector("one by one", (get, get, get)),
        Vector("with a body, then without", (request(length(5), body=b"hello") + get, get)),
    ]
    for one in survey(farm, honest, through(HttpOptions()), cuts=(0, 1, 13), quiet=0.7):
        assert len(one.ran) == 3, f"{one.server}, {one.vector.name}: ran {one.ran}"
        assert one.unjudged() == one.hidden() == []
        assert one.played.to_client.count(b"HTTP/1.1 200") + one.played.to_client.count(b"HTTP/1.1 40") == 3
        assert len(one.played.records) == 3


def test_the_vectors_bite_where_no_proxy_is(farm: Farm) -> None:
    outcomes = survey(farm, VECTORS, Wire)
    bitten = {one.vector.name for one in outcomes if one.hidden()}
    assert {one.server for one in outcomes if one.hidden()} == set(farm.servers)
    assert len(bitten) > len(VECTORS) / 2
    by_server = {kind: {one.vector.name for one in outcomes if one.server == kind and one.hidden()} for kind in KINDS}
    assert "extension ends at a bare LF" in by_server["nginx"]
    assert "extension goes on behind a bare LF" in by_server["gevent"]
    assert "length before coding" in by_server["waitress"]
    assert "trailer that is a request" in by_server["cheroot"]
    assert "GET with a body" in by_server["http.server"]
    assert "/public/../secret/ " in "".join(name.replace("'", " ") for name in by_server["apache"])
    assert {"h2c", "preface behind a request"} <= by_server["hypercorn"]


def test_a_careless_proxy_is_caught(farm: Farm) -> None:
    """Or the tests below could not fail."""
    caught = {one.vector.name for one in survey(farm, VECTORS, Careless) if one.hidden()}
    assert {"length before coding", "coding before length", "path '/public/../secret/'"} <= caught
    with pytest.raises(AssertionError, match="evasions"):
        assert_judged(survey(farm, mutations(VECTORS, 200, seed=1), Careless))


@pytest.mark.parametrize("cut", [0, 3], ids=["whole", "in pieces"])
def test_no_vector_passes(farm: Farm, cut: int) -> None:
    outcomes = survey(farm, VECTORS, through(STRICT), cuts=(cut,))
    assert_judged(outcomes)
    leaked = {one.vector.name for one in outcomes if b"/secret/" in one.played.to_server and not one.vector.legal}
    assert leaked == set(), "bytes of what is hidden reached a server, though none that runs here was evaded"


def test_by_default_only_what_is_legal_is_misread(farm: Farm) -> None:
    outcomes = survey(farm, VECTORS, through(HttpOptions()))
    known = {
        ("cheroot", "trailer that is a request"),
        ("http.server", "GET with a body"),
        ("http.server", "HEAD with a body"),
    }
    misread = {(one.server, one.vector.name) for one in outcomes if one.hidden()}
    assert misread == known
    assert_judged(one for one in outcomes if (one.server, one.vector.name) not in known)


def test_no_mutation_passes(farm: Farm) -> None:
    assert_judged(survey(farm, mutations(VECTORS, 500, seed=9110), through(STRICT)))


@settings(
    max_examples=12,
    phases=[Phase.generate],  # shrinking would play for hours; the message of the failure has the one stream
    verbosity=Verbosity.quiet,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(generated=st.lists(streams(), min_size=30, max_size=30))
def test_nothing_generated_passes(farm: Farm, generated: list[Vector]) -> None:
    assert_judged(survey(farm, generated, through(STRICT)))


def play_scripted(answers: list[bytes], parts: list[bytes], options: HttpOptions = STRICT) -> Played:
    """A stream at a server that sends the given answers, one for each time that bytes come."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(65536)
            writer.write(answer)
        await reader.read()
        writer.close()

    async def run() -> Played:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await play(server.sockets[0].getsockname(), parts, through(options)())

    return asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    ],
    ids=["websocket", "h2c", "behind an answer"],
)
def test_a_101_that_nobody_asked_for_opens_no_tunnel(answer: bytes) -> None:
    played = play_scripted([answer, b""], [b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n", HIDDEN])
    assert b"/public/x" in played.to_server and b"/secret/" not in played.to_server


def test_behind_an_early_final_answer_no_body_passes_if_that_is_refused() -> None:
    early = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"
    parts = [request(length(SIZE)), HIDDEN]
    assert b"/secret/" not in play_scripted([early, b""], parts).to_server
    assert b"/secret/" in play_scripted([early, b""], parts, HttpOptions()).to_server
