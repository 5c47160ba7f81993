"""The lint of Kafka rules."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings

from parsers.facts import KafkaRequest
from policies.check import check, fails
from policies.document import Problem
from policies.kafka_index import KafkaIndex
from policies.kafka_shadow import shadowed
from policies.model import KafkaRule
from tests.policies.test_kafka_rules import some_request, some_rules
from tests.policies.texts import TCP80, api, http


def lint(folder: Path, kafka: str, *, deny: bool = False, more: str = "") -> list[Problem]:
    """The problems of a list of Kafka rules."""
    file = folder / "p.yaml"
    file.write_text(
        api(f"ingress{'Deny' if deny else ''}: [{{toPorts: [{{{TCP80}, rules: {{kafka: [{kafka}]}}}}]}}{more}]")
    )
    return check([file])


CLEAN = [
    "{}",
    "{role: produce, topic: orders}",
    "{role: consume, topics: ['orders*', x], groups: ['team-*']}, {role: produce, topics: ['orders-?']}",
    "{apiKey: apiversions}, {apiKey: fetch, apiVersion: '11', topic: a}",
    "{role: produce, clientID: a}, {role: produce, clientID: b}, {role: consume, apiVersion: '11'}",
    "{apiKey: apiversions}, {apiKey: createtopics, topics: ['tmp-*']}, {apiKey: createtopics, topics: ['x*']}",
    "{role: produce, topics: [a, b]}, {role: produce, topics: [b, c]}",
    "{groups: [g]}, {apiKey: metadata}",
    "{role: consume, transactionalIDs: [t]}",
]


@pytest.mark.parametrize("kafka", CLEAN)
def test_what_is_right_is_left_alone(tmp_path: Path, kafka: str) -> None:
    assert lint(tmp_path, kafka) == []


@pytest.mark.parametrize(
    "kafka",
    ["{}", "{topic: secret}", "{role: produce, topic: a}", "{apiKey: createacls}", "{topics: ['a*'], groups: [g]}"],
)
def test_deny_rules_that_are_right_are_left_alone(tmp_path: Path, kafka: str) -> None:
    assert lint(tmp_path, kafka, deny=True) == []


FIRST = "decides nothing: default/p ingress[0].toPorts[0].rules.kafka[0]"
WITH = "{apiKey: apiversions}, "


@pytest.mark.parametrize(
    ("kafka", "message"),
    [
        (WITH + "{apiKey: produce, apiVersion: '2'}", "never matches: Produce has versions 3 to 13"),
        ("{role: consume, apiVersion: '99'}", "never matches: no API of this rule has version 99"),
        ("{apiVersion: '99'}", "never matches: no API of this rule has version 99"),
        (WITH + "{apiKey: heartbeat, topic: a}", "its topic restricts nothing: Heartbeat names none"),
        (WITH + "{apiKey: fetch, groups: [g]}", "its group restricts nothing: Fetch names none"),
        (WITH + "{apiKey: fetch, transactionalIDs: [t]}", "its transactional id restricts nothing: Fetch names none"),
        (WITH + "{apiKey: deletegroups, topic: a}", "never matches: DeleteGroups names no topic"),
        ("{}, {role: produce, topic: a}", FIRST),
        ("{role: produce}, {role: produce, topic: a}", FIRST),
        ("{role: produce, topics: ['a*']}, {role: produce, topic: abc}", FIRST),
        ("{role: produce, topics: ['*']}, {role: produce, topic: abc}", FIRST),
        ("{role: produce, topics: ['a*']}, {role: produce, topics: ['ab?']}", FIRST),
        ("{role: produce, topics: [a, b]}, {role: produce, topic: b}", FIRST),
        ("{role: produce, topics: [a, b]}, {role: produce, topics: [b, a]}", FIRST),
        ("{role: produce, topic: a}, {apiKey: metadata, topic: a, clientID: c}", FIRST),
        ("{role: consume, topic: a}, {role: consume, topic: a, groups: [g]}", FIRST),
        ("{role: produce}, {role: produce}", FIRST),
    ],
)
def test_warnings(tmp_path: Path, kafka: str, message: str) -> None:
    (problem,) = lint(tmp_path, kafka)
    assert problem.severity == "warning" and problem.message.startswith(message), problem
    assert fails([problem])


@pytest.mark.parametrize(
    ("kafka", "message"),
    [
        ("{apiKey: heartbeat, topic: a}", "never matches: Heartbeat names no topic"),
        (
            "{role: produce, topic: a}, {topic: a}",
            "decides nothing: default/p ingressDeny[0].toPorts[0].rules.kafka[",
        ),
    ],
)
def test_deny_warnings(tmp_path: Path, kafka: str, message: str) -> None:
    (problem,) = lint(tmp_path, kafka, deny=True)
    assert problem.severity == "warning" and problem.message.startswith(message), problem


@pytest.mark.parametrize(
    ("kafka", "message"),
    [
        (
            "{topic: a}, {topic: b}",
            "a topic alone allows its use and what clients need around it, and no admin",
        ),
        ("{topics: ['a*'], groups: [g]}", "a topic alone allows"),
        ("{apiKey: produce}, {apiKey: metadata}", "no rule here allows ApiVersions"),
    ],
)
def test_notes(tmp_path: Path, kafka: str, message: str) -> None:
    (problem,) = lint(tmp_path, kafka)
    assert problem.severity == "note" and problem.message.startswith(message), problem
    assert not fails([problem])


def test_an_empty_list_opens_the_port(tmp_path: Path) -> None:
    (problem,) = lint(tmp_path, "")
    assert "an empty list is no L7 rule: every request passes" in problem.message and problem.severity == "warning"


def test_an_l4_rule_beside_kafka_rules_is_told(tmp_path: Path) -> None:
    found = lint(tmp_path, "{role: produce}", more=f", {{toPorts: [{{{TCP80}}}]}}")
    assert any("refuses nothing: default/p ingress[1].toPorts[0]" in one.message for one in found)


KAFKA = f"{{{TCP80}, rules: {{kafka: [{{role: produce}}]}}}}"
AUDIT = "l7proxy.io/mode: audit"


@pytest.mark.parametrize(
    "texts",
    [
        [api(f"ingress: [{{toPorts: [{KAFKA}, {http('/a/.*')}]}}]")],
        [api(f"ingress: [{{toPorts: [{KAFKA}]}}]"), api(f"ingress: [{{toPorts: [{http('/a/.*')}]}}]", name="q")],
        [
            api(f"ingress: [{{toPorts: [{KAFKA}]}}]"),
            api(f"ingress: [{{fromEndpoints: [{{}}], toPorts: [{http('/a/.*')}]}}]", name="q", notes=AUDIT),
        ],
        [
            api(f"ingress: [{{toPorts: [{KAFKA}]}}]"),
            api(f"ingressDeny: [{{fromEntities: [world], toPorts: [{http('/a(/.*)?')}]}}]", name="q"),
        ],
    ],
    ids=["one policy", "two policies", "audit", "deny"],
)
def test_two_protocols_over_one_port_are_an_error(tmp_path: Path, texts: list[str]) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("---\n".join(texts))
    (problem,) = check([file])
    assert problem.severity == "error" and problem.message.endswith(": all is refused")
    assert " is for kafka" in problem.message and " for http" in problem.message


def test_two_protocols_for_other_ports_and_peers_are_none(tmp_path: Path) -> None:
    other = KAFKA.replace("'80'", "'9092'")
    file = tmp_path / "p.yaml"
    file.write_text(
        api(
            f"""
            ingress:
            - {{fromEndpoints: [{{matchLabels: {{app: web}}}}], toPorts: [{http("/a/.*")}, {other}]}}
            - {{fromEndpoints: [{{matchLabels: {{app: batch}}}}], toPorts: [{KAFKA}]}}
            egress: [{{toPorts: [{KAFKA}]}}]
            """
        )
    )
    assert check([file]) == []


@settings(max_examples=300)
@pytest.mark.parametrize("deny", [False, True])
@given(listed=some_rules, asked=some_request)
def test_what_is_said_to_decide_nothing_decides_nothing(
    listed: list[KafkaRule], asked: KafkaRequest, deny: bool
) -> None:
    """Of a rule and the wider one: whatever the one holds, so does the other."""
    for rule, wider in shadowed(listed, deny):
        if KafkaIndex([rule], deny).find(asked) is not None:
            assert KafkaIndex([wider], deny).find(asked) is not None, (rule, wider)


def test_thousands_of_rules_are_no_trouble(tmp_path: Path) -> None:
    rules = ", ".join(f"{{role: produce, topics: ['team-{n}.*', 'x-{n}']}}" for n in range(2000))
    start = time.process_time()
    assert lint(tmp_path, f"{rules}, {{role: produce, topic: team-7.orders}}")[0].message.startswith("decides nothing")
    # Comparing all pairs would take minutes.
    assert time.process_time() - start < 30
