"""Kafka's messages: the fields of each API and version, from kafka_messages.json (made by scripts/kafka_tables.py).

Names are kio's: Kafka's own with underscores (``topicData`` is ``topic_data``), times without their ``Ms``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

REQUEST, RESPONSE = "request", "response"
_FILE = Path(__file__).with_name("kafka_messages.json")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of one version. `kind`: int8, int16, int32, int64, uint16, float64, bool, uuid, string, bytes,
    records, ``{}`` (a structure), ``[]`` (of structures), or ``[]`` and a kind. `tag`: it stands among the tagged
    fields (KIP-482). `fields` are those of the structure, `names` what they are called in all versions."""

    name: str
    kind: str
    null: bool = False
    tag: int | None = None
    fields: tuple[Field, ...] = ()
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Message:
    """One message of one version. `flexible`: compact lengths, and tagged fields behind every structure. `names`: what
    its fields are called in all versions."""

    api: int
    version: int
    flexible: bool
    fields: tuple[Field, ...]
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Api:
    """An API: its key, its name as Kafka writes it in `policies` and logs (``ListOffsets``), versions that are known,
    and the first flexible one (None: none is)."""

    key: int
    name: str
    low: int
    high: int
    flexible: int | None

    def knows(self, version: int) -> bool:
        """Whether there is a table for it."""
        return self.low <= version <= self.high


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


@cache
def _tables() -> Mapping[int, Any]:
    return {int(key): table for key, table in json.loads(_FILE.read_text(encoding="ascii")).items()}


def _api(key: int, table: Mapping[str, Any]) -> Api:
    low, high = table[REQUEST]["versions"]
    return Api(key, _camel(table["name"]), low, high, table[REQUEST]["flexible"])


APIS: Mapping[int, Api] = {key: _api(key, table) for key, table in _tables().items()}
"""By key."""
BY_NAME: Mapping[str, Api] = {api.name.lower(): api for api in APIS.values()}
"""By name in small letters."""


@cache
def message(key: int, version: int, kind: str) -> Message:
    """The table of one message. Raises KeyError if this version of the API is not known."""
    table = _tables()[key][kind]
    low, high = table["versions"]
    if not low <= version <= high:
        raise KeyError((key, version, kind))
    flexible = table["flexible"] is not None and version >= table["flexible"]
    return Message(key, version, flexible, _fields(table["fields"], version), _names(table["fields"]))


def _names(rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(row["name"] for row in rows)


def _fields(rows: Sequence[Mapping[str, Any]], version: int) -> tuple[Field, ...]:
    return tuple(_field(row, version) for row in rows if _among(row["versions"], version))


def _field(row: Mapping[str, Any], version: int) -> Field:
    tag = row["tag"] if _among(row.get("tagged"), version) else None
    null = _among(row.get("null"), version)
    rows = row.get("fields", ())
    return Field(row["name"], row["type"], null, tag, _fields(rows, version), _names(rows))


def _among(versions: Sequence[int] | None, version: int) -> bool:
    return versions is not None and versions[0] <= version <= versions[1]
