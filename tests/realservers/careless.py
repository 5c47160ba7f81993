"""A proxy as one should not write it: what the tests must catch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from l7proxy.ops import Close, Direction, Need, Op, Pass, Record, Request
from policies.verdict import L7Decision, Verdict
from tests.realservers.rig import Talk

_ALLOWED = L7Decision(Verdict.FORWARDED, None, "starts with /public/")


class Careless(Talk):
    """Looks at the raw path and at Content-Length only."""

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        if direction is Direction.RESPONSE:
            return (Pass(len(data)),)
        ops: list[Op] = []
        position = 0
        while (head := data.find(b"\r\n\r\n", position) + 4) > 3:
            words = data[position:head].split(b" ")
            if len(words) < 3 or not words[1].startswith(b"/public/"):
                return [*ops, Close("refused")]
            size = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", data[position:head])
            ops.append(self._record(words, now))
            ops.append(Pass(head - position + (int(size[1]) if size else 0)))
            position = head + (int(size[1]) if size else 0)
            if position >= len(data):
                return ops
        return [*ops, Need(len(data) - position + 1)]

    def _record(self, words: list[bytes], now: float) -> Record:
        method, target = words[0].decode("latin-1"), words[1].decode("latin-1")
        return Record(Request(_ALLOWED, method, target, host="a"), 0, now, now)
