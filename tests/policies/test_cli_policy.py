"""The commands `check` and `explain`, as a user runs them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from l7proxy.cli import main
from tests.policies.texts import TCP80, api

POLICY = api(
    f"""
    ingress:
    - fromEndpoints: [{{matchLabels: {{app: web}}}}]
      toPorts:
      - {TCP80}
        rules:
          http:
          - {{method: GET, path: '/public/.*'}}
          - {{method: PUT, headers: ['X-Token: s']}}
    - fromCIDR: [192.0.2.0/24]
    - fromEntities: [host]
      toPorts: [{{ports: [{{port: http, protocol: TCP}}]}}]
    """
)
NODE = """
endpoints:
  - {name: front, labels: {app: web}, interface: veth-a, addresses: [10.0.0.2]}
  - {name: api, labels: {app: api}, interface: veth-b, addresses: [10.0.0.3], named_ports: {http: 8080}}
policies: [p.yaml]
"""
WEB, API = {"labels": {"app": "web"}}, {"labels": {"app": "api"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "node.yaml").write_text(NODE)
    return tmp_path


def table(folder: Path, *rows: object, node: bool = False, text: str | None = None) -> list[str]:
    """The arguments for a table of requests."""
    file = folder / "requests.jsonl"
    file.write_text(text if text is not None else "".join(json.dumps(row) + "\n" for row in rows))
    source = ["--config", str(folder / "node.yaml")] if node else ["--policies", str(folder / "p.yaml")]
    return ["explain", *source, "--requests", str(file), "--json"]


def answers(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def row(source: object, destination: object = API, port: int = 80, **more: object) -> dict[str, object]:
    return {"source": source, "destination": destination, "port": port, **more}


def test_a_table_is_answered_line_for_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row(WEB, http={"method": "GET", "path": "/public/a", "host": "api", "headers": [["k", "v"]]}),
        row(WEB, http={"method": "GET", "path": "/secret"}, protocol="tcp", direction="ingress"),
        row(WEB, http={"method": "PUT", "path": "/p", "headers": [["X-TOKEN", "s"]]}),
        row({"ip": "192.0.2.7"}, port=5),
        row({"ip": "198.51.100.1"}),
        row({"entity": "host"}, {"labels": {"app": "api"}, "namespace": "default", "named_ports": {"http": 99}}, 99),
        row({"labels": {"app": "web"}, "namespace": "other"}),
        row(WEB, {"labels": {"app": "api"}, "namespace": "other"}),
        {"source": WEB, "destination": API, "protocol": "ICMP"},
    ]
    assert main(table(folder, *rows)) == 0
    found = answers(capsys)
    assert [(one["verdict"], one["layer"]) for one in found] == [
        ("FORWARDED", "L7"),
        ("DROPPED", "L7"),
        ("FORWARDED", "L7"),
        ("FORWARDED", "L4"),
        ("DROPPED", "L4"),
        ("FORWARDED", "L4"),
        ("DROPPED", "L4"),
        ("FORWARDED", "L4"),
        ("DROPPED", "L4"),
    ]
    assert list(found[0]) == ["verdict", "layer", "policy", "rule", "file", "line", "reason"]
    assert found[2]["rule"] == "ingress[0].toPorts[0].rules.http[1]"
    assert found[2]["file"] == str(folder / "p.yaml")
    assert found[3]["rule"] == "ingress[1]"


def test_endpoints_by_name_and_by_their_address(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row({"endpoint": "front"}, {"endpoint": "api"}, http={"path": "/public/a"}),
        row({"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}, http={"path": "/x"}),
        row({"entity": "host"}, {"endpoint": "api"}, 8080),
    ]
    assert main(table(folder, *rows, node=True)) == 0
    assert [one["verdict"] for one in answers(capsys)] == ["FORWARDED", "DROPPED", "FORWARDED"]


def test_the_modes_and_options_of_the_node_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slashes = row(WEB, http={"path": "/public//a"})
    (folder / "node.yaml").write_text(f"mode: audit\n{NODE}")
    assert main(table(folder, row(WEB, http={"path": "/x"}), node=True)) == 0
    (folder / "node.yaml").write_text(f"http: {{merge_slashes: true}}\n{NODE}")
    assert main(table(folder, slashes, node=True)) == 0
    assert main(table(folder, slashes)) == 0
    assert [one["verdict"] for one in answers(capsys)] == ["AUDIT", "FORWARDED", "DROPPED"]


@pytest.mark.parametrize(
    ("http", "reason"),
    [
        ({"path": "/public/%2e%2e/secret"}, "a dot segment in the path (400)"),
        ({"path": "/public/a b"}, "the request line is not METHOD target HTTP/1.1 (400)"),
        ({"path": "public/a"}, "target"),
        ({"method": "get", "path": "/public/a"}, "cannot begin with byte 0x67"),
        ({"path": "/public/a", "host": "a@b"}, "a Host that is no plain name"),
        ({"path": "/public/a", "headers": [["Host", "a"], ["host", "b"]]}, "more than one Host"),
        ({"path": "/public/a", "headers": [["Connection", "x-token"]]}, "Connection names the header 'x-token'"),
        ({"path": "/public/a", "headers": [["X_Token", "s"]]}, "may be read as 'x-token'"),
        ({"path": "/public/" + "a" * 70_000}, "longer than 65536 bytes (431)"),
    ],
)
def test_what_the_parser_refuses_no_rule_allows(
    folder: Path, capsys: pytest.CaptureFixture[str], http: object, reason: str
) -> None:
    assert main(table(folder, row(WEB, http=http))) == 0
    (answer,) = answers(capsys)
    assert (answer["verdict"], answer["layer"], answer["rule"]) == ("DROPPED", "L7", None)
    assert answer["reason"].startswith("refused before any rule is asked: ") and reason in answer["reason"]


def test_an_escaped_letter_is_judged_as_the_letter(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(table(folder, row(WEB, http={"path": "/%70ublic/a"}))) == 0
    assert answers(capsys)[0]["verdict"] == "FORWARDED"


def test_a_table_is_a_test_of_a_policy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right, wrong = row(WEB, http={"path": "/x"}, expect="DROPPED"), row(WEB, http={"path": "/x"}, expect="AUDIT")
    assert main(table(folder, right)) == 0
    assert main(table(folder, right, wrong, right)) == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 4
    assert output.err == f"{folder}/requests.jsonl:2: DROPPED where AUDIT is expected\n"


BAD = [
    ("{", "no JSON"),
    ("[]", "must be an object"),
    ("{}", "needs source"),
    ('{"source": {"ip": "1"}, "destination": {"ip": "::1"}, "port": 1}', "source.ip: '1'"),
    ('{"source": {}, "destination": {"ip": "::1"}, "port": 1}', "source: needs exactly one of"),
    ('{"source": {"ip": "::1", "entity": "world"}, "destination": {"ip": "::1"}}', "source: needs exactly one of"),
    ('{"source": {"ip": "::1"}, "destination": {"entity": "moon"}}', "no entity is named 'moon'"),
    ('{"source": {"endpoint": "x"}, "destination": {"ip": "::1"}}', "no endpoint is named 'x'"),
    ('{"source": {"ip": "::1", "namespace": "x"}, "destination": {"ip": "::1"}}', "go with labels only"),
    ('{"source": {"labels": {"a": 1}}, "destination": {"ip": "::1"}}', "source.labels.a: must be a string"),
    ('{"source": {"labels": {"reserved:host": ""}}, "destination": {"ip": "::1"}}', "are for entity and ip"),
    ('{"source": {"ip": "::1"}, "destination": {"ip": "::1"}}', "needs port"),
    ('{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": "80"}', "port: must be a number"),
    ('{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 65536}', "port: must be a number"),
    ('{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 1, "prot": 1}', "unknown key 'prot'"),
    ('{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 1, "protocol": "X"}', "protocol: must be one"),
    ('{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 1, "direction": "X"}', "direction: must be"),
    ('{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 1, "expect": "X"}', "expect: must be one"),
    ('{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 1, "http": 1}', "http: must be an object"),
    ('{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 1, "http": {"x": 1}}', "http: unknown key"),
    *[
        (f'{{"source": {{"ip": "::1"}}, "destination": {{"ip": "::1"}}, "port": 1, {request}}}', message)
        for request, message in (
            ('"http": {}, "grpc": {"service": "a", "method": "b"}', "http and grpc exclude each other"),
            ('"grpc": 1', "grpc: must be an object"),
            ('"grpc": {"service": "a"}', "grpc: needs method"),
            ('"grpc": {"service": "a", "method": "b", "path": "/"}', "grpc: unknown key 'path'"),
            ('"grpc": {"service": 1, "method": "b"}', "grpc.service: must be a string"),
            ('"grpc": {"service": "a", "method": "\\n"}', "grpc.method: holds the end of a line"),
            (
                '"grpc": {"service": "a", "method": "b", "metadata": [["k"]]}',
                "grpc.metadata: ['k'] is not [name, value]",
            ),
        )
    ],
    (
        '{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 1, "http": {"path": "/\\r\\n"}}',
        "http.path: holds the end of a line",
    ),
    (
        '{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 1, "http": {"path": "\\ud800"}}',
        "is no text",
    ),
    (
        '{"source": {"ip": "::1"}, "destination": {"ip": "::1"}, "port": 1, "http": {"headers": [["k"]]}}',
        "is not [name, value]",
    ),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_bad_line_is_named(folder: Path, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    good = json.dumps(row(WEB))
    assert main(table(folder, text=f"{good}\n{line}\n")) == 1
    output = capsys.readouterr()
    assert output.err.startswith(f"l7proxy explain: {folder}/requests.jsonl:2: ") and message in output.err
    assert len(output.out.splitlines()) == 1


def test_one_request_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policies = ["explain", "--policies", str(folder / "p.yaml"), "--from", "app=web", "--to", "app=api", "--port", "80"]
    put = ["--method", "PUT", "--path", "/x", "--host", "api", "-H", "X-Token: s"]
    assert main([*policies, *put]) == 0
    line = 1 + next(n for n, text in enumerate(POLICY.splitlines()) if "X-Token" in text)
    assert capsys.readouterr().out.splitlines() == [
        f"FORWARDED (L7): allowed by policy default/p, ingress[0].toPorts[0].rules.http[1] ({folder}/p.yaml:{line})",
        "  rule default/p ingress[0].toPorts[0].rules.http[1]",
        f"  at   {folder}/p.yaml:{line}",
    ]
    assert main([*policies, "--path", "/x", "--expect", "FORWARDED"]) == 1
    assert main([*policies, "--to-namespace", "other", "--path", "/x", "--expect", "FORWARDED"]) == 0
    assert main([*policies, "--from-namespace", "other", "--direction", "egress", "--expect", "FORWARDED"]) == 0


CALLS = api(
    f"""
    ingress:
    - toPorts:
      - {{{TCP80}, rules: {{grpc: [{{service: a.B, method: 'Get.*'}}, {{method: Put, metadata: ['tenant: t']}}]}}}}
      - {{{TCP80}, rules: {{http: [{{method: GET}}]}}}}
    ingressDeny:
    - toPorts: [{{{TCP80}, rules: {{grpc: [{{service: a.B, method: GetSecret}}]}}}}]
    """
)


def test_calls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "p.yaml").write_text(CALLS)
    asked: list[tuple[dict[str, object], str, str | None]] = [
        ({"service": "a.B", "method": "GetX"}, "FORWARDED", "ingress[0].toPorts[0].rules.grpc[0]"),
        ({"service": "a.B", "method": "GetX", "host": "api:80"}, "FORWARDED", "ingress[0].toPorts[0].rules.grpc[0]"),
        ({"service": "a.B", "method": "GetSecret"}, "DROPPED", "ingressDeny[0].toPorts[0].rules.grpc[0]"),
        ({"service": "a.b", "method": "getsecret"}, "DROPPED", "ingressDeny[0].toPorts[0].rules.grpc[0]"),
        ({"service": "a.B", "method": "GetX?y"}, "DROPPED", None),
        ({"service": "a.B", "method": "Put"}, "DROPPED", None),
        (
            {"service": "x", "method": "Put", "metadata": [["Tenant", "t"]]},
            "FORWARDED",
            "ingress[0].toPorts[0].rules.grpc[1]",
        ),
        ({"service": "..", "method": "Put"}, "DROPPED", None),
    ]
    same = [
        {"method": "POST", "path": f"/{call['service']}/{call['method']}", "headers": call.get("metadata", [])}
        for call, _, _ in asked
    ]
    assert main(table(folder, *(row(WEB, grpc=call) for call, _, _ in asked))) == 0
    found = answers(capsys)
    assert [(one["verdict"], one["rule"]) for one in found] == [(verdict, rule) for _, verdict, rule in asked]
    assert found[-1]["reason"].startswith("refused before any rule is asked")
    assert main(table(folder, *(row(WEB, http=one) for one in same))) == 0
    assert answers(capsys) == found


def test_a_call_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "p.yaml").write_text(CALLS)
    policies = ["explain", "--policies", str(folder / "p.yaml"), "--from", "app=web", "--to", "app=api", "--port", "80"]
    for arguments, verdict in (
        (["--grpc", "a.B/GetX"], "FORWARDED"),
        (["--grpc", "/a.B/GetX", "--host", "api"], "FORWARDED"),
        (["--grpc", "a.B/GetSecret"], "DROPPED"),
        (["--grpc", "x/Put", "-H", "tenant: t"], "FORWARDED"),
        (["--grpc", "x/Put", "-H", "tenant: u"], "DROPPED"),
    ):
        assert main([*policies, *arguments, "--expect", verdict]) == 0, arguments
    assert "allowed by policy default/p, ingress[0].toPorts[0].rules.grpc[0]" in capsys.readouterr().out


def test_names_addresses_and_entities_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = ["explain", "--config", str(folder / "node.yaml"), "--to", "api", "--json"]
    for who, port, verdict in (
        ("front", "80", "FORWARDED"),
        ("10.0.0.3", "80", "DROPPED"),
        ("192.0.2.1", "1", "FORWARDED"),
        ("host", "8080", "FORWARDED"),
        ("world", "8080", "DROPPED"),
    ):
        assert main([*node, "--from", who, "--port", port]) == 0
        assert answers(capsys)[0]["verdict"] == verdict, who
    named = ["--to", "app=api", "--named-port", "http=99", "--port", "99", "--from", "host", "--expect", "FORWARDED"]
    assert main(["explain", "--policies", str(folder / "p.yaml"), *named]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "app=web"], "name --from and --to"),
        (["--from", "nobody", "--to", "app=api", "--port", "1"], "no endpoint is named 'nobody'"),
        (["--from", "app=web", "--to", "app=api"], "needs port"),
        (["--from", "app=web", "--to", "app=api", "--port", "1", "-H", "x"], "is not 'NAME: VALUE'"),
        (["--from", "app=web", "--to", "app=api", "--port", "1", "--named-port", "x"], "is not NAME=PORT"),
        (["--from", "app=web", "--requests", "-"], "exclude each other"),
        *[
            (["--from", "app=web", "--to", "app=api", "--port", "1", "--grpc", *more], message)
            for more, message in (
                (["Get"], "--grpc 'Get' is not SERVICE/METHOD"),
                (["a.B/"], "is not SERVICE/METHOD"),
                (["a.B/Get/x"], "is not SERVICE/METHOD"),
                (["a.B/Get", "--path", "/"], "--grpc and --method, --path exclude each other"),
            )
        ],
        (["--requests", "/nowhere/r.jsonl"], "cannot be read"),
    ],
)
def test_bad_arguments(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["explain", "--policies", str(folder / "p.yaml"), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_policy_that_cannot_be_loaded_is_told_as_check_tells_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "p.yaml").write_text(POLICY.replace("path:", "pth:"))
    assert main(["check", str(folder / "p.yaml")]) == 1
    told = capsys.readouterr().out
    assert ":spec.ingress[0].toPorts[0].rules.http[0].pth: error: unknown key 'pth', did you mean path?" in told
    assert main(table(folder, row(WEB))) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", told)


def test_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 1
    assert "apiVersion" in capsys.readouterr().out
    assert main(["check", str(folder / "p.yaml")]) == 0
    assert tuple(capsys.readouterr()) == ("", "l7proxy check: no problems\n")
    assert main(["check", "--config", str(folder / "node.yaml")]) == 0
    (folder / "p.yaml").write_text(POLICY.replace("app: web", "app: gone").replace("/public/.*", "/public"))
    assert main(["check", str(folder / "p.yaml")]) == 0
    assert capsys.readouterr().err.endswith("l7proxy check: 1 note\n")
    assert main(["check", "--config", str(folder / "node.yaml")]) == 1
    output = capsys.readouterr()
    assert "warning: holds no endpoint of this configuration" in output.out
    assert output.err == "l7proxy check: 1 warning, 1 note\n"
    (folder / "node.yaml").write_text("endpoint: []\npolicies: [p.yaml]\n")
    assert main(["check", "--config", str(folder / "node.yaml")]) == 1
    assert f"{folder}/node.yaml:1:endpoint: error: " in capsys.readouterr().err
    assert main(["check"]) == main(["explain"]) == 2


def test_ten_thousand_requests_take_seconds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (
        row(WEB if number % 2 else {"ip": f"192.0.2.{number % 250}"}, http={"path": f"/public/{number}"})
        for number in range(10_000)
    )
    arguments = table(folder, *rows)
    start = time.monotonic()
    assert main(arguments) == 0
    assert time.monotonic() - start < 20
    assert {one["verdict"] for one in answers(capsys)} == {"FORWARDED"}
