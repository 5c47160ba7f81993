"""The datapath's drop reasons in Hubble's words: `DropReason` of Cilium's ``api/v1/flow/flow.proto``."""

from __future__ import annotations

POLICY_DENIED = (133, "POLICY_DENIED")
"""No rule allows it."""
POLICY_DENY = (181, "POLICY_DENY")
"""A deny rule forbids it."""
INVALID_PACKET = (134, "INVALID_PACKET_DROPPED")
UNKNOWN = (0, "DROP_REASON_UNKNOWN")

_WORDS: tuple[tuple[str, tuple[int, str]], ...] = (
    ("policy", POLICY_DENIED),
    ("source", (132, "INVALID_SOURCE_IP")),
    ("spoof", (132, "INVALID_SOURCE_IP")),
    ("extension", (156, "INVALID_IPV6_EXTENSION_HEADER")),
    ("fragment", (175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND")),
    ("truncated", (135, "CT_TRUNCATED_OR_INVALID_HEADER")),
    ("invalid", INVALID_PACKET),
    ("assign", (179, "SOCKET_ASSIGN_FAILED")),
    ("unavailable", (178, "SOCKET_LOOKUP_FAILED")),
    ("track", (155, "CT_MAP_INSERTION_FAILED")),
    ("protocol", (142, "UNKNOWN_L4_PROTOCOL")),
)


def hubble_reason(reason: str, by_rule: bool) -> tuple[int, str]:
    """Number and name of the nearest of Hubble's reasons. `by_rule`: a deny rule decided."""
    words = reason.lower()
    found = next((known for word, known in _WORDS if word in words), UNKNOWN)
    return POLICY_DENY if by_rule and found is POLICY_DENIED else found
