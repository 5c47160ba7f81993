"""Flow records in Hubble's JSON, as ``hubble observe -o json`` prints them.

Names and enums are those of Cilium's ``api/v1/flow/flow.proto`` (a `Flow` inside ``observer.GetFlowsResponse``), in
the form of protojson with proto names: 64-bit numbers are strings, empty fields are left out.

One record stands for a whole exchange. It keeps the request's direction (`source` is the client, ``is_reply`` is
false) and has ``l7.type`` RESPONSE, with code and latency, if the server answered, else REQUEST.

A connection that the kernel may have carried parts of by itself has a record at its end besides, of type L3_L4.

What Hubble has no field for (rule, file, line, reason, the facts of a gRPC call, what a Kafka request names, CQL, how
bytes went) is in ``extensions``, the Any that flow.proto keeps for such additions, as a google.protobuf.Struct, which
protojson readers can resolve.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeAlias, TypeVar

from l7proxy.config import FlowLogConfig
from l7proxy.dropreasons import hubble_reason
from l7proxy.flowcql import CqlParts, make_cql_parts
from l7proxy.flowgrpc import GrpcParts, call_facts, make_grpc_parts, outcome
from l7proxy.flowkafka import KafkaParts, make_kafka_parts
from l7proxy.flowparts import END_OF_OWN, EXTENSION, Parts, Redaction, judged, make_parts, quote
from l7proxy.ops import Carried, CqlCall, CqlStatement, Grpc, KafkaCall, KafkaRequest, Record, Request
from policies.identity import Identity
from policies.verdict import RuleRef, Verdict
from sockmap.events import Event

MAX_LINE = 1 << 16
"""Bytes that no line exceeds (unless an endpoint has hundreds of labels): the hubble command reads no longer ones."""
_CACHED, _CACHED_TEXT = 4096, 2048
_LAYER4 = {6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMPv4", 58: "ICMPv6"}
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


Party: TypeAlias = tuple[Identity, int, str]
"""One end of a flow: its identity, and the id and name of its endpoint on this node (0 and "" if it has none)."""
_Key: TypeAlias = tuple[Request, int]
"""A request, and the status it was answered with."""
_KafkaKey: TypeAlias = tuple[KafkaRequest, int, bool]
"""A request, the error code, and whether the server answered."""
_CqlKey: TypeAlias = tuple[CqlStatement, int, int, bool]
"""A request, the error code, the consistency, and whether the server answered."""


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
        self._parts: dict[_Key, Parts] = {}
        self._grpc_parts: dict[_Key, GrpcParts] = {}
        self._kafka_parts: dict[_KafkaKey, KafkaParts] = {}
        self._cql_parts: dict[_CqlKey, CqlParts] = {}
        self._parties: dict[tuple[int, int, str], str] = {}
        self._second, self._prefix = -1, ""

    def connection(
        self, source: Party, destination: Party, client: tuple[str, int], server: tuple[str, int]
    ) -> ConnectionEncoder:
        """The encoder of one connection's requests. `client` and `server` are (address, port)."""
        layer4 = f'"TCP":{{"source_port":{client[1]},"destination_port":{server[1]}}}'
        ends = _ends(client[0], server[0], layer4, self._known(source), self._known(destination))
        return ConnectionEncoder(self, ends)

    def _known(self, party: Party) -> str:
        """The JSON of one end, made once: a generation's numbers stay those of their identities."""
        key = (party[0].number, *party[1:])
        found = self._parties.get(key)
        if found is None:
            if len(self._parties) >= _CACHED:
                self._parties.clear()
            found = self._parties[key] = _party(party)
        return found

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
            f'"is_reply":{"true" if event.reply else "false"},'
            f'{judged(verdict, direction, rule, event.reason)}{END_OF_OWN},"Summary":{_packet_summary(event)}'
        )
        return f'{{"flow":{{{flow}}},"node_name":{self.node},"time":"{stamp}"}}\n'.encode("ascii")

    def stamp(self, wall_time: float) -> str:
        """`timestamp`, with the text of the current second remembered."""
        second, micros = divmod(int(wall_time * 1e6), 1_000_000)
        if second != self._second:
            self._second, self._prefix = second, timestamp(second)[:20]
        return f"{self._prefix}{micros:06d}Z"

    def parts(self, key: _Key) -> Parts:
        """The parts of a record's line that do not change between equal requests with equal answers."""
        found = self._parts.get(key)
        if found is None:
            found = make_parts(*key, self._redaction, self.node)
            _keep(self._parts, key, found)
        return found

    def grpc_parts(self, key: _Key, call: Grpc) -> GrpcParts:
        """The same of a gRPC call: equal requests are calls of one method, with counts and a status of their own."""
        found = self._grpc_parts.get(key)
        if found is None:
            found = make_grpc_parts(*key, call, self._redaction, self.node)
            _keep(self._grpc_parts, key, found)
        return found

    def kafka_parts(self, key: _KafkaKey) -> KafkaParts:
        """The same of a request of Kafka, whose correlation id is its own."""
        found = self._kafka_parts.get(key)
        if found is None:
            found = make_kafka_parts(*key, self.node)
            _keep(self._kafka_parts, key, found)
        return found

    def cql_parts(self, key: _CqlKey) -> CqlParts:
        """The same of a request of CQL, whose stream id is its own."""
        found = self._cql_parts.get(key)
        if found is None:
            found = make_cql_parts(*key, self.node)
            _keep(self._cql_parts, key, found)
        return found


