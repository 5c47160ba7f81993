"""Requests of every API and version, with few names, so that they meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from parsers.kafka import Head, flexible, read_head
from parsers.kafka_codec import encode
from parsers.kafka_schema import APIS, REQUEST, Field, message

IDS = [bytes(16), bytes(15) + b"\1", bytes(15) + b"\2"]
EVERY = [(key, version) for key, api in APIS.items() for version in range(api.low, api.high + 1)]


def raw(key: int, version: int, tree: Mapping[str, Any]) -> tuple[Head, bytes]:
    """A request with its header, as it is read."""
    head = b"".join(number.to_bytes(2, "big") for number in (key, version, 0, 7, 2)) + b"me"
    data = head + (b"\0" if flexible(key, version) else b"") + encode(key, version, REQUEST, tree)
    return read_head(data, 0, len(data)), data


def trees(key: int, version: int, kind: str = REQUEST) -> st.SearchStrategy[dict[str, Any]]:
    """Messages of one API and version."""
    return _structures(message(key, version, kind).fields)


def _structures(fields: tuple[Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    plain = {field.name: _values(field) for field in fields if field.tag is None}
    tagged = {field.name: _values(field) for field in fields if field.tag is not None}
    return st.fixed_dictionaries(plain, optional=tagged)


def _values(field: Field) -> st.SearchStrategy[Any]:
    kind = field.kind.removeprefix("[]")
    if kind in ("{}", ""):
        inner: st.SearchStrategy[Any] = _structures(field.fields)
    elif kind == "string":
        inner = st.sampled_from("abc")
    elif kind in ("bytes", "records"):
        inner = st.just(b"bytes")
    elif kind == "uuid":
        inner = st.sampled_from(IDS)
    elif kind == "bool":
        inner = st.booleans()
    else:
        inner = st.sampled_from([0, 1, 2, 32] if field.name.endswith("type") else [0, 1, 2])
    found = st.lists(inner, max_size=3) if field.kind.startswith("[]") else inner
    return st.none() | found if field.null else found
