"""Refusals are those of a real broker with ACLs, for every API and version, byte for byte but for the order."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from l7proxy.kafka import PAGES
from parsers import kafka
from parsers.facts import KafkaRequest, Request
from parsers.kafka_codec import decode, encode
from parsers.kafka_denials import CLOSED
from parsers.kafka_names import Item, asked
from parsers.kafka_refusals import refuse
from parsers.kafka_responses import complete, trim
from parsers.kafka_schema import APIS, REQUEST, RESPONSE
from policies.verdict import L7Decision, Verdict
from tests.conversations import REQUEST as TO_SERVER
from tests.kafka import truth
from tests.kafka.broker import TOPIC as ACL_TOPIC
from tests.kafka.broker import Broker
from tests.kafka.cases import FILTERED, SECRET, Case, leaves
from tests.kafka.mixtures import mixtures
from tests.kafka.rig import Rig, Teller, ask
from tests.kafka.rig import answer as response_of
from tests.kafka.truth import STRICTER, Vector, plain
from tests.kafka.wire import answer, framed, request

TOPIC, GROUP, CLUSTER, TRANSACTION = 29, 30, 31, 53
ACLS = {29, 30, 31}


@cache
def vectors() -> dict[int, list[Vector]]:
    """By API."""
    found: dict[int, list[Vector]] = {key: [] for key in APIS}
    for vector in truth.load():
        found[vector.key].append(vector)
    return {key: some for key, some in found.items() if some}


def refused(user: str, item: Item) -> int | None:
    """The code with which a broker refuses something to a user."""
    if user == "nobody":
        if item.transactional_id is not None:
            return TRANSACTION
        if item.group is not None:
            return GROUP
        return CLUSTER if item == Item() else TOPIC
    named = {
        "transactions": (TRANSACTION, item.transactional_id),
        "groups": (GROUP, item.group),
        "topics": (TOPIC, "secret" if item.topic_id == SECRET.id else item.topic),
    }
    some = named.values() if user == truth.SEVERAL else [named[user]]
    return next((code for code, name in some if name is not None and name.startswith("secret")), None)


def differences(some: Iterable[Vector], serve: Callable[[Vector, dict[str, Any]], Any]) -> Iterator[str]:
    """Where a client would get something else from us than from the broker. `serve`: the answer to what is kept."""
    for vector in some:
        if vector.user != "everyone" and (vector.key, vector.case) not in STRICTER:
            found, due = (plain(tree, vector.key) for tree in (got(vector, serve), vector.answer_tree()))
            if found is not None and found != due:
                yield f"{vector.name}\n  request  {vector.tree()}\n  expected {due}\n  got      {found}"


def got(vector: Vector, serve: Callable[[Vector, dict[str, Any]], Any]) -> Any:
    """What a client would get from us in place of the broker's refusal; None if it closes, or nothing is refused."""
    head = kafka.read_head(vector.request, 0, len(vector.request))
    found, tree = asked(head, vector.request), vector.tree()
    codes = {item: code for item in found.items if (code := refused(vector.user, item)) is not None}
    if vector.case == "share":  # the coordinator's key of a share group is none of a client's
        codes = dict.fromkeys(codes, CLUSTER)
    if vector.case in FILTERED and vector.user != "nobody":
        return filtered(vector, head) if found.trims else None
    if not codes:
        return None
    split = refuse(head, tree, codes)
    if split.answer is None:
        return None if vector.answer is None else "a closed connection"
    if split.kept is None:
        return settled(head, split.answer)
    server = serve(vector, split.kept)
    return server if isinstance(server, str) else settled(head, complete(head, server, split))


def filtered(vector: Vector, head: kafka.Head) -> Any:
    """What is left of the answer that everyone gets."""
    (whole,) = (
        one.answer_tree()
        for one in vectors()[vector.key]
        if one.version == vector.version and one.case == f"{vector.user}: {vector.case}"
    )
    assert whole is not None
    return settled(head, trim(head, whole, lambda item: refused(vector.user, item) is not None))


