"""Coverage-guided fuzzing of the conversation, with atheris.

``python -m tests.http2.fuzz CORPUS [libFuzzer's options]``: ``-max_total_time=600`` ends it after ten minutes. An input
that fails is written to a file; with its name for CORPUS it is played again. An empty folder CORPUS is given a few
conversations to begin with.

An input is a byte that says how bytes are cut, then frames: type (highest bit: the server's), flags, stream, size in
two bytes, and the payload. So most of what a mutation makes are frames still. Type 15 is bytes as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["l7proxy", "parsers", "hpack"]):
    from tests.conversations import REQUEST, RESPONSE
    from tests.fuzzing import fuzz
    from tests.http2 import frames
    from tests.http2.test_properties import NAMES, Play
    from tests.http2.test_properties_bytes import no_error_but_its_own, no_matter_how_cut

HEAD = struct.Struct(">BBBH")
THEIRS, BYTES, LAST = 0x80, 15, 127
SEEDS = 30
Lines = list[tuple[int, bytes]]


def read(data: bytes) -> Lines:
    """(direction, bytes) of each frame of a script, at most 40."""
    lines: Lines = []
    while len(data) >= HEAD.size and len(lines) < 40:
        kind, flags, stream, size = HEAD.unpack_from(data)
        payload, data = data[HEAD.size : HEAD.size + size], data[HEAD.size + size :]
        direction = RESPONSE if kind & THEIRS else REQUEST
        stream = (1 << 31) - 1 if stream & LAST == LAST else stream & LAST
        said = payload if kind & BYTES == BYTES else frames.raw(kind & BYTES, flags, stream, payload)
        lines.append((direction, said))
    return lines


def write(lines: Sequence[tuple[int, bytes]]) -> bytes:
    """The script of what was said in whole frames, behind both ends' first SETTINGS."""
    script = b""
    for direction, data in lines:
        for one in frames.split(data.removeprefix(frames.PREFACE)):
            kind = one.kind | (THEIRS if direction is RESPONSE else 0)
            script += HEAD.pack(kind, one.flags, min(one.stream, LAST), len(one.payload)) + one.payload
    return script


def play(data: bytes) -> None:
    """One input. Raises AssertionError where the conversation does what it must not."""
    lines = read(data[1:])
    size = (data[0] if data else 0) % 50 + 1
    said, answers = ([line for direction, line in lines if direction is way] for way in (REQUEST, RESPONSE))
    no_matter_how_cut(said, answers, size)
    no_error_but_its_own(said, size, {1: (0, 64, 4096, 65_536)[size % 4]})


def begin(corpus: Path) -> None:
    """Conversations to begin with, as the properties make them."""
    for number in range(SEEDS):
        random = Random(number)
        staged = Play(number % 6, [(random.choice(NAMES), random.randrange(1 << 16)) for _ in range(40)])
        staged.settle()
        (corpus / f"seed-{number}").write_bytes(bytes([number]) + write(staged.lines)[:4000])


if __name__ == "__main__":
    fuzz(begin, play)
