"""Kafka rules in policy files: what is read, and what is refused."""

from __future__ import annotations

import textwrap

import pytest

from parsers.kafka_schema import APIS, BY_NAME
from policies.kafka_apis import ADMINISTRATION, BASE, NAMING, NEVER, ROLES
from policies.model import KafkaRole, KafkaRule, L7Protocol
from tests.policies.texts import TCP80, WEB, api, complaints, load, resolver, to_api

HEAD = f"ingress:\n- toPorts:\n  - {TCP80}\n    rules:\n      kafka:\n"


def text(rules: str, kind: str = "ingress") -> str:
    return api(HEAD.replace("ingress", kind) + textwrap.indent(textwrap.dedent(rules).strip(), "        "))


def kafka(rules: str, kind: str = "ingress") -> list[KafkaRule]:
    (policy,) = load(text(rules, kind))
    ports = policy.rules[0].ports
    assert ports is not None and ports[0].rules is not None and ports[0].protocol is L7Protocol.KAFKA
    found = [rule for rule in ports[0].rules if isinstance(rule, KafkaRule)]
    assert len(found) == len(ports[0].rules)
    return found


@pytest.mark.parametrize("kind", ["ingress", "egress", "ingressDeny", "egressDeny"])
def test_ciliums_fields(kind: str) -> None:
    first, second, third = kafka(
        """
        - {role: produce, topic: orders, clientID: app}
        - {apiKey: fetch, apiVersion: "11"}
        - {}
        """,
        kind,
    )
    assert (first.role, first.api, first.topics, first.client_id) == (KafkaRole.PRODUCE, None, ("orders",), "app")
    assert (second.role, second.api, second.version, second.topics) == (None, 1, 11, None)
    assert third.asks_nothing and not (first.asks_nothing or second.asks_nothing)
    assert first.ref.rule == f"{kind}[0].toPorts[0].rules.kafka[0]"


def test_lists_of_globs() -> None:
    (one,) = kafka("- {topics: [orders, 'pay*', '?_x-1.y', orders], groups: ['a b/*', ä], transactionalIDs: ['*']}")
    assert one.topics == ("orders", "pay*", "?_x-1.y")
    assert (one.groups, one.transactional_ids) == (("a b/*", "ä"), ("*",))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("produce", 0),
        ("Produce", 0),
        ("PRODUCE", 0),
        ("offsets", 2),
        ("listoffsets", 2),
        ("'71'", 71),
        ("ConsumerGroupHeartbeat", 68),
        ("'0'", 0),
    ],
)
def test_an_api_by_name_or_number(name: str, key: int) -> None:
    assert kafka(f"- apiKey: {name}")[0].api == key


def test_an_empty_text_is_not_asked() -> None:
    (one,) = kafka("- {role: '', apiKey: '', apiVersion: '', clientID: '', topic: ''}")
    assert one.asks_nothing


