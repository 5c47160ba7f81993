"""Cilium's rules for Cassandra, line by line of what they mean to Cilium, and what drivers may always read."""

from __future__ import annotations

import pytest

from parsers.facts import ACTIONS, UNKNOWN
from policies.cql_actions import USE
from policies.decision import L7Lists
from policies.match import RuleSet
from policies.verdict import RuleRef, Verdict
from tests.policies.test_cql_rules import allows, ask, cilium, policy, rule
from tests.policies.texts import BATCH, WEB, resolver, to_api

# -- Cilium's ----------------------------------------------------------------------------------------------------


def test_query_table_is_searched_for() -> None:
    """CILIUM-SEMANTICS: not anchored, ``ks.t`` holds ``xks.t2``."""
    only = cilium("select", "ks.t")
    for name in ("ks.t", "xks.t2", "ksxt.a"):
        assert allows(only, ask("select", name)), name
    assert not allows(only, ask("select", "k.st")) and not allows(only, ask("insert", "ks.t"))


@pytest.mark.parametrize(
    ("pattern", "holds", "not_held"),
    [
        (r"^shop\.orders$", {"shop.orders"}, {"shop.orders2", "xshop.orders"}),
        (r"^shop\.", {"shop.a", "shop.orders"}, {"xshop.a", "shop2.a"}),
        (r"orders$", {"shop.orders", "a.borders"}, {"shop.orders2"}),
        (r"^a|b$", {"a.x", "ax.y", "x.b"}, {"x.a", "b.x"}),
        (r"^(shop|stock)\.orders$", {"shop.orders", "stock.orders"}, {"xstock.orders", "stock.orders2"}),
        (r"^shop\.a\$", {"shop.a$b"}, {"shop.a"}),
        (r"(?i)SHOP", {"shop.a", "x.Shop"}, {"sho.p"}),
        (r"^(?i)SHOP\.", {"shop.a", "Shop.a"}, {"x.shop"}),
        (r"\.orders", {"shop.orders", ".orders"}, {"orders.x"}),
        (r"^$", set(), {"shop.orders"}),
        (r"ä", {"shop.ä"}, {"shop.a"}),
        (r"^system\.local$|^shop\.x$", {"system.local", "shop.x"}, {"xsystem.local", "shop.xy"}),
    ],
)
def test_query_table_as_go_reads_it(pattern: str, holds: set[str], not_held: set[str]) -> None:
    only = cilium("select", pattern)
    for name in holds | not_held:
        assert allows(only, ask("select", name)) is (name in holds), name


def test_use_always_passes_beside_cilium_s_rules() -> None:
    for only in (cilium("select", "^shop\\."), cilium("insert"), cilium(None, "^shop$"), cilium()):
        assert allows(only, ask(USE, "any"))
    assert not allows(rule("select", "shop"), ask(USE, "shop"))


def test_keyspaces_stand_in_for_tables() -> None:
    """Cilium puts the name of the current keyspace before that of the one which is dropped; here it stands alone."""
    assert allows(cilium("drop-keyspace", "^shop$"), ask("drop-keyspace", "shop"))
    assert not allows(cilium("drop-keyspace", "^shop$"), ask("drop-keyspace", "shop2"))


def test_what_names_no_table_is_not_allowed_by_a_table() -> None:
    """Cilium does not ask query_table of what names no table, so that it allows to drop roles and to grant all."""
    for action in ("create-role", "list-roles", "grant-permission", "describe", UNKNOWN):
        assert not allows(cilium(None, "^shop\\."), ask(action))
    assert allows(cilium("list-roles"), ask("list-roles")) and allows(cilium(), ask("list-roles"))
    assert allows(cilium("create-index"), ask("create-index", "shop.orders"))
    assert allows(cilium(None, "^shop\\."), ask("create-index", "shop.orders"))


def test_a_bare_name_without_a_keyspace_has_a_dot() -> None:
    assert allows(cilium("select", "^\\.orders$"), ask("select", ".orders"))


