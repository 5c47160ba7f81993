"""What flow records say of CQL, as JSON: Hubble has no fields for that, so it stands in our extension."""

from __future__ import annotations

from typing import TypeAlias

from l7proxy.flowparts import END_OF_OWN, SHORT, end, fitting, kind, quote, verdict_on
from l7proxy.ops import CqlStatement
from parsers.facts import CqlRequest
from policies.verdict import Verdict

CqlParts: TypeAlias = tuple[str, str, str]
"""The text behind the latency, the stream id, and the summary's ms."""
_CONSISTENCY = (
    "ANY",
    "ONE",
    "TWO",
    "THREE",
    "QUORUM",
    "ALL",
    "LOCAL_QUORUM",
    "EACH_QUORUM",
    "SERIAL",
    "LOCAL_SERIAL",
    "LOCAL_ONE",
    "NODE_LOCAL",
)
"""Consistency levels by number: section 3 of the native protocol, and Cassandra's ``ConsistencyLevel``."""


def make_cql_parts(request: CqlStatement, code: int, consistency: int, answered: bool, node: str) -> CqlParts:
    """The parts of the lines of equal requests with equal answers. `node` is quoted."""
    verdict = verdict_on(request.decision, request.decision.reason, read=request.opcode != "")
    return (
        f'{kind(request.decision, answered)}}},{verdict},"cassandra":{{{_own(request, code, consistency)}"stream":',
        f'}}{END_OF_OWN},"Summary":"CQL {"response" if answered else "request"} {_summary(request)}',
        f"ms{f', error 0x{code:04x}' if code >= 0 else '' if answered else ', no response'}){end(node)}",
    )


def _own(request: CqlStatement, code: int, consistency: int) -> str:
    """Members, each with a comma behind it."""
    parts = [f'"opcode":{quote(request.opcode, SHORT)}']
    parts += [f'"kind":{quote(request.kind, SHORT)}'] if request.kind else []
    parts += ['"prepared":true'] if request.prepared else []
    if request.actions:
        shown = fitting(_action(*one) for one in request.actions)
        more = request.more_actions + len(request.actions) - len(shown)
        parts += [f'"actions":[{",".join(shown)}]', *([f'"more_actions":{more}'] if more else [])]
    parts += [f'"statement":{quote(request.statement)}'] if request.statement else []
    parts += [f'"consistency":"{_level(consistency)}"'] if consistency >= 0 else []
    parts += [f'"error_code":{code}'] if code >= 0 else []
    return "".join(f"{part}," for part in parts)


def _action(asked: CqlRequest, verdict: Verdict) -> str:
    names = [
        f'"{key}":{quote(name, SHORT)},'
        for key, name in (("keyspace", asked.keyspace), ("table", asked.table))
        if name is not None
    ]
    return f'{{"action":{quote(asked.action, SHORT)},{"".join(names)}"verdict":"{verdict}"}}'


def _level(number: int) -> str:
    return _CONSISTENCY[number] if number < len(_CONSISTENCY) else str(number)


def _summary(request: CqlStatement) -> str:
    """``QUERY select shop.orders (``, inside quotes."""
    words = [request.opcode, request.kind]
    if request.actions:
        asked = request.actions[0][0]
        words.append(".".join(name for name in (asked.keyspace, asked.table) if name is not None))
    return quote("".join(f"{word} " for word in words if word), SHORT)[1:-1] + "("
