"""A client that goes on reading, and what it says."""

from __future__ import annotations

import json
import subprocess
import threading
from functools import partial
from queue import Empty, Queue
from typing import Any

from tests.kafka.e2e.common import Net, batch
from tests.kafka.wire import Wire

REFUSING = {"role": "consume", "topics": ["other"], "groups": ["open-*"]}
"""A rule under which nothing can be read."""
WITHIN = 60.0
"""Seconds that a slow machine may need for anything."""


class Watcher:
    """A client that says what it reads of its topic."""

    def __init__(self, net: Net, client: str, process: subprocess.Popen[str]) -> None:
        self._net, self._topic = net, f"open-{client}-watch"
        self._process = process
        self._said: Queue[str] = Queue()
        self._refused = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))

    def put(self, value: str) -> None:
        """Store one message, past l7proxy."""
        data = [{"name": self._topic, "partition_data": [{"index": 0, "records": batch(value)}]}]
        with self._net.broker.wire() as wire:
            self._net.lab.wait(lambda: not self._error(wire, data), WITHIN, f"room for {value!r}")

    @staticmethod
    def _error(wire: Wire, data: list[dict[str, Any]]) -> int:
        """A broker may know a topic before it leads its partitions."""
        (row,) = wire.ask("Produce", 9, {"acks": 1, "timeout": 20000, "topic_data": data})["responses"]
        return int(row["partition_responses"][0]["error_code"])

    def hears(self, value: str) -> None:
        """Wait until it says this."""
        found: list[str] = []
        while value not in found:
            try:
                found.append(self._said.get(timeout=WITHIN))
            except Empty:
                raise AssertionError(f"{value!r} does not come, only {found}: {self._net.records()[-6:]}") from None

    def said(self) -> list[str]:
        """All that it has said and that was not waited for."""
        return [self._said.get() for _ in range(self._said.qsize())]

    def is_refused(self) -> None:
        """Wait until a request for its topic is refused once more."""
        self._refused += 1
        self._net.node.wait_flows(partial(is_refused, self._topic), self._refused)
        self._refused = sum(is_refused(self._topic, record) for record in self._net.node.flows())


def is_refused(topic: str, record: dict[str, Any]) -> bool:
    """Whether it is of a request that was refused for this topic."""
    flow = record.get("flow", {})
    return flow.get("verdict") == "DROPPED" and topic in str(flow.get("extensions"))
