"""A flow record as a line for people, in the manner of ``hubble observe``.

Whatever a peer put into a request is made printable first: a terminal must not obey it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

_COLORS = {"FORWARDED": "32", "DROPPED": "31", "AUDIT": "33"}


def flow_text(value: Mapping[str, Any], color: bool = False) -> str:
    """A line for a decoded record, or for one about lost records; "" for what is neither."""
    lost, flow = value.get("lost_events"), value.get("flow")
    if isinstance(lost, Mapping):
        when = _time(value.get("time"))
        return printable(f"{when}: EVENTS LOST: {lost.get('num_events_lost')} ({lost.get('source')})")
    if not isinstance(flow, Mapping):
        return ""
    verdict = printable(str(flow.get("verdict")))
    shown = f"\x1b[{_COLORS[verdict]}m{verdict}\x1b[0m" if color and verdict in _COLORS else verdict
    ends = f"{_end(flow, 'source')} -> {_end(flow, 'destination')}"
    kind, what = _what(flow)
    start = printable(f"{_time(flow.get('time'))}: {ends} {kind}")
    return f"{start} {shown} {printable(f'({what}){_why(flow)}')}"


def printable(text: str) -> str:
    """The text with everything escaped that a terminal might act on."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def child(value: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping that stands under these keys, one within the other; an empty one if none does."""
    for key in keys:
        found = value.get(key)
        value = found if isinstance(found, Mapping) else {}
    return value


def own_facts(flow: Mapping[str, Any], protocol: str) -> Mapping[str, Any]:
    """What a decoded `Flow` says in our extension of a protocol; empty if nothing."""
    return child(flow, "extensions", "value", "l7proxy", protocol)


def grpc_facts(flow: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a decoded `Flow` says of a gRPC call; empty if it is none."""
    return own_facts(flow, "grpc")


def _time(text: Any) -> str:
    try:
        when = datetime.fromisoformat(str(text)).astimezone()
    except (ValueError, OverflowError):
        return str(text)
    return f"{when:%b %d %H:%M:%S}.{when.microsecond // 1000:03d}"


def _end(flow: Mapping[str, Any], side: str) -> str:
    """``namespace/name:port``, or ``address:port (entity)`` for what is no endpoint of this node."""
    endpoint = child(flow, side)
    address = str(child(flow, "IP").get(side, "?"))
    port = next((ports[f"{side}_port"] for ports in _layer4(flow).values() if f"{side}_port" in ports), None)
    suffix = "" if port is None else f":{port}"
    if endpoint.get("pod_name"):
        return f"{endpoint.get('namespace', '')}/{endpoint['pod_name']}{suffix}"
    where = f"[{address}]{suffix}" if ":" in address and suffix else address + suffix
    labels = endpoint.get("labels")
    found = [str(label) for label in labels] if isinstance(labels, list) else []
    entity = next((label.partition(":")[2] for label in found if label.startswith("reserved:")), "")
    return where + (f" ({entity or ', '.join(found)})" if found else "")


def _layer4(flow: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: ports for name, ports in child(flow, "l4").items() if isinstance(ports, Mapping)}


def _what(flow: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of event, and what it was."""
    http, kafka = child(flow, "l7", "http"), child(flow, "l7", "kafka")
    if kafka:
        return "kafka-request", f"{_kafka(kafka, own_facts(flow, 'kafka'))} {_latency(flow)}"
    if cql := own_facts(flow, "cassandra"):
        return "cql-request", f"{_cql(cql)} {_latency(flow)}"
    if not http:
        return next((name.lower() for name in _layer4(flow)), "packet"), str(flow.get("Summary", ""))
    call = grpc_facts(flow)
    if call:
        return "grpc-request", f"{_call(call, http.get('code'))} {_latency(flow)}, {_messages(call)}"
    parts = [http.get("protocol"), http.get("method"), http.get("url"), http.get("code")]
    return "http-request", " ".join([str(part) for part in parts if part is not None] + [_latency(flow)])


def _call(call: Mapping[str, Any], code: Any) -> str:
    """The method, and how the call ended: where no grpc-status came, what the HTTP response said."""
    status = call.get("status_name") or ("no response" if code is None else f"no status, HTTP {code}")
    return f"{call.get('service')}/{call.get('method')} {status}"


def _kafka(kafka: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """The API, what it named and what became of that, the client, and the error code."""
    topics = [_topic(one) for one in own.get("topics") or [] if isinstance(one, Mapping)]
    topics += [f"{own['more_topics']} more"] if own.get("more_topics") else []
    words = [f"{kafka.get('api_key')} v{kafka.get('api_version')}", *([", ".join(topics)] if topics else [])]
    for word, key in (("group", "groups"), ("transaction", "transactional_ids")):
        words += [f"{word} {', '.join(map(str, own[key]))}"] if isinstance(own.get(key), list) else []
    words += [f"client {own['client_id']}"] if own.get("client_id") else []
    words += [f"error {kafka['error_code']}"] if kafka.get("error_code") else []
    return " ".join(words)


def _topic(topic: Mapping[str, Any]) -> str:
    """Its name, and what became of it if that is not what one hopes for."""
    verdict = topic.get("verdict")
    return str(topic.get("name")) + ("" if verdict == "FORWARDED" else f" {verdict}")


def _cql(cql: Mapping[str, Any]) -> str:
    """The request, what it does and what becomes of that, the consistency, and the error code."""
    actions = [_action(one) for one in cql.get("actions") or [] if isinstance(one, Mapping)]
    actions += [f"{cql['more_actions']} more"] if cql.get("more_actions") else []
    words = [str(cql[key]) for key in ("opcode", "statement") if cql.get(key)]
    words += [", ".join(actions)] if actions else []
    words += [str(cql["consistency"])] if cql.get("consistency") else []
    code = cql.get("error_code")
    words += [f"error 0x{code:04x}"] if isinstance(code, int) else []
    return " ".join(words)


def _action(action: Mapping[str, Any]) -> str:
    """``select shop.orders``, and what became of it if that is not what one hopes for."""
    name = ".".join(str(action[key]) for key in ("keyspace", "table") if action.get(key) is not None)
    verdict = action.get("verdict")
    words = [action.get("action"), name, "" if verdict == "FORWARDED" else verdict]
    return " ".join(str(word) for word in words if word)


def _messages(call: Mapping[str, Any]) -> str:
    return f"{call.get('request_messages')} -> {call.get('response_messages')} messages"


def _latency(flow: Mapping[str, Any]) -> str:
    try:
        return f"{int(child(flow, 'l7').get('latency_ns', 0)) / 1e6:.1f}ms"
    except (ValueError, TypeError):
        return "?ms"


def _why(flow: Mapping[str, Any]) -> str:
    """The rule that decided and where it stands, and in words why it did not simply pass."""
    own = child(flow, "extensions", "value", "l7proxy")
    by = f" by {own['policy']} {own.get('rule')} {own.get('file')}:{own.get('line')}" if own.get("policy") else ""
    reason = own.get("reason")
    return by + (f": {reason}" if reason and flow.get("verdict") != "FORWARDED" else "")
