"""Medians and spread, as a table for people and a file for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

Results = dict[str, dict[str, dict[str, list[float]]]]
"""contender -> phase -> figure -> one value a round."""
Column = tuple[str, str, str, str]
"""Title, phase, figure, and the format in which it is shown."""
Columns = Sequence[Column]
_MS = "ms"
"""Microseconds, shown as milliseconds."""


def _rate(title: str, phase: str) -> Columns:
    return [(title, phase, "rps", ",.0f")]


def _times(phase: str, shown: str = ",.0f") -> Columns:
    return [("p50 us", phase, "p50_us", shown), ("p99 us", phase, "p99_us", shown)]


def _cpu(phase: str, of: str = "") -> Columns:
    """Of the proxy, for each of what is counted."""
    return [(f"CPU us{of}", phase, "proxy_us", ".1f")]


def _work(phase: str, of: str = "") -> Columns:
    """Of the proxy, and of everything on the machine."""
    return [*_cpu(phase, of), (f"machine us{of}", phase, "machine_us", ".1f")]


def _volume(title: str, phase: str) -> Columns:
    return [(title, phase, "gbps", ".2f")]


def _moved(title: str, phase: str) -> Columns:
    return [*_volume(title, phase), ("CPU s/GB", phase, "proxy_s_per_gb", ".2f")]


HTTP1: Columns = [
    *_rate("req/s, 1", "c1"),
    *_times("c1"),
    *_rate("req/s, 32", "c32"),
    *_times("c32"),
    *_work("c32", "/req"),
    *_rate("req/s, 512", "c512"),
    ("p99 ms", "c512", "p99_us", _MS),
    *_rate("new conn/s", "new"),
    ("CPU us/conn", "new", "proxy_us", ".0f"),
    *_volume("down GB/s", "down"),
    *_volume("up GB/s", "up"),
    ("KiB/idle conn", "idle", "idle_kib", ".1f"),
]
HTTP2: Columns = [
    *_rate("req/s", "h2"),
    *_times("h2"),
    *_work("h2", "/req"),
    *_rate("gRPC calls/s", "grpc"),
    *_times("grpc"),
    *_work("grpc", "/call"),
    ("stream messages/s", "stream", "mps", ",.0f"),
    *_cpu("stream", "/message"),
    *_moved("down GB/s", "down"),
    *_moved("up GB/s", "up"),
]
WEBSOCKET: Columns = [*_rate("messages/s", "echo"), *_times("echo", ".1f"), *_work("echo", "/message")]
KAFKA: Columns = [
    *_rate("produces/s", "one"),
    *_times("one"),
    *_work("one", "/produce"),
    *_moved("produce GB/s", "produce"),
    *_moved("consume GB/s", "consume"),
]
CASSANDRA: Columns = [
    *_rate("EXECUTE/s, 1", "one"),
    *_times("one"),
    *_cpu("one"),
    *_rate("EXECUTE/s, 64", "many"),
    *_times("many"),
    *_work("many"),
    *_rate("v5: EXECUTE/s, 64", "many5"),
    *_cpu("many5"),
    *_rate("QUERY/s, 64", "query"),
    *_times("query"),
    *_cpu("query"),
    *_moved("read GB/s", "read"),
    *_moved("v5: read GB/s", "read5"),
]
SOCKETS: Columns = [
    ("64 B: p50 us", "rtt64", "p50_us", ".1f"),
    ("p99 us", "rtt64", "p99_us", ".1f"),
    ("16 KiB: p50 us", "rtt16k", "p50_us", ".1f"),
    ("p99 us", "rtt16k", "p99_us", ".1f"),
    *_volume("1 KiB writes: GB/s", "stream1k"),
    *_volume("64 KiB writes: GB/s", "stream64k"),
    *_volume("1 MiB writes: GB/s", "stream1m"),
    ("connections/s", "connect", "per_s", ",.0f"),
    ("p50 us", "connect", "p50_us", ".1f"),
    ("p99 us", "connect", "p99_us", ",.0f"),
]
SIDECARS: Columns = [
    *_rate("64 B, 1 conn: req/s", "c1"),
    *_times("c1"),
    *_rate("64 B, 32 conn: req/s", "64"),
    *_times("64"),
    *_work("64", "/req"),
    *_rate("1 KiB: req/s", "1k"),
    *_cpu("1k", "/req"),
    *_rate("16 KiB: req/s", "16k"),
    *_cpu("16k", "/req"),
    *_rate("1 MiB: req/s", "1m"),
    ("p99 us", "1m", "p99_us", ",.0f"),
    *_moved("GB/s", "bulk1m"),
    *_moved("64 MiB: GB/s", "bulk64m"),
]
ACCELERATED = ", accelerated"
"""What the names of accelerated contenders end in."""
_WITH_SPREAD = {"c32", "h2", "grpc", "one", "many"}


def table(results: Results, columns: Columns) -> str:
    """Markdown: the median of all rounds, and the lowest and highest of the rates and CPU that matter most."""
    head = ["", *(title for title, *_ in columns)]
    lines = [_row(head), _row(["---"] + ["---:"] * len(columns))]
    lines += [_row([name, *(_cell(phases, *column[1:]) for column in columns)]) for name, phases in results.items()]
    return "\n".join(lines)


def paired(results: Results, columns: Columns) -> str:
    """As `table`, with a third row for each pair: accelerated against not, the median of the rounds' ratios."""
    head, line, *rows = table(results, columns).splitlines()
    lines = [head, line]
    for name, row in zip(results, rows, strict=True):
        lines.append(row)
        if name.endswith(ACCELERATED):
            plain = results[name.removesuffix(ACCELERATED)]
            cells = [_ratio(plain, results[name], phase, figure) for _, phase, figure, _ in columns]
            lines.append(_row(["ratio", *cells]))
    return "\n".join(lines)


def _ratio(plain: dict[str, dict[str, list[float]]], other: dict[str, dict[str, list[float]]], *key: str) -> str:
    before, after = (side.get(key[0], {}).get(key[1], []) for side in (plain, other))
    found = [new / old for old, new in zip(before, after, strict=True) if old]
    return f"{median(found):.2f}" if found else "-"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(phases: dict[str, dict[str, list[float]]], phase: str, figure: str, shown: str) -> str:
    values = phases.get(phase, {}).get(figure, [])
    if not values or (figure.startswith("proxy_") and not any(values)):
        return "-"
    if shown == _MS:
        return f"{median(values) / 1000:.1f}"
    text = format(median(values), shown)
    if phase in _WITH_SPREAD and figure in ("rps", "proxy_us", "machine_us") and len(values) > 1:
        text += f" ({min(values):{shown}}-{max(values):{shown}})"
    return text


def summary(results: Results) -> dict[str, Any]:
    """Median, lowest and highest of every figure."""
    return {
        name: {phase: {key: _spread(values) for key, values in figures.items()} for phase, figures in phases.items()}
        for name, phases in results.items()
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def write(path: Path, name: str, results: Results, settings: dict[str, Any], versions: dict[str, str]) -> None:
    """Put a suite into the JSON file: settings, versions, medians with their spread, and every single value. What was
    measured of the other suites, then, stays."""
    machine = {"kernel": platform.release(), "machine": platform.machine()}
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole[name] = {"settings": settings, "machine": machine | versions, "summary": summary(results), "rounds": results}
    path.write_text(json.dumps(whole, indent=1) + "\n")
