"""Policy files: which there are, what an object must have, where complaints point."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from policies.document import DocumentError
from policies.identity import NAMESPACE_LABEL
from policies.load import find_files, load_paths, load_text
from policies.model import Operator, Requirement
from tests.policies.texts import EGRESS, INGRESS, api, complaints, document, load

RULE = "endpointSelector: {}\ningress: [{}]"
SIMPLE = document(RULE)


def test_a_policy_as_cilium_documents_it() -> None:
    text = """\
apiVersion: "cilium.io/v2"
kind: CiliumNetworkPolicy
metadata:
  name: "public-only"
spec:
  description: "GET /public from production to the shop"
  endpointSelector:
    matchLabels:
      app: shop
  ingress:
  - fromEndpoints:
    - matchLabels:
        env: prod
    toPorts:
    - ports:
      - port: "80"
        protocol: TCP
      rules:
        http:
        - method: "GET"
          path: "/public"
        - method: PUT
          path: "/avatar$"
          headers:
          - 'X-My-Header: true'
"""
    (policy,) = load_text(text, "shop.yaml")
    assert (policy.name, policy.namespace) == ("default/public-only", "default")
    assert (policy.file, policy.line) == ("shop.yaml", 5)
    assert policy.default_deny == {INGRESS}
    assert not policy.audit
    (rule,) = policy.rules
    assert (rule.ref.rule, rule.ref.line, rule.ref.policy) == ("ingress[0]", 11, "default/public-only")
    assert rule.ports is not None
    (entry,) = rule.ports
    assert (entry.ref.rule, entry.ref.line) == ("ingress[0].toPorts[0]", 15)
    assert entry.rules is not None
    first, second = entry.rules
    assert (first.method, first.path, first.host, first.headers) == ("GET", "/public", None, ())
    assert (first.ref.rule, first.ref.line) == ("ingress[0].toPorts[0].rules.http[0]", 20)
    assert (second.ref.rule, second.ref.line) == ("ingress[0].toPorts[0].rules.http[1]", 22)
    assert [(h.name, h.value) for h in second.headers] == [("x-my-header", "true")]
    assert policy.selector.requirements == (
        Requirement("any:app", Operator.IN, frozenset({"shop"})),
        Requirement(f"k8s:{NAMESPACE_LABEL}", Operator.IN, frozenset({"default"})),
    )


def test_specs_are_policies_of_one_name() -> None:
    text = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: both, namespace: shop}
specs:
- endpointSelector: {matchLabels: {app: service}}
  ingress:
  - fromEndpoints:
    - matchLabels: {env: prod}
- endpointSelector: {matchLabels: {env: prod}}
  egress:
  - toPorts:
    - ports: [{port: "80", protocol: TCP}]
      rules:
        http:
        - method: POST
          host: "^external-service.org$"
"""
    first, second = load_text(text, "f")
    assert first.name == second.name == "shop/both"
    assert (first.default_deny, second.default_deny) == ({INGRESS}, {EGRESS})
    assert first.rules[0].ref.rule == "specs[0].ingress[0]"
    assert second.rules[0].ports is not None and second.rules[0].ports[0].rules is not None
    assert second.rules[0].ports[0].rules[0].ref.rule == "specs[1].egress[0].toPorts[0].rules.http[0]"
    assert (first.line, second.line) == (5, 9)


def test_spec_and_specs_count_both() -> None:
    text = SIMPLE + "specs:\n- endpointSelector: {}\n  egress: [{}]\n"
    assert [policy.rules[0].ref.rule for policy in load(text)] == ["ingress[0]", "specs[0].egress[0]"]


def test_documents_and_lists() -> None:
    item = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "listed", "uid": "x", "creationTimestamp": None},
        "spec": {"endpointSelector": {}, "ingress": [{"fromEntities": ["world"]}]},
        "status": None,
    }
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [item]})
    policies = load(SIMPLE, "---\n", listed)
    assert [policy.name for policy in policies] == ["default/p", "default/listed"]
    assert policies[1].rules[0].ref.rule == "ingress[0]"


def test_an_empty_file_is_no_policy() -> None:
    assert load_text("", "f") == []
    assert load_text("---\n# nothing\n---\n", "f") == []


