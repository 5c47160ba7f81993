"""How the demo speaks: scenes, commands, answers, and the tally of what was not as told."""

from __future__ import annotations

import os
import sys
import textwrap

_COLOR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
_WIDTH = 100


class Voice:
    """Prints the play. `failures` counts what was not as expected."""

    def __init__(self) -> None:
        self.scene_number = 0
        self.failures = 0

    def scene(self, title: str, text: str) -> None:
        """Begin a scene."""
        self.scene_number += 1
        print(f"\n{paint('1', f'{self.scene_number}. {title}')}")
        print(textwrap.fill(text, _WIDTH))
        print()

    def command(self, who: str, words: str) -> None:
        """A command that somebody gives."""
        print(f"  {paint('36', who + '$')} {words}", flush=True)

    def output(self, text: str) -> None:
        """What a command printed."""
        for line in text.rstrip("\n").splitlines():
            short = textwrap.wrap(line, _WIDTH, subsequent_indent="      ", break_on_hyphens=False) or [""]
            for part in [line] if len(line) <= _WIDTH else short:
                print(f"    {part}", flush=True)

    def check(self, good: bool, told: str, found: object = "") -> None:
        """Say what is so; if it is not, say that, and remember."""
        if good:
            print(f"    {paint('32', '✓')} {told}", flush=True)
        else:
            self.failures += 1
            print(f"    {paint('31', '✗')} NOT SO: {told} (found: {found!r})", flush=True)


def paint(code: str, text: str) -> str:
    """Colour for terminals, plain text for files."""
    return f"\x1b[{code}m{text}\x1b[0m" if _COLOR else text
