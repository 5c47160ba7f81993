"""HTTP/1.1 heads (RFC 9112) to typed, frozen facts. What two readers could take in two ways is refused, not repaired.

Refused in a request: a bare CR or LF, NUL and other control characters, folded lines, white space before a colon,
names that are no token; Content-Length that is repeated, signed, a list, or over 18 digits; Transfer-Encoding other
than one ``chunked``, with a Content-Length, or in HTTP/1.0; no Host, two, or one that differs from the target's;
names that become a framing field, or one that rules look at, once ``_`` is read as ``-``; a Connection that names
such a field; Upgrade to anything but ``websocket`` or ``h2c``; CONNECT; Expect other than ``100-continue``.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from parsers import uri
from parsers.http1_fields import BARE_LF, EACH_FIELD, FIELDS, FOLD, FRAMING, watched_names
from parsers.http2 import settings as check_settings
from parsers.options import HttpOptions

CHUNKED, UNTIL_END = -1, -2
"""Body lengths that are no number: chunks, and all until the server ends the connection."""
END = b"\r\n\r\n"
METHOD, TARGET = rb"[A-Z][A-Z0-9_-]{0,31}", rb"[\x21-\x7e\x80-\xff]+"
"""Regular expressions of what is taken for a method, and for a target before `parsers.uri` has a look at it."""

_REQUEST_LINE = re.compile(rb"(" + METHOD + rb") (" + TARGET + rb") HTTP/1\.([01])\r\n")
_OTHER_VERSION = re.compile(rb"[A-Z]+ [\x21-\x7e]+ HTTP/(?!1\.[01]\r)[0-9](?:\.[0-9])?\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00\r\n]*+)?\r\n")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")
_CODINGS = re.compile(rb"(?:(?:x-)?(?:gzip|compress)[ \t]*,[ \t]*|deflate[ \t]*,[ \t]*)*chunked")
_END_TO_END = FRAMING - {b"connection", b"upgrade", b"expect", b"http2-settings"}
_BODILESS = frozenset((204, 304))


class Refused(ValueError):
    """A head that is not passed: the status it is answered with, and a sentence that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The facts of a request's head.

    `target` as sent, `path` its normal form with query (`parsers.uri`), `host` as sent; all decoded as latin-1.
    `length` of the body in bytes, or CHUNKED. `last`: the client says that nothing follows. `websocket`: it asks for
    that upgrade. `waits`: it may wait for ``100 Continue`` before it sends the body. `h2c`: it asks to go on in HTTP/2
    with these SETTINGS (RFC 7540, section 3.2), or None.
    """

    method: str
    target: str
    path: str
    host: str
    protocol: str
    length: int
    last: bool
    websocket: bool
    waits: bool
    h2c: bytes | None = None


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The facts of a response's head. `length` is that of a body if one follows: bytes, CHUNKED or UNTIL_END."""

    code: int
    length: int
    websocket: bool
    h2c: bool = False

    def body(self, to_head: bool) -> int:
        """The body's length in answer to HEAD, or to another method (RFC 9112, section 6.3)."""
        return 0 if to_head or self.code in _BODILESS else self.length


def find_head(data: bytes, start: int, searched: int, options: HttpOptions) -> int:
    """Where the head that begins at `start` ends, or 0 if more has to come. Raises Refused.

    Up to `searched` none ends. The same bytes are refused for the same reason whether they come at once or one by one.
    """
    if not 65 <= data[start] <= 90:
        raise Refused(400, f"a request cannot begin with byte 0x{data[start]:02x}")
    limit = start + options.max_head
    end = data.find(END, max(start, searched - 3)) + 4
    complete = 3 < end <= limit
    bare = BARE_LF.search(data, max(start, searched - 1), end if complete else limit)
    if bare is not None:
        raise Refused(400, f"a bare LF at byte {bare.start() - start} of the head")
    if not complete and (end > 3 or len(data) > limit):
        raise Refused(431, f"the head is longer than {options.max_head} bytes")
    return end if complete else 0


def request_line(head: bytes) -> tuple[str, str]:
    """(method, target) as sent, for the log; empty if there is no telling."""
    line = _REQUEST_LINE.match(head)
    return (line[1].decode(), line[2].decode("latin-1")) if line is not None else ("", "")


