"""Splicing: of a mesh that is already there, as `l7proxy accelerate` does it, and of a node's own workers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from time import monotonic

from l7proxy.accelerate_config import NO_CGROUP, AccelerateConfig
from sockmap import cgroups, selftest
from sockmap.config import DatapathError
from sockmap.splice import ON_NEIGHBOUR, ON_SOCKET, Scope, Splicer
from sockmap.splice_state import Claim, obstacle, topmost

EVERY = 60.0
"""Seconds between two looks at what the programs have lost sight of."""


class Accelerator:
    """Splices until close(). `splicer`: the programs, and what they count, until then. `taken_over`: what a killed
    predecessor has left in the same cgroups."""

    def __init__(
        self, config: AccelerateConfig | None, state_dir: Path, workers: Path | None = None, lanes: int = 0
    ) -> None:
        """`config`: which connections; None for none but those with an end in the cgroup `workers`, which all are.
        `lanes`: see `Splicer`.

        Raises DatapathError where it cannot splice, or would break something; nothing is changed then.
        """
        if os.geteuid() != 0:
            raise DatapathError("splicing needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_PTRACE)")
        self.config, self.workers = config, workers
        self.scope = config.scope() if config is not None else Scope()
        self.cgroups = _chosen(config) if config is not None else []
        self._places = {cgroups.cgroup_root(): ON_NEIGHBOUR} if workers is not None else {}
        self._places |= dict.fromkeys(self.cgroups, ON_SOCKET)
        self.taken_over: list[str] = []
        self._claims: list[Claim] = []
        self._splicer: Splicer | None = None
        self._tidy_at = monotonic() + EVERY
        try:
            self._claims += [Claim(state_dir, cgroup) for cgroup in self._places]
            self.splicer = self._splicer = Splicer(lanes=lanes)
            self.scope = selftest.passed(self.splicer).scope(self.scope)
            self._begin()
        except OSError as error:
            self.close()
            raise DatapathError(f"splicing cannot begin: {error}") from error
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        for claim in self._claims:
            self.taken_over += filter(None, [claim.take_over()])
            claim.write(self.splicer, self._places[claim.cgroup])
        if self.workers is not None:
            self.scope = replace(self.scope, around=cgroups.cgroup_id(self.workers))
        self.splicer.start(self.scope)
        if self.workers is not None:
            self.splicer.attach_around(self.workers)
        for cgroup, program in self._places.items():
            self.splicer.attach(cgroup, program)
        for cgroup in topmost(list(self._places)):
            self.splicer.adopt(cgroup)

    def describe(self) -> str:
        """What it is attached to for its configuration, and what of that is chosen, in one line."""
        config = self.config
        if config is None:
            return ""
        parts = ["dry run, nothing is spliced"] if config.dry_run else []
        parts.append("cgroup " + ", ".join(map(str, self.cgroups)))
        named = {"network namespace": config.netns, "port": config.port, "program": config.process}
        named["not program"] = config.not_process
        parts += [f"{what} {', '.join(map(str, which))}" for what, which in named.items() if which]
        parts.append("any address" if config.anywhere else "loopback addresses")
        return "; ".join(parts)

    def tidy(self) -> None:
        """May be called as often as you like, from one thread: what the programs have lost sight of keeps no place."""
        if monotonic() >= self._tidy_at:
            self._tidy_at = monotonic() + EVERY
            self.splicer.tidy()

    def stop(self) -> None:
        """Splice no more, and look at no new connection. Nothing is lost; what is counted can still be read."""
        if self._splicer is not None:
            self._splicer.stop()
            self._splicer.detach()

    def close(self) -> None:
        """Stop, and give everything up."""
        if self._splicer is not None:
            self._splicer.close()
        for claim in self._claims:
            claim.close()
        self._splicer, self._claims = None, []


def _chosen(config: AccelerateConfig) -> list[Path]:
    """Raises DatapathError."""
    if not config.cgroup:
        raise DatapathError(NO_CGROUP)
    root = cgroups.cgroup_root()
    chosen = topmost([Path(os.path.normpath(cgroups.resolve(name))) for name in config.cgroup])
    for cgroup in chosen:
        reason = obstacle(cgroup, root)
        if reason:
            raise DatapathError(reason)
    return chosen
