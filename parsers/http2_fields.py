"""HTTP/2 header lists (RFC 9113, sections 8.2 and 8.3) to typed, frozen facts.

Refused in a request: names that are no lower-case token; control characters, and white space around a value; fields
that speak of a connection; TE other than ``trailers``; Expect other than ``100-continue``; pseudo-header fields that
are unknown, doubled, missing, or behind other fields; a ``:path`` that is neither ``/...`` nor ``*`` of OPTIONS, or
that `parsers.uri` refuses; a ``:scheme`` other than http and https; no host, two, or one that differs from
``:authority``; Content-Length that is repeated or no plain number; names that become a framing field, or one that
rules look at, once ``_`` is read as ``-``; CONNECT.

Responses are held to the same, but white space around values: servers do send it, and clients take it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from parsers import uri
from parsers.facts import HttpRequest
from parsers.http1 import METHOD, TARGET, Refused, content_length, one_host
from parsers.http1_fields import FOLD, watched_names
from parsers.options import HttpOptions

Pairs: TypeAlias = Sequence[tuple[bytes, bytes]]
"""(name, value) of each field in order, pseudo-header fields first."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_METHOD, _TARGET = re.compile(METHOD), re.compile(TARGET)
STATUS = re.compile(rb"[1-5][0-9][0-9]")
"""A value of :status."""
_GRPC = re.compile(rb"application/grpc[ \t]*(?:[+;].*)?", re.IGNORECASE)
_GRPC_STATUS = re.compile(rb"[0-9]{1,9}")
_OF_REQUEST = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_OF_RESPONSE = frozenset((b":status",))
_OF_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The facts of a request.

    `target` is ``:path`` as sent, `path` its normal form with query (`parsers.uri`), `host` is ``:authority`` or
    ``host`` as sent; all decoded as latin-1. `length` of the body in bytes, if it is said, or -1. `grpc`: the body is
    of type application/grpc.
    """

    method: str
    target: str
    path: str
    host: str
    length: int
    grpc: bool


@dataclass(frozen=True, slots=True)
class ResponseFacts:
    """The facts of a response: status, grpc-status, and length of the body in bytes; -1 for what is not said."""

    code: int
    grpc_status: int
    length: int


def request_facts(fields: Pairs, options: HttpOptions, watched: frozenset[str]) -> RequestFacts:
    """A request's fields. `watched` are the lower-case names that rules look at. Raises Refused."""
    pseudo, others = _split(fields, _OF_REQUEST)
    if len(others) > options.max_headers:
        raise Refused(431, f"more than {options.max_headers} header fields")
    _check_request(others, watched_names(watched))
    method, target = _method_and_target(pseudo)
    length = _length(others)
    if method in (b"GET", b"HEAD") and length > 0 and options.refuse_get_body:
        raise Refused(400, f"a body on {method.decode()} (refuse_get_body)")
    try:
        path = uri.normal(target, options)
    except uri.BadTarget as error:
        raise Refused(400, str(error)) from None
    host = _host(pseudo.get(b":authority"), _values(others, b"host"))
    grpc = any(_GRPC.fullmatch(value) for value in _values(others, b"content-type"))
    return RequestFacts(method.decode(), target.decode("latin-1"), path.decode("latin-1"), host.decode(), length, grpc)


def response_facts(fields: Pairs) -> ResponseFacts:
    """A response's fields, also those of an interim response or a gRPC trailers-only one. Raises Refused (502)."""
    try:
        pseudo, others = _split(fields, _OF_RESPONSE)
        status = pseudo.get(b":status", b"")
        if STATUS.fullmatch(status) is None or status == b"101":
            raise Refused(502, f":status is {_show(status)}")
        return ResponseFacts(int(status), _grpc_status(others), _length(others))
    except Refused as error:
        raise Refused(502, f"malformed response: {error.reason}") from None


def trailer_facts(fields: Pairs, watched: frozenset[str], *, request: bool) -> int:
    """The grpc-status that trailers hold, or -1. Raises Refused (502 for those of a response).

    Framing fields and `watched` ones may not stand in a request's: some servers take trailers for header fields.
    """
    try:
        _, others = _split(fields, frozenset())
        if request:
            names = watched_names(watched)
            for name, value in others:
                _check_padding(name, value)
                if name.translate(FOLD) in names:
                    raise Refused(400, f"the trailer {_show(name)} would be a header")
        return _grpc_status(others)
    except Refused as error:
        if request:
            raise
        raise Refused(502, f"malformed trailers of a response: {error.reason}") from None


