"""Policy files that went wrong in every way: read as policies or refused with their problems, never anything else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.document import DocumentError
from policies.load import load_text

WHOLE: dict[str, Any] = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "p", "namespace": "n", "annotations": {"l7proxy.io/mode": "audit", "l7proxy.io/reason": "r"}},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "a"}},
        "enableDefaultDeny": {"ingress": True},
        "ingress": [
            {
                "fromEndpoints": [{"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}],
                "fromRequires": [{"matchLabels": {"k8s:env": "prod"}}],
                "toPorts": [
                    {
                        "ports": [{"port": "80", "protocol": "TCP", "endPort": 90}],
                        "rules": {
                            "http": [
                                {
                                    "method": "GET",
                                    "path": "/a",
                                    "host": "h",
                                    "headers": ["A: b"],
                                    "headerMatches": [{"name": "n", "value": "v", "mismatch": "LOG"}],
                                }
                            ]
                        },
                    },
                    {
                        "ports": [{"port": "90", "protocol": "TCP"}],
                        "rules": {"grpc": [{"service": "a.B", "method": "G.*", "metadata": ["a: b", {"name": "n"}]}]},
                    },
                    {
                        "ports": [{"port": "9092", "protocol": "TCP"}],
                        "rules": {
                            "kafka": [
                                {"role": "consume", "clientID": "c", "topic": "t", "groups": ["g*"]},
                                {"apiKey": "fetch", "apiVersion": "11", "topics": ["t?"], "transactionalIDs": ["x"]},
                            ]
                        },
                    },
                ],
            },
            {"fromEntities": ["world"], "toPorts": [{"ports": [{"port": "http"}]}]},
        ],
        "egress": [{"toCIDR": ["10.0.0.0/8"]}],
        "egressDeny": [{"toCIDRSet": [{"cidr": "::/0", "except": ["2001:db8::/32"]}]}],
    },
}
JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "\ud800",
    "\x00",
    "ä" * 300,
    [],
    {},
    [None],
    {"x": None},
    [[]],
    [{}],
    "(",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a tree but its root."""
    found = [path] if path else []
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found += places(child, (*path, key))
    return found


PLACES = places(WHOLE)


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The policy with one value replaced, or left out if `value` is Ellipsis."""
    root: dict[str, Any] = json.loads(json.dumps(WHOLE))
    parent: Any = root
    for key in path[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return root


def taken(policy: dict[str, Any]) -> bool:
    try:
        load_text(json.dumps(policy), "p.yaml")
    except DocumentError as error:
        assert error.problems
        assert all(problem.file == "p.yaml" and problem.message for problem in error.problems)
        return False
    return True


def test_the_whole_policy_is_taken() -> None:
    assert taken(WHOLE)


def test_one_value_replaced_by_junk() -> None:
    for path in PLACES:
        for junk in JUNK:
            taken(changed(path, junk))


def test_nothing_but_what_may_be_left_out_can_be_left_out() -> None:
    needed = {
        ("apiVersion",),
        ("kind",),
        ("metadata",),
        ("metadata", "name"),
        ("spec",),
        ("spec", "endpointSelector"),
        ("spec", "ingress", 0, "toPorts", 0, "ports", 0, "protocol"),
        ("spec", "ingress", 0, "toPorts", 1, "ports", 0, "protocol"),
        ("spec", "ingress", 0, "toPorts", 1, "rules", "grpc", 0),
        ("spec", "ingress", 0, "toPorts", 2, "ports", 0, "protocol"),
    }
    inner = ("key", "operator", "values", "name", "cidr", "port", "http", "grpc", "kafka")
    for path in PLACES:
        last = len(path) > 1 and path[-1] == 0 and path[-2] in ("values", "topics", "groups", "transactionalIDs")
        refused = path in needed or (path[-1] in inner and path[0] == "spec") or last
        assert taken(changed(path, ...)) is not refused, path


def test_no_value_may_be_null() -> None:
    for path in PLACES:
        if path not in (("metadata", "annotations"), ("metadata", "namespace")):
            assert not taken(changed(path, None)), path


def test_no_key_may_be_misspelt() -> None:
    for path in PLACES:
        if not isinstance(path[-1], str) or path[-2:-1] in (("matchLabels",), ("metadata",)):
            continue
        policy = changed(path, ...)
        parent: Any = policy
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1] + "x"] = "x"
        assert not taken(policy), path


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(["80", "TCP", "world"])
)
words = st.sampled_from(sorted({part for path in PLACES for part in path if isinstance(part, str)}))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(words, st.text(max_size=5)), inner)),
    max_leaves=15,
)


@settings(max_examples=150)
@given(st.sampled_from(PLACES), trees)
def test_any_tree_in_any_place(path: tuple[Any, ...], tree: Any) -> None:
    taken(changed(path, tree))


@settings(max_examples=150)
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    try:
        load_text(text, "p.yaml")
    except DocumentError as error:
        assert error.problems
