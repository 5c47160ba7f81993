"""Flow records in Hubble's JSON, as ``hubble observe -o json`` prints them.

Names and enums are those of Cilium's ``api/v1/flow/flow.proto`` (a `Flow` inside ``observer.GetFlowsResponse``), in
the form of protojson with proto names: 64-bit numbers are strings, empty fields are left out.

One record stands for a whole exchange. It keeps the request's direction (`source` is the client, ``is_reply`` is
false) and has ``l7.type`` RESPONSE, with code and latency, if the server answered, else REQUEST.

What Hubble has no field for (rule, file, line, reason) is in ``extensions``, the Any that flow.proto keeps for such
additions, as a google.protobuf.Struct, which protojson readers can resolve.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii  # the C one: JSON of a str, ASCII only
from typing import TypeAlias

from l7proxy.config import FlowLogConfig
from l7proxy.dropreasons import INVALID_PACKET, POLICY_DENIED, POLICY_DENY, hubble_reason
from l7proxy.ops import Record
from policies.identity import Identity
from policies.verdict import L7Decision, RuleRef, Verdict
from sockmap.events import Event

REDACTED = "HUBBLE_REDACTED"
"""What Hubble writes in place of a secret."""
ALWAYS_REDACTED = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
MAX_TEXT = 2048
"""Characters of a URL, a header value or a reason that go into a record: a peer must not fill the disk by itself."""
MAX_LINE = 1 << 16
"""Bytes that no line exceeds (unless an endpoint has hundreds of labels): the hubble command reads no longer ones."""
_SHORT, _ALL_HEADERS = 256, 24 << 10
_CACHED, _CACHED_TEXT = 4096, 512
_USERINFO = re.compile(r"^([a-z][a-z0-9+.-]*://)?[^/?#]*@", re.IGNORECASE)
_LAYER4 = {6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMPv4", 58: "ICMPv6"}
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


Party: TypeAlias = tuple[Identity, int, str]
"""One end of a flow: its identity, and the id and name of its endpoint on this node (0 and "" if it has none)."""


def quote(text: str, limit: int = MAX_TEXT) -> str:
    """A JSON string: valid and plain ASCII whatever a peer sent, and cut at `limit` characters."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # lone surrogates are no text
    return encode_basestring_ascii(text)


