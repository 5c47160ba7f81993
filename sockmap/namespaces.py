"""Network namespaces by the names that people have for them."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from pathlib import Path

from sockmap.config import DatapathError

_NAMED = Path("/run/netns")
_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71


def cookie(namespace: str) -> int:
    """What bpf_get_netns_cookie returns for the sockets of a namespace: a name of `ip netns`, a path, or the id of a
    process in it. Raises DatapathError."""
    path = _path(namespace)
    found: list[int | OSError] = []
    # A thread of its own, as it could not be sure to come back.
    thread = threading.Thread(target=lambda: found.append(_cookie(path)))
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise DatapathError(f"network namespace {namespace} ({path}): {found[0].strerror}")
    return found[0]


def _path(namespace: str) -> Path:
    if "/" in namespace:
        return Path(namespace)
    named = _NAMED / namespace
    return Path(f"/proc/{namespace}/ns/net") if namespace.isdecimal() and not named.exists() else named


def _cookie(path: Path) -> int | OSError:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        with path.open("rb") as file:
            if libc.setns(file.fileno(), _NEWNET) != 0:
                number = ctypes.get_errno()
                return OSError(number, os.strerror(number))
        with socket.socket() as sock:
            return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])
    except OSError as error:
        return error
