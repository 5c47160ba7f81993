"""One HTTP/1.1 request and what is done with it: everything that follows from the bytes of its head and the policy."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from l7proxy.http2_settings import upgrading
from l7proxy.ops import Op, Pass, Record, Request
from parsers import facts
from parsers.facts import HttpRequest
from parsers.http1 import Refused, RequestHead, answer, headers, parse_request, request_line
from parsers.options import CassandraOptions, HttpOptions, KafkaOptions
from policies.model import L7Protocol
from policies.verdict import L7Decision, Verdict

CACHED_HEAD = 2048
"""Bytes of a head that is worth remembering."""
_CACHED_HEADS = 4096
"""Heads that a judge's cache holds before it is emptied."""


class Judge(Protocol):
    """The rules of a flow under one policy.

    `protocol` is what they are for; None if nothing restricts the flow. `options` are those of HTTP.
    `cache` belongs to the conversations of this judge: a head's bytes and what became of it; so do `calls`, for header
    blocks of HTTP/2 that mean the same on every connection, and requests of Kafka or CQL that ask for the same. With
    `audit_only` nothing is ever refused. `header_names` are the lower-case names that rules look at; `log_headers`:
    records hold the request's headers. `cut_streams`: a gRPC stream that an older policy let through is judged again
    by this one.
    """

    protocol: L7Protocol | None
    options: HttpOptions
    kafka: KafkaOptions
    cassandra: CassandraOptions
    cache: dict[bytes, Exchange]
    calls: dict[Hashable, Any]
    audit_only: bool
    header_names: frozenset[str]
    log_headers: bool
    cut_streams: bool

    def judge(self, request: facts.Request) -> L7Decision:
        """The verdict on one request."""


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and its answer, without what differs between two requests of the same bytes.

    `answer` is our own response, or None if the server's is awaited; `code` is our own status. `length` is that of the
    body (`parsers.http1`). `last`: no request follows on this connection. `broken`: what follows cannot be read.
    `websocket`, `h2c` (with these SETTINGS): it asks for that upgrade. `instead`: what the server gets for the head, if
    not the head itself.
    `simple` are the only operations it needs where nothing but the head goes on; None if there is more to do.
    """

    request: Request
    length: int = 0
    last: bool = False
    websocket: bool = False
    answer: bytes | None = None
    code: int = 0
    to_head: bool = False
    broken: bool = False
    h2c: bytes | None = None
    instead: bytes | None = None
    simple: Sequence[Op] | None = field(default=None, repr=False)

    def record(self, code: int, started: float, ended: float) -> Record:
        """The flow record of this exchange."""
        return Record(self.request, code, started, ended)

    def judged(self, decision: L7Decision) -> Exchange:
        """The same request with another decision."""
        return replace(self, request=replace(self.request, decision=decision))

    def because(self, reason: str) -> Exchange:
        """The same request, with more to say about what became of it."""
        decision = self.request.decision
        return self.judged(replace(decision, reason=f"{decision.reason}; {reason}"))

    def answered(self, status: int, reason: str, *, last: bool) -> Exchange:
        """The same request with an answer of our own."""
        made = answer(status, reason, last=last, to_head=self.to_head)
        return replace(self, answer=made, code=status, last=last, simple=None)


def examine(head: bytes, judge: Judge) -> Exchange:
    """What becomes of the request with this head, remembered by its exact bytes. Never raises."""
    try:
        facts = parse_request(head, judge.options, judge.header_names)
    except Refused as error:
        method, url = request_line(head)
        return malformed(error.status, error.reason, judge, Exchange(Request(_NOBODY, method, url)))
    exchange = _judged(facts, head, judge)
    if len(head) <= CACHED_HEAD:
        if len(judge.cache) >= _CACHED_HEADS:
            judge.cache.clear()
        judge.cache[head] = exchange
    return exchange


def malformed(status: int, reason: str, judge: Judge, request: Exchange | None = None) -> Exchange:
    """The end of a connection whose bytes cannot be trusted. Where nothing is enforced it has no answer: AUDIT."""
    exchange = replace(request or Exchange(Request(_NOBODY)), broken=True).judged(unjudged(reason, judge))
    return exchange if judge.audit_only else exchange.answered(status, reason, last=True)


def unjudged(reason: str, judge: Judge, otherwise: str = "forwarded unread") -> L7Decision:
    """The decision on what no rule could be asked about: refused, or where nothing is enforced, `otherwise`."""
    if judge.audit_only:
        return L7Decision(Verdict.AUDIT, None, f"audit mode, {otherwise}: {reason}")
    return L7Decision(Verdict.DROPPED, None, reason)


def refusal_text(decision: L7Decision) -> str:
    """What a client is told of a refusal: the policy's own text, if it has one."""
    return "Access denied" if decision.message is None else decision.message


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
    shown = request.headers if judge.log_headers else ()
    exchange = Exchange(
        Request(decision, facts.method, facts.target, facts.protocol, facts.host, shown),
        facts.length,
        facts.last,
        facts.websocket,
        to_head=facts.method == "HEAD",
        h2c=facts.h2c,
    )
    if decision.verdict is Verdict.DROPPED:
        return exchange.answered(403, refusal_text(decision), last=_ends(facts, judge.options))
    if facts.h2c is not None:
        exchange.instead = upgrading(head, facts.h2c)
    elif not (facts.length or facts.last or facts.websocket):
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
