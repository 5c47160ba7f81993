"""Frames that cost their receiver more than their sender, counted second by second."""

from __future__ import annotations

from parsers.http2 import Broken, Code
from parsers.options import HttpOptions


class Floods:
    """One client's: control frames (SETTINGS, PING, PRIORITY, empty DATA, unknown ones) and streams that it opens only
    to reset them, or beyond what is allowed."""

    __slots__ = ("_control", "_options", "_resets", "_second", "_updates")

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._second = self._control = self._resets = self._updates = 0

    def control(self, now: float) -> None:
        """Count a control frame. Raises Broken."""
        self._turn(now)
        self._control += 1
        if self._control > self._options.max_control_frames:
            raise Broken(
                Code.ENHANCE_YOUR_CALM, f"more than {self._options.max_control_frames} control frames a second"
            )

    def update(self, now: float) -> None:
        """Count a WINDOW_UPDATE: of them there may be many, but not without end. Raises Broken."""
        self._turn(now)
        self._updates += 1
        if self._updates > 10 * self._options.max_control_frames:
            raise Broken(Code.ENHANCE_YOUR_CALM, f"{self._updates} window updates within a second")

    def reset(self, now: float) -> None:
        """Count a stream that was reset. Raises Broken."""
        self._turn(now)
        self._resets += 1
        if self._resets > self._options.max_resets:
            raise Broken(Code.ENHANCE_YOUR_CALM, f"more than {self._options.max_resets} streams reset within a second")

    def _turn(self, now: float) -> None:
        second = int(now)
        if second != self._second:
            self._second, self._control, self._resets, self._updates = second, 0, 0, 0
