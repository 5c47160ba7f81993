"""What CQL rules allow and deny, and the index against a reading of every rule in turn."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parsers.facts import ACTIONS, UNKNOWN, CqlRequest
from policies.cql_actions import (
    CILIUM_ACTIONS,
    CILIUM_TABLELESS,
    GROUPS,
    KEYSPACE_ACTIONS,
    MODIFY,
    READABLE,
    SWEEPING,
    TABLE_ACTIONS,
    USE,
    find_actions,
)
from policies.cql_index import CqlIndex
from policies.decision import L7Lists, L7Policy
from policies.match import RuleSet, worst
from policies.model import CqlRule, TrafficDirection
from policies.verdict import L7Decision, RuleRef, Verdict
from tests.policies.rules import audited, cost, rules


def rule(
    action: str | Sequence[str] | None = None,
    keyspace: str | tuple[str, ...] | None = None,
    table: str | tuple[str, ...] | None = None,
    pattern: str | None = None,
    line: int = 1,
) -> CqlRule:
    actions: frozenset[str] | None = None
    if action is not None:
        words = [action] if isinstance(action, str) else action
        actions = frozenset().union(*(find_actions(word) or frozenset() for word in words))
        assert actions
    names = [(name,) if isinstance(name, str) else name for name in (keyspace, table)]
    ref = RuleRef("default/db", f"ingress[0].toPorts[0].rules.cql[{line - 1}]", "db.yaml", line)
    return CqlRule(actions, *names, pattern, ref)


def cilium(action: str | None = None, table: str | None = None) -> CqlRule:
    """A rule of ``l7``, as it is loaded."""
    return rule(None if action is None else (action, USE), pattern=table)


def ask(action: str, name: str = "") -> CqlRequest:
    """``shop.orders``, ``shop``, or ``.orders`` without a keyspace."""
    keyspace, _, table = name.partition(".")
    return CqlRequest(action, keyspace or None, table or None)


def allows(one: CqlRule, asked: CqlRequest) -> bool:
    return rules([one]).judge(asked).verdict is Verdict.FORWARDED  # type: ignore[list-item]


def denies(one: CqlRule, asked: CqlRequest) -> bool:
    lists = L7Lists(deny=(one,), open=True)
    return audited(lists, lists).judge(asked).verdict is Verdict.DROPPED


def policy(lists: L7Lists, candidate: L7Lists | None = None) -> L7Policy:
    return L7Policy(TrafficDirection.INGRESS, lists, lists if candidate is None else candidate, {})


# -- actions -----------------------------------------------------------------------------------------------------


def test_an_empty_rule_allows_all_that_can_be_read() -> None:
    assert {action for action in ACTIONS if allows(rule(), ask(action))} == READABLE
    assert not allows(rule(), ask("eat", "shop.orders"))


def test_what_cannot_be_read_has_to_be_named() -> None:
    assert allows(rule(UNKNOWN), ask(UNKNOWN)) and not allows(rule(UNKNOWN), ask("select", "shop.orders"))
    assert not allows(rule(UNKNOWN, "shop"), ask(UNKNOWN)), "it names nothing"


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_alone_is_that_action(action: str) -> None:
    assert {one for one in ACTIONS if allows(rule(action), ask(one, "shop.orders"))} == {action}


def test_groups() -> None:
    assert {"insert", "update", "delete"} == MODIFY
    assert "truncate" not in GROUPS["modify"] and GROUPS["list"] == {"list-roles", "list-users", "list-permissions"}
    for verb in ("create", "alter", "drop"):
        assert GROUPS[verb] == {action for action in ACTIONS if action.split("-")[0] == verb}
    assert allows(rule("modify"), ask("update", "shop.orders")) and not allows(rule("modify"), ask("truncate", "a.b"))


def test_the_tables_of_actions_fit_together() -> None:
    assert TABLE_ACTIONS < KEYSPACE_ACTIONS < READABLE and SWEEPING <= KEYSPACE_ACTIONS
    assert (CILIUM_ACTIONS | CILIUM_TABLELESS) - {"truncate-table"} <= READABLE
    assert not CILIUM_ACTIONS & CILIUM_TABLELESS


# -- names -------------------------------------------------------------------------------------------------------


def test_a_keyspace_and_a_table() -> None:
    only = rule("select", "shop", "orders")
    assert allows(only, ask("select", "shop.orders"))
    for name in ("shop.orders2", "xshop.orders", "other.orders", "shop.secret", "shop", "", ".orders", "Shop.orders"):
        assert not allows(only, ask("select", name)), name
    assert not allows(only, ask("insert", "shop.orders"))


def test_lists_are_alternatives() -> None:
    only = rule(("select", "modify"), ("shop", "stock-?", "x*"), ("orders", "items*"))
    for name in ("shop.orders", "shop.items_by_day", "stock-1.items", "x.orders", "xyz.items"):
        assert allows(only, ask("delete", name)), name
    for name in ("shop.order", "stock-10.items", "ax.orders"):
        assert not allows(only, ask("delete", name)), name


def test_an_allow_rule_holds_only_what_names_all_that_it_asks_about() -> None:
    for one in (rule(keyspace="*"), rule(keyspace="shop"), rule(table="*"), rule(keyspace="*", table="*")):
        for asked in (ask("create-role"), ask("grant-permission"), ask("describe"), ask("drop-role")):
            assert not allows(one, asked), (one, asked)
    assert allows(rule(keyspace="shop"), ask("drop-keyspace", "shop")), "it is about any action"
    assert not allows(rule(keyspace="shop", table="*"), ask("drop-keyspace", "shop"))
    assert not allows(rule(keyspace="*"), ask("select", ".orders")) and allows(
        rule(table="orders"), ask("select", ".orders")
    )
    assert not allows(rule("drop-index", "shop", "orders"), ask("drop-index", "shop")), "its table is not known"


@pytest.mark.parametrize(
    ("glob", "name", "holds"),
    [
        ("orders", "Orders", False),
        ("Orders", "Orders", True),
        ("a*", "a", True),
        ("a*", 'a".b\n\x00ä', True),
        ("a**b", "axyb", True),
        ("*b", "abc", False),
        ("*", "", True),
        ("a?", "aä", True),
        ("a?", "a", False),
        ("?", "\U0001f600", True),
        ("ä*", "äb", True),
        ("[a]", "a", False),
    ],
)
def test_globs(glob: str, name: str, holds: bool) -> None:
    assert allows(rule("select", table=glob), CqlRequest("select", "k", name)) is holds
    assert denies(rule("select", keyspace=glob), CqlRequest("select", name, "t")) is holds


# -- deny --------------------------------------------------------------------------------------------------------


def test_a_denied_table_is_denied_to_every_action_on_it_and_nothing_else_is() -> None:
    only = rule(keyspace="shop", table="secret*")
    for action in TABLE_ACTIONS:
        assert denies(only, ask(action, "shop.secrets")), action
        assert not denies(only, ask(action, "shop.orders")), action
        assert not denies(only, ask(action, "other.secrets")), action
    for action in set(ACTIONS) - SWEEPING - {UNKNOWN}:
        assert not denies(only, ask(action, "shop")) and not denies(only, ask(action)), action


@pytest.mark.parametrize("action", sorted(SWEEPING))
def test_what_is_about_every_table_below_is_about_the_denied_one(action: str) -> None:
    only = rule(keyspace="shop", table="secret")
    assert denies(only, ask(action, "shop")) and denies(only, ask(action))
    assert not denies(only, ask(action, "other")) and not denies(rule("select", "shop", "secret"), ask(action, "shop"))
    assert denies(rule(table="secret"), ask(action, "any")) and denies(rule(keyspace="shop"), ask(action))


def test_a_table_without_a_keyspace_may_be_of_any() -> None:
    only = rule("select", "shop", "secret")
    assert denies(only, ask("select", ".secret")) and not denies(only, ask("select", ".orders"))
    assert denies(rule("select", "shop"), ask("select", ".orders"))


@pytest.mark.parametrize("one", [rule(), rule("truncate"), rule("select", "shop", "secret")])
def test_what_cannot_be_read_may_be_whatever_is_denied(one: CqlRule) -> None:
    assert denies(one, ask(UNKNOWN)) and denies(one, ask("eat"))
    both = RuleSet(policy(L7Lists((rule(UNKNOWN),), (one,))))
    assert both.judge(ask(UNKNOWN)).verdict is Verdict.DROPPED


def test_deny_beats_allow_and_says_which_rule() -> None:
    one = RuleSet(policy(L7Lists((rule("select", "shop"),), (rule("select", "shop", "secret", line=9),))))
    assert one.judge(ask("select", "shop.orders")).verdict is Verdict.FORWARDED
    denied = one.judge(ask("select", "shop.secret"))
    assert denied.rule is not None and denied.rule.line == 9


# -- what is said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (ask("select", "shop.orders"), "select on shop.orders"),
        (ask("use", "shop"), "use of keyspace shop"),
        (ask("list-roles"), "list-roles"),
        (ask("select", ".orders"), "select on orders (of no keyspace)"),
        (CqlRequest("select", "Shop", 'a"b'), 'select on "Shop"."a""b"'),
        (CqlRequest("select", "k", "t" * 5000), f"select on k.{'t' * 200}"),
        (ask(UNKNOWN), "a statement that cannot be read"),
    ],
)
def test_a_request_in_words(asked: CqlRequest, told: str) -> None:
    assert rules([rule("truncate")]).judge(asked).reason.endswith(f" allows {told}")  # type: ignore[list-item]


# -- the index against each rule in turn -------------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "ab", "b", "A", "system", "local"])
_GLOBS = st.none() | st.lists(st.sampled_from(["a", "a*", "*", "?", "*b", "A", "b"]), min_size=1, max_size=2).map(tuple)
_SETS = st.none() | st.sets(st.sampled_from([*ACTIONS, "select", "select", USE]), min_size=1, max_size=3).map(frozenset)
_PATTERNS = st.sampled_from([None, None, None, "a", "^a\\.", "^a\\.b$", "b$", "^a$", "a|b"])


def some_rule(
    actions: frozenset[str] | None, names: tuple[tuple[str, ...] | None, ...], pattern: str | None
) -> CqlRule:
    if pattern is None:
        return CqlRule(actions, *names, None, RuleRef("p", "", "f", 1))
    return CqlRule(None if actions is None else actions | {USE}, None, None, pattern, RuleRef("p", "", "f", 1))


some_rules = st.lists(st.builds(some_rule, _SETS, st.tuples(_GLOBS, _GLOBS), _PATTERNS), max_size=4)
some_request = st.builds(
    CqlRequest, st.sampled_from([*ACTIONS, "select", "select", USE]), st.none() | _NAMES, st.none() | _NAMES
)


def _holds(one: CqlRule, asked: CqlRequest, deny: bool) -> bool:
    """The documentation, word for word."""
    if deny and asked.action == UNKNOWN:
        return True
    if asked.action == UNKNOWN if one.actions is None else asked.action not in one.actions:
        return False
    sweeps = deny and (asked.action in SWEEPING or (asked.keyspace is None and asked.table is not None))
    for globs, name in ((one.keyspaces, asked.keyspace), (one.tables, asked.table)):
        if globs is None or (name is None and sweeps):
            continue
        if name is None or not any(re.fullmatch(fnmatch.translate(glob), name) for glob in globs):
            return False
    if one.pattern is None or asked.action == USE:
        return True
    name = asked.keyspace if asked.table is None else f"{asked.keyspace or ''}.{asked.table}"
    return name is not None and re.search(one.pattern, name) is not None


@given(some_rules, some_request, st.booleans())
@example([rule(keyspace="a")], CqlRequest("describe"), True)
@example([rule(keyspace="a", table="a")], CqlRequest("select", None, "a"), True)
def test_the_index_finds_what_reading_every_rule_does(listed: list[CqlRule], asked: CqlRequest, deny: bool) -> None:
    if deny:
        listed = [one for one in listed if one.pattern is None]
    wanted = next((place for place, one in enumerate(listed) if _holds(one, asked, deny)), None)
    found = CqlIndex(listed, deny).find(asked)
    assert (None if found is None else found.order) == wanted


def _cost(made: list[CqlRule], asked: CqlRequest) -> float:
    index = CqlIndex(made)
    return cost(lambda: index.find(asked))


@pytest.mark.parametrize("name", ["shop_7.orders", "none.none"])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: rule(("select", "modify"), f"shop_{n}", "orders"),
        lambda n: rule("select", f"shop_{n}", "*"),
        lambda n: rule("select", f"shop_{n}*"),
        lambda n: cilium("select", f"^shop_{n}\\.orders$"),
        lambda n: cilium("select", f"^shop_{n}\\."),
    ],
    ids=["names", "every table", "prefixes", "cilium", "cilium's prefixes"],
)
def test_ten_thousand_rules_cost_what_ten_do(make: object, name: str) -> None:
    asked = ask("select", name)
    assert callable(make)
    few, many = (_cost([make(n) for n in range(count)], asked) for count in (10, 10_000))
    # Generous: it is to find a search through the rules, which would cost a thousand times as much.
    assert many < 3 * few + 0.002


def test_a_whole_is_worth_its_worst_part() -> None:
    ref = RuleRef("p", "r", "f", 1)
    passed, free = L7Decision(Verdict.FORWARDED, ref, "a"), L7Decision(Verdict.FORWARDED, None, "b")
    audit, dropped = L7Decision(Verdict.AUDIT, None, "c"), L7Decision(Verdict.DROPPED, None, "d")
    assert worst([free, passed]) is passed and worst([passed, audit, free]) is audit
    assert worst([audit, dropped, passed]) is dropped
    with pytest.raises(ValueError):
        worst([])


# -- the documentation -------------------------------------------------------------------------------------------


SOME = {"describe", "grant-permission", "revoke-permission", "list-permissions"}


def test_the_documented_table_has_every_action_with_what_it_names() -> None:
    text = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    rows = [line.strip("| ").split("|") for line in text.partition("| action | names |")[2].splitlines()[2:]]
    rows = rows[: next(place for place, row in enumerate(rows) if len(row) < 2)]
    named = {names.strip(): set(re.findall(r"`([a-z-]+)`", words)) for words, names in rows}
    assert named == {
        "keyspace and table": TABLE_ACTIONS - SOME,
        "keyspace and table, so far as the statement does": SOME,
        "keyspace": KEYSPACE_ACTIONS - TABLE_ACTIONS,
        "nothing": set(ACTIONS) - KEYSPACE_ACTIONS,
    }
