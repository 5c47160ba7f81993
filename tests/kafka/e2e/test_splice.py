"""With the proxy's own connections spliced, clients of Kafka get the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.everywhere import everywhere
from tests.kafka.e2e import common
from tests.kafka.e2e.common import Net
from tests.kafka.e2e.watcher import REFUSING, Watcher

pytestmark = pytest.mark.privileged
CLIENT = "librdkafka"


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with everywhere(), common.net(splice=True) as made:
        common.prepare(made.broker, CLIENT)
        yield made


def spliced(net: Net) -> int:
    """Bytes that took the short way so far."""
    found = net.node.status()["splice"]
    assert found["on"], found["detail"]
    return int(found["spliced_bytes"])


def test_clients_and_verdicts_are_the_same(net: Net) -> None:
    before = spliced(net)
    found = net.run(CLIENT, "kinds")
    assert set(found["sent"].values()) == {"NO_ERROR"} and found["classic"] == found["consumer"] == sorted(
        found["sent"]
    )
    assert net.run(CLIENT, "transactions") == {"out": ["one", "two"], "committed": 1}
    found = net.run(CLIENT, "refused")
    assert found["produce"] == "TOPIC_AUTHORIZATION_FAILED" and found["produce on"] == "NO_ERROR"
    assert found["consume"] == ["TOPIC_AUTHORIZATION_FAILED"] and found["group"] == ["GROUP_AUTHORIZATION_FAILED"]
    found = net.run(CLIENT, "mixed")
    assert found["consume"] == ["TOPIC_AUTHORIZATION_FAILED", "mixed"]
    assert set(found["produce"].values()) == {"NO_ERROR", "TOPIC_AUTHORIZATION_FAILED"}
    assert spliced(net) > before


def test_20_mb_are_whole(net: Net) -> None:
    for _ in range(3):
        before = spliced(net)
        assert net.run(CLIENT, "large") == ["NO_ERROR", True]
    assert spliced(net) > before + (1 << 20)


def test_a_consumer_recovers_from_a_refusal(net: Net) -> None:
    with net.running(CLIENT, "watch") as process:
        watcher = Watcher(net, CLIENT, process)
        for number in range(100):  # until it is known how it reads, nothing is spliced
            watcher.put(f"{number}")
            watcher.hears(f"{number}")
        net.rules(REFUSING)
        watcher.is_refused()
        net.rules()
        before = spliced(net)
        watcher.put("allowed again")
        watcher.hears("allowed again")
        assert spliced(net) > before