# -- what drivers read -------------------------------------------------------------------------------------------


SYSTEM = ["system.local", "system.peers", "system.peers_v2", "system_schema.tables", "system_virtual_schema.x"]
NOT_SYSTEM = ["system.batches", "system_auth.roles", "system", "system_schema", ".local", "system_traces.events", ""]


def test_drivers_may_start() -> None:
    judge = RuleSet(policy(L7Lists((rule("select", "shop"),)))).judge
    for name in SYSTEM:
        found = judge(ask("select", name))
        assert (found.verdict, found.rule) == (Verdict.FORWARDED, None) and "system_tables" in found.reason
    for name in NOT_SYSTEM:
        assert judge(ask("select", name)).verdict is Verdict.DROPPED, name


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - {"select"}))
def test_system_tables_are_for_select_alone(action: str) -> None:
    judge = RuleSet(policy(L7Lists((rule("select", "shop"),)))).judge
    assert all(judge(ask(action, name)).verdict is Verdict.DROPPED for name in SYSTEM)


def test_the_default_can_be_turned_off_and_denied() -> None:
    off = RuleSet(policy(L7Lists((rule("select", "shop"),))), system_tables=False)
    denied = RuleSet(policy(L7Lists((rule("select", "shop"),), (rule(keyspace="system*"),))))
    closed = RuleSet(policy(L7Lists((rule("select", "shop"),), deny_all=RuleRef("p", "r", "f", 1))))
    for one in (off, denied, closed):
        assert all(one.judge(ask("select", name)).verdict is Verdict.DROPPED for name in SYSTEM)
    named = RuleSet(policy(L7Lists((rule("select", "system", "local"),))), system_tables=False)
    assert named.judge(ask("select", "system.local")).rule is not None


def test_the_default_holds_in_audit_mode_too() -> None:
    watching = RuleSet(policy(L7Lists(open=True), L7Lists((rule("select", "shop"),))))
    assert watching.judge(ask("select", "system.local")).verdict is Verdict.FORWARDED
    assert watching.judge(ask("select", "system_auth.roles")).verdict is Verdict.AUDIT


EMPIRE = """\
apiVersion: "cilium.io/v2"
kind: CiliumNetworkPolicy
metadata:
  name: "secure-cassandra"
specs:
- description: "Outposts write their records; headquarters do what they want"
  endpointSelector:
    matchLabels: {app: api}
  ingress:
  - fromEndpoints:
    - matchLabels: {app: web}
    toPorts:
    - ports:
      - {port: "9042", protocol: TCP}
      rules:
        l7proto: cassandra
        l7:
        - query_action: "select"
          query_table: "system\\\\..*"
        - query_action: "select"
          query_table: "system_schema\\\\..*"
        - query_action: "insert"
          query_table: "attendance.daily_records"
  - fromEndpoints:
    - matchLabels: {app: batch}
    toPorts:
    - ports:
      - {port: "9042", protocol: TCP}
      rules:
        l7proto: cassandra
        l7: [{}]
"""


def test_a_policy_in_the_manner_of_ciliums_documentation() -> None:
    found = resolver(EMPIRE)
    asked = [
        ("select", "system.local", True, True),
        ("select", "system_schema.tables", True, True),
        ("insert", "attendance.daily_records", True, True),
        ("use", "attendance", True, True),
        ("select", "attendance.daily_records", False, True),
        ("insert", "deathstar.scrum_notes", False, True),
        ("drop-table", "attendance.daily_records", False, True),
        ("list-roles", "", False, True),
        (UNKNOWN, "", False, False),
    ]
    for who, place in ((WEB, 2), (BATCH, 3)):
        decision = to_api(found, who, 9042)
        assert decision.l7 is not None
        judge = RuleSet(decision.l7).judge
        for one in asked:
            assert (judge(ask(one[0], one[1])).verdict is Verdict.FORWARDED) is one[place], (who, one)
