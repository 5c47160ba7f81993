"""What Kafka rules allow and deny, and the index against a reading of every rule in turn."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.facts import KafkaRequest
from parsers.kafka_schema import APIS, BY_NAME
from policies.decision import L7Lists
from policies.expressions import of_glob
from policies.kafka_apis import ADMINISTRATION, BASE, NAMING, NEVER, ROLES, Names
from policies.kafka_index import KafkaIndex
from policies.model import KafkaRole, KafkaRule
from policies.verdict import RuleRef, Verdict
from tests.policies.rules import audited, cost, rules


def rule(
    api: str | None = None,
    role: str | None = None,
    version: int | None = None,
    client: str | None = None,
    topics: tuple[str, ...] | None = None,
    groups: tuple[str, ...] | None = None,
    transactions: tuple[str, ...] | None = None,
    line: int = 1,
) -> KafkaRule:
    key = None if api is None else BY_NAME[api.lower()].key
    ref = RuleRef("default/kafka", f"ingress[0].toPorts[0].rules.kafka[{line - 1}]", "kafka.yaml", line)
    return KafkaRule(key, None if role is None else KafkaRole(role), version, client, topics, groups, transactions, ref)


def ask(
    api: str,
    topic: str | None = None,
    group: str | None = None,
    transaction: str | None = None,
    version: int = 9,
    client: str = "app",
) -> KafkaRequest:
    return KafkaRequest(BY_NAME[api.lower()].key, version, client, topic, group, transaction)


def allows(one: KafkaRule, asked: KafkaRequest) -> bool:
    return rules([one]).judge(asked).verdict is Verdict.FORWARDED


def denies(one: KafkaRule, asked: KafkaRequest) -> bool:
    lists = L7Lists(deny=(one,), open=True)
    return audited(lists, lists).judge(asked).verdict is Verdict.DROPPED


def apis(one: KafkaRule, **names: str) -> set[str]:
    """The APIs that a rule allows, for requests that name this."""
    return {api.name for api in APIS.values() if allows(one, ask(api.name, **names))}


def named(keys: frozenset[int]) -> set[str]:
    return {APIS[key].name for key in keys}


# -- which APIs --------------------------------------------------------------------------------------------------


def test_an_empty_rule_allows_all_that_clients_may_send() -> None:
    assert apis(rule()) == named(frozenset(APIS) - NEVER)
    assert not allows(rule(), KafkaRequest(999, 0))
    assert not allows(rule(), KafkaRequest(4, 0)), "LeaderAndIsr, which no broker serves any longer"


def test_an_api_alone() -> None:
    assert apis(rule("Heartbeat")) == {"Heartbeat"}
    assert apis(rule("CreateTopics", topics=("a",)), topic="a") == {"CreateTopics"}


@pytest.mark.parametrize("role", list(KafkaRole))
def test_a_role(role: KafkaRole) -> None:
    assert apis(rule(role=role)) == named(ROLES[role])
    assert apis(rule(role=role, topics=("a",)), topic="a") == named(ROLES[role])


def test_a_topic_alone_allows_its_use_and_what_clients_need_around_it() -> None:
    only = rule(topics=("orders",))
    for api in ("Produce", "Fetch", "Metadata", "ListOffsets", "OffsetCommit", "ShareFetch", "AddPartitionsToTxn"):
        assert allows(only, ask(api, topic="orders")), api
        assert not allows(only, ask(api, topic="secret")), api
    for api in ("ApiVersions", "SaslHandshake", "DescribeCluster", "FindCoordinator", "JoinGroup", "InitProducerId"):
        assert allows(only, ask(api)), api
    assert allows(only, ask("JoinGroup", group="any")) and allows(only, ask("EndTxn", transaction="any"))
    assert allows(only, ask("Metadata")), "each topic is asked about in the answer"


def test_a_topic_alone_allows_no_administration() -> None:
    only = rule(topics=("orders",), groups=("*",), transactions=("*",))
    for key in ADMINISTRATION | NEVER:
        assert not allows(only, ask(APIS[key].name, topic="orders", group="g")), APIS[key].name
    for api in ("CreateAcls", "DescribeAcls", "AlterClientQuotas", "UpdateFeatures", "DescribeConfigs", "DeleteGroups"):
        assert not allows(only, ask(api)), api


def test_a_topic_alone_does_not_describe_groups_and_transactions() -> None:
    only = rule(topics=("orders",))
    assert not allows(only, ask("DescribeGroups", group="g")) and not allows(only, ask("ListGroups"))
    assert not allows(only, ask("DescribeTransactions", transaction="t"))
    assert not allows(only, ask("ConsumerGroupDescribe", topic="orders", group="g"))


def test_administration_must_name_what_a_rule_asks_about() -> None:
    """Without a topic these are about brokers, or about every topic there is."""
    for api in ("AlterConfigs", "IncrementalAlterConfigs", "DescribeConfigs", "ElectLeaders", "DescribeLogDirs"):
        only = rule(api, topics=("orders",))
        assert allows(only, ask(api, topic="orders")) and not allows(only, ask(api, topic="secret")), api
        assert not allows(only, ask(api)) and not allows(only, ask(api, group="g")), api
        assert allows(rule(api), ask(api)), api


def test_groups_alone() -> None:
    only = rule(groups=("team-*",))
    assert allows(only, ask("JoinGroup", group="team-a")) and not allows(only, ask("JoinGroup", group="other"))
    assert allows(only, ask("DescribeGroups", group="team-a")) and allows(only, ask("ListGroups"))
    assert allows(only, ask("OffsetCommit", topic="orders", group="team-a"))
    assert not allows(only, ask("Fetch", topic="orders")) and not allows(only, ask("Produce", topic="orders"))
    assert allows(only, ask("Metadata")) and not allows(only, ask("Metadata", topic="orders"))


def test_transactional_ids_alone() -> None:
    only = rule(transactions=("pay-?",))
    assert allows(only, ask("InitProducerId", transaction="pay-1"))
    assert not allows(only, ask("InitProducerId", transaction="pay-10"))
    assert allows(only, ask("Produce", topic="any", transaction="pay-1"))
    assert not allows(only, ask("Produce", topic="any")) and not allows(only, ask("Metadata", topic="any"))


def test_topics_and_groups_each_of_what_is_named() -> None:
    both = rule(topics=("orders",), groups=("team",))
    assert allows(both, ask("Fetch", topic="orders")) and not allows(both, ask("Fetch", topic="secret"))
    assert allows(both, ask("OffsetCommit", topic="orders", group="team"))
    assert not allows(both, ask("OffsetCommit", topic="orders", group="other"))
    assert not allows(both, ask("OffsetCommit", topic="secret", group="team"))
    assert not allows(both, ask("JoinGroup", group="other"))


def test_exactly_once_with_one_rule_for_what_is_read_and_one_for_what_is_written() -> None:
    one = rules([rule(role="consume", topics=("in",)), rule(role="produce", topics=("out",))])
    for asked in (
        ask("Fetch", topic="in"),
        ask("InitProducerId", transaction="t"),
        ask("AddPartitionsToTxn", topic="out", transaction="t"),
        ask("Produce", topic="out", transaction="t"),
        ask("AddOffsetsToTxn", group="g", transaction="t"),
        ask("TxnOffsetCommit", topic="in", group="g", transaction="t"),
        ask("EndTxn", transaction="t"),
    ):
        assert one.judge(asked).verdict is Verdict.FORWARDED, asked
    assert one.judge(ask("Produce", topic="in")).verdict is Verdict.DROPPED
    assert one.judge(ask("Fetch", topic="out")).verdict is Verdict.DROPPED


# -- fields ------------------------------------------------------------------------------------------------------


def test_version_and_client_are_exact() -> None:
    assert allows(rule(version=9), ask("Fetch")) and not allows(rule(version=8), ask("Fetch"))
    assert allows(rule(client="app"), ask("Fetch")) and not allows(rule(client="App"), ask("Fetch"))
    assert not allows(rule(client="app"), ask("Fetch", client=""))
    assert allows(rule(client="app"), ask("Fetch", version=0)), "Cilium reads no client id in version 0"


@pytest.mark.parametrize(
    ("glob", "text", "holds"),
    [
        ("orders", "orders", True),
        ("orders", "Orders", False),
        ("orders", "orders2", False),
        ("a.b", "axb", False),
        ("a*", "a", True),
        ("a*", "a/\n\x00ä", True),
        ("a**b", "axyb", True),
        ("*b", "ab", True),
        ("*b", "abc", False),
        ("*", "", True),
        ("a?", "aä", True),
        ("a?", "a", False),
        ("a?", "aäb", False),
        ("?", "\ufffd", True),
        ("[a-z]+|x", "x", False),
        ("[a-z]+|x", "[a-z]+|x", True),
        ("a\\b ^$(c){1}", "a\\b ^$(c){1}", True),
        ("ä", "ä", True),
        ("ä*", "äb", True),
        ("\n", "\n", True),
    ],
)
def test_globs(glob: str, text: str, holds: bool) -> None:
    assert allows(rule(groups=(glob,)), ask("JoinGroup", group=text)) is holds
    assert denies(rule(groups=(glob,)), ask("JoinGroup", group=text)) is holds


# -- deny --------------------------------------------------------------------------------------------------------


def test_a_denied_topic_is_denied_to_every_api_and_nothing_else_is() -> None:
    only = rule(topics=("secret*",))
    for key, names in NAMING.items():
        if Names.TOPIC in names:
            assert denies(only, ask(APIS[key].name, topic="secret-1")), APIS[key].name
            assert not denies(only, ask(APIS[key].name, topic="orders")), APIS[key].name
    for api in APIS.values():
        assert not denies(only, ask(api.name)) and not denies(only, ask(api.name, group="secret-1"))


def test_a_denied_api_with_a_topic() -> None:
    only = rule("DeleteTopics", topics=("orders",))
    assert denies(only, ask("DeleteTopics", topic="orders"))
    assert not denies(only, ask("DeleteTopics", topic="tmp")) and not denies(only, ask("Fetch", topic="orders"))
    assert denies(rule("CreateAcls"), ask("CreateAcls"))


def test_a_denied_role_leaves_what_the_other_needs() -> None:
    assert denies(rule(role="produce"), ask("Produce", topic="a")) and denies(
        rule(role="produce"), ask("InitProducerId")
    )
    assert denies(rule(role="consume"), ask("Fetch", topic="a")) and denies(rule(role="consume"), ask("JoinGroup"))
    for role in KafkaRole:
        for key in ROLES[KafkaRole.PRODUCE] & ROLES[KafkaRole.CONSUME]:
            assert not denies(rule(role=role), ask(APIS[key].name)), APIS[key].name
    assert not denies(rule(role="produce", topics=("a",)), ask("Metadata", topic="a"))
    assert not denies(rule(role="consume", topics=("a",)), ask("ListOffsets", topic="a"))


def test_all_that_a_deny_rule_asks_about_must_be_named() -> None:
    both = rule(topics=("a",), groups=("g",))
    assert denies(both, ask("OffsetCommit", topic="a", group="g"))
    assert not denies(both, ask("Fetch", topic="a")) and not denies(both, ask("JoinGroup", group="g"))


def test_what_changes_every_topic_is_denied_where_one_is() -> None:
    swept = KafkaRequest(BY_NAME["electleaders"].key, 2, "app", every_topic=True)
    listed = KafkaRequest(BY_NAME["metadata"].key, 2, "app", every_topic=True)
    assert denies(rule(topics=("a",)), swept) and not denies(rule(topics=("a",)), listed)
    assert denies(rule("ElectLeaders", topics=("a",)), swept) and not denies(rule("Fetch", topics=("a",)), swept)
    assert not denies(rule(topics=("a",), client="other"), swept) and not denies(rule(groups=("a",)), swept)


def test_an_empty_deny_rule_denies_everything() -> None:
    assert all(denies(rule(), ask(api.name)) for api in APIS.values()) and denies(rule(), KafkaRequest(999, 0))


# -- decisions ---------------------------------------------------------------------------------------------------


def test_deny_beats_allow_and_reasons_tell_what_was_asked() -> None:
    one = rules([rule(line=1)], [rule(topics=("secret",), line=2)], messages={"default/kafka": "ask the data team"})
    denied = one.judge(ask("Fetch", topic="secret"))
    assert (denied.verdict, denied.rule, denied.message) == (Verdict.DROPPED, rule(line=2).ref, "ask the data team")
    assert denied.reason.startswith("denied by policy default/kafka, ingress[0].toPorts[0].rules.kafka[1]")
    assert one.judge(ask("Fetch", topic="a")).rule == rule(line=1).ref
    refused = rules([rule("Fetch")]).judge(ask("Produce", topic="a\nb", group="g" * 900))
    assert refused.reason.startswith(
        "no rule of policy default/kafka (kafka.yaml:1) allows Produce 9, topic 'a\\nb', group 'ggg"
    )
    assert refused.reason.endswith("g', client 'app'") and len(refused.reason) < 400


def test_the_first_rule_that_holds_is_named() -> None:
    one = rules([rule(topics=("b*",), line=1), rule(topics=("bb",), line=2), rule(line=3)])
    assert [one.judge(ask("Fetch", topic=topic)).rule for topic in ("bb", "a")] == [rule(line=n).ref for n in (1, 3)]


def test_audit() -> None:
    enforced, candidate = L7Lists((rule("Fetch"),)), L7Lists((rule("Fetch"),), (rule(topics=("b",)),))
    one = audited(enforced, candidate)
    assert one.judge(ask("Fetch", topic="a")).verdict is Verdict.FORWARDED
    assert one.judge(ask("Fetch", topic="b")).verdict is Verdict.AUDIT
    assert one.judge(ask("Produce", topic="b")).verdict is Verdict.DROPPED


# -- the index ---------------------------------------------------------------------------------------------------

GLOBS = st.one_of(
    st.none(), st.lists(st.sampled_from(["a", "b", "ab", "a*", "*b", "?", "*"]), min_size=1, max_size=3).map(tuple)
)
NAMED = st.one_of(st.none(), st.sampled_from(["a", "b", "ab", "c", ""]))
NAMES_OF_APIS = [
    "Produce",
    "Fetch",
    "Metadata",
    "JoinGroup",
    "OffsetCommit",
    "CreateTopics",
    "ListGroups",
    "CreateAcls",
]
some_rules = st.lists(
    st.builds(
        rule,
        st.one_of(st.none(), st.sampled_from(NAMES_OF_APIS)),
        st.none(),
        st.sampled_from([None, 9, 8]),
        st.sampled_from([None, "app", ""]),
        GLOBS,
        GLOBS,
        GLOBS,
    )
    | st.builds(rule, st.none(), st.sampled_from(["produce", "consume"]), topics=GLOBS, groups=GLOBS),
    max_size=8,
)
some_request = st.builds(ask, st.sampled_from(NAMES_OF_APIS), NAMED, NAMED, NAMED, st.sampled_from([8, 9]))


def holds(one: KafkaRule, asked: KafkaRequest, deny: bool) -> bool:
    """The meaning of one rule, spelt out."""
    pairs = [(one.topics, asked.topic), (one.groups, asked.group), (one.transactional_ids, asked.transactional_id)]
    if one.version not in (None, asked.version) or one.client_id not in (None, asked.client_id):
        return False
    for globs, name in pairs:
        if globs is None or (name is None and not deny):
            continue
        if name is None or not any(re.fullmatch(fnmatch.translate(glob), name) for glob in globs):
            return False
    named = any(globs is not None and name is not None for globs, name in pairs)
    if asked.api in ADMINISTRATION and not named and any(globs is not None for globs, _ in pairs):
        return False
    if one.api is not None:
        return one.api == asked.api
    if one.role is not None:
        other = KafkaRole.CONSUME if one.role is KafkaRole.PRODUCE else KafkaRole.PRODUCE
        return asked.api in ROLES[one.role] and not (deny and asked.api in ROLES[other])
    if deny:
        return True
    if all(globs is None for globs, _ in pairs):
        return asked.api not in NEVER
    if asked.topic is not None and not named:
        return False
    kinds = [kind for kind, (globs, _) in zip(Names, pairs, strict=True) if globs is not None]
    owned = any(kind in NAMING.get(asked.api, Names(0)) for kind in kinds) and asked.api not in ADMINISTRATION
    return asked.api in BASE or owned


@pytest.mark.parametrize("deny", [False, True])
@given(listed=some_rules, asked=some_request)
def test_the_index_finds_the_first_that_reading_every_rule_finds(
    listed: list[KafkaRule], asked: KafkaRequest, deny: bool
) -> None:
    matching = [order for order, one in enumerate(listed) if holds(one, asked, deny)]
    found = KafkaIndex(listed, deny).find(asked)
    assert (None if found is None else found.order) == (matching[0] if matching else None)


def test_a_name_of_one_rule_is_no_expression_for_another() -> None:
    assert of_glob("a.b*c?") == r"a\.b(?s:.*)c(?s:.)"


def _cost(count: int, asked: KafkaRequest) -> float:
    index = KafkaIndex([rule(topics=(f"orders.v1.topic-{n}",)) for n in range(count)])
    return cost(lambda: index.find(asked))


@pytest.mark.parametrize("topic", ["orders.v1.topic-7", "none"])
def test_ten_thousand_topics_cost_what_ten_do(topic: str) -> None:
    asked = ask("Produce", topic=topic)
    # Generous: it is to find a search through the rules, which would cost a thousand times as much.
    assert _cost(10_000, asked) < 3 * _cost(10, asked) + 0.002


def test_the_documented_table_is_what_rules_allow() -> None:
    text = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    rows = [line.strip("|").split("|") for line in text.partition("| APIs |")[2].splitlines()[2:]]
    rows = rows[: next(place for place, row in enumerate(rows) if len(row) < 4)]
    roles, fields = ("produce", "consume"), ("topics", "groups", "transactionalIDs")
    columns: dict[str, set[str]] = {name: set() for name in (*roles, *fields)}
    for names, produce, consume, alone in rows:
        found = {name.strip() for name in names.split(",")}
        for column, members in columns.items():
            cell = {"produce": produce, "consume": consume}.get(column, alone)
            if cell.strip() == "yes" or f"`{column}`" in cell:
                members |= found
    assert columns == {
        "produce": apis(rule(role="produce")),
        "consume": apis(rule(role="consume")),
        "topics": apis(rule(topics=("a",))),
        "groups": apis(rule(groups=("a",))),
        "transactionalIDs": apis(rule(transactions=("a",))),
    }
