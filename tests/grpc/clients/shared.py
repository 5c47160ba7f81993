"""What the grpcio clients of these tests share. Each is a program: ``CLIENT TARGET SCENARIO``, one line of JSON out.

What a call came to is ``[code, details]`` where it failed; scenarios say what they give.
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import Any

ORDERS, ADMIN = "/orders.v1.Orders/", "/orders.v1.Admin/"
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
]
METADATA = (
    ("x-text", "a, b"),
    ("x-more", "1"),
    ("x-more", "2"),
    ("x-long", "y" * 5000),
    ("x-bytes-bin", bytes(range(256))),
    ("x-odd", "~!@ #$%^&*()_+"),
)
CALLS, EVERY = 1000, 3
TIMEOUT = 20.0


def failed(error: Any) -> list[str]:
    """How a call failed."""
    return [error.code().name, error.details()]


def big() -> bytes:
    """4 MiB that do not compress."""
    return os.urandom(4 << 20)


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def plain(metadata: Any) -> list[list[str]]:
    """Our metadata as JSON can hold them."""
    pairs = [(key, value) for key, value in metadata if key.startswith("x-")]
    return [[key, value.hex() if isinstance(value, bytes) else value] for key, value in pairs]


def options() -> tuple[str, str]:
    """The command line: target and scenario."""
    return sys.argv[1], sys.argv[2]
