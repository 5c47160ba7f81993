"""What the programs that splice have counted (sockmap/bpf/splice.c), read from their maps by any process."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from sockmap.bpfmap import BpfMap
from sockmap.program import BPF_DIR

SCOPE = struct.Struct("=10IQ")
GENERATION = 9
"""Its place in it."""
TAG, _STYLE = struct.Struct("=Q16sQ"), struct.Struct("=QII")
_HALF = struct.Struct("=Q16s8xQQ16s16sHHIIHHII")
_WAY = struct.Struct("=QQIIIIQIIIIQIIIIIIQQI4x")
_STRAIGHT = struct.Struct("=QI4x")
_PAIR_END = struct.Struct("=QQQ8xIII20x")
_PAIR_SIZE = 2 * (_HALF.size + _WAY.size + _STRAIGHT.size) + _PAIR_END.size
_TALK_KEY, _TALK = struct.Struct("=Q16s8xQ16s8xH6x"), struct.Struct("=QQQ")
_CPUS = Path("/sys/devices/system/cpu/possible")
_LEFT = "it streams, which splicing does not make faster"
_ROW = re.compile(r'\bX\((\w+), "([^"]*)"\)')


def _possible_cpus() -> int:
    return int(_CPUS.read_text(encoding="ascii").strip().rpartition("-")[2]) + 1


MAPS = {
    "scope": (4, SCOPE.size),
    "splice_counts": (4, 8 * _possible_cpus()),
    "styles": (TAG.size, _STYLE.size),
    "pairs": (8, _PAIR_SIZE),
    "talks": (_TALK_KEY.size, _TALK.size),
}
"""What another process reads: the sizes of keys and values."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a pair: the program that made its socket, its addresses as that sees them, and why the kernel has not
    been given its socket ("" if it was, or was not asked to: in a dry run, or as the client's was not)."""

    name: str
    cgroup: int
    namespace: int
    address: IPv4Address | IPv6Address
    port: int
    peer: IPv4Address | IPv6Address
    peer_port: int
    enrolled: bool
    refusal: str


@dataclass(frozen=True, slots=True)
class Way:
    """What one end has sent: bytes past the stack and through it, how often it went over to splicing, how often the
    reader was too slow, and why the last send that took the stack did ("" if none has). Of pairs that are not
    spliced, `stack` is what the other end has taken by recv. `straight`: of `spliced`, what the sender of another pair
    has put there (splice_bridge.py)."""

    spliced: int
    stack: int
    flips: int
    budget_hits: int
    reason: str
    straight: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sockets that are each other's peer; `since` in seconds of the clock that starts with the machine, as `gone`:
    when each end went (0: it is there)."""

    id: int
    client: End
    server: End
    sent: tuple[Way, Way]
    since: float
    spliceable: bool
    gone: tuple[int, int]

    @property
    def spliced(self) -> int:
        """Bytes past the stack, both ways."""
        return self.sent[0].spliced + self.sent[1].spliced

    @property
    def stack(self) -> int:
        """Bytes through the stack, both ways."""
        return self.sent[0].stack + self.sent[1].stack


@dataclass(frozen=True, slots=True)
class Style:
    """How many connections of a program were read soundly, and how many by means that splicing would disturb."""

    name: str
    cgroup: int
    sound: int
    otherwise: int


@dataclass(frozen=True, slots=True, order=True)
class Talkers:
    """Which program asked which, by names and cgroups, for which port."""

    client: str
    client_cgroup: int
    server: str
    server_cgroup: int
    port: int


@dataclass(slots=True)
class Talk:
    """Connections between two programs, and bytes both ways."""

    connections: int = 0
    spliced: int = 0
    stack: int = 0


def _section(name: str) -> dict[str, str]:
    text = (BPF_DIR / "splice_reasons.h").read_text(encoding="utf-8")
    return dict(_ROW.findall(text.partition(f"#define SPLICE_{name}(X)")[2].partition("\n\n")[0]))


def reasons() -> dict[str, str]:
    """The names of bpf/splice_reasons.h in their order, and what they mean."""
    return _section("COUNTS") | refusals() | stack_reasons()


def refusals() -> dict[str, str]:
    """Why connections are not paired, or not spliced."""
    return _section("REFUSALS")


def stack_reasons() -> dict[str, str]:
    """Why single sends of spliced connections take the stack."""
    return _section("STACK")


class Tables:
    """The maps of one set of programs, by descriptors that stay their owner's."""

    def __init__(self, fds: Mapping[str, int]) -> None:
        """`fds` by the names of MAPS."""
        self._tables = {name: BpfMap(fds[name], *sizes) for name, sizes in MAPS.items()}
        self._texts = ["", *reasons().values()]

    def counts(self) -> dict[str, int]:
        """By the names of bpf/splice_reasons.h, in small letters."""
        found = {}
        for index, name in enumerate(reasons(), 1):
            value = self._tables["splice_counts"].lookup(struct.pack("=I", index)) or b""
            found[name.lower()] = sum(number for (number,) in struct.iter_unpack("=Q", value))
        return found

    def clear_counts(self) -> None:
        """Set them to nought."""
        table = self._tables["splice_counts"]
        for index in range(1, len(reasons()) + 1):
            table.update(struct.pack("=I", index), bytes(table.value_size))

    def stop(self) -> None:
        """From the next send on all bytes take the stack. Nothing is lost: what waits is read as it would have been."""
        self._set_scope([0, *self._scope()[1:]])

    def judged_anew(self) -> None:
        """The policy that packets are judged by has changed, and counts already: nothing is spliced, either way, before
        bytes have come by the stack that were sent after this."""
        fields = self._scope()
        fields[GENERATION] = (fields[GENERATION] + 1) & 0xFFFFFFFF
        self._set_scope(fields)

    def _scope(self) -> list[int]:
        return list(SCOPE.unpack(self._tables["scope"].lookup(bytes(4)) or bytes(SCOPE.size)))

    def _set_scope(self, fields: Sequence[int]) -> None:
        self._tables["scope"].update(bytes(4), SCOPE.pack(*fields))

    def pairs(self) -> Iterator[Pair]:
        """All that are there now."""
        return (pair for pair in self._all_pairs() if pair.since)

    def _all_pairs(self) -> Iterator[Pair]:
        """With those whose server's end has not come yet."""
        for key, value in self._tables["pairs"].items():
            yield self._pair(struct.unpack("=Q", key)[0], value)

    def _pair(self, number: int, value: bytes) -> Pair:
        halves = [_HALF.unpack_from(value, place) for place in (0, _HALF.size)]
        since, _, _, spliceable, *gone = _PAIR_END.unpack_from(value, _PAIR_SIZE - _PAIR_END.size)
        sent = self._way(value, 0, spliceable), self._way(value, 1, spliceable)
        went = gone[0], gone[1]
        return Pair(number, self._end(halves[0]), self._end(halves[1]), sent, since / 1e9, spliceable != 0, went)

    def _way(self, value: bytes, side: int, spliceable: bool) -> Way:
        """Of an end that is in the map of sockets no longer, or never was, the stack's bytes are those that were read
        and not spliced."""
        fields = _WAY.unpack_from(value, 2 * _HALF.size + side * _WAY.size)
        spliced, stack, flips, hits, last, *_, left, _, _, _, _, _, _, _, _ = fields
        straight, _, taken = straight_of(value, 1 - side)
        if left or not spliceable:
            stack = max(stack, taken - spliced)
        return Way(spliced, stack, flips, hits, _LEFT if left else self._texts[last], straight)

    def _end(self, half: Sequence[Any]) -> End:
        cgroup, name, _, namespace, local, remote, port, peer_port, _, enrolled, _, why, *_ = half
        addresses = _address(local), port, _address(remote), peer_port
        return End(_text(name), cgroup, namespace, *addresses, bool(enrolled), self._texts[why])

    def styles(self) -> Iterator[Style]:
        """How programs were seen to read."""
        for key, value in self._tables["styles"].items():
            (cgroup, name, _), (_, sound, otherwise) = TAG.unpack(key), _STYLE.unpack(value)
            yield Style(_text(name), cgroup, sound, otherwise)

    def talks(self) -> dict[Talkers, Talk]:
        """Who has talked to whom: connections that have ended, and those that are there."""
        found: dict[Talkers, Talk] = {}
        for key, value in self._tables["talks"].items():
            client_cgroup, client, server_cgroup, server, port = _TALK_KEY.unpack(key)
            talkers = Talkers(_text(client), client_cgroup, _text(server), server_cgroup, port)
            found[talkers] = Talk(*_TALK.unpack(value))
        for pair in self.pairs():
            talk = found.setdefault(talkers_of(pair), Talk())
            talk.connections += 1
            talk.spliced += pair.spliced
            talk.stack += pair.stack
        return found


def straight_of(pair: bytes, side: int) -> tuple[int, int, int]:
    """Of a value of `pairs`: the bytes that have gone to this end past its peer, what it will have read with them (32
    bits of it), and what it has read."""
    place = 2 * (_HALF.size + _WAY.size) + (1 - side) * _STRAIGHT.size
    bytes_, expected = _STRAIGHT.unpack_from(pair, place)
    return bytes_, expected, _PAIR_END.unpack_from(pair, _PAIR_SIZE - _PAIR_END.size)[1 + side]


def deciding(pair: bytes, side: int) -> bool:
    """Of a value of `pairs`: whether a send of this end has begun, and is not decided on."""
    begun, decided = _WAY.unpack_from(pair, 2 * _HALF.size + side * _WAY.size)[13:15]
    return bool(begun != decided)


def talkers_of(pair: Pair) -> Talkers:
    """Whose connection it is."""
    client, server = pair.client, pair.server
    return Talkers(client.name, client.cgroup, server.name, server.cgroup, client.peer_port)


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode("utf-8", "replace")


def _address(raw: bytes) -> IPv4Address | IPv6Address:
    return ip_address(raw[12:]) if raw.startswith(bytes(10) + b"\xff\xff") else ip_address(raw)
