"""``toPorts`` of policy files."""

from __future__ import annotations

import re

from policies.document import Node
from policies.load_fields import Reader
from policies.load_l7 import L7Reader
from policies.model import Port, PortRule

_PROTOCOLS = ("TCP", "UDP", "SCTP", "ANY")
_LAST = 65535
_MAX_PORTS = 40
_NUMBER = re.compile(r"[0-9]+")
_SERVICE = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9](-?[A-Za-z0-9])*")
"""A port name as IANA writes them (RFC 6335, 5.1): at most 15 of these characters."""
_TLS = "TLS is not terminated"
_LATER = {
    "terminatingTLS": _TLS,
    "originatingTLS": _TLS,
    "serverNames": "TLS is not looked into",
    "listener": "there is no Envoy to redirect to",
}


def port_rules(reader: Reader, l7: L7Reader, node: Node | None, deny: bool) -> tuple[PortRule, ...] | None:
    """All entries of toPorts; None (every port) if it is absent or empty, which are the same to Cilium."""
    entries = reader.items(node)
    if not entries:
        if node is not None:
            reader.warn(node, "an empty toPorts is the same as none: every port and protocol")
        return None
    return tuple(_entry(reader, l7, entry, deny) for entry in entries)


def _entry(reader: Reader, l7: L7Reader, node: Node, deny: bool) -> PortRule:
    fields = reader.mapping(node, ("ports", "rules"), _LATER)
    items = reader.items(fields.get("ports"))
    if len(items) > _MAX_PORTS:
        reader.fault(fields["ports"], f"at most {_MAX_PORTS} ports may stand in one list, here are {len(items)}")
    ports = [_port(reader, item) for item in items]
    rules = fields.get("rules")
    if rules is None:
        return PortRule(tuple(p for p in ports if p is not None), None, reader.ref(node))
    for item, port in zip(items, ports, strict=True):
        if port is not None:
            _check_l7(reader, item, port)
    found = l7.rules(rules, deny)
    # An empty list is no L7 rule at all: the entry counts for L4 alone.
    return PortRule(tuple(p for p in ports if p is not None), found or None, reader.ref(node))


def _check_l7(reader: Reader, node: Node, port: Port) -> None:
    if port.protocol != "TCP":
        reader.fault(node, "L7 rules need protocol: TCP spelt out for every port")
    if port.name is None and port.low == 0:
        reader.fault(node, "L7 rules cannot be used with port 0")


def _port(reader: Reader, node: Node) -> Port | None:
    fields = reader.mapping(node, ("port", "endPort", "protocol"))
    protocol = reader.text(fields.get("protocol"))
    if protocol is None:
        protocol = "ANY"
    elif protocol not in _PROTOCOLS:
        hint = " (write it in upper case)" if protocol.upper() in _PROTOCOLS else ""
        reader.fault(fields["protocol"], f"protocol must be one of {', '.join(_PROTOCOLS)}, not {protocol!r}{hint}")
        return None
    text = reader.required(node, "port", ' ("0" is every port)')
    if text is None:
        return None
    return _number(reader, fields["port"], text, fields.get("endPort"), protocol)


def _number(reader: Reader, node: Node, text: str, end: Node | None, protocol: str) -> Port | None:
    last = _end(reader, end)
    if _SERVICE.fullmatch(text) and len(text) <= 15:
        if end is not None:
            reader.fault(end, "not supported: endPort beside a port name")
        return Port(protocol, 0, 0, text.lower())
    low = _parse(text)
    if low is None:
        reader.fault(node, f"{text[:100]!r} is neither a port number (0 to 65535) nor a port name")
        return None
    if end is not None and last and last < low:
        reader.warn(end, f"endPort {last} is below port {low} and is ignored")
    if low == 0:
        return Port(protocol, 0, last or _LAST)
    return Port(protocol, low, max(low, last))


def _parse(text: str) -> int | None:
    """A port as Go's ParseUint reads it with base 0: a leading zero means octal."""
    if not _NUMBER.fullmatch(text) or len(text) > 6:
        return None
    try:
        number = int(text, 8 if text[0] == "0" else 10)
    except ValueError:
        return None
    return number if number <= _LAST else None


def _end(reader: Reader, node: Node | None) -> int:
    if node is None:
        return 0
    value = node.value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LAST:
        reader.fault(node, "endPort must be a number from 0 to 65535")
        return 0
    return value