def header_pairs(fields: Pairs) -> tuple[tuple[str, str], ...]:
    """All fields of a request that was taken, as rules and HTTP/1.1 have them: (name, value), no pseudo-header field.

    ``:authority`` is a ``host``, if there is no other, and the pieces of a cookie are one (section 8.2.3).
    """
    authority = next((value for name, value in fields if name == b":authority"), None)
    others = [(name, value) for name, value in fields if name[:1] != b":"]
    if authority is not None and not _values(others, b"host"):
        others.insert(0, (b"host", authority))
    cookies = _values(others, b"cookie")
    if len(cookies) > 1:
        first = next(index for index, (name, _) in enumerate(others) if name == b"cookie")
        others[first] = (b"cookie", b"; ".join(cookies))
        others = [pair for index, pair in enumerate(others) if index <= first or pair[0] != b"cookie"]
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in others)


def plain_request(facts: RequestFacts, fields: Pairs) -> HttpRequest:
    """The request as a policy sees it."""
    return HttpRequest(
        facts.method,
        facts.path,
        facts.host,
        header_source=partial(header_pairs, fields),
        target=facts.target,
        protocol="HTTP/2",
    )


def _split(fields: Pairs, known: frozenset[bytes]) -> tuple[dict[bytes, bytes], Pairs]:
    """(pseudo-header fields, the others), if each is well-formed and none speaks of a connection."""
    pseudo: dict[bytes, bytes] = {}
    for position, (name, value) in enumerate(fields):
        if name[:1] == b":":
            if name not in known or name in pseudo or position > len(pseudo):
                wrong = "unknown" if name not in known else "doubled" if name in pseudo else "misplaced"
                raise Refused(400, f"the pseudo-header field {_show(name)} is {wrong}")
            pseudo[name] = value
        elif _NAME.fullmatch(name) is None:
            raise Refused(400, f"no header can be named {_show(name)}")
        elif name in _OF_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            raise Refused(400, f"the header {name.decode()} has no place in HTTP/2")
        if _CONTROL.search(value) is not None:
            raise Refused(400, f"a control character in {_show(name)}")
    return pseudo, fields[len(pseudo) :]


def _check_request(others: Pairs, names: Mapping[bytes, bytes]) -> None:
    """What a request's fields are held to besides: no spare white space, and no odd spelling of one of `names`."""
    for name, value in others:
        _check_padding(name, value)
        known = names.get(name.translate(FOLD))
        if known is not None and name != known:
            raise Refused(400, f"header {_show(name)} may be read as {known.decode('latin-1')!r}")
        if name == b"expect" and value.lower() != b"100-continue":
            raise Refused(417, "Expect other than 100-continue")


def _check_padding(name: bytes, value: bytes) -> None:
    if value[:1] in (b" ", b"\t") or value[-1:] in (b" ", b"\t"):
        raise Refused(400, f"white space around the value of {_show(name)}")


def _method_and_target(pseudo: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    method, scheme, target = (pseudo.get(name) for name in (b":method", b":scheme", b":path"))
    if method == b"CONNECT":
        raise Refused(403, "CONNECT: nothing behind it could be judged")
    if method is None or scheme is None or target is None or b":protocol" in pseudo:
        raise Refused(400, "a request needs :method, :scheme and :path, and has no :protocol")
    if _METHOD.fullmatch(method) is None:
        raise Refused(400, f":method is {_show(method)}")
    if scheme not in (b"http", b"https"):
        raise Refused(400, f":scheme is {_show(scheme)}")
    rooted = target[:1] == b"/" or (target == b"*" and method == b"OPTIONS")
    if not rooted or _TARGET.fullmatch(target) is None:
        raise Refused(400, f":path is {_show(target)}")
    return method, target


def _host(authority: bytes | None, hosts: list[bytes]) -> bytes:
    host = one_host(hosts, authority)
    if not host:
        raise Refused(400, "neither :authority nor host")
    return host


def _length(others: Pairs) -> int:
    values = _values(others, b"content-length")
    return content_length(values) if values else -1


def _grpc_status(others: Pairs) -> int:
    """-1 also for what is no number: nobody can say what it means."""
    values = _values(others, b"grpc-status")
    return int(values[0]) if values and _GRPC_STATUS.fullmatch(values[0]) else -1


def _values(others: Pairs, wanted: bytes) -> list[bytes]:
    return [value for name, value in others if name == wanted]


def _show(text: bytes) -> str:
    return repr(text[:_SHOWN].decode("latin-1"))
