"""Headers and frames: against kio for every API and version, and what is refused."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.kafka import (
    Head,
    answered,
    flexible,
    frame,
    read_head,
    read_response,
    response,
    response_head,
    unsupported_version,
)
from parsers.kafka_codec import decode
from parsers.kafka_schema import APIS, RESPONSE
from parsers.malformed import Malformed

EVERY = [(key, version) for key, api in APIS.items() for version in range(api.low, api.high + 1)]


def header(key: int, version: int, correlation: int = 7, client: bytes | None = b"me", tags: bytes = b"\0") -> bytes:
    size = -1 if client is None else len(client)
    fixed = key.to_bytes(2, "big", signed=True) + version.to_bytes(2, "big", signed=True)
    fixed += correlation.to_bytes(4, "big", signed=True) + size.to_bytes(2, "big", signed=True) + (client or b"")
    return fixed + (tags if flexible(key, version) else b"")


@pytest.mark.parametrize("key", APIS)
def test_headers_are_kios(key: int) -> None:
    from kio.index import load_request_schema, load_response_schema
    from kio.serial import entity_writer

    for version in range(APIS[key].low, APIS[key].high + 1):
        schema = load_request_schema(key, version).__header_schema__
        raw = io.BytesIO()
        fields = {"request_api_key": key, "request_api_version": version, "correlation_id": 7, "client_id": "me"}
        entity_writer(schema)(raw, schema(**fields))
        assert read_head(raw.getvalue() + b"body", 0, len(raw.getvalue()) + 4) == Head(
            key, version, 7, "me", len(raw.getvalue()), len(raw.getvalue()) + 4
        )
        answer = load_response_schema(key, version).__header_schema__
        raw = io.BytesIO()
        entity_writer(answer)(raw, answer(correlation_id=7))
        head = Head(key, version, 7, None, 0, 0)
        assert response_head(head) == raw.getvalue(), version
        assert read_response(head, b"x" + raw.getvalue(), 1, 1 + len(raw.getvalue())) == (7, 1 + len(raw.getvalue()))


@given(st.sampled_from(EVERY), st.integers(-(2**31), 2**31 - 1), st.none() | st.binary(max_size=30))
def test_a_header_is_read_and_no_part_of_one(api: tuple[int, int], correlation: int, client: bytes | None) -> None:
    raw = header(*api, correlation, client)
    name = None if client is None else client.decode("utf-8", "replace")
    head = Head(*api, correlation, name, 3 + len(raw), 4 + len(raw))
    assert read_head(b"abc" + raw + b"z", 3, 4 + len(raw)) == head and head.known
    for end in range(len(raw)):
        with pytest.raises(Malformed):
            read_head(raw, 0, end)


def test_apis_that_nobody_knows_have_a_header_all_the_same() -> None:
    for key, version in [(7, 0), (18, 99), (1234, 0), (-1, -1), (0, 2)]:
        head = read_head(header(key, version) + b"more", 0, 16)
        assert (head.api_key, head.version, head.client_id, head.body, head.known) == (key, version, "me", 12, False)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (header(0, 9, client=None)[:8] + b"\xff\xfe\0", "a negative length at byte 8"),
        (header(0, 9, tags=b"\x80\0"), "a varint is longer than needed"),
        (header(0, 9, tags=b"\x02\x01\0\x01\0"), "tagged field 1 stands behind 1"),
        (header(0, 9, tags=b"\x01\x01\x05a"), "a tagged field of 5 bytes where 1 are left"),
        (header(0, 9, tags=b"\x7f"), "127 tagged fields in 0 bytes"),
        (header(0, 9, tags=b"\xe9\x07" + bytes(3000)), "1001 tagged fields in 3000 bytes"),
        (b"\0\0\0", "a request of 3 bytes"),
    ],
)
def test_headers_that_are_refused(raw: bytes, complaint: str) -> None:
    with pytest.raises(Malformed, match=complaint):
        read_head(raw, 0, len(raw))


def test_tagged_fields_of_a_header_are_passed_over() -> None:
    raw = header(0, 9, tags=b"\x02\x01\x02ab\x09\x00")
    assert read_head(raw, 0, len(raw)).body == len(raw)


def test_frames() -> None:
    assert frame(b"abc") == b"\0\0\0\x03abc"
    head = Head(12, 4, 5, None, 0, 0)
    assert response(head, {"error_code": 30}) == b"\0\0\0\x0c" + b"\0\0\0\x05\0" + b"\0\0\0\0\0\x1e\0"


def test_an_unknown_version_of_api_versions() -> None:
    """Version 0 with error 35 and the row of ApiVersions alone: a client then asks again with what it finds there."""
    raw = unsupported_version(Head(18, 99, 5, None, 0, 0))
    assert raw[4:8] == b"\0\0\0\x05"
    row = {"api_key": 18, "min_version": 0, "max_version": APIS[18].high}
    assert decode(18, 0, RESPONSE, raw, 8, len(raw)) == {"error_code": 35, "api_keys": [row]}


def test_an_old_broker_answers_api_versions_in_version_0() -> None:
    head = Head(18, 4, 5, None, 0, 0)
    raw = unsupported_version(head)
    _, place = read_response(head, raw, 4, len(raw))
    assert answered(head, raw, place) == head._replace(version=0)
    good = response(head, {})
    assert answered(head, good, 8) == head
    assert answered(head._replace(api_key=3), raw, place).version == 4
