"""Which identities a selector or a peer of a rule holds."""

from __future__ import annotations

from collections.abc import Iterable

from policies.identity import NAMESPACE_LABEL, Identity, Network
from policies.model import CidrPeer, EntityPeer, Operator, Peer, Requirement, Selector

_IN_CLUSTER = frozenset(
    ("host", "remote-node", "kube-apiserver", "health", "init", "ingress", "unmanaged"),
)
_SELECTABLE = frozenset((None, "health", "init", "ingress"))


def selects(selector: Selector, identity: Identity) -> bool:
    """Whether every requirement holds. Reserved identities and prefixes have their reserved labels only, so the
    namespace that loading adds to a selector keeps it to workloads."""
    return all(_meets(requirement, identity) for requirement in selector.requirements)


def selects_endpoint(selector: Selector, identity: Identity) -> bool:
    """Whether a policy's endpointSelector selects an endpoint. The host, nodes and the world are none."""
    return identity.reserved in _SELECTABLE and selects(selector, identity)


def peer_holds(peer: Peer, identity: Identity) -> bool:
    """Whether an identity is among those a peer names."""
    if isinstance(peer, Selector):
        return selects(peer, identity)
    if isinstance(peer, EntityPeer):
        return entity_holds(peer.name, identity)
    return cidr_holds(peer, identity)


def entity_holds(name: str, identity: Identity) -> bool:
    """Whether an identity belongs to an entity. An API server's identity is a remote node's as well."""
    reserved = identity.reserved
    if name == "all":
        return True
    if name == "cluster":
        return reserved in _IN_CLUSTER or (reserved is None and bool(identity.namespace))
    if name == "remote-node":
        return reserved in ("remote-node", "kube-apiserver")
    return reserved == name


def cidr_holds(peer: CidrPeer, identity: Identity) -> bool:
    """Whether the whole of an identity's prefix lies in the peer's and outside its exceptions. Every prefix and
    exception named anywhere has an identity of its own, so none lies across an edge."""
    prefix = identity.prefix
    if prefix is None or not inside(prefix, peer.prefix):
        return False
    return not any(inside(prefix, other) for other in peer.excepts)


def inside(inner: Network, outer: Network) -> bool:
    """Whether a network is part of another."""
    if inner.version != outer.version or inner.prefixlen < outer.prefixlen:
        return False
    return _cut(inner, outer.prefixlen) == _cut(outer, outer.prefixlen)


class PeerSet:
    """The peers of one rule, asked at once: many prefixes cost what one does."""

    __slots__ = ("_cidrs", "_entities", "_lengths", "_others", "_pods")

    def __init__(self, peers: Iterable[Peer]) -> None:
        self._entities: set[str] = set()
        self._pods: list[Selector] = []
        self._others: list[Selector] = []
        self._cidrs: dict[tuple[int, int, int], list[CidrPeer]] = {}
        for peer in peers:
            if isinstance(peer, EntityPeer):
                self._entities.add(peer.name)
            elif isinstance(peer, Selector):
                (self._pods if _pods_only(peer) else self._others).append(peer)
            else:
                self._cidrs.setdefault(_cut(peer.prefix, peer.prefix.prefixlen), []).append(peer)
        self._lengths = sorted({(version, length) for version, length, _ in self._cidrs})

    def holds(self, identity: Identity, requires: Iterable[Selector] = ()) -> bool:
        """Whether some peer holds the identity. Label selectors must meet all `requires` as well (fromRequires)."""
        if self._entities and any(entity_holds(name, identity) for name in self._entities):
            return True
        if identity.prefix is not None and self._cidrs and self._holds_prefix(identity, identity.prefix):
            return True
        # Most selectors ask for a namespace, which thousands of prefixes do not have.
        chosen = [*self._pods, *self._others] if identity.namespace else self._others
        if not chosen:
            return False
        return any(selects(one, identity) for one in chosen) and all(selects(one, identity) for one in requires)

    def _holds_prefix(self, identity: Identity, prefix: Network) -> bool:
        for version, length in self._lengths:
            if version == prefix.version and length <= prefix.prefixlen:
                peers = self._cidrs.get(_cut(prefix, length), ())
                if any(cidr_holds(peer, identity) for peer in peers):
                    return True
        return False


def _pods_only(selector: Selector) -> bool:
    """Whether only identities of a namespace can meet a selector."""
    own = f"k8s:{NAMESPACE_LABEL}"
    return any(one.key == own and one.operator in (Operator.IN, Operator.EXISTS) for one in selector.requirements)


def _cut(prefix: Network, length: int) -> tuple[int, int, int]:
    """A network's first `length` bits, as a key."""
    return prefix.version, length, int(prefix.network_address) >> (prefix.max_prefixlen - length)


def _meets(requirement: Requirement, identity: Identity) -> bool:
    values = _values(requirement.key, identity)
    if requirement.operator is Operator.EXISTS:
        return bool(values)
    if requirement.operator is Operator.DOES_NOT_EXIST:
        return not values
    found = any(value in requirement.values for value in values)
    return found if requirement.operator is Operator.IN else not found


def _values(key: str, identity: Identity) -> list[str]:
    """The values of a label; more than one if any source counts and several have it."""
    labels = identity.labels
    source, _, name = key.partition(":")
    if source != "any":
        return [labels[key]] if key in labels else []
    return [value for label, value in labels.items() if label.partition(":")[2] == name]
