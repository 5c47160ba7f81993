"""A program of some name in a cgroup and a namespace, which makes sockets and hands them over.

Told by lines of JSON on the socket that is its standard input: ["listen"|"connect", host, port].
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path


def main() -> None:
    """Serve until the other side closes."""
    Path("/proc/self/comm").write_text(sys.argv[1])
    control = socket.socket(fileno=0)
    control.send(b"ready")
    kept = []
    while told := control.recv(4096):
        what, host, port = json.loads(told)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            if what == "listen":
                made = socket.create_server((host, port), family=family)
            else:
                made = socket.create_connection((host, port), timeout=10)
                made.setblocking(True)
        except OSError as error:
            control.send(str(error).encode())
            continue
        socket.send_fds(control, [b"ok"], [made.fileno()])
        if what == "listen":
            kept.append(made)  # it is by its files that a program is found
        else:
            made.close()


main()
