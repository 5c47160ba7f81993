"""``rules.grpc`` of policy files, which is l7proxy's own."""

from __future__ import annotations

import re

from policies.document import Node
from policies.load_http import HttpReader
from policies.model import GrpcCall, HeaderMatch, HttpRule

_KEYS = ("service", "method", "metadata")
_METADATA = "conditions on headers are written under metadata"
_ELSEWHERE = {
    "path": "write service and method",
    "headers": _METADATA,
    "headerMatches": _METADATA,
    "host": "HTTP rules only",
}
_SERVICE = re.compile(r"[A-Za-z0-9_~-]+(\.[A-Za-z0-9_~-]+)*")
_SPLIT = re.compile(r"/?([^/]+)/([^/]+)")
_LEFT_OUT = "leave it out for any"


def grpc_rules(http: HttpReader, node: Node, deny: bool) -> tuple[HttpRule, ...]:
    """The rules of one list, for allow or deny rules."""
    if node.value == []:
        http.reader.fault(node, "an empty list is no rule: write [{}] for every call, or leave grpc out")
    return tuple(_rule(http, item, deny) for item in http.reader.items(node))


def _rule(http: HttpReader, node: Node, deny: bool) -> HttpRule:
    fields = http.reader.mapping(node, _KEYS, _ELSEWHERE)
    call = GrpcCall(_service(http, fields.get("service")), _method(http, fields.get("method"), deny))
    found = [_condition(http, item, deny) for item in http.reader.items(fields.get("metadata"))]
    metadata = tuple(one for one in found if one is not None)
    return HttpRule(None, None, None, metadata, http.reader.ref(node), call)


def _service(http: HttpReader, node: Node | None) -> str | None:
    """A full name. Only characters that have one spelling in a path are taken: it is compared as it stands."""
    text = http.reader.text(node)
    if node is None or text is None or _SERVICE.fullmatch(text):
        return text
    split = _SPLIT.fullmatch(text)
    if text == "":
        http.reader.fault(node, f"the service's name is empty ({_LEFT_OUT})")
    elif split is not None:
        http.reader.fault(node, f"a service has no slash: write service: {split[1]} and method: {split[2]}")
    else:
        text = f"{text[:100]!r} is no full name such as orders.v1.Orders"
        http.reader.fault(node, f"{text} (it is literal, no expression, without a slash or a dot at its ends)")
    return None


def _method(http: HttpReader, node: Node | None, deny: bool) -> str | None:
    text = http.reader.text(node)
    if node is None or text is None:
        return None
    if text == "":
        http.reader.fault(node, f"the method's expression is empty ({_LEFT_OUT})")
    elif not text.isascii():
        http.reader.fault(node, "names of methods are ASCII")
    return http.pattern(node, deny)


def _condition(http: HttpReader, node: Node, deny: bool) -> HeaderMatch | None:
    """A text as in HTTP rules' headers, or a mapping as in their headerMatches."""
    found = http.header_match(node, deny) if isinstance(node.value, dict) else http.header(node, deny)
    if deny and found is not None and found.name.endswith("-bin") and found.value is not None:
        http.reader.fault(node, "not supported: a value of binary metadata in a deny rule (base64 has many spellings)")
    return found