def test_clusterwide_policies_have_no_namespace() -> None:
    (policy,) = load(document(RULE, wide=True))
    assert (policy.name, policy.namespace) == ("p", None)
    assert policy.selector.requirements == ()
    assert complaints(document(RULE, wide=True, namespace="x")) == [
        "5:metadata.namespace: a clusterwide policy has no namespace"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "no policy: apiVersion: cilium.io/v2 and kind"),
        ("kind: Pod", "no policy"),
        ("{kind: Pod, apiVersion: v1}", "not supported: kind 'Pod'"),
        ("{kind: NetworkPolicy, apiVersion: networking.k8s.io/v1}", "not supported: kind 'NetworkPolicy'"),
        ("{kind: CiliumNetworkPolicy, apiVersion: cilium.io/v1}", "not supported: apiVersion 'cilium.io/v1'"),
        ("{kind: CiliumNetworkPolicy, apiVersion: cilium.io/v2}", "metadata with a name is needed"),
        (SIMPLE.replace("name: p", "labels: {}"), "metadata needs a name"),
        (SIMPLE.replace("name: p", "name: A_b"), "'A_b' is no Kubernetes name"),
        (SIMPLE.replace("name: p", "name: 5"), "must be a string, not a number"),
        (SIMPLE.replace("name: p", "name: p\n  namespace: 'x/y'"), "'x/y' is no Kubernetes name"),
        (SIMPLE.replace("spec:", "spek:"), "unknown key 'spek', did you mean spec?"),
        (SIMPLE.replace("spec:\n", "").replace("  endpointSelector: {}\n  ingress: [{}]\n", ""), "needs a spec"),
        (SIMPLE.replace("endpointSelector", "endpointSelectors"), "did you mean endpointSelector?"),
        (document("ingress: [{}]"), "needs an endpointSelector"),
        (document("nodeSelector: {}\ningress: [{}]"), "not supported: nodeSelector (policies for hosts)"),
        (document(RULE + "\nenableDefaultDeny: {ingres: true}"), "unknown key 'ingres', did you mean ingress?"),
        (document(RULE + "\nenableDefaultDeny: {ingress: 'no'}"), "must be true or false, not a string"),
        (document("endpointSelector: {}"), "needs a rule in ingress"),
        (document("endpointSelector: {}\ningress: []\negress: []"), "needs a rule in ingress"),
        (document("endpointSelector: {}\ningress: {}"), "must be a list, not a mapping"),
        (document("endpointSelector: {}\ningress:"), "has no value"),
        (document("endpointSelector:\ningress: [{}]"), "has no value"),
        (document("endpointSelector: {}\nIngress: [{}]"), "did you mean ingress?"),
        ("{apiVersion: v2, kind: List, items: []}", "apiVersion of a List must be v1"),
        ("{apiVersion: v1, kind: List, item: []}", "did you mean items?"),
        ("a: [", "not YAML"),
        ("a: 1\na: 2", "this key stands twice"),
    ],
)
def test_what_is_no_policy(text: str, told: str) -> None:
    assert any(told in complaint for complaint in complaints(text)), complaints(text)


def test_every_fault_is_named_with_line_and_key() -> None:
    text = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p}
spec:
  endpointSelector:
    matchLabel: {app: api}
  ingress:
  - fromEndpoint: []
    toPorts:
    - ports:
      - {port: 80, protocol: tcp}
      rules:
        http:
        - path: "(/a"
        - paths: /b
