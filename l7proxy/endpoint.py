"""Endpoints as node.yaml and the admin API describe them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, TypeAlias

from l7proxy.schema import INVALID, Converter, describe, from_plain, mapping, read, sequence, text
from policies.document import DocumentError, Node, Problem
from policies.identity import NAMESPACE_LABEL

Address: TypeAlias = IPv4Address | IPv6Address

_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*", re.IGNORECASE)
_INTERFACE = re.compile(r"(?!\.{1,2}$|lo$)[!-.0-9;-~]{1,15}")
_SOURCES = ("k8s", "container", "unspec")
"""Label sources an endpoint may use: `reserved` and `cidr` would let it pose as the host or the world."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A workload: reached over `interface` (the host side of its veth pair) at `addresses`, or a service of the host
    in `cgroup`, or, with addresses alone, one elsewhere whose identity is known by address only.

    `labels` are as given, ``[source:]key`` to value. `cgroup` is relative to the cgroup2 mount, or absolute.
    """

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    interface: str | None = None
    addresses: tuple[Address, ...] = ()
    named_ports: dict[str, int] = field(default_factory=dict)
    cgroup: str | None = None

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace, "default" unless a label says."""
        return self.labels.get(NAMESPACE_LABEL) or self.labels.get("k8s:" + NAMESPACE_LABEL) or "default"

    def plain(self) -> dict[str, Any]:
        """As JSON, in the form that node.yaml and the admin API take."""
        shown: dict[str, Any] = {"name": self.name, "labels": self.labels, "interface": self.interface}
        shown |= {"addresses": [str(address) for address in self.addresses]}
        shown |= {"named_ports": self.named_ports, "cgroup": self.cgroup}
        return {key: value for key, value in shown.items() if value not in (None, [], {})}


def endpoint_from_json(value: object) -> Endpoint:
    """An endpoint from decoded JSON. Raises DocumentError with every problem."""
    problems: list[Problem] = []
    try:
        endpoint = endpoint_from_node(from_plain(value, "endpoint"), problems)
    except RecursionError:
        raise DocumentError([Problem("endpoint", 0, "", "nested too deeply")]) from None
    if problems or endpoint is None:
        raise DocumentError(problems)
    return endpoint


def endpoint_from_node(node: Node, problems: list[Problem]) -> Endpoint | None:
    """An endpoint from YAML; None if it cannot even be named."""
    endpoint = read(Endpoint, node, problems, _CONVERTERS)
    if endpoint is None:
        return None
    if endpoint.interface and endpoint.cgroup:
        problems.append(node.problem("an endpoint has an interface or a cgroup, not both"))
    elif endpoint.interface and not endpoint.addresses:
        problems.append(node.problem("an endpoint with an interface needs its addresses"))
    elif not (endpoint.interface or endpoint.cgroup or endpoint.addresses):
        problems.append(node.problem("an endpoint needs an interface and addresses, a cgroup, or addresses"))
    if not endpoint.labels:
        problems.append(node.problem("an endpoint needs labels: without them no policy can tell it apart"))
    return endpoint


def check_together(endpoints: list[tuple[Endpoint, Node]], problems: list[Problem]) -> None:
    """Problems of endpoints beside each other: what must be one endpoint's own is another's too."""
    taken: dict[tuple[str, object], Endpoint] = {}
    for endpoint, node in endpoints:
        for kind, value in claims(endpoint):
            owner = taken.setdefault((kind, value), endpoint)
            if owner is not endpoint:
                place = node.get(kind) or node.get("addresses") or node
                problems.append(place.problem(f"{kind} {value} belongs to endpoint {owner.name!r} already"))
    _check_cgroups(endpoints, problems)


def _check_cgroups(endpoints: list[tuple[Endpoint, Node]], problems: list[Problem]) -> None:
    """A process has the identity of one cgroup, so none may lie inside another."""
    owners = {endpoint.cgroup: endpoint.name for endpoint, _ in endpoints if endpoint.cgroup}
    for endpoint, node in endpoints:
        for outer in Path(endpoint.cgroup or "").parents:
            if str(outer) in owners:
                message = f"cgroup {endpoint.cgroup} lies inside that of endpoint {owners[str(outer)]!r}"
                problems.append((node.get("cgroup") or node).problem(message))


def claims(endpoint: Endpoint) -> list[tuple[str, object]]:
    """What no two endpoints may share, as (kind, value). Services of the host share its addresses."""
    found: list[tuple[str, object]] = [("name", endpoint.name)]
    if endpoint.interface:
        found.append(("interface", endpoint.interface))
    if endpoint.cgroup:
        found.append(("cgroup", endpoint.cgroup))
    else:
        found += [("address", address) for address in dict.fromkeys(endpoint.addresses)]
    return found


