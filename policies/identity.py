"""Who a flow's ends are: label sets with numbers, as Cilium's identities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network

NAMESPACE_LABEL = "io.kubernetes.pod.namespace"

RESERVED: dict[str, int] = {
    "unknown": 0,
    "host": 1,
    "world": 2,
    "unmanaged": 3,
    "health": 4,
    "init": 5,
    "remote-node": 6,
    "kube-apiserver": 7,
    "ingress": 8,
}
"""Cilium's reserved identities and their numbers."""

FIRST_ENDPOINT, FIRST_CIDR, LAST = 256, 32768, 65535
"""Numbers of label identities begin at 256, those of CIDR prefixes at 32768; all fit the mark's 16 bits."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One identity.

    `labels` maps ``source:key`` to value, e.g. ``{"k8s:app": "api", "k8s:io.kubernetes.pod.namespace": "default"}``,
    ``{"reserved:host": ""}``, and for an address outside the cluster ``{"cidr:10.0.0.0/8": "", "reserved:world": ""}``
    (then `prefix` is that network). `named_ports` are those of the workload, lower-case names.
    """

    number: int
    labels: Mapping[str, str]
    prefix: Network | None = None
    named_ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def reserved(self) -> str | None:
        """The reserved name (host, world, ...), or None for a workload."""
        for key in self.labels:
            if key.startswith("reserved:"):
                return key[9:]
        return None

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace of a workload, "" for everything else."""
        return self.labels.get("k8s:" + NAMESPACE_LABEL, "")

    @property
    def in_cluster(self) -> bool:
        """True for what CIDR rules never hold: workloads, the host, nodes."""
        return self.prefix is None and self.reserved != "world"

    def label_list(self) -> list[str]:
        """Labels as Hubble prints them: sorted ``source:key=value``."""
        return sorted(f"{key}={value}" if value else key for key, value in self.labels.items())


def reserved(name: str) -> Identity:
    """A reserved identity by its name."""
    return Identity(RESERVED[name], {f"reserved:{name}": ""})


def workload(number: int, labels: Mapping[str, str], named_ports: Mapping[str, int] | None = None) -> Identity:
    """An endpoint's identity. Labels without a source get ``k8s:``; the namespace is "default" unless a label says."""
    full = {key if ":" in key else f"k8s:{key}": str(value) for key, value in labels.items()}
    full.setdefault("k8s:" + NAMESPACE_LABEL, "default")
    return Identity(number, full, None, {name.lower(): port for name, port in (named_ports or {}).items()})


def cidr(number: int, prefix: Network) -> Identity:
    """The identity of addresses outside the cluster whose longest prefix named in a policy is `prefix`."""
    return Identity(number, {f"cidr:{prefix}": "", "reserved:world": ""}, prefix)
