"""What the clients in Python have in common: each is run as ``CLIENT.py BOOTSTRAP NAME SCENARIO``, and says in lines of
JSON what came of it.

Topics end with the client's name: ``open-`` is allowed, ``write-`` may only be written and ``read-`` only be read, and
``secret-`` is refused, as are such groups and transactional ids.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import os
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

TIMEOUT = 60
"""Seconds within which whatever is allowed happens."""
ACKS = {"acks=0": 0, "acks=1": 1, "acks=all": "all"}
LARGE = 20 << 20
LOGIN = os.environ.get("KAFKA_LOGIN")
"""A user's name, which is the password too; None: do not log in."""


def large() -> bytes:
    """A value that nothing makes smaller."""
    return random.Random(6).randbytes(LARGE)


def digest(value: bytes | None) -> str:
    """What tells a large value from another."""
    return hashlib.sha256(value or b"").hexdigest()


def say(value: Any) -> None:
    """One line."""
    print(json.dumps(value), flush=True)


def main(scenarios: Mapping[str, Callable[[str, str], Any]]) -> None:
    """Run the one that is asked for."""
    bootstrap, name, scenario = sys.argv[1:4]
    found = scenarios[scenario](bootstrap, name)
    say(asyncio.run(found) if inspect.iscoroutine(found) else found)
