"""What changes on a node without anybody telling l7proxy: its policy files and its own addresses."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

from pyroute2 import IPRoute

from policies.document import DocumentError
from policies.load import find_files


def host_addresses() -> set[str]:
    """The addresses of this network namespace, link-local ones included. In a thread of its own, please: pyroute2
    runs an event loop and refuses to do so inside another."""
    with IPRoute() as netlink:
        return {str(message.get_attr("IFA_ADDRESS")) for message in netlink.get_addr()} | {
            str(local)
            for message in netlink.get_addr(family=socket.AF_INET)
            if (local := message.get_attr("IFA_LOCAL"))
        }


def fingerprint(paths: Iterable[Path]) -> tuple[tuple[str, int, int, int], ...]:
    """Changes whenever a policy file is written, moved, added or taken away."""
    found = []
    try:
        for path in find_files(paths):
            state = path.stat()
            found.append((str(path), state.st_ino, state.st_mtime_ns, state.st_size))
    except (OSError, DocumentError) as error:
        return ((str(error), 0, 0, 0),)
    return tuple(found)