class ConnectionEncoder:
    """Makes the lines of one connection's requests; what they have in common is made once."""

    __slots__ = ("_encoder", "_ends", "_fixed")

    def __init__(self, encoder: FlowEncoder, ends: str) -> None:
        self._encoder, self._ends = encoder, ends
        self._fixed = f'{ends},"Type":"L7","node_name":{encoder.node},"event_type":{{"type":129}},"is_reply":false'

    def over(self, requests: Carried, responses: Carried, wall_time: float) -> bytes:
        """The line of a connection that is over and had bytes by count, or a tunnel, which need not pass the proxy."""
        node, stamp = self._encoder.node, self._encoder.stamp(wall_time)
        own = (
            f'"reason":"the connection is over","carried":{{"requests":{_way(requests)},"responses":{_way(responses)}}}'
        )
        text = ", ".join(
            f"{one.straight} of {one.straight + one.relayed} bytes straight" for one in (requests, responses)
        )
        return (
            f'{{"flow":{{"time":"{stamp}",{self._ends},"Type":"L3_L4","node_name":{node},{_TRACE},"is_reply":false,'
            f'"verdict":"FORWARDED",{EXTENSION}{own}{END_OF_OWN},"Summary":"TCP over: {text}"}},'
            f'"node_name":{node},"time":"{stamp}"}}\n'
        ).encode("ascii")

    def l7(self, record: Record, wall_time: float) -> bytes:
        """One line, newline included. `wall_time` is when the exchange ended, in seconds since the epoch."""
        encoder = self._encoder
        stamp = encoder.stamp(wall_time)
        request, code, call = record.request, record.code, record.call
        latency = int((record.ended - record.started) * 1e9)
        if latency < 0:
            latency = 0
        if isinstance(request, KafkaRequest):
            assert isinstance(call, KafkaCall)  # noqa: S101 -- see `Record`
            return self._kafka((request, code, call.answered), call.correlation_id, stamp, latency)
        if isinstance(request, CqlStatement):
            assert isinstance(call, CqlCall)  # noqa: S101 -- see `Record`
            return self._cql((request, code, call.consistency, call.answered), call.stream, stamp, latency)
        if call is not None:
            assert isinstance(call, Grpc)  # noqa: S101 -- see `Record`
            return self._call((request, code), call, stamp, latency)
        behind_latency, behind_millis = encoder.parts((request, code))
        return (
            f'{{"flow":{{"time":"{stamp}",{self._fixed},"l7":{{"latency_ns":"{latency}'
            f'{behind_latency}{latency // 1_000_000}{behind_millis}{stamp}"}}\n'
        ).encode("ascii")

    def _call(self, key: _Key, call: Grpc, stamp: str, latency: int) -> bytes:
        """The line of a gRPC call."""
        behind_latency, behind_facts, behind_millis, behind_counts = self._encoder.grpc_parts(key, call)
        return (
            f'{{"flow":{{"time":"{stamp}",{self._fixed},"l7":{{"latency_ns":"{latency}{behind_latency}'
            f"{call_facts(call)}{behind_facts}{outcome(call)} {latency // 1_000_000}{behind_millis}"
            f'{call.requests} -> {call.responses}{behind_counts}{stamp}"}}\n'
        ).encode("ascii")

    def _kafka(self, key: _KafkaKey, correlation_id: int, stamp: str, latency: int) -> bytes:
        """The line of a request of Kafka."""
        behind_latency, behind_id, behind_second_id, behind_millis = self._encoder.kafka_parts(key)
        return (
            f'{{"flow":{{"time":"{stamp}",{self._fixed},"l7":{{"latency_ns":"{latency}{behind_latency}'
            f"{correlation_id}{behind_id}{correlation_id}{behind_second_id}{latency // 1_000_000}"
            f'{behind_millis}{stamp}"}}\n'
        ).encode("ascii")

    def _cql(self, key: _CqlKey, stream: int, stamp: str, latency: int) -> bytes:
        """The line of a request of CQL."""
        behind_latency, behind_stream, behind_millis = self._encoder.cql_parts(key)
        return (
            f'{{"flow":{{"time":"{stamp}",{self._fixed},"l7":{{"latency_ns":"{latency}{behind_latency}{stream}'
            f'{behind_stream}{latency // 1_000_000}{behind_millis}{stamp}"}}\n'
        ).encode("ascii")