def recorded(vector: Vector, kept: dict[str, Any]) -> Any:
    """What the broker answered to this request of the same user."""
    wanted = request(vector.key, vector.version, encode(vector.key, vector.version, REQUEST, kept))
    for one in vectors()[vector.key]:
        if (one.version, one.user, one.request) == (vector.version, vector.user, wanted):
            return one.answer_tree()
    return f"a request that was not recorded: {kept}"


def settled(head: kafka.Head, tree: Mapping[str, Any]) -> Any:
    """As it comes over the wire, and in the order of vectors."""
    raw = encode(head.api_key, head.version, RESPONSE, tree)
    return truth.settled(decode(head.api_key, head.version, RESPONSE, raw, 0, len(raw)))


@pytest.mark.parametrize("key", vectors(), ids=lambda key: APIS[key].name)
def test_we_refuse_as_a_broker_does(key: int) -> None:
    assert list(differences(vectors()[key], recorded)) == []


@pytest.mark.parametrize("key", [key for key in vectors() if key not in ACLS | CLOSED], ids=lambda key: APIS[key].name)
def test_all_names_are_seen(key: int) -> None:
    """What a request has of our names and ids stands in what it asks for, but for a name beside the id that decides,
    where a listing begins, and keys that have a group in them."""
    for vector in vectors()[key]:
        if vector.case == "share" or vector.case.startswith(("name of one", "from a refused one")):
            continue
        head = kafka.read_head(vector.request, 0, len(vector.request))
        seen = {name for item in asked(head, vector.request).items for name in item}
        assert set(filter(ours, leaves(vector.tree()))) <= seen, vector.name


def ours(leaf: Any) -> bool:
    """Whether it is a name or an id of what requests are about."""
    words = ("open", "secret", "nowhere", "other", "all-", "running")
    return leaf.startswith(words if isinstance(leaf, str) else b"id:") if isinstance(leaf, str | bytes) else False


def test_vectors_are_of_all_that_the_broker_serves() -> None:
    assert {one.user for some in vectors().values() for one in some} == set(truth.USERS)
    closed = {
        key for key, some in vectors().items() if any(one.user == "nobody" and one.answer is None for one in some)
    }
    assert {APIS[key].name for key in closed} >= {"Envelope", "Vote", "BrokerRegistration"}
    for key, some in vectors().items():
        low, high = min(one.version for one in some), max(one.version for one in some)
        assert key in closed or {one.version for one in some} == set(range(low, high + 1)), APIS[key].name


@pytest.mark.privileged
def test_a_broker_still_says_what_was_recorded() -> None:
    now = {vector[:5]: vector for vector in truth.record()}
    then = {vector[:5]: vector for vector in truth.load()}
    assert now.keys() == then.keys()
    changed = [
        f"{now[key].name}\n  then {then[key].answer_tree()}\n  now  {now[key].answer_tree()}"
        for key in then
        if now[key] != then[key]
    ]
    assert not changed, "\n".join(changed[:20])


@pytest.mark.privileged
def test_we_refuse_as_a_broker_does_whatever_is_named_together() -> None:
    with truth.refusing() as asking:

        def serve(vector: Vector, kept: dict[str, Any]) -> Any:
            return asking.ask(Case(vector.key, vector.version, vector.user, vector.case, kept)).answer_tree()

        some = (asking.ask(case) for case in mixtures(random.Random(7), asking.served, 1000))
        assert list(differences(some, serve)) == []


@pytest.fixture(scope="module")
def pages(kafka_acls: Broker) -> Broker:
    """A broker with topics of which bob may see some."""
    names = [f"pages-{name}" for name in ("a", "secret", "secret-2", "secret-3", "t", "secret-4", "u")]
    kafka_acls.create(*names, partitions=2)
    kafka_acls.allow("bob", ACL_TOPIC, "pages-", prefix=True)
    kafka_acls.refuse("bob", ACL_TOPIC, "pages-secret")
    return kafka_acls


