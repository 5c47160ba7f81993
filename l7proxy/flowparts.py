"""Parts of flow records: what does not change between equal requests with equal answers, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii  # the C one: JSON of a str, ASCII only
from typing import TypeAlias

from l7proxy.config import FlowLogConfig
from l7proxy.dropreasons import INVALID_PACKET, POLICY_DENIED, POLICY_DENY
from l7proxy.ops import Request
from policies.verdict import L7Decision, RuleRef, Verdict

REDACTED = "HUBBLE_REDACTED"
"""What Hubble writes in place of a secret."""
ALWAYS_REDACTED = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
MAX_TEXT = 2048
"""Characters of a URL, a header value or a reason that go into a record: a peer must not fill the disk by itself."""
SHORT = 256
"""Likewise, of what is no longer than that if nobody is up to something."""
_SHORT_URL, _ALL_HEADERS, _ALL_NAMES = 512, 24 << 10, 8 << 10
_USERINFO = re.compile(r"^([a-z][a-z0-9+.-]*://)?[^/?#]*@", re.IGNORECASE)

Parts: TypeAlias = tuple[str, str]
"""The text behind the latency, and that behind the summary's ms."""
EXTENSION, END_OF_OWN = '"extensions":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"l7proxy":{', "}}}"
"""Before and behind our own words."""


def quote(text: str, limit: int = MAX_TEXT) -> str:
    """A JSON string: valid and plain ASCII whatever a peer sent, and cut at `limit` characters."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # lone surrogates are no text
    return encode_basestring_ascii(text)


class Redaction:
    """What must not get into a record: query strings if so configured, secret headers, and user names in URLs."""

    def __init__(self, config: FlowLogConfig) -> None:
        self._query = config.redact.query
        self._secret = ALWAYS_REDACTED | {name.lower() for name in config.redact.headers}

    def url(self, request: Request) -> str:
        """The absolute URL of a request, where it has a host and a path."""
        target = self._cut(request.url)
        if target.startswith("/") and request.host:
            target = f"http://{request.host}{target}"
        return _USERINFO.sub(lambda match: f"{match[1] or ''}{REDACTED}@", target)

    def headers(self, request: Request) -> list[tuple[str, str]]:
        """Names and values to record."""
        return [(name, self._value(name.lower(), value)) for name, value in request.headers]

    def reason(self, request: Request) -> str:
        """The decision's reason, which may quote the target."""
        query = request.url[len(self._cut(request.url)) :]
        return request.decision.reason.replace(query, "") if query else request.decision.reason

    def _value(self, name: str, value: str) -> str:
        if name in self._secret:
            return REDACTED
        return self._cut(value) if name in ("referer", ":path") else value

    def _cut(self, url: str) -> str:
        return url.partition("?")[0].partition("#")[0] if self._query else url


def make_parts(request: Request, code: int, redaction: Redaction, node: str) -> Parts:
    """The parts of the lines of equal requests. `node` is quoted."""
    method, url = quote(request.method, SHORT)[1:-1], quote(redaction.url(request), _SHORT_URL)[1:-1]
    short = f"{method} {url}"
    before, after = (f"{code} ", f"ms ({short})") if code else (f"{short} (no response, ", "ms)")
    protocol = quote(request.protocol, SHORT)[1:-1]
    return f'{exchange(request, code, redaction)}{END_OF_OWN},"Summary":"{protocol} {before}', after + end(node)


def end(node: str) -> str:
    """What stands behind a summary, up to the time. `node` is quoted."""
    return f'"}},"node_name":{node},"time":"'


def exchange(request: Request, code: int, redaction: Redaction) -> str:
    """What a record says behind the latency, up to our own words: more of these may follow, then `END_OF_OWN`."""
    decision = request.decision
    http = [f'"code":{code}'] if code else []
    http += [f'"method":{quote(request.method, SHORT)}', f'"url":{quote(redaction.url(request))}']
    http.append(f'"protocol":{quote(request.protocol, SHORT)}')
    http += [f'"headers":[{_headers(redaction.headers(request))}]'] if request.headers else []
    verdict = verdict_on(decision, redaction.reason(request), read=code in (0, 200, 403))
    return f'{kind(decision, code != 0)},"http":{{{",".join(http)}}}}},{verdict}'


def kind(decision: L7Decision, answered: bool) -> str:
    """What stands behind the latency, whatever the protocol. `answered`: by the server, or whoever was asked."""
    return f'","type":"{"RESPONSE" if answered and decision.verdict is not Verdict.DROPPED else "REQUEST"}"'


def verdict_on(decision: L7Decision, reason: str, *, read: bool) -> str:
    """What stands behind the facts of a protocol, up to our own words. `read`: the request was understood, so that a
    refusal is the policy's."""
    cause = _l7_cause(decision, read) if decision.verdict is Verdict.DROPPED else ""
    return cause + judged(decision.verdict, decision.direction, decision.rule, reason)


def fitting(texts: Iterable[str]) -> list[str]:
    """Those names at the front that fit into a record."""
    shown: list[str] = []
    room = _ALL_NAMES
    for text in texts:
        room -= len(text)
        if room < 0:
            break
        shown.append(text)
    return shown


def _headers(headers: list[tuple[str, str]]) -> str:
    """The headers that fit; one more, with an empty name, says how many did not."""
    shown: list[str] = []
    room = _ALL_HEADERS
    for count, (name, value) in enumerate(headers):
        text = f'{{"key":{quote(name, SHORT)},"value":{quote(value)}}}'
        room -= len(text)
        if room < 0:
            shown.append(f'{{"key":"","value":"{len(headers) - count} more"}}')
            break
        shown.append(text)
    return ",".join(shown)


def _l7_cause(decision: L7Decision, read: bool) -> str:
    reason = POLICY_DENY if decision.rule else POLICY_DENIED if read else INVALID_PACKET
    return f'"drop_reason":{reason[0]},"drop_reason_desc":"{reason[1]}",'


def judged(verdict: Verdict, direction: str, rule: RuleRef | None, reason: str) -> str:
    """The verdict, the policy that gave it, and our own words on it: more of these may follow, then `END_OF_OWN`."""
    own = [f'"reason":{quote(reason)}']
    parts = [f'"verdict":"{verdict}"', f'"traffic_direction":"{direction.upper()}"']
    if rule is not None:
        own += [f'"policy":{quote(rule.policy)}', f'"rule":{quote(rule.rule)}']
        own += [f'"file":{quote(rule.file)}', f'"line":{rule.line}']
        result = "allowed" if verdict is Verdict.FORWARDED else "denied"
        parts.append(f'"{direction}_{result}_by":[{_policy(rule.policy)}]')
    return f"{','.join(parts)},{EXTENSION}{','.join(own)}"


def _policy(full: str) -> str:
    namespace, slash, name = full.rpartition("/")
    kind = "CiliumNetworkPolicy" if slash else "CiliumClusterwideNetworkPolicy"
    where = f'"namespace":{quote(namespace)},' if slash else ""
    return f'{{"name":{quote(name)},{where}"kind":"{kind}"}}'
