"""The policy's word on what a CQL statement does, part by part and as a whole, and how a record has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from l7proxy.http1_exchange import Judge, unjudged
from l7proxy.ops import CqlStatement
from parsers.facts import UNKNOWN, CqlRequest
from policies.match import worst
from policies.verdict import Verdict

_SHOWN = 16
"""Things that a statement does which a record lists."""
_NOTHING_KNOWN = (CqlRequest(UNKNOWN),)


def judged(
    judge: Judge,
    opcode: str,
    kind: str,
    requests: Sequence[CqlRequest],
    *,
    prepared: bool = False,
    statement: str = "",
) -> CqlStatement:
    """A request as its record has it, with the decision on the whole: refused if any of `requests` is.

    Without `requests` nothing is known of the statement, and it is judged as `UNKNOWN`. `statement` holds no literal,
    and is recorded only if so configured. For the rest see `CqlStatement`.
    """
    asked = requests or _NOTHING_KNOWN
    decisions = [judge.judge(one) for one in asked]
    pairs = [(one, decision.verdict) for one, decision in zip(asked, decisions, strict=True)]
    # Refused ones first, so that the record shows them.
    pairs.sort(key=lambda pair: pair[1] is Verdict.FORWARDED)
    text = statement if judge.cassandra.log_statements else ""
    shown = tuple(pairs[:_SHOWN])
    return CqlStatement(worst(decisions), opcode, kind, shown, len(pairs) - len(shown), prepared, text)


def unreadable(judge: Judge, opcode: str, reason: str, *, prepared: bool = False) -> CqlStatement:
    """The same of a statement that cannot be classified: only a rule for `UNKNOWN` allows it."""
    return because(judged(judge, opcode, UNKNOWN, (), prepared=prepared), reason)


def unread(judge: Judge, reason: str, opcode: str = "") -> CqlStatement:
    """What is recorded of a request that no rule could be asked about. `reason` quotes nothing of a statement."""
    return CqlStatement(unjudged(reason, judge), opcode)


def because(request: CqlStatement, reason: str) -> CqlStatement:
    """The same request, with more to say about what became of it."""
    return replace(request, decision=replace(request.decision, reason=f"{request.decision.reason}; {reason}"))
