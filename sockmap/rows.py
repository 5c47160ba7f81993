"""The rows of the kernel's policy map."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class RowVerdict(IntEnum):
    """What happens to a flow: it passes, it is dropped, or its bytes go to the proxy (TCP only)."""

    ALLOW = 1
    DENY = 2
    PROXY = 3


class PolicyRow(NamedTuple):
    """One row. `direction`: 0 ingress, 1 egress. `identity` 0 stands for every identity without rows of its own.

    `protocol` is 6, 17 or 132, and 0 for all others, which have no ports. `port` with its first `prefix_bits` bits
    (0..16) names the ports. `audit`: what passes by this row is recorded as what a policy in audit mode would refuse.
    Rows of one (endpoint, direction, identity, protocol) do not overlap and cover all ports.
    """

    endpoint_id: int
    direction: int
    identity: int
    protocol: int
    port: int
    prefix_bits: int
    verdict: RowVerdict
    audit: bool = False


def port_prefixes(low: int, high: int) -> list[tuple[int, int]]:
    """The fewest (port, prefix bits) that hold exactly the ports `low`..`high` (inclusive, 0..65535).

    Raises ValueError for what is no range of ports.
    """
    if not 0 <= low <= high <= 0xFFFF:
        raise ValueError(f"{low}-{high} is no range of ports")
    prefixes = []
    while low <= high:
        # The block that begins at `low` is as large as its trailing zeros allow, and ends within the range.
        size = min(low & -low or 0x10000, 1 << (high - low + 1).bit_length() - 1)
        prefixes.append((low, 17 - size.bit_length()))
        low += size
    return prefixes
