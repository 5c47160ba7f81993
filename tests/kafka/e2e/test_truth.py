"""The same bytes to a broker with ACLs, and through l7proxy with a policy to a broker without: the answers are equal.

Each user of `tests.kafka.truth` is a pod here, and its rights are rules: whatever names topics, groups or transactional
ids, and the administration that Kafka's ACLs allow to the owner of such a thing, but not what takes a right to the
cluster. What has a name that begins with ``secret`` is denied.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from parsers.kafka_schema import BY_NAME
from tests.e2e.common import policy
from tests.kafka import cases as asked
from tests.kafka import truth
from tests.kafka.broker import Broker, broker
from tests.kafka.e2e.common import kafka_ingress
from tests.kafka.mixtures import mixtures
from tests.kafka.truth import Recorder, Vector
from tests.kafka.wire import Wire
from tests.lab import Lab

pytestmark = pytest.mark.privileged
NAMES = {"topics": "topics", "groups": "groups", "transactions": "transactionalIDs"}
OWNERS = {
    "topics": ("CreateTopics", "DeleteTopics", "CreatePartitions", "DeleteRecords", "DescribeConfigs", "AlterConfigs",
               "IncrementalAlterConfigs"),
    "groups": ("DescribeConfigs", "AlterConfigs", "IncrementalAlterConfigs", "DeleteGroups", "OffsetDelete",
               "DeleteShareGroupOffsets"),
}  # fmt: skip
"""Administration, by what one has to have rights to."""
ALLOWED: list[dict[str, Any]] = [{name: ["*"]} for name in NAMES.values()]
ALLOWED += [{"apiKey": api, name: ["*"]} for name, apis in OWNERS.items() for api in apis]
NOTHING = [{"apiKey": "ApiVersions"}]
BROKERS = [{"apiKey": "AddPartitionsToTxn", "apiVersion": version} for version in ("4", "5")]
"""What takes a right to the cluster, though earlier versions do not."""
SHARES = {BY_NAME[name].key for name in ("sharefetch", "shareacknowledge")}


def rules(running: Broker) -> str:
    """Everyone's."""
    allowed, denied = [], []
    for user in (*truth.USERS, truth.SEVERAL):
        allowed.append(kafka_ingress(running, user, NOTHING if user == "nobody" else ALLOWED))
        names = NAMES.values() if user == truth.SEVERAL else [NAMES[user]] if user in NAMES else []
        denied.append(kafka_ingress(running, user, [*BROKERS, *({name: ["secret*"]} for name in names)]))
    return policy("kafka", "kafka", ingress=allowed, ingressDeny=denied)


@pytest.fixture
def asking() -> Iterator[Recorder]:
    with Lab() as lab:
        pod = lab.pod("kafka")
        pods = {user: lab.pod(user[:10], {"app": user}) for user in (*truth.USERS, truth.SEVERAL)}
        with broker(namespace=pod.ns, host=pod.v4, settings=truth.SETTINGS) as running:
            lab.start_l7proxy(rules(running))

            def connect(user: str) -> Wire:
                return Wire(running.address, namespace=pods[user].ns)

            with truth.recorder(running, connect) as made:
                yield made


def test_every_request_is_answered_as_a_broker_with_acls_answers_it(asking: Recorder) -> None:
    now, then = ({vector[:5]: vector for vector in some} for some in (asking.all(), truth.load()))
    assert now.keys() == then.keys()
    changed = list(differences((then[key], now[key]) for key in then))
    assert not changed, "\n".join(changed)


def test_so_is_whatever_is_named_together(asking: Recorder) -> None:
    with truth.refusing() as strict:
        some = [(strict.ask(case), asking.ask(case)) for case in mixtures(random.Random(9), strict.served, 500)]
    changed = list(differences(some))
    assert not changed, "\n".join(changed)


def differences(pairs: Iterable[tuple[Vector, Vector]]) -> Iterator[str]:
    """Where the second answer is not the first."""
    for theirs, ours in pairs:
        due, found = (anywhere(truth.plain(one.answer_tree(), one.key)) for one in (theirs, ours))
        if due != found and not deliberate(theirs):
            yield f"{theirs.name}\n  request {theirs.tree()}\n  with ACLs       {due}\n  through l7proxy {found}"


def deliberate(vector: Vector) -> bool:
    """Whether we answer otherwise: a share group is told that an id is not known where a broker fails, for which what
    it asks next is another thing as well; and see `truth.STRICTER`."""
    unknown = asked.NOWHERE.id in asked.leaves(vector.tree())
    return (vector.key, vector.case) in truth.STRICTER or (vector.key in SHARES and unknown)


def anywhere(tree: Any) -> Any:
    """Without addresses."""
    if isinstance(tree, list):
        return [anywhere(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    return {name: anywhere(value) for name, value in tree.items() if name not in ("host", "client_host")}
