"""One HTTP/2 stream, and the request on it with all that follows from its header block and the policy."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from urllib.parse import quote

from l7proxy.http1_exchange import Judge, refusal_text, unjudged
from l7proxy.http2_blocks import Fields, literal
from l7proxy.ops import Grpc, Record, Request
from parsers.http1 import Refused, plain_type
from parsers.http2 import DATA, DEFAULT_FRAME, END_HEADERS, END_STREAM, HEADERS, frame
from parsers.http2_fields import header_pairs, plain_request, request_facts
from policies.verdict import L7Decision, Verdict

PERMISSION_DENIED, UNAVAILABLE = 7, 14
"""Values of grpc-status."""
_LENGTH = struct.Struct(">L").unpack_from
_LONGEST = 1024
"""Characters of a gRPC message: however they are encoded, they fit into one frame."""


@dataclass(slots=True, eq=False)
class Call:
    """A request, without what differs between two requests of the same block.

    `length` of the body in bytes, or -1. `malformed`: it is answered with an error of its stream. `answer` is the text
    of our own answer with status `code`, or None if the request passes.
    """

    request: Request
    length: int = -1
    grpc: bool = False
    malformed: bool = False
    answer: str | None = None
    code: int = 0
    fields: Fields | None = None

    def answered(self, code: int, text: str, reason: str) -> Call:
        """The same request with an answer of our own."""
        decision = replace(self.request.decision, reason=f"{self.request.decision.reason}; {reason}")
        return replace(self, request=replace(self.request, decision=decision), code=code, answer=text)

    def bodiless(self) -> Call:
        """The same request, which is malformed for want of the body that it announces."""
        return replace(self.turned_away("no body where content-length names one"), malformed=True, code=400)

    def turned_away(self, reason: str) -> Call:
        """The same request, which goes nowhere."""
        decision = L7Decision(Verdict.DROPPED, None, reason)
        return replace(self, request=replace(self.request, decision=decision), grpc=False, code=0)

    def frames(self, stream: int, room: int, first: bytes) -> tuple[bytes, int]:
        """Our own answer as frames that end the stream, and how many bytes of DATA are in them: at most `room`.

        `first`: what its header block has to begin with.
        """
        text = self.answer or ""
        if self.grpc:
            status = PERMISSION_DENIED if self.code == 403 else UNAVAILABLE
            head = literal([(b":status", b"200"), (b"content-type", b"application/grpc")])
            return grpc_end(stream, status, text, first + head), 0
        body = text.encode()[: DEFAULT_FRAME - 2] + b"\r\n" if text else b""
        kind = plain_type(text).encode()
        fields = [(b":status", b"%d" % self.code), (b"content-length", b"%d" % len(body)), (b"content-type", kind)]
        if self.request.method == "HEAD" or not 0 < len(body) <= room:
            if self.request.method != "HEAD":
                fields[1] = (b"content-length", b"0")
            return frame(HEADERS, END_HEADERS | END_STREAM, stream, first + literal(fields)), 0
        head = frame(HEADERS, END_HEADERS, stream, first + literal(fields))
        return head + frame(DATA, END_STREAM, stream, body), len(body)


def grpc_end(stream: int, status: int, text: str, first: bytes) -> bytes:
    """A frame of trailers that ends a gRPC call. `first`: what its header block begins with."""
    message = quote(text[:_LONGEST], safe=" !#$&'()*+,/:;=?@[]{}").encode()
    block = first + literal([(b"grpc-status", b"%d" % status), (b"grpc-message", message)])
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


def examine(fields: Fields, judge: Judge) -> Call:
    """What becomes of the request with these fields. Never raises."""
    try:
        facts = request_facts(fields, judge.options, judge.header_names)
    except Refused as error:
        return _malformed(fields, error, judge)
    request = plain_request(facts, fields)
    decision = judge.judge(request)
    shown = request.headers if judge.log_headers else ()
    call = Call(
        Request(decision, facts.method, facts.target, "HTTP/2", facts.host, shown),
        facts.length,
        facts.grpc,
        fields=fields,
    )
    if decision.verdict is Verdict.DROPPED:
        call.code, call.answer = 403, refusal_text(decision)
    return call


def _malformed(fields: Fields, error: Refused, judge: Judge) -> Call:
    """A request that is no request. Where nothing is enforced it passes, with an AUDIT record."""
    named = {name: value.decode("latin-1") for name, value in fields[:8]}
    decision = unjudged(error.reason, judge, "forwarded")
    texts = named.get(b":method", ""), named.get(b":path", ""), "HTTP/2", named.get(b":authority", "")
    shown = header_pairs(fields) if judge.log_headers else ()
    return Call(Request(decision, *texts, shown), malformed=not judge.audit_only, code=error.status)


class Messages:
    """Counts the length-prefixed messages of one direction of a gRPC stream, as their bytes go by."""

    __slots__ = ("_left", "_prefix", "count")

    def __init__(self) -> None:
        self.count = self._left = 0
        self._prefix = b""

    @property
    def between(self) -> bool:
        """The next byte begins a message."""
        return not (self._left or self._prefix)

    def stop(self, data: bytes, start: int, end: int) -> int:
        """Where the message that has begun stops in the next bytes; `end`: not before."""
        left = self._left
        if self._prefix:
            missing = 5 - len(self._prefix)
            if end - start < missing:
                return end
            left = missing + int.from_bytes((self._prefix + data[start : start + missing])[1:], "big")
        return min(end, start + left)

    def feed(self, data: bytes, start: int, end: int) -> None:
        """The next bytes of the stream's DATA, without padding."""
        while start < end:
            if self._left:
                taken = min(self._left, end - start)
                self._left -= taken
                start += taken
                continue
            if not self._prefix and end - start >= 5:
                self.count += 1
                self._left = _LENGTH(data, start + 1)[0]
                start += 5
                continue
            piece = data[start : min(end, start + 5 - len(self._prefix))]
            self._prefix += piece
            start += len(piece)
            if len(self._prefix) == 5:
                self._left = int.from_bytes(self._prefix[1:], "big")
                self._prefix = b""
                self.count += 1


