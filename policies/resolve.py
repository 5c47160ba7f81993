"""L3/L4 policy resolved: for an endpoint, a direction and a peer, what becomes of each protocol and port.

Cilium's rules: deny beats allow; default deny once a policy that selects the endpoint says so; the L7 lists of all
rules over a port are one list, and one L4-only allow beside them lets every request pass, through the proxy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from policies.atoms import LAST_PORT, PROTOCOLS, Atom, Member, Members, Selection
from policies.decision import L4Decision, PortRow
from policies.identity import Identity, Network
from policies.judgement import Judge, Word
from policies.model import CidrPeer, Policy, TrafficDirection

_MAX_CACHED = 50_000
"""(endpoint, peer) pairs and tables remembered before all are forgotten and made anew."""

_Holding: TypeAlias = tuple[Member, ...]
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class _Subject:
    """What counts for an endpoint in one direction: policies in force, and those with the ones in audit mode. Endpoints
    with the same policies share one, known by its serial number."""

    serial: int
    enforced: Selection
    candidate: Selection
    audited: bool


@dataclass(frozen=True, slots=True)
class _Signature:
    """All that a table depends on. Equal signatures have equal tables."""

    subject: int
    enforced: tuple[int, ...]
    candidate: tuple[int, ...]
    ports: tuple[tuple[str, int], ...]
    localhost: bool


class _Table:
    """The rows of all protocols, found by port."""

    __slots__ = ("_starts", "rows")

    def __init__(self, rows: Sequence[PortRow]) -> None:
        self.rows = tuple(rows)
        self._starts: dict[str, tuple[list[int], list[PortRow]]] = {}
        for protocol in PROTOCOLS:
            own = [row for row in rows if row.protocol == protocol]
            self._starts[protocol] = [row.low for row in own], own

    def find(self, protocol: str, port: int) -> L4Decision:
        if protocol not in self._starts:
            protocol, port = "OTHER", 0
        lows, rows = self._starts[protocol]
        return rows[bisect_right(lows, port) - 1].decision


class Resolver:
    """The policies of one epoch, ready to be asked. Answers are remembered, and equal ones are shared.

    `node_audit`: nothing is enforced, everything that would be refused is an audit. `allow_localhost`: the host may
    reach its endpoints whatever allow rules say, as under a stock Cilium agent; deny rules still count.
    """

    def __init__(self, policies: Sequence[Policy], *, node_audit: bool = False, allow_localhost: bool = False) -> None:
        self._members = Members(policies)
        self._node_audit, self._allow_localhost = node_audit, allow_localhost
        self._judge = Judge()
        self._keys: dict[int, tuple[Identity, Hashable]] = {}
        self._subjects: dict[Hashable, _Subject] = {}
        self._shared: dict[tuple[TrafficDirection, tuple[int, ...]], _Subject] = {}
        self._pairs: dict[Hashable, tuple[_Signature, _Holding, _Holding]] = {}
        self._tables: dict[_Signature, _Table] = {}

    def decide(
        self,
        direction: TrafficDirection,
        subject: Identity,
        peer: Identity,
        protocol: str,
        port: int,
        destination: Identity | None = None,
    ) -> L4Decision:
        """What becomes of a flow. `protocol` is TCP, UDP, SCTP or anything else, which has no ports. `destination`
        is whose port names count: by default the subject for ingress, the peer for egress."""
        return self._table(direction, subject, peer, destination).find(protocol.upper(), port)

    def table(self, direction: TrafficDirection, subject: Identity, peer: Identity) -> tuple[PortRow, ...]:
        """The decisions for every port: disjoint intervals in order, covering 0..65535 of TCP, UDP, SCTP, OTHER."""
        return self._table(direction, subject, peer, None).rows

    def selected(self, direction: TrafficDirection, subject: Identity) -> bool:
        """Whether some policy, in whatever mode, puts the endpoint in default deny."""
        return self._subject(direction, subject).candidate.selected

    def touched(self, direction: TrafficDirection, subject: Identity) -> bool:
        """Whether any policy has a say. If not, everything is allowed."""
        return self._subject(direction, subject).candidate.touched

    def peer_signature(self, direction: TrafficDirection, subject: Identity, peer: Identity) -> Hashable:
        """Something small that is equal for two peers if, and only if, the same rules count for both."""
        return self._pair(direction, subject, peer, None)[0]

    def _subject(self, direction: TrafficDirection, subject: Identity) -> _Subject:
        key = (direction, self._key(subject))
        found = self._subjects.get(key)
        if found is None:
            candidate = self._members.select(direction, subject, audit=True)
            shared = self._shared.get((direction, candidate.places))
            if shared is None:
                shared = self._shared[direction, candidate.places] = self._modes(candidate, subject)
            found = _remember(self._subjects, key, shared)
        return found

    def _modes(self, candidate: Selection, subject: Identity) -> _Subject:
        audited = self._node_audit or any(policy.audit for policy in candidate.policies)
        enforced = candidate
        if self._node_audit:
            enforced = Selection(candidate.direction, (), (), ())
        elif audited:
            enforced = self._members.select(candidate.direction, subject, audit=False)
        return _Subject(len(self._shared), enforced, candidate, audited)

    def _pair(
        self, direction: TrafficDirection, subject: Identity, peer: Identity, destination: Identity | None
    ) -> tuple[_Signature, _Holding, _Holding]:
        if destination is None:
            destination = subject if direction is TrafficDirection.INGRESS else peer
        of = self._subject(direction, subject)
        key = (of.serial, self._key(peer), tuple(destination.named_ports.items()))
        found = self._pairs.get(key)
        if found is None:
            candidate = of.candidate.holding(peer)
            enforced = of.enforced.holding(peer) if of.audited else candidate
            signature = self._signature(of, enforced, candidate, destination.named_ports, peer)
            found = _remember(self._pairs, key, (signature, enforced, candidate))
        return found

    def _signature(
        self, of: _Subject, enforced: _Holding, candidate: _Holding, named: Mapping[str, int], peer: Identity
    ) -> _Signature:
        names = {name for member in (*enforced, *candidate) for name in member.names} if named else ()
        ingress = of.candidate.direction is TrafficDirection.INGRESS
        return _Signature(
            of.serial,
            tuple([member.number for member in enforced]),
            tuple([member.number for member in candidate]),
            tuple(sorted((name, named[name]) for name in names if name in named)),
            self._allow_localhost and ingress and peer.reserved == "host",
        )

    def _key(self, identity: Identity) -> Hashable:
        """An identity's labels and ports: numbers may not be given out yet, or be given out anew."""
        found = self._keys.get(id(identity))
        if found is None:
            key = frozenset(identity.labels.items()), tuple(identity.named_ports.items())
            # The identity is kept beside its key, so that its id stays its own.
            found = _remember(self._keys, id(identity), (identity, key))
        return found[1]

    def _table(
        self, direction: TrafficDirection, subject: Identity, peer: Identity, destination: Identity | None
    ) -> _Table:
        signature, enforced, candidate = self._pair(direction, subject, peer, destination)
        found = self._tables.get(signature)
        if found is None:
            maker = _TableMaker(self._judge, self._subject(direction, subject), signature)
            found = _remember(self._tables, signature, maker.table((*enforced, *candidate)))
        return found


