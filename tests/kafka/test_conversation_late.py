"""What is held back, or waited for, too long ends a Kafka connection."""

from __future__ import annotations

import pytest

from l7proxy.limits import Limits
from parsers.options import KafkaOptions
from tests.kafka.rig import IDS, Rig, Teller, ask, fetch, metadata, produce, say

LIMITS = Limits(head_timeout=10, idle_timeout=300)
OPTIONS = KafkaOptions(max_held=1 << 20, max_held_together=400_000)
HALF_OF_ONE = produce("orders", "secret-x", size=200_000)[:100_000]


def late(rig: Rig, now: float) -> Rig:
    rig.now = now
    return rig.apply(rig.talk.late(now, LIMITS))


@pytest.mark.parametrize("audit", [False, True])
def test_what_is_held_long_makes_room(audit: bool) -> None:
    """Only where others need it; where nothing is enforced it goes on unread."""
    rig = Rig(Teller(OPTIONS, audit_only=audit)).ask(HALF_OF_ONE)
    assert not late(rig, 299).ending and rig.known.held == 100_000
    rig.known.held += 100_001
    assert not late(rig, 10).ending
    assert late(rig, 10.1).closed != audit and rig.known.held == 100_001
    assert rig.server == (HALF_OF_ONE if audit else b"") and "held for long" in rig.records[-1].request.decision.reason


def test_what_is_small_is_not_asked_for_it() -> None:
    rig = Rig(Teller(OPTIONS))
    rig.known.held += 300_000
    rig.ask(produce("orders", size=60_000)[:50_000])
    assert rig.talk.head_pending and not late(rig, 299).ending


def test_responses_that_are_held_long() -> None:
    rig = Rig(Teller(OPTIONS)).ask(ask("Metadata", 12, {"topics": None, "allow_auto_topic_creation": False}))
    data = say("Metadata", 12, {"topics": [{"name": "x" * 30_000} for _ in range(5)]})
    rig.say(data[:100_000])
    assert rig.known.held == 100_000
    rig.known.held += 200_000
    assert late(rig, 11).aborted and rig.client == b""
    rig.finish()
    assert rig.known.held == 200_000 and "held for long" in rig.records[-1].request.decision.reason


def test_requests_do_not_wait_for_ever() -> None:
    """For a server that does not tell what decides about them."""
    rig = Rig().ask(fetch(IDS["orders"], version=13))
    assert len(rig.served()) == 1 and not late(rig, 300).ending
    assert late(rig, 301).closed
    rig = Rig().ask(fetch(IDS["orders"], version=13))
    rig.now = 299
    rig.say(metadata(rig.served()[0][0].correlation_id, orders=IDS["orders"]))
    assert len(rig.served()) == 1 and not late(rig, 1e6).ending