def parse_request(head: bytes, options: HttpOptions, watched: frozenset[str] = frozenset()) -> RequestHead:
    """A request's head, blank line included. `watched` are the lower-case names that rules look at. Raises Refused."""
    line = _REQUEST_LINE.match(head)
    if line is None:
        if _OTHER_VERSION.match(head) is not None:
            raise Refused(505, "the version is neither HTTP/1.0 nor HTTP/1.1")
        raise Refused(400, "the request line is not METHOD target HTTP/1.1")
    method, target, minor = line.groups()
    fields = _fields(head, line.end(), options.max_headers, watched_names(watched))
    old = minor == b"0"
    length = _request_length(fields, old)
    authority, path = _target(method, target, options)
    hosts = fields.get(b"host", [])
    if not hosts and not old:
        raise Refused(400, "no Host")
    host = one_host(hosts, authority)
    tokens = _connection(fields, watched)
    if method in (b"GET", b"HEAD") and length and options.refuse_get_body:
        raise Refused(400, f"a body on {method.decode()} (refuse_get_body)")
    h2c = _h2c(fields, tokens, plain=not old and length == 0)
    websocket = h2c is None and _upgrade(fields, tokens, plain=method == b"GET" and not old and length == 0)
    return RequestHead(
        method=method.decode(),
        target=target.decode("latin-1"),
        path=path.decode("latin-1"),
        host=host.decode(),
        protocol="HTTP/1.0" if old else "HTTP/1.1",
        length=length,
        last=b"close" in tokens or (old and b"keep-alive" not in tokens),
        websocket=websocket,
        waits=_expect(fields),
        h2c=h2c,
    )


def headers(head: bytes) -> tuple[tuple[str, str], ...]:
    """All fields of a head that was parsed: (lower-case name, value)."""
    found = EACH_FIELD.findall(head, head.find(b"\n") + 1)
    return tuple((name.decode().lower(), value.rstrip(b" \t").decode("latin-1")) for name, value in found)


Fields = dict[bytes, list[bytes]]
"""The values of the fields that are looked at, by their lower-case name."""


def _fields(head: bytes, start: int, most: int, names: Mapping[bytes, bytes]) -> Fields:
    """The fields named in `names`. All lines are checked, and none may be an odd spelling of such a name."""
    stop = FIELDS.match(head, start)
    end = stop.end() if stop is not None else start
    if end != len(head) - 2:
        raise Refused(400, f"no header line at byte {end} of the head")
    every = EACH_FIELD.findall(head, start)
    if len(every) > most:
        raise Refused(431, f"more than {most} header fields")
    found: Fields = {}
    for name, value in every:
        known = names.get(name.translate(FOLD))
        if known is not None:
            if name.lower() != known:
                raise Refused(400, f"header {name.decode()!r} may be read as {known.decode('latin-1')!r}")
            if known in _END_TO_END and value[-1:] in (b" ", b"\t"):
                raise Refused(400, f"white space behind the value of {name.decode()}")
            found.setdefault(known, []).append(value.rstrip(b" \t"))
    return found


def _request_length(fields: Fields, old: bool) -> int:
    lengths, codings = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None:
            raise Refused(400, "Content-Length with Transfer-Encoding")
        if old:
            raise Refused(400, "Transfer-Encoding in HTTP/1.0")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise Refused(400, "a Transfer-Encoding other than chunked")
        return CHUNKED
    return 0 if lengths is None else content_length(lengths)


def content_length(values: list[bytes]) -> int:
    """What all Content-Length fields of a message say together. Raises Refused."""
    if len(values) != 1:
        raise Refused(400, "more than one Content-Length")
    if _LENGTH.fullmatch(values[0]) is None:
        raise Refused(400, "a Content-Length that is no plain number below 10^18")
    return int(values[0])


def _target(method: bytes, target: bytes, options: HttpOptions) -> tuple[bytes | None, bytes]:
    if method == b"CONNECT":
        raise Refused(403, "CONNECT: nothing behind it could be judged")
    try:
        authority, path = uri.split(target, method)
        return authority, uri.normal(path, options)
    except uri.BadTarget as error:
        raise Refused(400, str(error)) from None


def one_host(hosts: list[bytes], authority: bytes | None) -> bytes:
    """The host that all Host fields and the target's authority, if it has one, agree on. Raises Refused."""
    if len(hosts) > 1:
        raise Refused(400, "more than one Host")
    host = hosts[0] if hosts else authority or b""
    if host and uri.HOST.fullmatch(host) is None:
        raise Refused(400, "a Host that is no plain name or address")
    if authority is not None and authority.lower() != host.lower():
        raise Refused(400, "a Host that differs from the target's")
    return host


