"""The programs find nothing wrong with plain TCP, and find what is wrong when something is."""

from __future__ import annotations

import pytest

from tests.splice.peers import KINDS, Peer, converse
from tests.splice.programs import StressServer, naive, stalled, stress
from tests.splice.relays import Relay, Tamper, honest

HELLO = 16
"""Bytes in front of a stream's content."""
ORDERLY = ("--kinds", "full,half,cross")


def test_stress_finds_nothing_wrong() -> None:
    report = stress("--connections", "200", "--seconds", "0", "--bytes", "100000")
    assert report.errors == []
    client, server = report.ends["client"], report.ends["server"]
    assert all(client["kinds"].values()), client["kinds"]
    assert {kind: count for kind, count in client["kinds"].items() if kind != "orphan"} == {
        kind: count for kind, count in server["kinds"].items() if kind != "orphan"
    }
    assert report.total("received") > 1 << 20
    assert report.total("peeks") and report.total("inquiries") and report.total("resets")


def test_every_byte_is_counted_where_nothing_is_cut() -> None:
    report = stress("--connections", "50", "--seconds", "0", *ORDERLY, "--addr", "::1")
    assert report.errors == []
    assert report.ends["client"]["sent"] == report.ends["server"]["received"]
    assert report.ends["server"]["sent"] == report.ends["client"]["received"]
    assert report.total("streams") == 100


def through(tamper: Tamper, window: tuple[int, int], *, holds: bool = False) -> list[dict[str, object]]:
    """The errors of both ends with a relay between them. The client sends 16 bytes and then content."""
    ends = ("--connections", "12", "--seconds", "0", "--patience", "1", "--bytes", "400000", *ORDERLY)
    with StressServer(*ends) as server, Relay(server.port, tamper, window, holds=holds) as relay:
        client = stress("--connect", "--port", str(relay.port), *ends)
        seen = server.report()
    return client.errors + seen.errors


def test_an_honest_relay_is_no_fault() -> None:
    assert through(honest, (0, 0)) == []


@pytest.mark.parametrize(
    ("tamper", "text"),
    [
        (lambda window: [window[1000:]], "wrong content, it belongs to offset 2984"),
        (lambda window: [window[:1000], window], "wrong content, it belongs to offset 1984"),
        (lambda window: [window[1000:], window[:1000]], "wrong content, it belongs to offset 2984"),
        (lambda window: [bytes([window[0] ^ 1]), window[1:]], "wrong content, it belongs to offset -1"),
    ],
    ids=["lost", "repeated", "swapped", "bit"],
)
def test_stress_says_where_the_fault_is(tamper: Tamper, text: str) -> None:
    """2,000 bytes from 1,984 of the content on; a repeated block shows where it ends, 1,000 further."""
    errors = [error for error in through(tamper, (HELLO + 1984, 2000)) if "content" in str(error["what"])]
    assert errors
    assert {error["offset"] for error in errors} == {2984 if "1984" in text else 1984}
    places = {str(error["what"]).partition(": ")[2] for error in errors}
    # Where fewer than 15 bytes are there, nobody can say where they belong.
    assert text in places and places <= {text, "wrong content, it belongs to offset -1"}, errors


def test_stress_says_what_hangs() -> None:
    errors = through(lambda window: [], (HELLO + 100, 50), holds=True)
    assert any(str(error["what"]).startswith("hung: ") for error in errors), errors


@pytest.mark.parametrize("thing", ["lose", "repeat", "swap"])
def test_stress_sees_a_faulty_send(thing: str) -> None:
    report = stress("--connections", "4", "--seconds", "1", "--patience", "1", *ORDERLY, environment=naive(thing))
    assert any("wrong content" in str(error["what"]) for error in report.errors), report.errors


def test_stalled_readers_stop_writers() -> None:
    report = stalled("--connections", "50", "--warm-up", "3", "--both")
    assert (report.streams, report.unbounded, report.errors) == (100, 0, 0)
    assert 0 < report.least <= report.most < 32 << 20
    assert report.tcp["stalled"] - report.tcp["before"] > report.total / 1024 / 2


def test_stalled_says_when_nothing_stops_them_and_when_content_is_wrong() -> None:
    assert stalled("--connections", "5", "--limit", "100000").unbounded == 5
    assert stalled("--connections", "20", environment=naive("lose")).errors == 1


@pytest.mark.parametrize("kind", KINDS)
def test_peers_give_back_what_they_get(kind: str) -> None:
    with Peer(kind) as peer:
        assert converse(peer.address, peer.port, b"E", connections=10, size=1_000_000) == []
        assert converse(peer.address, peer.port, b"D", connections=10, size=1_000_000) == []


def test_the_client_of_the_peers_sees_a_fault() -> None:
    with Peer("asyncio") as peer, Relay(peer.port, lambda window: [window[1:]], (1 + 5000, 10)) as relay:
        assert converse("127.0.0.1", relay.port, b"E", connections=1, size=9000) == [
            "8999 bytes came of 9000, wrong from 5000 on"
        ]
        assert "came of" in converse("127.0.0.1", relay.port, b"D", connections=1, size=9000)[0]
