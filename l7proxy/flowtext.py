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


def _child(value: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        found = value.get(key)
        value = found if isinstance(found, Mapping) else {}
    return value


def _time(text: Any) -> str:
    try:
        when = datetime.fromisoformat(str(text)).astimezone()
    except (ValueError, OverflowError):
        return str(text)
    return f"{when:%b %d %H:%M:%S}.{when.microsecond // 1000:03d}"


def _end(flow: Mapping[str, Any], side: str) -> str:
    """``namespace/name:port``, or ``address:port (entity)`` for what is no endpoint of this node."""
    endpoint = _child(flow, side)
    address = str(_child(flow, "IP").get(side, "?"))
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
    return {name: ports for name, ports in _child(flow, "l4").items() if isinstance(ports, Mapping)}


def _what(flow: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of event, and what it was."""
    http = _child(flow, "l7", "http")
    if not http:
        return next((name.lower() for name in _layer4(flow)), "packet"), str(flow.get("Summary", ""))
    parts = [http.get("protocol"), http.get("method"), http.get("url"), http.get("code")]
    return "http-request", " ".join([str(part) for part in parts if part is not None] + [_latency(flow)])


def _latency(flow: Mapping[str, Any]) -> str:
    try:
        return f"{int(_child(flow, 'l7').get('latency_ns', 0)) / 1e6:.1f}ms"
    except (ValueError, TypeError):
        return "?ms"


def _why(flow: Mapping[str, Any]) -> str:
    """The rule that decided and where it stands, and in words why it did not simply pass."""
    own = _child(flow, "extensions", "value", "l7proxy")
    by = f" by {own['policy']} {own.get('rule')} {own.get('file')}:{own.get('line')}" if own.get("policy") else ""
    reason = own.get("reason")
    return by + (f": {reason}" if reason and flow.get("verdict") != "FORWARDED" else "")
