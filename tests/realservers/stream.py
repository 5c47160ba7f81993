"""The words that attacks are made of: a stream is a leading request and what hides behind it."""

from __future__ import annotations

from dataclasses import dataclass

TAG = b"TAGTAGTA"
"""Stands for eight characters that make the targets of a stream unique; the length stays the same."""
HIDDEN = b"GET /secret/" + TAG + b" HTTP/1.1\r\nHost: a\r\n\r\n"
SIZE = len(HIDDEN)


@dataclass(frozen=True)
class Vector:
    """A client's bytes, in parts that are sent one after the other's answer.

    `legal`: an honest client may send it, and it is passed unless an option refuses it.
    """

    name: str
    parts: tuple[bytes, ...]
    legal: bool = False

    def tagged(self, tag: bytes) -> tuple[bytes, ...]:
        """The parts with the tag in place."""
        assert len(tag) == len(TAG)
        return tuple(part.replace(TAG, tag) for part in self.parts)


def request(*lines: bytes, body: bytes = b"", start: bytes = b"POST /public/" + TAG + b" HTTP/1.1") -> bytes:
    """A request with a Host and the given header lines."""
    return b"\r\n".join((start, b"Host: a", *lines, b"", body))


def vector(name: str, *parts: bytes, legal: bool = False) -> Vector:
    """One vector; its name says in a failure what was sent."""
    return Vector(name, parts, legal)


def length(value: int) -> bytes:
    """A Content-Length line."""
    return b"Content-Length: %d" % value


CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"