@pytest.mark.parametrize(
    ("rule", "key", "complaint"),
    [
        ("{apiKey: prodce}", ".apiKey", "no API is named 'prodce', did you mean Produce?"),
        ("{apiKey: zzzz}", ".apiKey", "no API is named 'zzzz'"),
        ("{apiKey: '4'}", ".apiKey", "no API is named '4'"),
        ("{apiKey: '00'}", ".apiKey", "no API is named '00'"),
        ("{apiKey: LeaderAndIsr}", ".apiKey", "no broker has 'LeaderAndIsr' any longer"),
        ("{apiKey: envelope}", ".apiKey", "Envelope is for controllers alone, and always refused"),
        ("{apiKey: 0}", ".apiKey", "must be a string, not a number"),
        ("{role: admin}", ".role", "role must be one of produce, consume, not 'admin'"),
        ("{role: produce, apiKey: fetch}", "", "role and apiKey cannot stand in one rule"),
        ("{role: consume, apiKey: fetch}", "", "role and apiKey cannot stand in one rule"),
        ("{apiVersion: 3}", ".apiVersion", "must be a string, not a number"),
        ("{apiVersion: 'x'}", ".apiVersion", "apiVersion must be a number from 0 to 32767, not 'x'"),
        ("{apiVersion: '-1'}", ".apiVersion", "apiVersion must be a number"),
        ("{apiVersion: '32768'}", ".apiVersion", "apiVersion must be a number"),
        ("{topic: 'a b'}", ".topic", "no topic is named 'a b'"),
        ("{topic: 'a*'}", ".topic", "globs are written as topics: ['a*']"),
        ("{topic: .}", ".topic", "no topic may be named '.'"),
        (f"{{topic: {'a' * 250}}}", ".topic", "a topic's name has at most 249 characters, this has 250"),
        ("{topic: a, topics: [b]}", "", "topic and topics cannot stand in one rule"),
        ("{topics: []}", ".topics", "an empty list holds nothing"),
        ("{groups: []}", ".groups", "an empty list holds nothing"),
        ("{groups: ['']}", ".groups[0]", "an empty text is no name"),
        ("{topics: ['a/b']}", ".topics[0]", "no topic is named 'a/b'"),
        ("{topics: ['..']}", ".topics[0]", "no topic may be named '..'"),
        ("{topics: a}", ".topics", "must be a list"),
        ("{topics: [1]}", ".topics[0]", "must be a string"),
        ("{topic: }", ".topic", "has no value"),
        ("{clientId: a}", ".clientId", "unknown key 'clientId', did you mean clientID?"),
        (
            "{transactionalIds: [a]}",
            ".transactionalIds",
            "did you mean transactionalIDs?",
        ),
        ("a", "", "must be a mapping"),
    ],
)
def test_what_is_refused(rule: str, key: str, complaint: str) -> None:
    told = complaints(text(f"- {rule}"))
    where = f":spec.ingress[0].toPorts[0].rules.kafka[0]{key}: "
    assert any(where in one and complaint in one for one in told), told


def test_a_topic_of_249_characters_and_a_longer_glob() -> None:
    (one,) = kafka(f"- topics: [{'a' * 249}, {'a' * 249}*]")
    assert one.topics is not None and len(one.topics) == 2


@pytest.mark.parametrize("other", ["http", "grpc"])
def test_one_entry_is_of_one_protocol(other: str) -> None:
    (told,) = complaints(api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{kafka: [{{}}], {other}: [{{}}]}}}}]}}]"))
    assert f"kafka and {other} cannot stand in one rules" in told and "write two entries of toPorts" in told


def test_tcp_must_be_spelt_out() -> None:
    ports = "ports: [{port: '9092'}]"
    (told,) = complaints(api(f"ingress: [{{toPorts: [{{{ports}, rules: {{kafka: [{{}}]}}}}]}}]"))
    assert "L7 rules need protocol: TCP spelt out" in told


def test_an_empty_list_is_no_rule() -> None:
    (policy,) = load(api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{kafka: []}}}}]}}]"))
    ports = policy.rules[0].ports
    assert ports is not None and ports[0].rules is None and ports[0].protocol is None


def test_lists_of_several_policies_are_one() -> None:
    one, other = text("- topic: a"), text("- topic: b").replace("name: p", "name: q")
    decision = to_api(resolver(one, other), WEB)
    assert decision.l7 is not None and decision.l7.protocol is L7Protocol.KAFKA
    assert [rule.topics for rule in decision.l7.enforced.allow if isinstance(rule, KafkaRule)] == [("a",), ("b",)]


def test_the_tables_of_apis_fit_together() -> None:
    assert NAMING.keys() <= APIS.keys()
    assert NAMING.keys() >= ADMINISTRATION and not ADMINISTRATION & (BASE | ROLES[KafkaRole.PRODUCE])
    assert not ADMINISTRATION & ROLES[KafkaRole.CONSUME]
    assert not NEVER & (BASE | ROLES[KafkaRole.PRODUCE] | ROLES[KafkaRole.CONSUME] | NAMING.keys())
    assert {0, 3, 18} <= ROLES[KafkaRole.PRODUCE]
    assert {1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 18} <= ROLES[KafkaRole.CONSUME]
    assert BY_NAME["produce"].key not in ROLES[KafkaRole.CONSUME]
