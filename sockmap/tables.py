"""Policy and addresses in the kernel, by generation: the maps `policy` and `ipcache` of bpf/maps.h."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from sockmap import bpfmap
from sockmap.bpfmap import BpfMap
from sockmap.config import DatapathError, IpEntry
from sockmap.flows import address_bytes
from sockmap.rows import PolicyRow

Network = IPv4Network | IPv6Network
ENDPOINT = struct.Struct("=IH2x")
"""`struct ipcache_value`, and `struct endpoint`."""
IPCACHE_KEY = struct.Struct("=II16s")
POLICY_KEY = struct.Struct("=IIHBBIH2x")
NO_GENERATION = 0xFFFFFFFF
"""A number that no policy has."""
_VERDICT = struct.Struct("=I")
_GENERATION_BITS = 32
_FIXED_BITS = 96
_AUDIT = 0x100
_WORLD = 2
_ALL_IPV4, _MAPPED = IPv4Network("0.0.0.0/0"), IPv6Network("::ffff:0:0/96")


class Attached(NamedTuple):
    """An endpoint behind an interface."""

    ifindex: int
    endpoint_id: int
    identity: int
    networks: tuple[Network, ...]


@dataclass(slots=True)
class _Generation:
    """What the kernel has of one: its number, who has which address, and the keys and entries that are its own."""

    number: int = 0
    entries: dict[Network, IpEntry] = field(default_factory=dict)
    policy: list[bytes] = field(default_factory=list)
    ipcache: dict[bytes, bytes] = field(default_factory=dict)


class Tables:
    """The generation in force, and perhaps one that is to follow. Both maps carry its number in their keys."""

    def __init__(self, policy: BpfMap, ipcache: BpfMap) -> None:
        self._policy, self._ipcache = policy, ipcache
        self._now = _Generation()
        self._staged: _Generation | None = None

    @property
    def number(self) -> int:
        """The generation in force; 0 before the first."""
        return self._now.number

    def stage(
        self,
        rows: Iterable[PolicyRow],
        entries: Mapping[Network, IpEntry],
        attached: Iterable[Attached],
        generation: int,
    ) -> None:
        """Write a generation beside the one in force, all of it or nothing. Raises DatapathError."""
        self._unstage()
        if not 0 < generation < NO_GENERATION or generation == self.number:
            raise DatapathError(f"generation {generation} cannot follow {self.number}")
        policy = {_policy_key(row, generation): _policy_value(row) for row in rows}
        ipcache = _ipcache_entries(entries, attached, generation)
        _write_beside(self._policy, policy, f"a policy of {len(policy)} rows")
        try:
            _write_beside(self._ipcache, ipcache, f"{len(ipcache)} addresses and prefixes")
        except DatapathError:
            self._policy.delete_many(list(policy))
            raise
        self._staged = _Generation(generation, dict(entries), list(policy), ipcache)

    def switch(self, publish: Callable[[], None]) -> None:
        """What is staged is in force; `publish` tells the programs its number. Raises DatapathError if nothing is."""
        if self._staged is None:
            raise DatapathError("no policy is staged")
        former, self._now, self._staged = self._now, self._staged, None
        publish()
        # A program that has read the old generation's number must find what belongs to it to the end of its run.
        bpfmap.barrier()
        self._forget(former)

    def sync(self, attached: Iterable[Attached]) -> None:
        """Others are attached, under the policy in force. What is staged knows nothing of it, and is given up."""
        self._unstage()
        now = self._now
        wanted = _ipcache_entries(now.entries, attached, now.number)
        gone = [key for key in now.ipcache if key not in wanted]
        fresh = [(key, value) for key, value in wanted.items() if now.ipcache.get(key) != value]
        self._ipcache.update_many(fresh)
        self._ipcache.delete_many(gone)
        now.ipcache = wanted

    def _unstage(self) -> None:
        if self._staged is not None:
            self._forget(self._staged)
            self._staged = None

    def _forget(self, gone: _Generation) -> None:
        self._policy.delete_many(gone.policy)
        self._ipcache.delete_many(list(gone.ipcache))


def _write_beside(to: BpfMap, fresh: Mapping[bytes, bytes], what: str) -> None:
    """All of it or nothing, beside what another generation has. Raises DatapathError."""
    try:
        to.update_many(list(fresh.items()))
    except OSError as error:
        for key in fresh:
            to.delete(key)
        why = "with what is in force, the map is full" if error.errno == errno.ENOSPC else error.strerror
        raise DatapathError(f"{what} cannot be written: {why}") from error


def _ipcache_entries(
    entries: Mapping[Network, IpEntry], attached: Iterable[Attached], generation: int
) -> dict[bytes, bytes]:
    attached = list(attached)
    local = {one.endpoint_id for one in attached}
    # In one trie with IPv6, IPv4 needs a world of its own: `::/0` would be everybody's else.
    wanted = {_ipcache_key(_ALL_IPV4, generation): ENDPOINT.pack(_WORLD, 0)}
    for network, (identity, endpoint) in entries.items():
        if network.version == 4 or not network.subnet_of(_MAPPED):
            value = ENDPOINT.pack(identity, endpoint if endpoint in local else 0)
            wanted[_ipcache_key(network, generation)] = value
    for one in attached:
        value = ENDPOINT.pack(one.identity, one.endpoint_id)
        wanted.update((_ipcache_key(network, generation), value) for network in one.networks)
    return wanted


def _ipcache_key(network: Network, generation: int) -> bytes:
    bits = _GENERATION_BITS + network.prefixlen + (96 if network.version == 4 else 0)
    return IPCACHE_KEY.pack(bits, generation, address_bytes(str(network.network_address)))


def _policy_key(row: PolicyRow, generation: int) -> bytes:
    port = int.from_bytes(row.port.to_bytes(2, "big"), "little")
    bits = _FIXED_BITS + row.prefix_bits
    return POLICY_KEY.pack(bits, generation, row.endpoint_id, row.direction, row.protocol, row.identity, port)


def _policy_value(row: PolicyRow) -> bytes:
    return _VERDICT.pack(row.verdict | (_AUDIT if row.audit else 0))
