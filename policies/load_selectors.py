"""Label selectors of policy files, with the namespace they hold in made explicit as Cilium does."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from policies.document import Node
from policies.identity import NAMESPACE_LABEL, RESERVED
from policies.load_fields import Reader
from policies.model import Operator, Requirement, Selector

_NAMESPACE_KEYS = (f"k8s:{NAMESPACE_LABEL}", f"any:{NAMESPACE_LABEL}")
_NAMESPACE_META = ("k8s:io.cilium.k8s.namespace.labels.", "any:io.cilium.k8s.namespace.labels.")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_NAME = re.compile(r"([-a-z0-9.]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SOURCE = re.compile(r"[a-z][-a-z0-9_]*")
_MAX_VALUE = 63
_INSTEAD = {"cidr": "use fromCIDR or toCIDR", "fqdn": "use toFQDNs"}
_VALUED = (Operator.IN, Operator.NOT_IN)


def endpoint_selector(reader: Reader, node: Node) -> Selector:
    """A policy's endpointSelector: in a namespaced policy always pods of its own namespace."""
    requirements = list(_requirements(reader, node))
    if reader.namespace is None:
        return Selector(tuple(requirements), reader.ref(node))
    own = Requirement(_NAMESPACE_KEYS[0], Operator.IN, frozenset((reader.namespace,)))
    labels = node.get("matchLabels")
    given = labels.get(_NAMESPACE_KEYS[0]) if labels else None
    if given is not None and given.value != reader.namespace:
        reader.warn(given, f"ignored: the policy holds in its own namespace {reader.namespace!r} only")
    # Cilium puts its own namespace in place of one named in matchLabels; expressions stay and are ANDed.
    kept = [one for one in requirements if one.key != own.key or one.operator is not Operator.IN or given is None]
    return Selector((*kept, own), reader.ref(node))


def peer_selector(reader: Reader, node: Node, *, init: bool, required: bool = False) -> Selector:
    """An entry of fromEndpoints or toEndpoints, or (`required`) of fromRequires or toRequires.

    `init`: the policy's own selector asks for ``reserved:init``, whose pods have no namespace yet.
    """
    requirements = list(_requirements(reader, node))
    keys = [one.key for one in requirements]
    added = _namespace(reader.namespace, keys, init)
    if added is not None and (required or not any(key.startswith("reserved:") for key in keys)):
        requirements.append(added)
    return Selector(tuple(requirements), reader.ref(node))


def _namespace(namespace: str | None, keys: list[str], init: bool) -> Requirement | None:
    """What Cilium adds to a selector that names no namespace."""
    if any(key in _NAMESPACE_KEYS for key in keys):
        return None
    if namespace is None:
        return None if init else Requirement(_NAMESPACE_KEYS[0], Operator.EXISTS)
    if any(key.startswith(_NAMESPACE_META) for key in keys):
        return None
    return Requirement(_NAMESPACE_KEYS[0], Operator.IN, frozenset((namespace,)))


def _requirements(reader: Reader, node: Node) -> Iterator[Requirement]:
    fields = reader.mapping(node, ("matchLabels", "matchExpressions"))
    labels = fields.get("matchLabels")
    if labels is not None:
        yield from _labels(reader, labels)
    for item in reader.items(fields.get("matchExpressions")):
        expression = _expression(reader, item)
        if expression is not None:
            yield expression


def _labels(reader: Reader, node: Node) -> Iterator[Requirement]:
    if not isinstance(node.value, dict):
        reader.fault(node, "must be a mapping of labels")
        return
    for text, child in node.value.items():
        key, value = _key(reader, child, text), _value(reader, child)
        if key is not None and value is not None:
            yield Requirement(key, Operator.IN, frozenset((value,)))


def _expression(reader: Reader, node: Node) -> Requirement | None:
    fields = reader.mapping(node, ("key", "operator", "values"))
    name, operator = reader.required(node, "key"), reader.required(node, "operator")
    if name is None or operator is None:
        return None
    if operator not in Operator.__members__.values():
        reader.fault(fields["operator"], f"unknown operator {operator!r} (known: {', '.join(Operator)})")
        return None
    values = [_value(reader, item) for item in reader.items(fields.get("values"))]
    if bool(values) is not (operator in _VALUED):
        reader.fault(node, f"operator {operator} needs {'values' if operator in _VALUED else 'no values'}")
    key = _key(reader, fields["key"], name)
    return None if key is None else Requirement(key, Operator(operator), frozenset(v for v in values if v is not None))


def _key(reader: Reader, node: Node, text: str) -> str | None:
    """``source:key``; without a source, or with ``any``, every source counts."""
    source, colon, name = text.partition(":")
    if not colon:
        source, name = "any", text
    if not _SOURCE.fullmatch(source) or not _NAME.fullmatch(name) or len(name.rpartition("/")[2]) > _MAX_VALUE:
        reader.fault(node, f"{text!r} is no label key")
        return None
    if source in _INSTEAD:
        reader.fault(node, f"not supported: labels of source {source!r} ({_INSTEAD[source]})")
        return None
    if source == "reserved" and name not in RESERVED:
        close = difflib.get_close_matches(name, RESERVED, 1)
        instead = "use entity all" if name == "all" else f"did you mean {close[0]}?" if close else ", ".join(RESERVED)
        reader.fault(node, f"no reserved label is named {name!r} ({instead})")
        return None
    return f"{source}:{name}"


def _value(reader: Reader, node: Node) -> str | None:
    value = reader.text(node)
    if value is not None and (len(value) > _MAX_VALUE or not _VALUE.fullmatch(value)):
        reader.fault(node, f"{value[:100]!r} is no label value")
        return None
    if node.value is None:
        return None
    return value