def timestamp(wall_time: float) -> str:
    """Seconds since the epoch as protojson writes a Timestamp (UTC, microseconds)."""
    second, micros = divmod(int(wall_time * 1e6), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{micros:06d}Z"


def lost_line(node_name: str, count: int, wall_time: float) -> bytes:
    """The line that says how many records are missing in this place."""
    lost = f'{{"source":"OBSERVER_EVENTS_QUEUE","num_events_lost":"{count}"}}'
    line = f'{{"lost_events":{lost},"node_name":{quote(node_name)},"time":"{timestamp(wall_time)}"}}\n'
    return line.encode("ascii")


class FlowEncoder:
    """Makes JSON lines. It remembers the parts of them that come again, so make a new one for each new policy."""

    def __init__(self, node_name: str, config: FlowLogConfig | None = None) -> None:
        config = config or FlowLogConfig()
        self.node = quote(node_name)
        self._redaction = Redaction(config)
        self._parts: dict[tuple[object, ...], _Parts] = {}
        self._second, self._prefix = -1, ""

    def connection(
        self, source: Party, destination: Party, client: tuple[str, int], server: tuple[str, int]
    ) -> ConnectionEncoder:
        """The encoder of one connection's requests. `client` and `server` are (address, port)."""
        layer4 = f'"TCP":{{"source_port":{client[1]},"destination_port":{server[1]}}}'
        ends = _ends(client[0], server[0], layer4, source, destination)
        fixed = f'{ends},"Type":"L7","node_name":{self.node},"event_type":{{"type":129}},"is_reply":false'
        return ConnectionEncoder(self, fixed)

    def drop(
        self,
        event: Event,
        identities: Mapping[int, Identity],
        names: Mapping[int, str],
        wall_time: float,
        rule: RuleRef | None = None,
    ) -> bytes:
        """The line of a packet that the datapath dropped, or would drop but for audit mode.

        `identities` and `names` (of endpoints, by id) are the node's; `rule` is the one that denied, if one did.
        """
        stamp, audit = self.stamp(wall_time), event.kind == "audit"
        number, name = hubble_reason(event.reason, rule is not None)
        direction = "egress" if event.direction else "ingress"
        verdict = Verdict.AUDIT if audit else Verdict.DROPPED
        cause = f'"drop_reason":{number},"drop_reason_desc":"{name}","event_type":{{"type":1,"sub_type":{number}}}'
        flow = (
            f'"time":"{stamp}",{_packet_ends(event, identities, names)},"Type":"L3_L4",'
            f'"node_name":{self.node},{_FROM_POLICY if audit else cause},'
            f'{_judged(verdict, direction, rule, event.reason)},"Summary":{_packet_summary(event)}'
        )
        return f'{{"flow":{{{flow}}},"node_name":{self.node},"time":"{stamp}"}}\n'.encode("ascii")

    def stamp(self, wall_time: float) -> str:
        """`timestamp`, with the text of the current second remembered."""
        second, micros = divmod(int(wall_time * 1e6), 1_000_000)
        if second != self._second:
            self._second, self._prefix = second, timestamp(second)[:20]
        return f"{self._prefix}{micros:06d}Z"

    def parts(self, record: Record) -> _Parts:
        """The parts of a record's line that do not change between equal requests with equal answers."""
        decision = record.decision
        # By the decision's identity: its own hash and comparison would cost more than the rest of the line.
        key = (id(decision), record.code, record.method, record.url, record.host, record.protocol)
        found = self._parts.get(key)
        if found is not None and found[0] is decision and not record.headers:
            return found
        made = _make_parts(record, self._redaction, self.node)
        if not record.headers and len(record.url) + len(record.host) + len(record.method) <= _CACHED_TEXT:
            if len(self._parts) >= _CACHED:
                self._parts.clear()
            self._parts[key] = made
        return made


class ConnectionEncoder:
    """Makes the lines of one connection's requests; what they have in common is made once."""

    __slots__ = ("_encoder", "_fixed")

    def __init__(self, encoder: FlowEncoder, fixed: str) -> None:
        self._encoder, self._fixed = encoder, fixed

    def l7(self, record: Record, wall_time: float) -> bytes:
        """One line, newline included. `wall_time` is when the exchange ended, in seconds since the epoch."""
        encoder = self._encoder
        stamp = encoder.stamp(wall_time)
        _, behind_latency, behind_millis = encoder.parts(record)
        latency = int((record.ended - record.started) * 1e9)
        if latency < 0:
            latency = 0
        return (
            f'{{"flow":{{"time":"{stamp}",{self._fixed},"l7":{{"latency_ns":"{latency}'
            f'{behind_latency}{latency // 1_000_000}{behind_millis}{stamp}"}}\n'
        ).encode("ascii")


class Redaction:
    """What must not get into a record: query strings if so configured, secret headers, and user names in URLs."""

    def __init__(self, config: FlowLogConfig) -> None:
        self._query = config.redact.query
        self._secret = ALWAYS_REDACTED | {name.lower() for name in config.redact.headers}

    def url(self, record: Record) -> str:
        """The absolute URL of a request, where it has a host and a path."""
        target = self._cut(record.url)
        if target.startswith("/") and record.host:
            target = f"http://{record.host}{target}"
        return _USERINFO.sub(lambda match: f"{match[1] or ''}{REDACTED}@", target)

    def headers(self, record: Record) -> list[tuple[str, str]]:
        """Names and values to record."""
        return [(name, self._value(name.lower(), value)) for name, value in record.headers]

    def reason(self, record: Record) -> str:
        """The decision's reason, which may quote the target."""
        query = record.url[len(self._cut(record.url)) :]
        return record.decision.reason.replace(query, "") if query else record.decision.reason

    def _value(self, name: str, value: str) -> str:
        if name in self._secret:
            return REDACTED
        return self._cut(value) if name in ("referer", ":path") else value

    def _cut(self, url: str) -> str:
        return url.partition("?")[0].partition("#")[0] if self._query else url


_Parts: TypeAlias = tuple[L7Decision, str, str]
"""The decision (kept, so that its id stays its own), the text behind the latency, and that behind the summary's ms."""

_FROM_POLICY = '"event_type":{"type":5}'
"""Cilium's MessageTypePolicyVerdict; 1 is a drop, 129 an access log record (``pkg/monitor/api``)."""


def _make_parts(record: Record, redaction: Redaction, node: str) -> _Parts:
    decision, code = record.decision, record.code
    url, method, protocol = redaction.url(record), quote(record.method, _SHORT), quote(record.protocol, _SHORT)
    http = [f'"code":{code}'] if code else []
    http += [f'"method":{method}', f'"url":{quote(url)}', f'"protocol":{protocol}']
    http += [f'"headers":[{_headers(redaction.headers(record))}]'] if record.headers else []
    dropped = decision.verdict is Verdict.DROPPED
    kind = "RESPONSE" if code and not dropped else "REQUEST"
    cause = _l7_cause(decision, code) if dropped else ""
    judged = _judged(decision.verdict, decision.direction, decision.rule, redaction.reason(record))
    short = f"{method[1:-1]} {quote(url, _CACHED_TEXT)[1:-1]}"
    before, after = (f"{code} ", f"ms ({short})") if code else (f"{short} (no response, ", "ms)")
    end = f'"}},"node_name":{node},"time":"'
    first = f'","type":"{kind}","http":{{{",".join(http)}}}}},{cause}{judged},"Summary":"{protocol[1:-1]} {before}'
    return decision, first, after + end


def _headers(headers: list[tuple[str, str]]) -> str:
    """The headers that fit; one more, with an empty name, says how many did not."""
    shown: list[str] = []
    room = _ALL_HEADERS
    for count, (name, value) in enumerate(headers):
        text = f'{{"key":{quote(name, _SHORT)},"value":{quote(value)}}}'
        room -= len(text)
        if room < 0:
            shown.append(f'{{"key":"","value":"{len(headers) - count} more"}}')
            break
        shown.append(text)
    return ",".join(shown)


def _l7_cause(decision: L7Decision, code: int) -> str:
    reason = POLICY_DENY if decision.rule else POLICY_DENIED if code in (0, 403) else INVALID_PACKET
    return f'"drop_reason":{reason[0]},"drop_reason_desc":"{reason[1]}",'


def _judged(verdict: Verdict, direction: str, rule: RuleRef | None, reason: str) -> str:
    """The verdict, the policy that gave it, and our own words on it."""
    own = [f'"reason":{quote(reason)}']
    parts = [f'"verdict":"{verdict}"', f'"traffic_direction":"{direction.upper()}"']
    if rule is not None:
        own += [f'"policy":{quote(rule.policy)}', f'"rule":{quote(rule.rule)}']
        own += [f'"file":{quote(rule.file)}', f'"line":{rule.line}']
        result = "allowed" if verdict is Verdict.FORWARDED else "denied"
        parts.append(f'"{direction}_{result}_by":[{_policy(rule.policy)}]')
    extension = '"extensions":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"l7proxy":{'
    return ",".join(parts) + f",{extension}{','.join(own)}}}}}}}"


def _policy(full: str) -> str:
    namespace, slash, name = full.rpartition("/")
    kind = "CiliumNetworkPolicy" if slash else "CiliumClusterwideNetworkPolicy"
    where = f'"namespace":{quote(namespace)},' if slash else ""
    return f'{{"name":{quote(name)},{where}"kind":"{kind}"}}'


def _ends(source: str, destination: str, layer4: str, first: Party, second: Party) -> str:
    version = "IPv6" if ":" in source else "IPv4"
    addresses = f'"source":{quote(source)},"destination":{quote(destination)},"ipVersion":"{version}"'
    l4 = f'"l4":{{{layer4}}},' if layer4 else ""
    return f'"IP":{{{addresses}}},{l4}"source":{_party(first)},"destination":{_party(second)}'


def _party(party: Party) -> str:
    identity, endpoint, name = party
    fields = [f'"ID":{endpoint}'] if endpoint else []
    fields += [f'"identity":{identity.number}'] if identity.number else []
    fields += [f'"namespace":{quote(identity.namespace)}'] if identity.namespace else []
    fields.append(f'"labels":[{",".join(map(quote, identity.label_list()))}]')
    fields += [f'"pod_name":{quote(name)}'] if name else []
    return f"{{{','.join(fields)}}}"


def _packet_ends(event: Event, identities: Mapping[int, Identity], names: Mapping[int, str]) -> str:
    nobody = (0, "")
    here = (event.endpoint_id, names.get(event.endpoint_id, ""))
    first, second = (here, nobody) if event.direction else (nobody, here)
    source = identities.get(event.src_identity) or Identity(event.src_identity, {})
    destination = identities.get(event.dst_identity) or Identity(event.dst_identity, {})
    return _ends(event.src, event.dst, _layer4(event), (source, *first), (destination, *second))


def _layer4(event: Event) -> str:
    """The `Layer4` of a packet; protocols that flow.proto does not know have none."""
    name = _LAYER4.get(event.proto)
    if name is None:
        return ""
    if name.startswith("ICMP"):
        return f'"{name}":{{"type":{event.icmp_type},"code":{event.icmp_code}}}'
    flags = ",".join(f'"{flag}":true' for flag in _flags(event))
    return (
        f'"{name}":{{"source_port":{event.sport},"destination_port":{event.dport}'
        + (f',"flags":{{{flags}}}' if flags else "")
        + "}"
    )


def _flags(event: Event) -> list[str]:
    flags = event.tcp_flags if event.proto == 6 else 0
    return [name for bit, name in enumerate(_FLAGS) if flags & 1 << bit]


def _packet_summary(event: Event) -> str:
    name = _LAYER4.get(event.proto, f"IP protocol {event.proto}")
    flags = _flags(event)
    return quote(f"{name} Flags: {', '.join(flags)}" if flags else name)