def _way(carried: Carried) -> str:
    return "{" + ",".join(f'"{name}":{count}' for name, count in carried._asdict().items()) + "}"


_TRACE = '"event_type":{"type":4}'
_FROM_POLICY = '"event_type":{"type":5}'
"""Cilium's MessageTypePolicyVerdict; 1 is a drop, 4 a trace, 129 an access log record (``pkg/monitor/api``)."""
_Made = TypeVar("_Made", Parts, GrpcParts, KafkaParts, CqlParts)
_Keyed = TypeVar("_Keyed", _Key, _KafkaKey, _CqlKey)


def _keep(cache: dict[_Keyed, _Made], key: _Keyed, made: _Made) -> None:
    """Remember parts, but for very long ones."""
    if sum(map(len, made)) <= _CACHED_TEXT:
        if len(cache) >= _CACHED:
            cache.clear()
        cache[key] = made


def _ends(source: str, destination: str, layer4: str, first: str, second: str) -> str:
    version = "IPv6" if ":" in source else "IPv4"
    addresses = f'"source":{quote(source)},"destination":{quote(destination)},"ipVersion":"{version}"'
    l4 = f'"l4":{{{layer4}}},' if layer4 else ""
    return f'"IP":{{{addresses}}},{l4}"source":{first},"destination":{second}'


def _party(party: Party) -> str:
    identity, endpoint, name = party
    fields = [f'"ID":{endpoint}'] if endpoint else []
    fields += [f'"identity":{identity.number}'] if identity.number else []
    fields += [f'"namespace":{quote(identity.namespace)}'] if identity.namespace else []
    fields.append(f'"labels":[{",".join(map(quote, identity.label_list()))}]')
    fields += [f'"pod_name":{quote(name)}'] if name else []
    return f"{{{','.join(fields)}}}"


def _packet_ends(event: Event, identities: Mapping[int, Identity], names: Mapping[int, str]) -> str:
    ends = (event.src_identity, event.src_endpoint), (event.dst_identity, event.dst_endpoint)
    source, destination = (
        (identities.get(number) or Identity(number, {}), endpoint, names.get(endpoint, "")) for number, endpoint in ends
    )
    return _ends(event.src, event.dst, _layer4(event), _party(source), _party(destination))


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
