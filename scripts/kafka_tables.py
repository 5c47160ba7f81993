"""Makes parsers/kafka_messages.json: the fields of every Kafka message and version, from the schema in kio (PyPI).

    python scripts/kafka_tables.py > parsers/kafka_messages.json

kio's classes are made from Kafka's own definitions, one class a version; here the versions of a message stand together.
"""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from kio.index import load_entity_schema
from kio.schema.index import api_key_map, schema_name_map
from kio.static.constants import EntityType

_KINDS = {"request": EntityType.request, "response": EntityType.response}
_SAME = {"error_code": "int16", "timedelta_i32": "int32", "timedelta_i64": "int64", "datetime_i64": "int64"}
_UNANSWERED = {("produce", "request", "records"), ("describe_user_scram_credentials", "request", "users")}
"""Fields that may be null, and a real broker (4.1) never answers if they are: here they may not."""
Row = dict[str, Any]


def rows(entity: Any) -> list[Row]:
    """The fields of one class, in the order of the wire."""
    hints = typing.get_type_hints(entity)
    return [_row(one.name, hints[one.name], one.metadata) for one in fields(entity)]


def _row(name: str, hint: Any, metadata: Any) -> Row:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) or _is_union(hint) else (hint,)
    null = type(None) in parts
    (hint,) = [part for part in parts if part is not type(None)]
    row: Row = {"name": name, "null": null, "tag": metadata.get("tag")}
    array = typing.get_origin(hint) is tuple
    inner = typing.get_args(hint)[0] if array else hint
    if is_dataclass(inner):
        row |= {"type": "[]" if array else "{}", "fields": rows(inner)}
    else:
        kind = metadata["kafka_type"]
        kind = _SAME.get(kind, kind)
        row["type"] = ("[]" if array else "") + kind
        if not array and kind not in ("string", "bytes", "records"):
            row["null"] = False  # kio has None for what the wire has as zero or -1
    return row


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Union


def merged(versions: Sequence[tuple[int, list[Row]]]) -> list[Row]:
    """One list of fields, each with its versions; kinds that changed stand as two."""
    order: list[tuple[str, str]] = []
    for _, one in versions:
        place = 0
        for row in one:
            key = row["name"], row["type"]
            if key in order:
                place = order.index(key) + 1
            else:
                order.insert(place, key)
                place += 1
    found = []
    for key in order:
        having = [(v, row) for v, one in versions for row in one if (row["name"], row["type"]) == key]
        field: Row = {"name": key[0], "type": key[1], "versions": _span(v for v, _ in having)}
        for word, test in (("null", lambda row: row["null"]), ("tagged", lambda row: row["tag"] is not None)):
            some = [v for v, row in having if test(row)]
            if some:
                field[word] = _span(some)
        tags = {row["tag"] for _, row in having} - {None}
        if tags:
            (field["tag"],) = tags
        if "fields" in having[0][1]:
            field["fields"] = merged([(v, row["fields"]) for v, row in having])
        found.append(field)
    return found


def _span(some: Iterable[int]) -> list[int]:
    numbers = sorted(some)
    if numbers != list(range(numbers[0], numbers[-1] + 1)):
        raise ValueError(f"versions with a hole: {numbers}")
    return [numbers[0], numbers[-1]]


def message(name: str, kind: str) -> Row:
    """One message in all its versions."""
    versions: list[tuple[int, list[Row]]] = []
    flexible: list[int] = []
    for version in sorted(schema_name_map[name]):
        entity = load_entity_schema(name, version, _KINDS[kind])
        versions.append((version, rows(entity)))
        if entity.__flexible__:
            flexible.append(version)
    rows_of_all = merged(versions)
    without_null(rows_of_all, name, kind)
    return {
        "versions": _span(v for v, _ in versions),
        "flexible": flexible[0] if flexible else None,
        "fields": rows_of_all,
    }


def without_null(some: Iterable[Row], name: str, kind: str) -> None:
    """Take `_UNANSWERED` out."""
    for row in some:
        if (name, kind, row["name"]) in _UNANSWERED:
            row.pop("null", None)
        without_null(row.get("fields", ()), name, kind)


def main() -> None:
    """Print the tables."""
    out = {}
    for key, name in sorted(api_key_map.items()):
        out[key] = {"name": name, **{kind: message(name, kind) for kind in _KINDS}}
    json.dump(out, sys.stdout, indent=None, separators=(",", ":"))


if __name__ == "__main__":
    main()
