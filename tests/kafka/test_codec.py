"""The codec against kio, for every API and version; and what it refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parsers.kafka_codec import MOST_ENTRIES, TAGS, decode, encode, put_varint, varint, wanted
from parsers.kafka_schema import APIS, BY_NAME, REQUEST, RESPONSE, Field, message
from parsers.malformed import Malformed

ROOT = Path(__file__).parents[2]
EVERY = [
    (key, version, kind)
    for key, api in APIS.items()
    for version in range(api.low, api.high + 1)
    for kind in (REQUEST, RESPONSE)
]
_NUMBERS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


def values(field: Field) -> st.SearchStrategy[Any]:
    """What a field may hold."""
    kind = field.kind
    if kind in ("{}", "[]"):
        inner = structures(field.fields)
        found: st.SearchStrategy[Any] = inner if kind == "{}" else st.lists(inner, max_size=2)
    elif kind.startswith("[]"):
        found = st.lists(scalars(kind[2:]), max_size=2)
    else:
        found = scalars(kind)
    return st.none() | found if field.null else found


def scalars(kind: str) -> st.SearchStrategy[Any]:
    if kind in _NUMBERS:
        half = 1 << (_NUMBERS[kind] - 1)
        return st.integers(-half, half - 1)
    return {
        "uint16": st.integers(0, 65535),
        "float64": st.floats(allow_nan=False),
        "bool": st.booleans(),
        "uuid": st.binary(min_size=16, max_size=16),
        "string": st.text(st.characters(codec="utf-8"), max_size=20),
        "bytes": st.binary(max_size=20),
        "records": st.binary(max_size=20),
    }[kind]


def structures(fields: tuple[Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    plain = {field.name: values(field) for field in fields if field.tag is None}
    tagged = {field.name: values(field) for field in fields if field.tag is not None}
    return st.fixed_dictionaries(plain, optional=tagged)


def test_the_tables_are_those_of_the_installed_schema() -> None:
    made = subprocess.run(
        [sys.executable, "scripts/kafka_tables.py"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(made.stdout) == json.loads((ROOT / "parsers/kafka_messages.json").read_text())


def test_names() -> None:
    assert BY_NAME["listoffsets"].key == 2 and APIS[0].name == "Produce"
    assert APIS[0].knows(13) and not APIS[0].knows(2)
    assert len(EVERY) > 600


@settings(max_examples=2000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_what_is_written_is_read(data: st.DataObject) -> None:
    key, version, kind = data.draw(st.sampled_from(EVERY))
    tree = data.draw(structures(message(key, version, kind).fields))
    raw = encode(key, version, kind, tree)
    assert decode(key, version, kind, raw, 0, len(raw)) == tree
    # Reading nothing checks the same bytes to the same end; a cut, or a byte more, is refused.
    assert wanted(key, version, kind, frozenset())(b"xy" + raw + b"z", 2, 2 + len(raw)) == {}
    for end in range(len(raw)):
        with pytest.raises(Malformed):
            decode(key, version, kind, raw, 0, end)
    with pytest.raises(Malformed, match="behind the end"):
        decode(key, version, kind, raw + b"\0", 0, len(raw) + 1)


@settings(max_examples=2000)
@given(st.data(), st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: st.DataObject, raw: bytes) -> None:
    key, version, kind = data.draw(st.sampled_from(EVERY))
    try:
        tree = decode(key, version, kind, raw, 0, len(raw))
    except Malformed as error:
        assert 0 <= error.offset <= len(raw)
        return
    again = encode(key, version, kind, tree)
    assert decode(key, version, kind, again, 0, len(again)) == tree


@pytest.mark.parametrize("kind", [REQUEST, RESPONSE])
@pytest.mark.parametrize("key", APIS)
def test_kio_reads_what_we_write_and_writes_it_again(key: int, kind: str) -> None:
    from kio.index import load_request_schema, load_response_schema
    from kio.serial import entity_reader, entity_writer

    load = load_request_schema if kind == REQUEST else load_response_schema
    for version in range(APIS[key].low, APIS[key].high + 1):
        tree = filled(message(key, version, kind).fields)
        raw = encode(key, version, kind, tree)
        entity, size = entity_reader(load(key, version))(raw, 0)
        assert size == len(raw)
        again = io.BytesIO()
        entity_writer(load(key, version))(again, entity)
        assert again.getvalue() == raw, version


def filled(fields: tuple[Field, ...]) -> dict[str, Any]:
    """Something in every field."""
    found: dict[str, Any] = {}
    for number, field in enumerate(fields, 1):
        kind = field.kind.removeprefix("[]")
        texts: dict[str, Any] = {"string": f"text {number}", "bytes": b"bytes", "records": b"records"}
        fixed: dict[str, Any] = {"uuid": bytes(15) + bytes([number]), "bool": True, "float64": 1.5}
        one = filled(field.fields) if field.fields else (texts | fixed).get(kind, number)
        found[field.name] = [one, one] if field.kind.startswith("[]") else one
    return found


def test_tagged_fields_that_nobody_knows_are_kept() -> None:
    raw = bytearray(encode(18, 3, REQUEST, {"client_software_name": "a", "client_software_version": "b"}))
    assert raw[-1] == 0
    raw[-1:] = b"\x02\x05\x01x\x07\x02yz"
    tree = decode(18, 3, REQUEST, bytes(raw), 0, len(raw))
    assert tree[TAGS] == [(5, b"x"), (7, b"yz")]
    assert encode(18, 3, REQUEST, tree) == raw


@pytest.mark.parametrize(
    ("tags", "complaint"),
    [
        (b"\x02\x05\x00\x05\x00", "tagged field 5 stands behind 5"),
        (b"\x01\x05\x09x", "a tagged field of 9 bytes where 1 are left"),
        (b"\x81\x00", "a varint is longer than needed"),
        (b"\xff\xff\xff\xff\xff\x01", "a varint does not end"),
        (b"\x40", "64 tagged fields in 0 bytes"),
    ],
)
def test_tagged_fields_that_are_refused(tags: bytes, complaint: str) -> None:
    raw = encode(18, 3, REQUEST, {})[:-1] + tags
    with pytest.raises(Malformed, match=complaint):
        decode(18, 3, REQUEST, raw, 0, len(raw))


def test_lengths_that_are_refused() -> None:
    for raw, complaint in [
        (b"\x00\x05abc", "5 bytes are announced where 3 are left at byte 2"),
        (b"\xff\xff", "null where a value must be at byte 0"),
        (b"\xff\xfe", "a negative length at byte 0"),
        (b"\x00", "a length is cut off at byte 0"),
    ]:
        with pytest.raises(Malformed, match=complaint):
            decode(12, 0, REQUEST, raw, 0, len(raw))  # Heartbeat begins with a string
    with pytest.raises(Malformed, match="an array of 2147483647 where 0 bytes are left"):
        decode(3, 0, REQUEST, b"\x7f\xff\xff\xff", 0, 4)


def test_a_reader_of_names_reads_so_many() -> None:
    names = frozenset({"topics.name"})
    raw = encode(3, 9, REQUEST, {"topics": [{"name": ""}] * MOST_ENTRIES})
    assert len(wanted(3, 9, REQUEST, names)(raw, 0, len(raw))["topics"]) == MOST_ENTRIES
    raw = encode(3, 9, REQUEST, {"topics": [{"name": ""}] * (MOST_ENTRIES + 1)})
    with pytest.raises(Malformed, match="more than 100000 entries"):
        wanted(3, 9, REQUEST, names)(raw, 0, len(raw))
    assert decode(3, 9, REQUEST, raw, 0, len(raw))
    # In arrays in arrays too, and where nothing is wanted of them: they take as long.
    raw = encode(9, 8, REQUEST, {"groups": [{"group_id": "g", "topics": [{"name": ""}] * 60_000}] * 2})
    with pytest.raises(Malformed, match="more than 100000 entries"):
        wanted(9, 8, REQUEST, frozenset({"groups.topics.name"}))(raw, 0, len(raw))
    with pytest.raises(Malformed, match="more than 100000 entries"):
        wanted(9, 8, REQUEST, frozenset({"groups.group_id"}))(raw, 0, len(raw))
    # Tagged fields are entries; responses may be as long as a cluster is large.
    raw = encode(3, 9, REQUEST, {"topics": [], TAGS: [(number, b"") for number in range(MOST_ENTRIES + 1)]})
    with pytest.raises(Malformed, match="more than 100000 entries"):
        wanted(3, 9, REQUEST, names)(raw, 0, len(raw))
    raw = encode(3, 9, RESPONSE, {"topics": [{"partitions": [{}] * (MOST_ENTRIES + 1)}]})
    assert wanted(3, 9, RESPONSE, names)(raw, 0, len(raw))


@given(st.integers(0, (1 << 32) - 1))
def test_varints(value: int) -> None:
    out = bytearray()
    put_varint(value, out)
    assert varint(bytes(out), 0, len(out)) == (value, len(out))
    with pytest.raises(Malformed):
        varint(bytes(out[:-1]) + bytes([out[-1] | 0x80, 0]), 0, len(out) + 1)


def test_fields_that_no_version_has_are_no_fields() -> None:
    """A slip of the pen would write nothing, and nobody would know."""
    assert encode(0, 3, "request", {"transactional_id": None, "topic_data": []}) == encode(0, 3, "request", {})
    assert encode(1, 4, "request", {"session_id": 7}) == encode(1, 4, "request", {}), "of a later version"
    for tree in ({"topics": []}, {"topic_data": [{"topic": "a"}]}, {"topic_data": [{"partition_data": [{"nr": 1}]}]}):
        with pytest.raises(KeyError, match="no fields are called"):
            encode(0, 3, "request", tree)