"""
    rule = "spec.ingress[0]"
    assert complaints(text) == [
        "6:spec.endpointSelector.matchLabel: unknown key 'matchLabel', did you mean matchLabels?",
        f"8:{rule}.fromEndpoint: unknown key 'fromEndpoint', did you mean fromEndpoints?",
        f"11:{rule}.toPorts[0].ports[0].protocol: protocol must be one of TCP, UDP, SCTP, ANY, not 'tcp' "
        "(write it in upper case)",
        f"14:{rule}.toPorts[0].rules.http[0].path: '(/a' is no valid expression at character 1: missing ): (/a",
        f"15:{rule}.toPorts[0].rules.http[1].paths: unknown key 'paths', did you mean path?",
    ]


def test_default_deny_starts_with_any_rule_of_a_direction() -> None:
    def found(spec: str) -> set[object]:
        (policy,) = load(document("endpointSelector: {}\n" + spec))
        return set(policy.default_deny)

    assert found("ingress: [{}]") == {INGRESS}
    assert found("ingressDeny: [{fromEntities: [world]}]") == {INGRESS}
    assert found("ingress: []\negress: [{}]") == {EGRESS}
    assert found("egressDeny: [{toEntities: [world]}]\ningress: [{}]") == {INGRESS, EGRESS}
    assert found("ingress: [{}]\nenableDefaultDeny: {ingress: false}") == set()
    assert found("ingress: [{}]\nenableDefaultDeny: {egress: true}") == {INGRESS, EGRESS}


def test_annotations() -> None:
    (policy,) = load(document(RULE, notes="l7proxy.io/mode: audit\nl7proxy.io/reason: Ask the shop team\nother/x: y"))
    assert policy.audit
    assert policy.reason == "Ask the shop team"
    (policy,) = load(document(RULE, notes="l7proxy.io/mode: enforce"))
    assert (policy.audit, policy.reason) == (False, None)


@pytest.mark.parametrize(
    ("notes", "told"),
    [
        ("l7proxy.io/mode: Audit", "mode must be enforce or audit, not 'Audit'"),
        ("l7proxy.io/mode: true", "must be a string, not a boolean"),
        ("l7proxy.io/mod: audit", "did you mean l7proxy.io/mode?"),
        ("l7proxy.io/mode:", "has no value"),
        ('l7proxy.io/reason: "a\\nb"', "must be one line"),
        (f"l7proxy.io/reason: {'x' * 501}", "at most 500"),
    ],
)
def test_faulty_annotations(notes: str, told: str) -> None:
    assert any(told in complaint for complaint in complaints(document(RULE, notes=notes)))


# -- files -------------------------------------------------------------------------------------------------------


def test_files_of_folders_in_order(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "sub/d.yaml", "notes.txt", "..2024/b.yaml", ".hidden.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    names = [str(path.relative_to(tmp_path)) for path in find_files([tmp_path, tmp_path / "b.yaml"])]
    assert names == ["a.yml", "b.yaml", "c.json", "sub/d.yaml"]
    assert find_files([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    assert find_files([]) == []


def test_missing_paths_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as caught:
        find_files([tmp_path / "x", tmp_path, tmp_path / "y"])
    assert [problem.file for problem in caught.value.problems] == [str(tmp_path / "x"), str(tmp_path / "y")]
    assert "No such file" in str(caught.value)


def test_problems_of_all_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text(SIMPLE.replace("spec:", "spex:"))
    (tmp_path / "c.yaml").write_text(document(RULE, name="good"))
    (tmp_path / "d.yaml").write_bytes(b"\xff")
    with pytest.raises(DocumentError) as caught:
        load_paths([tmp_path])
    assert {Path(problem.file).name for problem in caught.value.problems} == {"a.yaml", "b.yaml", "d.yaml"}


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SIMPLE)
    (tmp_path / "b.yaml").write_text("\n" + SIMPLE)
    with pytest.raises(DocumentError) as caught:
        load_paths([tmp_path])
    assert str(caught.value) == f"{tmp_path}/b.yaml:2: error: policy default/p is already in {tmp_path}/a.yaml:1"
    (tmp_path / "b.yaml").write_text(document(RULE, namespace="other"))
    (tmp_path / "c.yaml").write_text(document(RULE, wide=True))
    found = load_paths([tmp_path])
    assert [policy.name for policy in found.policies] == ["default/p", "other/p", "p"]
    assert [path.name for path in found.files] == ["a.yaml", "b.yaml", "c.yaml"]


def test_warnings_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(api("ingress:\n- fromEntities: [world]\n  toPorts: []"))
    (warning,) = load_paths([tmp_path]).warnings
    assert (warning.severity, warning.key, warning.line) == ("warning", "spec.ingress[0].toPorts", 9)


def test_ten_thousand_rules_load_in_seconds() -> None:
    rules = "".join(f"        - {{method: GET, path: '/p{n}/[a-z]+'}}\n" for n in range(10_000))
    ports = "ingress:\n- toPorts:\n  - ports: [{port: '80', protocol: TCP}]\n    rules:\n      http:\nXX"
    text = document("endpointSelector: {}\n" + ports)
    started = time.process_time()
    (policy,) = load_text(text.replace("  XX\n", rules), "f")
    assert time.process_time() - started < 5
    assert policy.rules[0].ports is not None and policy.rules[0].ports[0].rules is not None
    assert len(policy.rules[0].ports[0].rules) == 10_000
