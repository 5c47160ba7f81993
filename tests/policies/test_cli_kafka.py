"""explain: what Kafka requests are told, in a table and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from l7proxy.cli import main
from tests.policies.texts import TCP80, api

TOPICS = api(
    f"""
    ingress:
    - toPorts:
      - {TCP80}
        rules:
          kafka:
          - {{role: produce, topic: orders, clientID: shop}}
          - {{topics: ['logs-*'], groups: ['team-*']}}
          - {{apiKey: createtopics, topics: ['tmp-*']}}
    ingressDeny:
    - toPorts: [{{{TCP80}, rules: {{kafka: [{{topic: logs-secret}}]}}}}]
    """,
    notes="l7proxy.io/reason: ask the data team",
)
ENDS = {"source": {"labels": {"app": "web"}}, "destination": {"labels": {"app": "api"}}, "port": 80}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(TOPICS)
    return tmp_path / "p.yaml"


def explain(file: Path, *asked: dict[str, Any]) -> list[str]:
    """The arguments for a table of requests."""
    requests = file.parent / "requests.jsonl"
    requests.write_text("".join(json.dumps(ENDS | one) + "\n" for one in asked))
    return ["explain", "--policies", str(file), "--requests", str(requests), "--json"]


def answers(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (f"ingress[0].toPorts[0].rules.kafka[{n}]" for n in range(3))
    asked: list[tuple[dict[str, object], str, str | None]] = [
        ({"api": "Produce", "version": 9, "topic": "orders", "client_id": "shop"}, "FORWARDED", first),
        ({"api": "produce", "topic": "orders", "client_id": "shop", "transactional_id": "t"}, "FORWARDED", first),
        ({"api": "Produce", "topic": "orders"}, "DROPPED", None),
        ({"api": "Fetch", "topic": "logs-a"}, "FORWARDED", second),
        ({"api": "1", "topic": "logs-a", "group": "team-x"}, "FORWARDED", second),
        ({"api": "Metadata"}, "FORWARDED", second),
        ({"api": "JoinGroup", "group": "other"}, "DROPPED", None),
        ({"api": "DeleteTopics", "topic": "logs-a"}, "DROPPED", None),
        ({"api": "CreateTopics", "topic": "tmp-1"}, "FORWARDED", third),
        ({"api": "Fetch", "topic": "logs-secret"}, "DROPPED", "ingressDeny[0].toPorts[0].rules.kafka[0]"),
        ({"api": "ElectLeaders"}, "DROPPED", "ingressDeny[0].toPorts[0].rules.kafka[0]"),
    ]
    assert main(explain(file, *({"kafka": one} for one, _, _ in asked))) == 0
    found = answers(capsys)
    assert [(one["verdict"], one["rule"]) for one in found] == [(verdict, rule) for _, verdict, rule in asked]
    assert "allows Produce 13, topic 'orders'" in found[2]["reason"]
    assert found[7]["reason"].endswith("it is administration, which no rule allows by names alone: write its apiKey")


def test_what_the_proxy_refuses_itself(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, Any]] = [
        {"kafka": {"api": "Envelope"}},
        {"kafka": {"api": "Fetch", "version": 3, "topic": "logs-a"}},
        {"http": {"path": "/a"}},
    ]
    assert main(explain(file, *asked)) == 0
    reasons = [(one["verdict"], one["layer"], one["reason"].partition(": ")[2]) for one in answers(capsys)]
    assert reasons == [
        ("DROPPED", "L7", "Envelope is for controllers alone"),
        ("DROPPED", "L7", "Fetch 3 is not known (versions 4 to 18 are)"),
        ("DROPPED", "L7", "it is no request of kafka, which the rules of this port are for"),
    ]
    file.write_text(api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{http: [{{}}]}}}}]}}]"))
    assert main(explain(file, {"kafka": {"api": "Fetch"}})) == 0
    assert answers(capsys)[0]["reason"].endswith("it is no request of http, which the rules of this port are for")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"kafka": {}}, "kafka: needs api"),
        ({"kafka": {"api": "Prodce"}}, "kafka.api: no API is named 'Prodce', did you mean Produce?"),
        ({"kafka": {"api": 0}}, "kafka.api: must be a string"),
        ({"kafka": {"api": "Fetch", "version": "1"}}, "kafka.version: must be a number"),
        ({"kafka": {"api": "Fetch", "topic": 1}}, "kafka.topic: must be a string"),
        ({"kafka": {"api": "Fetch", "topic": "\ud800"}}, "is no text"),
        ({"kafka": {"api": "Fetch", "clientid": "a"}}, "kafka: unknown key 'clientid'"),
        ({"kafka": {"api": "Fetch"}, "http": {}}, "http and kafka exclude each other"),
    ],
)
def test_what_cannot_be_read(
    file: Path, capsys: pytest.CaptureFixture[str], request_: dict[str, Any], message: str
) -> None:
    assert main(explain(file, request_)) == 1
    assert message in capsys.readouterr().err


def test_on_the_command_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = ["explain", "--policies", str(file), "--from", "app=web", "--to", "app=api", "--port", "80"]
    produce = ["--kafka", "produce", "--topic", "orders"]
    for arguments, verdict in (
        ([*produce, "--client-id", "shop", "--api-version", "9"], "FORWARDED"),
        (produce, "DROPPED"),
        ([*produce, "--client-id", "shop", "--api-version", "2"], "DROPPED"),
        (["--kafka", "OffsetCommit", "--topic", "logs-a", "--group", "team-a"], "FORWARDED"),
        (["--kafka", "OffsetCommit", "--topic", "logs-a", "--group", "a"], "DROPPED"),
        (["--kafka", "EndTxn", "--transactional-id", "t"], "FORWARDED"),
    ):
        assert main([*flow, *arguments, "--expect", verdict]) == 0, arguments
    assert "allowed by policy default/p, ingress[0].toPorts[0].rules.kafka[0]" in capsys.readouterr().out
    assert main([*flow, "--kafka", "Fetch", "--path", "/"]) == 1
    assert "--kafka and the options of an HTTP request exclude each other" in capsys.readouterr().err
    assert main([*flow, "--topic", "orders"]) == 1
    assert "the options of a Kafka request need --kafka API" in capsys.readouterr().err
