"""How a conversation puts together the operations of one call."""

from __future__ import annotations

from l7proxy.ops import Drop, Op, Pass


class Output:
    """The operations of one call; bytes of one kind that follow each other are one operation."""

    __slots__ = ("_kind", "_size", "ops", "taken")

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.taken = 0
        self._kind: type[Pass] | type[Drop] = Pass
        self._size = 0

    def take(self, kind: type[Pass] | type[Drop], size: int) -> None:
        """Pass or drop the next `size` bytes."""
        if kind is not self._kind:
            self.flush()
            self._kind = kind
        self._size += size
        self.taken += size

    def flush(self) -> None:
        """What follows has to stand behind the bytes that were taken so far."""
        if self._size:
            self.ops.append(self._kind(self._size))
            self._size = 0

    def add(self, op: Op) -> None:
        """An operation behind the bytes that were taken so far."""
        self.flush()
        self.ops.append(op)

    def done(self) -> list[Op]:
        """All of them."""
        self.flush()
        return self.ops
