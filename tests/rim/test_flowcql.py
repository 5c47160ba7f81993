"""Flow records of CQL requests; see test_flowjson.py."""

from __future__ import annotations

from typing import Any

from l7proxy.cql_judge import because, judged, unread, unreadable
from l7proxy.ops import CqlCall, CqlStatement, Record
from parsers.facts import UNKNOWN, CqlRequest
from parsers.options import CassandraOptions
from policies.verdict import L7Decision, Verdict
from tests.conversations import changed
from tests.rim.test_flowjson import ALLOWED, REFUSED, encoder, l7, parsed

ORDERS, PAYMENTS = CqlRequest("select", "shop", "orders"), CqlRequest("update", "shop", "payments")


def cql(
    decision: L7Decision = ALLOWED, code: int = -1, answered: bool = True, consistency: int = 1, **changes: Any
) -> Record:
    actions = ((PAYMENTS, decision.verdict), (ORDERS, Verdict.FORWARDED))
    facts = {"opcode": "EXECUTE", "kind": "batch", "actions": actions, **changes}
    return Record(CqlStatement(decision, **facts), code, 10.0, 10.0012, CqlCall(7, consistency, answered))


def own(flow: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = flow["extensions"]["value"]["l7proxy"]["cassandra"]
    return found


def test_a_statement() -> None:
    flow = l7(cql(prepared=True))
    assert (flow["verdict"], flow["l7"]) == ("FORWARDED", {"latency_ns": flow["l7"]["latency_ns"], "type": "RESPONSE"})
    assert own(flow) == {
        "opcode": "EXECUTE",
        "kind": "batch",
        "prepared": True,
        "actions": [
            {"action": "update", "keyspace": "shop", "table": "payments", "verdict": "FORWARDED"},
            {"action": "select", "keyspace": "shop", "table": "orders", "verdict": "FORWARDED"},
        ],
        "consistency": "ONE",
        "stream": 7,
    }
    assert flow["Summary"] == "CQL response EXECUTE batch shop.payments (1ms)"


def test_a_refused_statement() -> None:
    flow = l7(cql(REFUSED, 0x2100, False))
    assert (flow["verdict"], flow["l7"]["type"], flow["drop_reason_desc"]) == ("DROPPED", "REQUEST", "POLICY_DENIED")
    assert own(flow)["error_code"] == 0x2100 and own(flow)["actions"][0]["verdict"] == "DROPPED"
    assert flow["Summary"] == "CQL request EXECUTE batch shop.payments (1ms, error 0x2100)"


def test_an_error_of_the_server_and_none_at_all() -> None:
    assert own(l7(cql(code=0)))["error_code"] == 0, "SERVER_ERROR has this number"
    silent = l7(cql(answered=False, kind="", actions=(), consistency=-1))
    assert own(silent) == {"opcode": "EXECUTE", "stream": 7}
    assert silent["Summary"] == "CQL request EXECUTE (1ms, no response)"


def test_what_could_not_be_read() -> None:
    flow = l7(cql(REFUSED, 0x000A, False, opcode="", kind="", actions=()))
    assert flow["drop_reason_desc"] == "INVALID_PACKET_DROPPED"
    assert flow["Summary"] == "CQL request (1ms, error 0x000a)"


def test_a_level_that_has_no_name_and_a_name_that_is_hostile() -> None:
    actions = ((CqlRequest("select", 'a"b', "\ud800\n"), Verdict.FORWARDED),)
    flow = l7(cql(consistency=77, actions=actions))
    assert own(flow)["consistency"] == "77"
    assert own(flow)["actions"][0] | {"verdict": ""} == {
        "action": "select",
        "keyspace": 'a"b',
        "table": "?\n",
        "verdict": "",
    }


def test_statements_that_do_the_same_have_stream_ids_of_their_own() -> None:
    one, first = encoder(), cql()
    calls = [CqlCall(0, 1, True), CqlCall(32767, 1, True), CqlCall(-1, 6, True)]
    flows = [own(parsed(one.l7(changed(first, call=call), 1.0))) for call in calls]
    assert [(flow["stream"], flow["consistency"]) for flow in flows] == [
        (0, "ONE"),
        (32767, "ONE"),
        (-1, "LOCAL_QUORUM"),
    ]


class Only:
    """A judge that lets SELECT pass."""

    def __init__(self, **options: bool) -> None:
        self.cassandra = CassandraOptions(**options)
        self.audit_only = False

    def judge(self, request: CqlRequest) -> L7Decision:
        return ALLOWED if request.action == "select" else REFUSED


def test_a_statement_is_judged_part_by_part() -> None:
    judge: Any = Only()
    assert judged(judge, "QUERY", "select", [ORDERS]).decision is ALLOWED
    both = judged(judge, "QUERY", "batch", [ORDERS, PAYMENTS], prepared=True, statement="UPDATE ... 's3cret'")
    assert both.decision is REFUSED and both.prepared and both.statement == ""
    assert both.actions == ((PAYMENTS, Verdict.DROPPED), (ORDERS, Verdict.FORWARDED))
    many = judged(judge, "BATCH", "batch", [ORDERS] * 20 + [PAYMENTS])
    assert (len(many.actions), many.more_actions, many.actions[0]) == (16, 5, (PAYMENTS, Verdict.DROPPED))
    assert judged(judge, "QUERY", "batch", ()).actions == ((CqlRequest(UNKNOWN), Verdict.DROPPED),)


def test_a_statement_that_cannot_be_read_is_unknown() -> None:
    judge: Any = Only()
    request = unreadable(judge, "QUERY", "syntax error at 3")
    assert request.decision.reason == f"{REFUSED.reason}; syntax error at 3" and request.kind == UNKNOWN
    assert unread(judge, "no frame").decision == L7Decision(Verdict.DROPPED, None, "no frame")
    judge.audit_only = True
    assert unread(judge, "no frame", "QUERY").decision.verdict is Verdict.AUDIT
    assert because(request, "so").decision.reason.endswith("; syntax error at 3; so")


def test_statements_are_recorded_if_so_configured() -> None:
    judge: Any = Only(log_statements=True)
    statement = "SELECT * FROM shop.orders WHERE id = ?"
    assert judged(judge, "QUERY", "select", [ORDERS], statement=statement).statement == statement
    assert own(l7(cql(statement=statement)))["statement"] == statement
