"""Splicing inside `l7proxy run`: its life, its place in `status`, and its metrics.

The key `splice` of node.yaml is for the workers' sockets and their peers on this node; the workers live in a cgroup of
their own then, so that the kernel can tell their connections from all others. The key `accelerate` is for others'.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from platform import machine
from time import monotonic
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from l7proxy.accelerate import Accelerator
from l7proxy.accelerate_config import AccelerateConfig
from l7proxy.accelerate_text import stack_bytes
from sockmap import splice_state
from sockmap.cgroups import own_cgroup, remove, remove_left
from sockmap.config import DatapathError
from sockmap.splice_lanes import PLACES
from sockmap.splice_tables import refusals, stack_reasons

log = logging.getLogger("l7proxy")
WORKERS = "l7proxy-workers-"
"""What the names of the workers' cgroups begin with; the supervisor's process id follows."""
_OFF = {"splice": "the proxy's connections are not spliced", "accelerate": "accelerate: nothing is spliced"}
_UP = {
    "splice": "Whether the proxy's connections on this node are spliced (0: `l7proxy status` says why not)",
    "accelerate": "Whether the chosen connections of this node are spliced (0: `l7proxy status` says why not)",
}


class NodeSplicer:
    """An Accelerator, if node.yaml asks for one. Where it cannot be, policy is in force all the same.

    `cgroup` is where the workers belong, None without `splice`; `fds` what they make `Bridges` of, empty without.
    """

    def __init__(
        self, splice: bool, accelerate: AccelerateConfig | None, state_dir: Path, lifetime: int, fast_path: bool = True
    ) -> None:
        """`lifetime`: seconds after which the datapath forgets a connection that it sees no packet of. `fast_path`:
        whether workers get `Lanes`."""
        # Notes are read in the order in which another CPU writes them, which this machine's memory has to keep.
        self._lanes = PLACES if fast_path and splice and machine() == "x86_64" else 0
        self._splice, self._accelerate, self._state_dir = splice, accelerate, state_dir
        self._keys = [key for key, asked in (("splice", splice), ("accelerate", accelerate is not None)) if asked]
        self._renewal = lifetime / 4
        self._due = monotonic() + self._renewal
        self._accelerator: Accelerator | None = None
        self._why_off = dict.fromkeys(self._keys, "starting")
        self.cgroup: Path | None = None
        self.fds: dict[str, int] = {}

    # -- life ------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Splice from now on, or say why not. Before the workers start."""
        tries = [(self._splice, self._accelerate)]
        if len(self._keys) == 2:  # where both cannot be, as somebody else splices in a cgroup, or one is not there
            tries += [(True, None), (False, self._accelerate)]
        for splice, config in tries if self._keys else []:
            last = "splice" if config is None else "accelerate"
            try:
                await asyncio.to_thread(self._begin, splice, config)
            except (DatapathError, OSError) as error:
                self._why_off[last] = str(error)
            else:
                del self._why_off[last]
                if last == "accelerate" and splice:
                    del self._why_off["splice"]
                break
        self._tell()

    def _begin(self, splice: bool, config: AccelerateConfig | None) -> None:
        workers = None
        if splice:
            remove_left(WORKERS)
            workers = own_cgroup() / f"{WORKERS}{os.getpid()}"
            workers.mkdir(exist_ok=True)
        try:
            self._accelerator = Accelerator(config, self._state_dir, workers, self._lanes)
        except BaseException:
            if workers is not None:
                remove(workers)
            raise
        self.cgroup, self.fds = workers, self._accelerator.splicer.bridge_fds(lanes=self._lanes > 0)

    def _tell(self) -> None:
        for key in self._keys:
            if key in self._why_off:
                log.error("%s: %s", _OFF[key], self._why_off[key])
        if self._accelerator is not None:
            for line in self._accelerator.taken_over:
                log.info("splice: taken over: %s", line)
            for key in self._keys:
                if key not in self._why_off:
                    log.info("%s: ready%s", key, f": {self._detail(key)}" if self._detail(key) else "")

    def end(self) -> None:
        """Splice no more, once the workers have ended."""
        if self._accelerator is not None:
            self._accelerator.close()
        if self.cgroup is not None:
            remove(self.cgroup)
        self._accelerator, self.cgroup, self.fds = None, None, {}
        self._why_off = dict.fromkeys(self._keys, "stopping")

    # -- policy ----------------------------------------------------------------------------------------------------

    def judged_anew(self) -> None:
        """Packets are judged by a new policy: so is what is spliced, here and by other processes, before it goes on."""
        if self._accelerator is not None:
            self._accelerator.splicer.judged_anew()
        self._due = monotonic() + self._renewal
        try:
            splice_state.judged_anew(self._state_dir)
        except OSError as error:
            self._due = monotonic()
            log.error("others that splice here know nothing of the policy in force, and are told again: %s", error)

    def look(self) -> None:
        """Once a second: the datapath would forget connections that it sees no packet of; and who could not be told?"""
        if monotonic() >= self._due:
            self.judged_anew()

    def tidy(self) -> None:
        """Once a second, in a thread: what the programs have lost sight of keeps no place in their tables."""
        if self._accelerator is not None:
            self._accelerator.tidy()

    # -- what is shown ---------------------------------------------------------------------------------------------

    def _detail(self, key: str) -> str:
        if key in self._why_off:
            return self._why_off[key]
        return self._accelerator.describe() if key == "accelerate" and self._accelerator is not None else ""

    def _counts(self) -> dict[str, int]:
        return self._accelerator.splicer.counts() if self._accelerator is not None else {}

    def status(self) -> dict[str, Any]:
        """The keys `splice` and `accelerate` of `status`, as JSON, as far as node.yaml has them. One set of programs
        counts for both."""
        counts = self._counts()
        return {key: {"on": key not in self._why_off, "detail": self._detail(key), **counts} for key in self._keys}

    def metrics(self) -> list[Metric]:
        """For /metrics; none if node.yaml asks for neither."""
        ups = [GaugeMetricFamily(f"l7proxy_{key}_up", _UP[key], value=key not in self._why_off) for key in self._keys]
        counts = self._counts()
        return [*ups, *(_counters(counts) if counts else [])]


def _counters(counts: dict[str, int]) -> list[Metric]:
    def one(name: str, text: str, count: str) -> Metric:
        return CounterMetricFamily(f"l7proxy_splice_{name}", text, value=counts[count])

    def by(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
        family = CounterMetricFamily(f"l7proxy_splice_{name}", text, labels=[label])
        for value, count in values.items():
            family.add_metric([value], count)
        return family

    def reasons(names: dict[str, str]) -> dict[str, int]:
        return {text: counts[name.lower()] for name, text in names.items()}

    straight = counts["straight_bytes"]
    paths = {"straight": straight, "spliced": counts["spliced_bytes"] - straight, "stack": stack_bytes(counts)}
    return [
        one("paired", "Connections whose both ends were found on this node", "paired"),
        one("ended", "Of these, those that have ended", "ended"),
        by("bytes", "Bytes of paired connections (connections left to the stack count when they end)", "path", paths),
        one("flips", "How often an end went over from the stack to splicing", "flips"),
        one("budget_hits", "Sends that took the stack as the reader was too slow", "budget_hits"),
        by("refusals", "Ends of connections that are not spliced", "reason", reasons(refusals())),
        by("stack_sends", "Sends of spliced connections that took the stack", "reason", reasons(stack_reasons())),
    ]
