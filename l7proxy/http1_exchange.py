"""One HTTP/1.1 request and what is done with it: everything that follows from the bytes of its head and the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from l7proxy.ops import Op, Pass, Record
from parsers.facts import HttpRequest
from parsers.http1 import Refused, RequestHead, answer, headers, parse_request, request_line
from parsers.options import HttpOptions
from policies.verdict import L7Decision, Verdict

CACHED_HEAD = 2048
"""Bytes of a head that is worth remembering."""
_CACHED_HEADS = 4096
"""Heads that a judge's cache holds before it is emptied."""


class Judge(Protocol):
    """The rules of a flow under one policy.

    `cache` belongs to the conversations of this judge: a head's bytes and what became of it. With `audit_only` nothing
    is ever refused. `header_names` are the lower-case names that rules look at; `log_headers`: records hold the
    request's headers.
    """

    options: HttpOptions
    cache: dict[bytes, Any]
    audit_only: bool
    header_names: frozenset[str]
    log_headers: bool

    def judge(self, request: HttpRequest) -> L7Decision:
        """The verdict on one request."""


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and its answer, without what differs between two requests of the same bytes.

    `answer` is our own response, or None if the server's is awaited; `code` is our own status. `length` is that of the
    body (`parsers.http1`). `last`: no request follows on this connection. `broken`: what follows cannot be read.
    `simple` are the only operations it needs where nothing but the head goes on; None if there is more to do.
    """

    decision: L7Decision
    method: str = ""
    url: str = ""
    protocol: str = "HTTP/1.1"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    length: int = 0
    last: bool = False
    websocket: bool = False
    answer: bytes | None = None
    code: int = 0
    to_head: bool = False
    broken: bool = False
    simple: Sequence[Op] | None = field(default=None, repr=False)

    def record(self, code: int, started: float, ended: float, decision: L7Decision | None = None) -> Record:
        """The flow record of this exchange."""
        return Record(
            decision or self.decision,
            self.method,
            self.url,
            self.protocol,
            self.host,
            self.headers,
            code,
            started,
            ended,
        )

    def answered(self, status: int, reason: str, *, last: bool, decision: L7Decision | None = None) -> Exchange:
        """The same request with an answer of our own."""
        made = answer(status, reason, last=last, to_head=self.to_head)
        return replace(self, answer=made, code=status, last=last, simple=None, decision=decision or self.decision)


def examine(head: bytes, judge: Judge) -> Exchange:
    """What becomes of the request with this head, remembered by its exact bytes. Never raises."""
    try:
        facts = parse_request(head, judge.options, judge.header_names)
    except Refused as error:
        method, url = request_line(head)
        return malformed(error.status, error.reason, judge, Exchange(_NOBODY, method, url))
    exchange = _judged(facts, head, judge)
    if len(head) <= CACHED_HEAD:
        if len(judge.cache) >= _CACHED_HEADS:
            judge.cache.clear()
        judge.cache[head] = exchange
    return exchange


def malformed(status: int, reason: str, judge: Judge, request: Exchange | None = None) -> Exchange:
    """The end of a connection whose bytes cannot be trusted. Where nothing is enforced it has no answer: AUDIT."""
    exchange = request or Exchange(_NOBODY)
    if judge.audit_only:
        decision = L7Decision(Verdict.AUDIT, None, f"audit mode, forwarded unread: {reason}")
        return replace(exchange, decision=decision, broken=True)
    refused = exchange.answered(status, reason, last=True, decision=L7Decision(Verdict.DROPPED, None, reason))
    refused.broken = True
    return refused


_NOBODY = L7Decision(Verdict.DROPPED, None, "no request could be read")


def _judged(facts: RequestHead, head: bytes, judge: Judge) -> Exchange:
    request = HttpRequest(
        facts.method,
        facts.path,
        facts.host,
        header_source=partial(headers, head),
        target=facts.target,
        protocol=facts.protocol,
    )
    decision = judge.judge(request)
    exchange = Exchange(
        decision,
        facts.method,
        facts.target,
        facts.protocol,
        facts.host,
        request.headers if judge.log_headers else (),
        facts.length,
        facts.last,
        facts.websocket,
        to_head=facts.method == "HEAD",
    )
    if decision.verdict is Verdict.DROPPED:
        text = "Access denied" if decision.message is None else decision.message
        return exchange.answered(403, text, last=_ends(facts, judge.options))
    if not (facts.length or facts.last or facts.websocket):
        exchange.simple = (Pass(len(head)),)
    return exchange


def _ends(facts: RequestHead, options: HttpOptions) -> bool:
    """Whether a connection has to end behind the refusal of a request: its body may be long, or may never come, or a
    client of HTTP/1.0 would not know that it goes on."""
    return (
        facts.last
        or facts.waits
        or facts.websocket
        or facts.length > options.drain_body
        or facts.protocol == "HTTP/1.0"
    )
