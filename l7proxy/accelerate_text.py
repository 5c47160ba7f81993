"""What `l7proxy accelerate` and `status --connections` print."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from l7proxy.flowtext import printable
from sockmap.splice_tables import End, Pair, Tables, Talk, Talkers, Way, refusals, stack_reasons

_TOP = 10
_READS_OTHERWISE = refusals()["READS_OTHERWISE"]


def size(number: float) -> str:
    """Bytes, in the unit that leaves up to four digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Aligned lines; those of numbers, whose heads end in a space, to the right."""
    table = [list(head), *map(list, rows)]
    widths = [max(len(row[place].rstrip()) for row in table) for place in range(len(head))]
    for row in table:
        cells = [
            cell.rstrip().rjust(width) if name.endswith(" ") else cell.rstrip().ljust(width)
            for cell, width, name in zip(row, widths, head, strict=True)
        ]
        yield "  ".join(cells).rstrip()


# -- totals -------------------------------------------------------------------------------------------------------


def stack_bytes(counts: Mapping[str, int]) -> int:
    """Bytes that took the stack: single sends of spliced connections, and connections that were left to it."""
    return counts["stack_bytes"] + counts["left_bytes"]


def totals(tables: Tables) -> Iterator[str]:
    """All that was counted."""
    counts = tables.counts()
    live = sum(pair.stack for pair in tables.pairs() if not pair.spliceable)
    rows = [
        ("connections paired", f"{counts['paired']:,}"),
        ("bytes spliced", f"{counts['spliced_bytes']:,}"),
        ("bytes by the stack", f"{stack_bytes(counts) + live:,}"),
        ("bytes spliced: straight past the proxy", f"{counts['straight_bytes']:,}"),
    ]
    rows += [(f"ends not spliced: {text}", f"{counts[name.lower()]:,}") for name, text in refusals().items()]
    rows += [(f"sends by the stack: {text}", f"{counts[name.lower()]:,}") for name, text in stack_reasons().items()]
    for what, number in rows:
        if number != "0" or ":" not in what:
            yield f"  {what:<72} {number:>16}"


# -- a dry run ----------------------------------------------------------------------------------------------------


def would_pair(tables: Tables, learn: bool, cgroups: Iterable[Path]) -> Iterator[str]:
    """Who talks to whom, how much, and whether that would be spliced."""
    names = {place.stat().st_ino: place.name for top in cgroups for place in _directories(top)}
    styles = {(style.name, style.cgroup): style for style in tables.styles()}
    talks = sorted(tables.talks().items(), key=lambda item: -(item[1].stack + item[1].spliced))
    head = ("CLIENT", "SERVER", "PORT ", "CONNECTIONS ", "BYTES ", "WOULD BE SPLICED")
    rows = [_talk_row(who, talk, names, styles, learn) for who, talk in talks]
    yield from columns(head, rows) if rows else ["no pair of sockets was seen"]


def _directories(top: Path) -> Iterator[Path]:
    yield top
    yield from (path for path in top.rglob("*") if path.is_dir())


def _talk_row(
    who: Talkers, talk: Talk, names: Mapping[int, str], styles: Mapping[tuple[str, int], Any], learn: bool
) -> list[str]:
    ends = [(who.client, who.client_cgroup), (who.server, who.server_cgroup)]
    shown = [
        f"{_name(name)} ({printable(names.get(cgroup, 'gone'))})" if cgroup else _name(name) for name, cgroup in ends
    ]
    amount = size(talk.stack + talk.spliced)
    return [*shown, str(who.port), f"{talk.connections:,}", amount, _prospect(ends, styles, learn)]


def _prospect(ends: Sequence[tuple[str, int]], styles: Mapping[tuple[str, int], Any], learn: bool) -> str:
    known = [(end[0], styles.get(end)) for end in ends]
    for name, style in known:
        if style is not None and style.otherwise:
            return f"no: {_name(name)} reads by other means than recv"
    waiting = [_name(name) for name, style in known if not name or style is None or not style.sound]
    return f"when it is known how {' and '.join(dict.fromkeys(waiting))} reads" if learn and waiting else "yes"


# -- live ---------------------------------------------------------------------------------------------------------


class Watch:
    """A table of what happens between two looks."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._before: dict[int, tuple[int, int]] = {}
        self._counts, self._at = tables.counts(), time.monotonic()
        self._left = 0

    def lines(self) -> Iterator[str]:
        """Since the last call."""
        counts, now = self._tables.counts(), time.monotonic()
        pairs = list(self._tables.pairs())
        # What a pair that is left to the stack has carried is counted when it ends; until then it is in the pair.
        left = counts["left_bytes"] + sum(pair.stack for pair in pairs if not pair.spliceable)
        seconds = max(now - self._at, 1e-3)
        spliced = (counts["spliced_bytes"] - self._counts["spliced_bytes"]) / seconds
        stack = max(0, counts["stack_bytes"] - self._counts["stack_bytes"] + left - self._left) / seconds
        yield (
            f"{len(pairs)} connections; spliced {size(spliced)}/s, by the stack {size(stack)}/s; "
            f"in all {size(counts['spliced_bytes'])} spliced, {size(counts['stack_bytes'] + left)} by the stack"
        )
        yield from self._top(pairs, seconds)
        self._before = {pair.id: (pair.spliced, pair.stack) for pair in pairs}
        self._counts, self._at, self._left = counts, now, left

    def _top(self, pairs: Sequence[Pair], seconds: float) -> Iterator[str]:
        rates = {pair.id: self._rate(pair, seconds) for pair in pairs}
        best = sorted(pairs, key=lambda pair: (-sum(rates[pair.id]), -pair.spliced - pair.stack))[:_TOP]
        if best:
            head = ("CLIENT", "SERVER", "SPLICED/s ", "STACK/s ", "SPLICED ", "STACK ")
            rows = [[*_ends(p), *map(size, rates[p.id]), size(p.spliced), size(p.stack)] for p in best]
            yield from columns(head, rows)

    def _rate(self, pair: Pair, seconds: float) -> tuple[float, float]:
        spliced, stack = self._before.get(pair.id, (0, 0))
        return max(0, pair.spliced - spliced) / seconds, max(0, pair.stack - stack) / seconds


