"""Label sets and prefixes become numbers, and addresses become identities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

from policies.identity import (
    FIRST_CIDR,
    FIRST_ENDPOINT,
    LAST,
    RESERVED,
    Identity,
    Network,
    cidr,
    reserved,
    workload,
)

Address: TypeAlias = IPv4Address | IPv6Address


class IdentityError(Exception):
    """No identity can be given: the numbers are used up, or nobody has that name."""


@dataclass(frozen=True, slots=True)
class Workload:
    """An endpoint as the datapath and the workers know it. `id` is 1..65535; 0 would mean "no endpoint"."""

    id: int
    name: str
    identity: Identity
    addresses: tuple[Address, ...]
    interface: str | None
    cgroup: str | None

    @property
    def local(self) -> bool:
        """True if policy is enforced for it on this node (False: known by address only)."""
        return self.interface is not None or self.cgroup is not None


class IdentityTable:
    """Every identity this node knows. Numbers stay the same for as long as their labels or prefix are in use."""

    def __init__(self) -> None:
        self.numbers: dict[int, Identity] = {number: reserved(name) for name, number in RESERVED.items()}
        self.workloads: dict[str, Workload] = {}
        self._labels: dict[object, int] = {}
        self._prefixes: dict[Network, Identity] = {}
        self._hosts: set[Network] = {ip_network("127.0.0.0/8"), ip_network("::1/128")}
        self._next_id = 1
        self._cursor: dict[int, int] = {}

    # -- who there is -------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        addresses: Iterable[str | Address] = (),
        named_ports: Mapping[str, int] | None = None,
        interface: str | None = None,
        cgroup: str | None = None,
    ) -> Workload:
        """Add an endpoint and give it an id and an identity."""
        if name in self.workloads:
            raise IdentityError(f"an endpoint named {name!r} is already there")
        identity = self.intern(labels, named_ports)
        known = tuple(ip_address(str(address)) for address in addresses)
        entry = Workload(self._free_id(), name, identity, known, interface, cgroup)
        self.workloads[name] = entry
        return entry

    def remove(self, name: str) -> Workload:
        """Forget an endpoint; its identity's number is free again once nobody has the same labels."""
        entry = self.workloads.pop(name, None)
        if entry is None:
            raise IdentityError(f"no endpoint is named {name!r}")
        if all(other.identity.number != entry.identity.number for other in self.workloads.values()):
            self.numbers.pop(entry.identity.number, None)
            self._labels = {key: number for key, number in self._labels.items() if number != entry.identity.number}
        return entry

    def intern(self, labels: Mapping[str, str], named_ports: Mapping[str, int] | None = None) -> Identity:
        """The identity of a label set; endpoints with the same labels and named ports share one."""
        draft = workload(0, labels, named_ports)
        key = (frozenset(draft.labels.items()), frozenset(draft.named_ports.items()))
        number = self._labels.get(key)
        if number is None:
            number = self._free_number(FIRST_ENDPOINT, FIRST_CIDR)
            self._labels[key] = number
            self.numbers[number] = Identity(number, draft.labels, None, draft.named_ports)
        return self.numbers[number]

    def set_prefixes(self, prefixes: Iterable[Network]) -> None:
        """Exactly these prefixes, those that policies name, have identities from now on."""
        wanted = set(prefixes)
        for prefix in set(self._prefixes) - wanted:
            del self.numbers[self._prefixes.pop(prefix).number]
        for prefix in sorted(wanted - set(self._prefixes), key=str):
            identity = cidr(self._free_number(FIRST_CIDR, LAST + 1), prefix)
            self._prefixes[prefix] = self.numbers[identity.number] = identity

    def set_host_addresses(self, addresses: Iterable[str | Address]) -> bool:
        """The node's own addresses; true if that changed anything."""
        hosts = {ip_network(str(address)) for address in addresses}
        hosts |= {ip_network("127.0.0.0/8"), ip_network("::1/128")}
        changed, self._hosts = hosts != self._hosts, hosts
        return changed

    # -- who somebody is ----------------------------------------------------------------------------------------

    def by_name(self, name: str) -> Workload:
        """The endpoint of that name. Raises IdentityError."""
        if name not in self.workloads:
            known = ", ".join(sorted(self.workloads)) or "none"
            raise IdentityError(f"no endpoint is named {name!r} (known: {known})")
        return self.workloads[name]

    def by_address(self, address: str | Address) -> Identity:
        """The identity of an address: the longest prefix wins, and what nobody claims is the world."""
        wanted = ip_address(str(address))
        best, length = reserved("world"), -1
        for network, (identity, _) in self.ipcache().items():
            if network.version == wanted.version and network.prefixlen > length and wanted in network:
                best, length = identity, network.prefixlen
        return best

    def entity(self, name: str) -> Identity:
        """A reserved identity by name. Raises IdentityError."""
        if name not in RESERVED:
            raise IdentityError(f"no entity is named {name!r} (known: {', '.join(RESERVED)})")
        return reserved(name)

    def ipcache(self) -> dict[Network, tuple[Identity, int]]:
        """Network to (identity, endpoint id or 0), for the kernel's longest-prefix map."""
        result: dict[Network, tuple[Identity, int]] = {p: (i, 0) for p, i in self._prefixes.items()}
        result.update((network, (reserved("host"), 0)) for network in self._hosts)
        for entry in self.workloads.values():
            # A service on the host has the host's addresses: its packets are told apart by the socket's mark.
            if entry.cgroup is None:
                result.update((ip_network(str(a)), (entry.identity, entry.id)) for a in entry.addresses)
        return result

    # -- numbers ------------------------------------------------------------------------------------------------

    def _free_number(self, first: int, end: int) -> int:
        """The next free number, round and round: one that has just been given up is not soon somebody else's, so
        whoever still holds it (a connection, a tracked flow) is unknown, not mistaken."""
        start = self._cursor.get(first, first)
        for step in range(end - first):
            number = first + (start - first + step) % (end - first)
            if number not in self.numbers:
                self._cursor[first] = number + 1
                return number
        raise IdentityError(f"all {end - first} identity numbers from {first} are in use")

    def _free_id(self) -> int:
        used = {entry.id for entry in self.workloads.values()}
        for step in range(65535):
            candidate = (self._next_id - 1 + step) % 65535 + 1
            if candidate not in used:
                self._next_id = candidate % 65535 + 1
                return candidate
        raise IdentityError("65535 endpoints are already there")
