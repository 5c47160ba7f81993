"""A process on the test node that holds a Datapath and a small transparent proxy, and does what its stdin says.

Calls and answers are pickles behind a 4-byte length: (target, method, args, kwargs) in, (ok, value) out.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

from sockmap.datapath import Datapath, DatapathConfig
from sockmap.flows import Flow, FlowTable
from tests.datapath.proxy import Proxy


class Agent:
    """What calls may name besides the datapath's own methods."""

    def __init__(self, config: DatapathConfig) -> None:
        self.datapath = Datapath(config)
        self.flows = FlowTable(self.datapath.flows_fd)
        self.proxy = Proxy(self.datapath, config.mark_proxy)

    def flow(self, *ends: Any) -> Flow | None:
        """The tracked flow of a connection."""
        return self.flows.lookup(*ends)

    def move(self, cgroup: str) -> None:
        """Enter a cgroup."""
        (Path(cgroup) / "cgroup.procs").write_text(str(os.getpid()))


def read(stream: BinaryIO) -> Any:
    """One message; None at the end."""
    head = stream.read(4)
    return pickle.loads(stream.read(struct.unpack("<I", head)[0])) if head else None  # noqa: S301 -- from the test


def write(stream: BinaryIO, message: Any) -> None:
    """Send one message."""
    data = pickle.dumps(message)
    stream.write(struct.pack("<I", len(data)) + data)
    stream.flush()


def main() -> None:
    """Answer calls until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # bcc prints to stdout
    try:
        agent = Agent(read(sys.stdin.buffer))
    except Exception as error:
        write(answers, (False, error))
        return
    write(answers, (True, None))
    while (call := read(sys.stdin.buffer)) is not None:
        target, method, args, kwargs = call
        try:
            holder = agent if target == "agent" else getattr(agent, target)
            write(answers, (True, getattr(holder, method)(*args, **kwargs)))
        except Exception as error:
            write(answers, (False, error))


if __name__ == "__main__":
    main()
