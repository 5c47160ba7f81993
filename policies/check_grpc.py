"""gRPC rules that are likely mistakes, and HTTP rules that are meant for gRPC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from policies.cover import literal_prefix
from policies.model import GrpcCall, HeaderMatch
from policies.patterns import literals
from policies.spellings import NAME

Remark: TypeAlias = tuple[str, str]
"""Severity and message. A ``note`` is advice; a ``warning`` says that the rule does not do what it seems to."""

_SLASH = re.compile(r"[^|(\[]*/(?![*?{])[^|(\[]*")
"""An expression whose slash nothing makes optional."""
_GLOB = re.compile(r"(?<![\\A-Za-z0-9_])([A-Za-z0-9_]+)\*\Z")
_CALL = re.compile(r"\^?([A-Za-z_]\w*(?:\\?\.[A-Za-z_]\w*)+)/([^/]+?)\$?")


def grpc_remarks(call: GrpcCall, metadata: tuple[HeaderMatch, ...]) -> Iterator[Remark]:
    """What is odd about one rule."""
    if call.service is not None and "." not in call.service:
        yield "note", f"service {call.service!r} has no package: a full name is such as orders.v1.{call.service}"
    if call.method is not None:
        yield from ((severity, f"method {call.method!r} {text}") for severity, text in _method(call.method))
    for header in metadata:
        if header.name.endswith("-bin") and (header.value or "").endswith("="):
            yield "note", f"metadata {header.name}: most clients leave the = at the end of base64 out"


def _method(pattern: str) -> Iterator[Remark]:
    texts = literals(pattern) or (literal_prefix(pattern) or "_",)
    glob = _GLOB.search(pattern)
    if _SLASH.fullmatch(pattern) or not any(map(NAME.fullmatch, texts)):
        yield "warning", "never matches: a method is a name alone, without a slash and without its service"
    elif glob is not None:
        yield "warning", f"repeats the {glob[1][-1]} (`{glob[1][-1]}*`): all that begin so are {glob[1]}.*"


def meant_for_grpc(path: str) -> str:
    """A hint for an HTTP path that never matches, if it is a gRPC call without its slash; else nothing."""
    found = _CALL.fullmatch(path)
    if found is None:
        return ""
    service = found[1].replace("\\", "")
    return f"; a gRPC call is /{found[1]}/{found[2]}, or a rule of grpc: {{service: {service}, method: '{found[2]}'}}"