# -- connections --------------------------------------------------------------------------------------------------


def connections(pairs: Iterable[Pair]) -> Iterator[str]:
    """Which path each connection's bytes took: from the client (>) and from the server (<)."""
    head = ("CLIENT", "SERVER", "SECONDS ", "SPLICED > ", "STACK > ", "SPLICED < ", "STACK < ", "FLIPS ", "PATH")
    rows = []
    for pair in sorted(pairs, key=lambda pair: pair.since):
        ways = [size(number) for way in pair.sent for number in (way.spliced, way.stack)]
        flips = str(pair.sent[0].flips + pair.sent[1].flips)
        rows.append([*_ends(pair), f"{_age(pair):.0f}", *ways, flips, path_of(pair)])
    yield from columns(head, rows)


def path_of(pair: Pair) -> str:
    """Which path its bytes take, and why the stack if it is that."""
    if not pair.spliceable:
        reason = pair.client.refusal or pair.server.refusal
        return f"stack: {reason}" if reason else "stack"
    straight = sum(way.straight for way in pair.sent)
    path = f"spliced, {size(straight)} straight past the proxy" if straight else "spliced"
    reasons = dict.fromkeys(way.reason for way in pair.sent if way.reason)
    return f"{path}; last by the stack: {', '.join(reasons)}" if reasons else path


def connection_json(pair: Pair) -> dict[str, Any]:
    """The same as JSON. `seconds`: its age."""
    ends = {
        name: {"program": end.name, "address": str(end.address), "port": end.port, "sent": _way_json(way)}
        for name, end, way in (("client", pair.client, pair.sent[0]), ("server", pair.server, pair.sent[1]))
    }
    path = "spliced" if pair.spliceable else "stack"
    return {**ends, "seconds": round(_age(pair), 1), "path": path, "detail": path_of(pair)}


def _way_json(way: Way) -> dict[str, Any]:
    fields = ("spliced", "straight", "stack", "flips", "budget_hits", "reason")
    return {name: getattr(way, name) for name in fields}


def _age(pair: Pair) -> float:
    return max(0.0, time.monotonic() - pair.since)


def _ends(pair: Pair) -> list[str]:
    return [_end(pair.client), _end(pair.server)]


def _end(end: End) -> str:
    address = f"[{end.address}]" if end.address.version == 6 else str(end.address)
    return f"{_name(end.name)} {address}:{end.port}"


def _name(name: str) -> str:
    return printable(name) or "?"
