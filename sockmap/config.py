"""What can be set about the datapath, and what goes wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

ProxyDown = Literal["closed", "open"]


class DatapathError(Exception):
    """The datapath cannot do what was asked; the text says why."""


class IpEntry(NamedTuple):
    """Who has an address. `endpoint_id` is 0, or the id of a workload; it counts while that is attached here."""

    identity: int
    endpoint_id: int = 0


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds a tracked flow lives without a packet: TCP before and after it is established and when it ends, all
    else, and the ports of a fragmented packet."""

    syn: int = 60
    established: int = 8 * 3600
    closing: int = 10
    other: int = 60
    fragment: int = 30


@dataclass(frozen=True, slots=True)
class DatapathConfig:
    """Settings of a Datapath.

    The three mark values lie inside `mark_mask`, which lies inside the lower 16 bits; the upper 16 carry an identity.
    `event_rate` is events a second and CPU. The `_entries` are the sizes of the kernel's maps.
    """

    state_dir: Path = Path("/run/l7proxy")
    mark_mask: int = 0x0F00
    mark_steer: int = 0x0200
    mark_proxy: int = 0x0A00
    mark_identity: int = 0x0C00
    route_table: int = 2005
    rule_priority: int = 9
    filter_priority: int = 1
    on_proxy_down: ProxyDown = "closed"
    workers: int = 2
    event_rate: int = 1000
    event_pages: int = 64
    ct_entries: int = 262_144
    frag_entries: int = 8192
    ipcache_entries: int = 524_288
    policy_entries: int = 4_194_304
    lifetimes: Lifetimes = field(default_factory=Lifetimes)

    def check(self) -> None:
        """Raises DatapathError for values that cannot work together."""
        marks = (self.mark_steer, self.mark_proxy, self.mark_identity)
        if not 0 < self.mark_mask <= 0xFFFF:
            raise DatapathError(f"mark mask {self.mark_mask:#x} is not within 0xffff")
        if any(not mark or mark & ~self.mark_mask for mark in marks) or len(set(marks)) != len(marks):
            values = ", ".join(f"{mark:#x}" for mark in marks)
            raise DatapathError(f"marks {values} must differ, not be 0 and lie within the mask {self.mark_mask:#x}")
        if not 1 <= self.workers <= 256:
            raise DatapathError(f"{self.workers} workers: 1 to 256 are possible")
        if self.event_rate < 1 or self.event_pages & (self.event_pages - 1) or self.event_pages < 1:
            raise DatapathError("event_rate must be positive and event_pages a power of two")

    def defines(self) -> dict[str, int]:
        """The constants of the BPF programs."""
        return {
            "MARK_MASK": self.mark_mask,
            "MARK_STEER": self.mark_steer,
            "MARK_PROXY": self.mark_proxy,
            "MARK_IDENTITY": self.mark_identity,
            "WORKERS": self.workers,
            "EVENT_RATE": self.event_rate,
            "EVENT_PAGES": self.event_pages,
            "CT_ENTRIES": self.ct_entries,
            "FRAG_ENTRIES": self.frag_entries,
            "IPCACHE_ENTRIES": self.ipcache_entries,
            "POLICY_ENTRIES": self.policy_entries,
            "SYN_SECONDS": self.lifetimes.syn,
            "ESTABLISHED_SECONDS": self.lifetimes.established,
            "CLOSING_SECONDS": self.lifetimes.closing,
            "OTHER_SECONDS": self.lifetimes.other,
            "FRAGMENT_SECONDS": self.lifetimes.fragment,
            "LOOPBACK_IFINDEX": 1,
            "CGROUP_LEVELS": 16,
        }