def unfinished(size: int) -> bytes:
    """As many bytes, of which a gRPC server makes no message: the one that they begin is longer."""
    return (b"\0" + size.to_bytes(4, "big") + bytes(size))[:size]


class Stream:
    """A request that was let through, until both ends are done with it."""

    __slots__ = ("answered", "call", "client_done", "code", "id", "left", "messages", "started", "status")

    def __init__(self, number: int, call: Call, started: float) -> None:
        self.id, self.call, self.started = number, call, started
        self.client_done = self.answered = False
        """`answered`: its record is written."""
        self.code, self.status = 0, -1
        self.left = call.length
        """Bytes of the body still to come, if its length was said; else negative."""
        self.messages = (Messages(), Messages()) if call.grpc else None
        """Those of a gRPC call, by direction."""

    def record(self, now: float) -> Record:
        """The flow record."""
        self.answered = True
        counts = [one.count for one in self.messages or ()]
        return Record(self.call.request, self.code, self.started, now, grpc_facts(self.call, self.status, *counts))


def grpc_facts(call: Call, status: int, requests: int = 0, responses: int = 0) -> Grpc | None:
    """What a record says of a gRPC call; None if it is none."""
    if not call.grpc:
        return None
    service, _, method = call.request.url.partition("?")[0].lstrip("/").rpartition("/")
    return Grpc(service, method, status, requests, responses)


def refused_record(call: Call, now: float) -> Record:
    """The record of a request that we have answered ourselves."""
    code = 200 if call.grpc and not call.malformed else call.code
    return Record(call.request, code, now, now, grpc_facts(call, PERMISSION_DENIED))