def _connection(fields: Fields, watched: frozenset[str]) -> set[bytes]:
    """The options of Connection, lower case. None may take away a field that counts (RFC 9110, section 7.6.1)."""
    if b"connection" not in fields:
        return set()
    tokens = {token.strip(b" \t").lower() for value in fields[b"connection"] for token in value.split(b",")}
    for token in tokens:
        if token in _END_TO_END or token.decode("latin-1") in watched:
            raise Refused(400, f"Connection names the header {token.decode('latin-1')!r}")
    return tokens


def _upgrade(fields: Fields, tokens: set[bytes], *, plain: bool) -> bool:
    """True for a proper request to speak WebSocket. `plain`: a GET of HTTP/1.1 without a body."""
    if b"upgrade" not in fields:
        return False
    if [value.lower() for value in fields[b"upgrade"]] != [b"websocket"]:
        raise Refused(403, "Upgrade to another protocol than websocket: nothing behind it could be judged")
    if b"upgrade" not in tokens or not plain:
        raise Refused(400, "Upgrade to websocket takes a GET of HTTP/1.1, Connection: Upgrade, and no body")
    return True


def _h2c(fields: Fields, tokens: set[bytes], *, plain: bool) -> bytes | None:
    """The SETTINGS of a proper request to go on in HTTP/2. `plain`: one of HTTP/1.1 without a body."""
    if [value.lower() for value in fields.get(b"upgrade", [])] != [b"h2c"]:
        return None
    values = fields.get(b"http2-settings", [])
    if not plain or not {b"upgrade", b"http2-settings"} <= tokens or len(values) != 1:
        raise Refused(403, "Upgrade to h2c takes HTTP/1.1, Connection: Upgrade, HTTP2-Settings, and no body")
    try:
        payload = b64decode(values[0] + b"=" * (-len(values[0]) % 4), b"-_", validate=True)
        check_settings(payload)
    except ValueError as error:
        raise Refused(400, f"HTTP2-Settings: {error}") from None
    return payload


def _expect(fields: Fields) -> bool:
    if b"expect" not in fields:
        return False
    if [value.lower() for value in fields[b"expect"]] != [b"100-continue"]:
        raise Refused(417, "Expect other than 100-continue")
    return True


_RESPONSE_NAMES = {name: name for name in (b"content-length", b"transfer-encoding", b"upgrade")}


def parse_response(head: bytes, most: int) -> ResponseHead:
    """A response's head, blank line included, of at most `most` fields. Raises Refused (502)."""
    line = _STATUS_LINE.match(head)
    if line is None:
        raise Refused(502, "the server's status line is malformed")
    try:
        fields = _fields(head, line.end(), most, _RESPONSE_NAMES)
        length = _response_length(fields, old=line[1] == b"0")
    except Refused as error:
        raise Refused(502, f"malformed response: {error.reason}") from None
    upgrade = [value.lower() for value in fields.get(b"upgrade", ())]
    return ResponseHead(int(line[2]), length, upgrade == [b"websocket"], upgrade == [b"h2c"])


cached_response = lru_cache(maxsize=1024)(parse_response)
"""`parse_response` with a memory: a busy server's heads are alike within each second. For short heads only."""


def _response_length(fields: Fields, *, old: bool) -> int:
    lengths, codings = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if codings is None:
        return UNTIL_END if lengths is None else content_length(lengths)
    if lengths is not None or old:
        raise Refused(502, "Transfer-Encoding with Content-Length or in HTTP/1.0")
    if len(codings) != 1 or _CODINGS.fullmatch(codings[0].lower()) is None:
        raise Refused(502, "a Transfer-Encoding that does not end in chunked")
    return CHUNKED


def answer(status: int, text: str, *, last: bool, to_head: bool = False) -> bytes:
    """A response of our own with a plain text. `last`: it says that the connection ends behind it."""
    body = b"" if not text else text.encode() + b"\r\n"
    sizes = f"Content-Length: {len(body)}\r\nContent-Type: {plain_type(text)}\r\n"
    head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\n{sizes}"
    return head.encode() + (b"Connection: close\r\n\r\n" if last else b"\r\n") + (b"" if to_head else body)


def plain_type(text: str) -> str:
    """The Content-Type of a plain text."""
    return "text/plain" if text.isascii() else "text/plain; charset=utf-8"


_PHRASES = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