class _TableMaker:
    """Makes one table: a sweep over the ports, and one decision for each set of rules that meet on one."""

    def __init__(self, judge: Judge, of: _Subject, signature: _Signature) -> None:
        self._judge, self._of = judge, of
        self._enforced, self._candidate = frozenset(signature.enforced), frozenset(signature.candidate)
        self._named, self._localhost = dict(signature.ports), signature.localhost
        self._decisions: dict[tuple[int, ...], L4Decision] = {}

    def table(self, members: Iterable[Member]) -> _Table:
        unique = {member.number: member for member in members}
        atoms = [atom for number in sorted(unique) for atom in unique[number].atoms(self._named)]
        return _Table([row for protocol in PROTOCOLS for row in self._rows(protocol, atoms)])

    def _rows(self, protocol: str, atoms: Sequence[Atom]) -> Iterator[PortRow]:
        """Intervals in order; neighbours with the same decision are one."""
        last: PortRow | None = None
        for low, high, active in _sweep([atom for atom in atoms if atom.protocol == protocol]):
            decision = self._decision(active)
            if last is not None and _same(last.decision, decision):
                last = PortRow(protocol, last.low, high, decision)
                continue
            if last is not None:
                yield last
            last = PortRow(protocol, low, high, decision)
        if last is not None:
            yield last

    def _decision(self, atoms: Sequence[Atom]) -> L4Decision:
        key = tuple(id(atom) for atom in atoms)
        found = self._decisions.get(key)
        if found is None:
            candidate = self._word(self._of.candidate, self._candidate, atoms)
            enforced = candidate
            if self._of.audited:
                enforced = self._word(self._of.enforced, self._enforced, atoms)
            found = self._decisions[key] = self._judge.decision(enforced, candidate, self._of.candidate)
        return found

    def _word(self, selection: Selection, numbers: frozenset[int], atoms: Sequence[Atom]) -> Word:
        own = [atom for atom in atoms if atom.number in numbers]
        return self._judge.word(selection, own, localhost=self._localhost)


def cidr_prefixes(policies: Iterable[Policy]) -> set[Network]:
    """Every prefix and exception that rules name. Each is to have an identity; an address's is the longest."""
    found: set[Network] = set()
    for policy in policies:
        for rule in policy.rules:
            for peer in rule.peers or ():
                if isinstance(peer, CidrPeer):
                    found.update((peer.prefix, *peer.excepts))
    return found


def _sweep(atoms: Sequence[Atom]) -> Iterator[tuple[int, int, list[Atom]]]:
    """0..65535 in intervals over which the same atoms lie, with those atoms in their order."""
    opening: dict[int, list[int]] = {0: []}
    closing: dict[int, list[int]] = {}
    for index, atom in enumerate(atoms):
        opening.setdefault(atom.low, []).append(index)
        closing.setdefault(atom.high + 1, []).append(index)
    cuts = sorted(port for port in opening.keys() | closing.keys() if port <= LAST_PORT)
    active: set[int] = set()
    for low, following in zip(cuts, [*cuts[1:], LAST_PORT + 1], strict=True):
        active.difference_update(closing.get(low, ()))
        active.update(opening.get(low, ()))
        yield low, following - 1, [atoms[index] for index in sorted(active)]


def _same(one: L4Decision, other: L4Decision) -> bool:
    # L7 policies are shared objects, and comparing thousands of rules one by one would be slow.
    return one is other or (one.l7 is other.l7 and one == other)


def _remember(cache: dict[_K, _V], key: _K, value: _V) -> _V:
    if len(cache) >= _MAX_CACHED:
        cache.clear()
    cache[key] = value
    return value
