"""The entries of ingress, egress, ingressDeny and egressDeny of policy files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Network, ip_network

from policies.document import Node
from policies.identity import Network
from policies.load_fields import Reader
from policies.load_l7 import L7Reader
from policies.load_ports import port_rules
from policies.load_selectors import peer_selector
from policies.model import CidrPeer, EntityPeer, Peer, Rule, Selector, TrafficDirection

ENTITIES = (
    "all",
    "world",
    "cluster",
    "host",
    "init",
    "ingress",
    "unmanaged",
    "remote-node",
    "health",
    "none",
    "kube-apiserver",
)
"""What fromEntities and toEntities may name (Cilium's CRD)."""
LISTS = {
    "ingress": (TrafficDirection.INGRESS, False),
    "ingressDeny": (TrafficDirection.INGRESS, True),
    "egress": (TrafficDirection.EGRESS, False),
    "egressDeny": (TrafficDirection.EGRESS, True),
}
_WAY = {TrafficDirection.INGRESS: "from", TrafficDirection.EGRESS: "to"}
_KINDS = ("Endpoints", "Entities", "CIDR", "CIDRSet")
_LATER = {
    "icmps": "ICMP types",
    "authentication": "mutual authentication",
    "toFQDNs": "names are not resolved",
    "toServices": "Kubernetes services",
    "fromNodes": "node labels",
    "toNodes": "node labels",
    "fromGroups": "cloud groups",
    "toGroups": "cloud groups",
}
_GROUPS = {"cidrGroupRef": "CiliumCIDRGroup", "cidrGroupSelector": "CiliumCIDRGroup"}
_LENGTH = re.compile(r"[0-9A-Fa-f.:]+/(0|[1-9][0-9]{0,2})")


class RuleReader:
    """Reads the rules of one policy. `init`: its endpointSelector asks for ``reserved:init``."""

    def __init__(self, reader: Reader, l7: L7Reader, init: bool) -> None:
        self._reader, self._l7, self._init = reader, l7, init

    def rule(self, node: Node, direction: TrafficDirection, deny: bool) -> Rule:
        """One entry of a list of rules."""
        way = _WAY[direction]
        known = [*(way + kind for kind in _KINDS), f"{way}Requires", "toPorts"]
        fields = self._reader.mapping(node, known, _LATER)
        kinds = {kind: fields[way + kind] for kind in _KINDS if way + kind in fields}
        peers = tuple(self._peers(kinds)) if kinds else None
        filled = [way + kind for kind, child in kinds.items() if child.value]
        if len(filled) > 1:
            self._reader.fault(node, f"{' and '.join(filled)} cannot stand in one rule (write two rules)")
        requires = self._requires(fields.get(f"{way}Requires"))
        if requires and peers is None:
            if deny:
                self._reader.fault(node, f"{way}Requires without {way}Endpoints denies nobody")
            peers = ()
        ports = port_rules(self._reader, self._l7, fields.get("toPorts"), deny)
        return Rule(direction, deny, peers, requires, ports, self._reader.ref(node))

    def _peers(self, kinds: dict[str, Node]) -> Iterator[Peer]:
        reader = self._reader
        for item in reader.items(kinds.get("Endpoints")):
            yield peer_selector(reader, item, init=self._init)
        for item in reader.items(kinds.get("Entities")):
            yield EntityPeer(self._entity(item), reader.ref(item))
        for item in reader.items(kinds.get("CIDR")):
            yield from self._cidr(item, item, ())
        for item in reader.items(kinds.get("CIDRSet")):
            fields = reader.mapping(item, ("cidr", "except"), _GROUPS)
            if "cidr" in fields:
                yield from self._cidr(item, fields["cidr"], reader.items(fields.get("except")))
            elif isinstance(item.value, dict) and not item.value.keys() & _GROUPS.keys():
                reader.fault(item, "needs a cidr")

    def _requires(self, node: Node | None) -> tuple[Selector, ...]:
        items = self._reader.items(node)
        return tuple(peer_selector(self._reader, item, init=self._init, required=True) for item in items)

    def _entity(self, node: Node) -> str:
        name = self._reader.text(node)
        if name is not None and name not in ENTITIES:
            close = difflib.get_close_matches(name, ENTITIES, 1)
            hint = f", did you mean {close[0]}?" if close else f" (known: {', '.join(ENTITIES)})"
            self._reader.fault(node, f"no entity is named {name!r}{hint}")
        return name or "none"

    def _cidr(self, item: Node, node: Node, excepts: Sequence[Node]) -> Iterator[CidrPeer]:
        prefix = self._network(node)
        if prefix is None:
            return
        taken: list[Network] = []
        for child in excepts:
            network = self._network(child)
            if network is None:
                continue
            if network.version != prefix.version or network.network_address not in prefix:
                self._reader.fault(child, f"{network} is not inside {prefix}")
            taken.append(network)
        yield CidrPeer(prefix, tuple(taken), self._reader.ref(item))

    def _network(self, node: Node) -> Network | None:
        text = self._reader.text(node)
        if text is None:
            return None
        if not _LENGTH.fullmatch(text):
            self._reader.fault(node, f"{text[:100]!r} is no prefix such as 10.0.0.0/8 (an address needs /32 or /128)")
            return None
        try:
            network = ip_network(text, strict=False)
        except ValueError as error:
            self._reader.fault(node, f"{text!r} is no prefix: {error}")
            return None
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
            # No packet has such an address: the rule would hold for nobody.
            self._reader.fault(node, f"{text!r}: write an IPv4 prefix in its own form, such as 10.0.0.0/8")
            return None
        return network
