"""Which flow records somebody wants to see: the filters of `observe` and of the admin API's `/flows`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from l7proxy.flowtext import child, grpc_facts, own_facts
from policies.verdict import Verdict

PROTOCOLS = ("http", "http2", "grpc", "kafka", "cassandra", "tcp", "udp", "sctp", "icmp")


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """Conditions that must all hold; None holds always.

    `verdict` and `protocol` in any case; all ``grpc`` is also ``http2``, and that is also ``http``. `source` and
    `destination` are an endpoint (``name`` or ``namespace/name``), an address, a label (``key=value``, with or without
    its source), or an entity such as ``world``.
    """

    verdict: str | None = None
    protocol: str | None = None
    source: str | None = None
    destination: str | None = None

    @classmethod
    def checked(
        cls, verdict: str | None, protocol: str | None, source: str | None, destination: str | None
    ) -> FlowFilter:
        """A filter of user input. Raises ValueError naming what is allowed."""
        if verdict is not None and verdict.upper() not in Verdict.__members__:
            raise ValueError(f"verdict {verdict!r} is none of {', '.join(Verdict)}")
        if protocol is not None and protocol.lower() not in PROTOCOLS:
            raise ValueError(f"protocol {protocol!r} is none of {', '.join(PROTOCOLS)}")
        return cls(verdict and verdict.upper(), protocol and protocol.lower(), source, destination)

    @property
    def empty(self) -> bool:
        """True if everything passes."""
        return self == FlowFilter()

    def line(self, line: bytes) -> bool:
        """Whether a line of the log passes. Lines about lost records always do; what is no record never does."""
        # A peer cannot forge this: a quotation mark in anything it sends is escaped in the line.
        if self.verdict is not None and f'"verdict":"{self.verdict}"'.encode() not in line and b'"flow"' in line:
            return False
        try:
            value = json.loads(line)
        except ValueError:
            return False
        return isinstance(value, dict) and ("lost_events" in value or self.flow(value.get("flow")))

    def flow(self, flow: Any) -> bool:
        """Whether a decoded `Flow` passes."""
        if not isinstance(flow, Mapping):
            return False
        addresses = child(flow, "IP")
        return (
            self.verdict in (None, flow.get("verdict"))
            and (self.protocol is None or self.protocol in _protocols(flow))
            and (self.source is None or _is(self.source, child(flow, "source"), addresses.get("source")))
            and (
                self.destination is None
                or _is(self.destination, child(flow, "destination"), addresses.get("destination"))
            )
        )


def _protocols(flow: Mapping[str, Any]) -> set[str]:
    names = {str(name).lower() for key in ("l4", "l7") for name in child(flow, key)}
    if names & {"icmpv4", "icmpv6"}:
        names.add("icmp")
    if child(flow, "l7", "http").get("protocol") == "HTTP/2":
        names.add("http2")
    if grpc_facts(flow):
        names.add("grpc")
    if own_facts(flow, "cassandra"):
        names.add("cassandra")
    return names


def _is(wanted: str, endpoint: Mapping[str, Any], address: Any) -> bool:
    name, namespace = endpoint.get("pod_name"), endpoint.get("namespace")
    labels = endpoint.get("labels")
    known = {str(label) for label in labels} if isinstance(labels, list) else set()
    known |= {label.partition(":")[2] for label in known}
    return wanted in known or wanted in (name, address, f"{namespace}/{name}", f"{namespace}/")
