"""What parsers of frames raise."""

from __future__ import annotations


class Malformed(Exception):
    """Bytes that are no such message; `offset` from the beginning of what was given to read (None: nothing was read),
    `text` says what is wrong."""

    def __init__(self, offset: int | None, text: str) -> None:
        super().__init__(text if offset is None else f"{text} at byte {offset}")
        self.offset, self.text = offset, text
