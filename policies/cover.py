"""Which selectors, peers, ports and expressions hold at least all that others hold, told from their text alone.

A False here means "not certain": two selectors may select the same pods without either text showing it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from policies.model import CidrPeer, EntityPeer, Operator, Peer, Port, Requirement, Rule, Selector
from policies.selectors import inside

_PREFIX = re.compile(r"\^?((?:[^\\.+*?()|\[\]{}^$]|\\[!-/:-@\[-^`{-~])*)")
_ESCAPE = re.compile(r"\\(.)")
_LONGEST = 256
"""Letters of an expression's beginning that are looked at."""


def selector_covers(wide: Selector, narrow: Selector) -> bool:
    """Whether `wide` selects all that `narrow` does: it requires nothing that the other does not."""
    return set(wide.requirements) <= set(narrow.requirements)


def peer_covers(wide: Peer, narrow: Peer) -> bool:
    """Whether `wide` holds everybody that `narrow` does."""
    if isinstance(wide, EntityPeer):
        return _entity_covers(wide.name, narrow)
    if isinstance(wide, CidrPeer):
        return isinstance(narrow, CidrPeer) and _cidr_covers(wide, narrow)
    return isinstance(narrow, Selector) and selector_covers(wide, narrow)


def _entity_covers(name: str, narrow: Peer) -> bool:
    if name == "all" or (isinstance(narrow, EntityPeer) and narrow.name == name):
        return True
    return isinstance(narrow, CidrPeer) if name == "world" else name == "cluster" and isinstance(narrow, Selector)


def _cidr_covers(wide: CidrPeer, narrow: CidrPeer) -> bool:
    if not inside(narrow.prefix, wide.prefix):
        return False
    return all(any(inside(cut, own) for own in narrow.excepts) for cut in wide.excepts if cut.overlaps(narrow.prefix))


def rule_peers_cover(wide: Rule, narrow: Rule) -> bool:
    """Whether a rule's peer part holds everybody that another's does."""
    if not set(wide.requires) <= set(narrow.requires):
        return False
    if wide.peers is None:
        return True
    if narrow.peers is None:
        return any(isinstance(peer, EntityPeer) and peer.name == "all" for peer in wide.peers)
    return all(any(peer_covers(one, other) for one in wide.peers) for other in narrow.peers)


def protocols_meet(one: str, other: str) -> bool:
    """Whether two protocols of ports (TCP, UDP, SCTP, ANY) have one in common."""
    return "ANY" in (one, other) or one == other


def ports_meet(one: Port, other: Port) -> bool:
    """Whether two port matches certainly share a port."""
    if not protocols_meet(one.protocol, other.protocol):
        return False
    if one.name is None and other.name is None:
        return one.low <= other.high and other.low <= one.high
    return one.name == other.name or _is_every(one) or _is_every(other)


def _is_every(port: Port) -> bool:
    return port.name is None and (port.low, port.high) == (0, 65535)


def port_covers(wide: Port, narrow: Port) -> bool:
    """Whether one port match holds all that another does."""
    if wide.protocol not in ("ANY", narrow.protocol):
        return False
    if wide.name is not None:
        return wide.name == narrow.name
    return _is_every(wide) or (narrow.name is None and wide.low <= narrow.low and narrow.high <= wide.high)


def contradiction(requirements: Iterable[Requirement]) -> str | None:
    """The label for which no value can meet all requirements, or None."""
    by_key: dict[str, list[Requirement]] = {}
    for one in requirements:
        by_key.setdefault(one.key, []).append(one)
    return next((key for key, group in by_key.items() if not _possible(group)), None)


def _possible(group: list[Requirement]) -> bool:
    of = {operator: [one for one in group if one.operator is operator] for operator in Operator}
    values: frozenset[str] | None = None
    for one in of[Operator.IN]:
        values = one.values if values is None else values & one.values
    for one in of[Operator.NOT_IN]:
        values = values - one.values if values is not None else None
    if of[Operator.DOES_NOT_EXIST]:
        return not (of[Operator.IN] or of[Operator.EXISTS])
    return values is None or bool(values)


def covering_keys(pattern: str | None) -> Iterator[str]:
    """Keys under which `own_key` may have put an expression that holds all that this one does, widest first."""
    yield "*"
    if pattern is None:
        return
    prefix = literal_prefix(pattern)[:_LONGEST]
    for end in range(len(prefix) + 1):
        yield f"{prefix[:end]}*"
    yield f"={pattern}"


def own_key(pattern: str | None) -> str:
    """``*`` for everything, ``P*`` for a text followed by ``.*``, else ``=`` and the expression itself."""
    if pattern is None:
        return "*"
    if pattern.endswith(".*"):
        found = _PREFIX.fullmatch(pattern, 0, len(pattern) - 2)
        if found is not None:
            return _ESCAPE.sub(r"\1", found[1]) + "*"
    return f"={pattern}"


def literal_prefix(pattern: str) -> str:
    """What every text begins with that an expression matches, as far as that is written plainly."""
    found = _PREFIX.match(pattern)
    if found is None or "|" in pattern:
        return ""
    text = _ESCAPE.sub(r"\1", found[1])
    # A repetition behind the last letter makes it optional.
    return text[:-1] if pattern[found.end() : found.end() + 1] in ("*", "+", "?", "{") else text