def matching(pattern: re.Pattern[str], what: str) -> Converter:
    """A converter for strings of one form."""

    def convert(node: Node, problems: list[Problem]) -> Any:
        value = text(node, problems)
        if value is not INVALID and not pattern.fullmatch(value):
            problems.append(node.problem(f"{describe(node)} is no {what}"))
            return INVALID
        return value

    return convert


interface_name = matching(_INTERFACE, "name of a network interface (and lo is looked after without being named)")


def _labels(node: Node, problems: list[Problem]) -> dict[str, str]:
    labels: dict[str, str] = {}
    seen: set[str] = set()
    for key, child in mapping(node, problems).items():
        complaint = _label_problem(key, child)
        full = key if ":" in key else f"k8s:{key}"
        if complaint or full in seen:
            problems.append(child.problem(complaint or f"label {full} stands twice"))
        else:
            labels[key] = child.value
            seen.add(full)
    return labels


def _label_problem(key: str, node: Node) -> str | None:
    """What is wrong with a label, after the syntax of Kubernetes and the sources of Cilium."""
    source, colon, rest = key.rpartition(":")
    prefix, slash, name = rest.rpartition("/")
    if colon and source not in _SOURCES:
        return f"label source {source!r} cannot be given to an endpoint (only {', '.join(_SOURCES)})"
    if not _LABEL_NAME.fullmatch(name) or (slash and not _LABEL_PREFIX.fullmatch(prefix)):
        return f"{key!r} is no label key ([prefix/]name; letters, digits, - _ . and at most 63 of them in the name)"
    value = node.value
    if not isinstance(value, str):
        return f"a label's value must be a string, not {describe(node)}; put it in quotes"
    if value and not _LABEL_NAME.fullmatch(value):
        return f"{value[:80]!r} is no label value (letters, digits, - _ . and at most 63 of them)"
    if rest == NAMESPACE_LABEL and not _NAMESPACE.fullmatch(value):
        return f"{value!r} is no namespace (lower-case letters, digits and -)"
    return None


def _addresses(node: Node, problems: list[Problem]) -> tuple[Address, ...]:
    found: list[Address] = []
    for item in sequence(node, problems):
        address = _address(item, problems)
        if address in found:
            problems.append(item.problem(f"address {address} stands twice"))
        elif address is not None:
            found.append(address)
    return tuple(found)


def _address(node: Node, problems: list[Problem]) -> Address | None:
    try:
        if not isinstance(node.value, str):
            raise ValueError(f"{describe(node)} is no address; put it in quotes")
        address = ip_address(node.value)
        if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped):
            raise ValueError(f"{node.value} must be written without scope, and IPv4 in its own form")
        if address.is_unspecified or address.is_multicast or address == ip_address("255.255.255.255"):
            raise ValueError(f"{address} is not the address of one host")
    except ValueError as error:
        problems.append(node.problem(str(error)[:200]))
        return None
    return address


def _ports(node: Node, problems: list[Problem]) -> dict[str, int]:
    ports: dict[str, int] = {}
    for name, child in mapping(node, problems).items():
        port = child.value
        if not _PORT_NAME.fullmatch(name):
            problems.append(child.problem(f"{name!r} is no port name (at most 15 letters, digits and -)"))
        elif not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
            problems.append(child.problem(f"a port is 1 to 65535, not {describe(child)}"))
        elif name.lower() in ports:
            problems.append(child.problem(f"port name {name.lower()!r} stands twice"))
        else:
            ports[name.lower()] = port
    return ports


def _cgroup(node: Node, problems: list[Problem]) -> Any:
    value = text(node, problems)
    if value is INVALID:
        return value
    if "\0" in value or any(part in ("..", ".") for part in value.split("/")):
        problems.append(node.problem(f"{value!r}: a cgroup path has no '.' or '..' in it"))
        return INVALID
    path = re.sub(r"/+", "/", value).rstrip("/")
    if not path:
        problems.append(node.problem("the root cgroup holds every process of the node"))
        return INVALID
    return path


_CONVERTERS: dict[str, Converter] = {
    "name": matching(_NAME, "endpoint name (letters, digits, - _ . and at most 253 of them)"),
    "labels": _labels,
    "interface": interface_name,
    "addresses": _addresses,
    "named_ports": _ports,
    "cgroup": _cgroup,
}
