"""Whether anything moves on a connection, looked at once a second."""

from __future__ import annotations

from l7proxy.half import Half


class Progress:
    """How much the pumps have moved, and since when a peer has taken nothing of what waits for it."""

    __slots__ = ("_backlog", "_pumped", "_since")

    def __init__(self) -> None:
        self._pumped = 0
        self._backlog = (0, 0)
        self._since = 0.0

    def look(self, halves: tuple[Half, Half], now: float) -> bool:
        """Take notice of the present state. True if pumps have moved bytes, of which nobody else hears."""
        backlog = (halves[0].backlog(), halves[1].backlog())
        if backlog != self._backlog:
            self._backlog, self._since = backlog, now
        pumped = halves[0].pumped() + halves[1].pumped()
        changed, self._pumped = pumped != self._pumped, pumped
        return changed

    def stuck(self, now: float) -> float:
        """Seconds for which bytes have waited and no peer has taken any; 0 if none wait."""
        return now - self._since if any(self._backlog) else 0.0