@pytest.mark.privileged
def test_pages_of_all_topics(pages: Broker) -> None:
    """Page by page, and cursor by cursor, comes what a broker gives to somebody to whom it refuses the same."""
    rig = Rig(Pages())
    with pages.wire() as wire, pages.wire("bob") as strict:

        def next_page(limit: int, cursor: dict[str, Any] | None) -> dict[str, Any]:
            """What both give."""
            tree = {"topics": [], "response_partition_limit": limit, "cursor": cursor}
            rig.ask(ask("DescribeTopicPartitions", 0, tree))
            while frames := rig.frames(TO_SERVER):
                for frame in frames:
                    wire.put(frame)
                    rig.say(framed(wire.receive()))
            (told,) = rig.heard()
            page = response_of(told, "DescribeTopicPartitions", 0)
            assert page == strict.ask("DescribeTopicPartitions", 0, tree)
            return page

        for limit in (1, 2, 3, 2000):
            page = next_page(limit, None)
            found = [row["name"] for row in page["topics"]]
            while page["next_cursor"] is not None and len(found) < 100:
                page = next_page(limit, page["next_cursor"])
                found += [row["name"] for row in page["topics"]]
            assert list(dict.fromkeys(found)) == ["pages-a", "pages-t", "pages-u"]
        for start in ("pages-secret", "pages-r", "pages-t", "pages-a-", "-", "zzz", ""):
            next_page(2000, {"topic_name": start, "partition_index": 1})
    assert {verdict for verdict, *_ in rig.told} == {"FORWARDED"}


@pytest.mark.privileged
@pytest.mark.parametrize("audit_only", [False, True])
def test_pages_go_on_behind_what_a_new_policy_refuses(pages: Broker, audit_only: bool) -> None:
    """The broker makes of a cursor what the proxy means by it, where every second page is answered under a policy that
    it was not asked for under."""
    rig = Rig()
    with pages.wire() as wire:

        def next_page(cursor: dict[str, Any] | None, limit: int, judge: Teller) -> dict[str, Any]:
            """Asked for under `judge`."""
            rig.talk.judge = judge
            tree = {"topics": [], "response_partition_limit": limit, "cursor": cursor}
            rig.ask(ask("DescribeTopicPartitions", 0, tree))
            while frames := rig.frames(TO_SERVER):
                for frame in frames:
                    wire.put(frame)
                    told = framed(wire.receive())
                    if kafka.read_head(frame, 4, len(frame)).api_key == PAGES:
                        rig.talk.judge = Pages()
                    rig.say(told)
            (told,) = rig.heard()
            assert b"secret" not in told
            return response_of(told, "DescribeTopicPartitions", 0)

        for limit, turn in itertools.product((1, 2, 3, 2000), (0, 1)):
            judges = itertools.islice(itertools.cycle((AllPages(audit_only=audit_only), Pages())), turn, 100)
            cursor, found = None, []
            for judge in judges:
                page = next_page(cursor, limit, judge)
                found += [row["name"] for row in page["topics"]]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
            assert cursor is None and list(dict.fromkeys(found)) == ["pages-a", "pages-t", "pages-u"]


class Pages(Teller):
    """Allows pages, but no secret ones."""

    def judge(self, request: Request) -> L7Decision:
        assert isinstance(request, KafkaRequest)
        name = request.topic
        allowed = name is None or (name.startswith("pages-") and not name.startswith("pages-secret"))
        return L7Decision(Verdict.FORWARDED if allowed else Verdict.DROPPED, None, "")


class AllPages(Teller):
    """Allows all pages, and no other topics."""

    def judge(self, request: Request) -> L7Decision:
        assert isinstance(request, KafkaRequest)
        allowed = self.audit_only or request.topic is None or request.topic.startswith("pages-")
        return L7Decision(Verdict.FORWARDED if allowed else Verdict.DROPPED, None, "")


@pytest.mark.privileged
def test_an_unknown_version_of_api_versions(kafka_acls: Broker) -> None:
    payload = struct.pack(">hhih", 18, 99, 7, -1) + b"\0\x01\x02"
    with kafka_acls.wire() as wire:
        wire.put(framed(payload))
        theirs = wire.receive()
    ours = kafka.unsupported_version(kafka.read_head(payload, 0, len(payload)))
    assert ours[4:8] == theirs[:4]
    assert answer(18, 99, ours[4:]) == answer(18, 99, theirs)
