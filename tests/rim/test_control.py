"""Frames on the channel between supervisor and worker."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.control import MAX_FRAME, FrameReader, Kind, frame


@given(
    frames=st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=200)), max_size=8),
    cuts=st.lists(st.integers(1, 40), max_size=40),
)
def test_frames_survive_any_splitting(frames: list[tuple[Kind, bytes]], cuts: list[int]) -> None:
    seen: list[tuple[Kind, bytes]] = []
    reader = FrameReader(lambda kind, body: seen.append((kind, body)))
    stream = b"".join(frame(kind, body) for kind, body in frames)
    for cut in cuts:
        reader.feed(stream[:cut])
        stream = stream[cut:]
    reader.feed(stream)
    assert seen == frames


def test_an_oversized_or_unknown_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="control frame"):
        FrameReader(lambda kind, body: None).feed(struct.pack("<IB", MAX_FRAME + 1, 1))
    with pytest.raises(ValueError, match="99"):
        FrameReader(lambda kind, body: None).feed(struct.pack("<IB", 0, 99))
