"""The two ends of a flow have rules for different protocols: `check` tells what would be refused as a whole."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from policies.check import check, fails
from policies.decision import Clash, judging
from policies.document import Problem
from tests.policies.texts import API, EGRESS, INGRESS, TCP80, WEB, api, document, http, resolver

AUDIT = "l7proxy.io/mode: audit"
KAFKA = f"{{{TCP80}, rules: {{kafka: [{{role: produce}}]}}}}"
OPEN = f"{{{TCP80}}}"
TO_API = "{matchLabels: {app: api}}"
FROM_WEB = "{matchLabels: {app: web}}"


def web(entry: str = KAFKA, peers: str = f"toEndpoints: [{TO_API}]", *, notes: str = "", more: str = "") -> str:
    """What the web may send."""
    spec = f"endpointSelector: {FROM_WEB}\negress: [{{{peers}, toPorts: [{entry}]}}{more}]"
    return document(spec, name="web", notes=notes)


def taken(entry: str = http("/a"), peers: str = f"fromEndpoints: [{FROM_WEB}]", *, more: str = "") -> str:
    """What the API may be sent."""
    return api(f"ingress: [{{{peers}, toPorts: [{entry}]}}{more}]", name="api")


def lint(folder: Path, *texts: str) -> list[Problem]:
    file = folder / "p.yaml"
    file.write_text("---\n".join(texts))
    return [one for one in check([file]) if one.message.endswith("all is refused")]


def refused(*texts: str) -> bool:
    """Whether the program refuses everything between the two."""
    found = resolver(*texts)
    sides = [found.decide(way, *ends, "TCP", 80, API) for way, ends in ((EGRESS, (WEB, API)), (INGRESS, (API, WEB)))]
    try:
        judging(sides)
    except Clash:
        return True
    return False


@pytest.mark.parametrize(
    "texts",
    [
        [web(), taken()],
        [web(http("/a")), taken(KAFKA)],
        [web(peers="toEntities: [cluster]"), taken(peers="fromEntities: [all]")],
        [web(peers="toEndpoints: [{}]"), taken(peers="fromEndpoints: [{}]")],
        [
            web(),
            api(f"ingress: [{{fromEntities: [all]}}]\ningressDeny: [{{toPorts: [{http('/a(/.*)?')}]}}]", name="api"),
        ],
        [web(KAFKA.replace("'80'", "'79', endPort: 90")), taken()],
        [web(more=f", {{toPorts: [{OPEN}]}}"), taken()],
        [web(), taken(more=f", {{fromEntities: [all], toPorts: [{OPEN}]}}")],
        [web(f"{{{TCP80}, rules: {{kafka: [{{}}]}}}}"), taken()],
        [web(), document(f"endpointSelector: {{}}\ningress: [{{toPorts: [{http('/a')}]}}]", name="everybody")],
    ],
    ids=[
        "labels",
        "the other way",
        "entities",
        "everybody",
        "a deny rule",
        "a range",
        "opened",
        "opened there",
        "all",
        "a wider selector",
    ],
)
def test_ends_with_rules_for_two_protocols(tmp_path: Path, texts: list[str]) -> None:
    (problem,) = lint(tmp_path, *texts)
    assert problem.severity == "error" and fails([problem]) and problem.key == "spec.egress[0].toPorts[0]"
    assert " egress[0].toPorts[0] " in problem.message and "for kafka" in problem.message
    assert refused(*texts)


@pytest.mark.parametrize(
    "texts",
    [
        [web(), taken(KAFKA)],
        [web(KAFKA.replace("'80'", "'9092'")), taken()],
        [web(notes=AUDIT), taken()],
        [web(), taken(peers="fromEndpoints: [{matchLabels: {app: batch}}]")],
        [web(peers="toEndpoints: [{matchLabels: {app: other}}]"), taken()],
        [web(peers="toCIDR: [10.0.0.0/8]"), taken()],
        [web().replace("spec:", "spec:\n  enableDefaultDeny: {egress: false}"), taken()],
    ],
    ids=[
        "one protocol",
        "another port",
        "audit",
        "others",
        "to others",
        "outside",
        "no deny",
    ],
)
def test_ends_that_do_not_clash(tmp_path: Path, texts: list[str]) -> None:
    assert lint(tmp_path, *texts) == [] and not refused(*texts)


def test_one_is_told_for_each_entry_of_a_sender(tmp_path: Path) -> None:
    assert len(lint(tmp_path, web(), taken(), taken(http("/b")).replace("name: api", "name: again"))) == 1


def test_thousands_of_policies_are_no_trouble(tmp_path: Path) -> None:
    many = [
        document(
            f"endpointSelector: {{matchLabels: {{app: a{number}}}}}\n"
            f"egress: [{{toEndpoints: [{{matchLabels: {{app: b{number}}}}}], toPorts: [{KAFKA}]}}]\n"
            f"ingress: [{{fromEndpoints: [{{matchLabels: {{app: c{number}}}}}], toPorts: [{http('/a')}]}}]",
            name=f"p{number}",
        ).replace("'80'", f"'{1000 + number}'")
        for number in range(1000)
    ]
    start = time.process_time()
    assert lint(tmp_path, *many, web(), taken())
    assert time.process_time() - start < 30
