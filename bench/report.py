"""Medians and spread, as a table for people and a file for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Results = dict[str, dict[str, dict[str, list[float]]]]
"""contender -> phase -> figure -> one value a round."""
Columns = Sequence[tuple[str, str, str, Callable[[float], str]]]
"""Title, phase, figure, and how it is shown."""
HTTP1: Columns = [
    ("req/s, 1", "c1", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "c1", "p50_us", lambda v: f"{v:.0f}"),
    ("p99 us", "c1", "p99_us", lambda v: f"{v:.0f}"),
    ("req/s, 32", "c32", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "c32", "p50_us", lambda v: f"{v:,.0f}"),
    ("p99 us", "c32", "p99_us", lambda v: f"{v:,.0f}"),
    ("CPU us/req", "c32", "proxy_us", lambda v: f"{v:.1f}"),
    ("machine us/req", "c32", "machine_us", lambda v: f"{v:.1f}"),
    ("req/s, 512", "c512", "rps", lambda v: f"{v:,.0f}"),
    ("p99 ms", "c512", "p99_us", lambda v: f"{v / 1000:.1f}"),
    ("new conn/s", "new", "rps", lambda v: f"{v:,.0f}"),
    ("CPU us/conn", "new", "proxy_us", lambda v: f"{v:.0f}"),
    ("down GB/s", "down", "gbps", lambda v: f"{v:.2f}"),
    ("up GB/s", "up", "gbps", lambda v: f"{v:.2f}"),
    ("KiB/idle conn", "idle", "idle_kib", lambda v: f"{v:.1f}"),
]
HTTP2: Columns = [
    ("req/s", "h2", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "h2", "p50_us", lambda v: f"{v:,.0f}"),
    ("p99 us", "h2", "p99_us", lambda v: f"{v:,.0f}"),
    ("CPU us/req", "h2", "proxy_us", lambda v: f"{v:.1f}"),
    ("machine us/req", "h2", "machine_us", lambda v: f"{v:.1f}"),
    ("gRPC calls/s", "grpc", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "grpc", "p50_us", lambda v: f"{v:,.0f}"),
    ("p99 us", "grpc", "p99_us", lambda v: f"{v:,.0f}"),
    ("CPU us/call", "grpc", "proxy_us", lambda v: f"{v:.1f}"),
    ("machine us/call", "grpc", "machine_us", lambda v: f"{v:.1f}"),
    ("stream messages/s", "stream", "mps", lambda v: f"{v:,.0f}"),
    ("CPU us/message", "stream", "proxy_us", lambda v: f"{v:.1f}"),
    ("down GB/s", "down", "gbps", lambda v: f"{v:.2f}"),
    ("CPU s/GB", "down", "proxy_s_per_gb", lambda v: f"{v:.2f}"),
    ("up GB/s", "up", "gbps", lambda v: f"{v:.2f}"),
    ("CPU s/GB", "up", "proxy_s_per_gb", lambda v: f"{v:.2f}"),
]
WEBSOCKET: Columns = [
    ("messages/s", "echo", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "echo", "p50_us", lambda v: f"{v:.1f}"),
    ("p99 us", "echo", "p99_us", lambda v: f"{v:.1f}"),
    ("CPU us/message", "echo", "proxy_us", lambda v: f"{v:.1f}"),
    ("machine us/message", "echo", "machine_us", lambda v: f"{v:.1f}"),
]
KAFKA: Columns = [
    ("produces/s", "one", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "one", "p50_us", lambda v: f"{v:.0f}"),
    ("p99 us", "one", "p99_us", lambda v: f"{v:,.0f}"),
    ("CPU us/produce", "one", "proxy_us", lambda v: f"{v:.1f}"),
    ("machine us/produce", "one", "machine_us", lambda v: f"{v:.1f}"),
    ("produce GB/s", "produce", "gbps", lambda v: f"{v:.2f}"),
    ("CPU s/GB", "produce", "proxy_s_per_gb", lambda v: f"{v:.2f}"),
    ("consume GB/s", "consume", "gbps", lambda v: f"{v:.2f}"),
    ("CPU s/GB", "consume", "proxy_s_per_gb", lambda v: f"{v:.2f}"),
]
CASSANDRA: Columns = [
    ("EXECUTE/s, 1", "one", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "one", "p50_us", lambda v: f"{v:.0f}"),
    ("p99 us", "one", "p99_us", lambda v: f"{v:,.0f}"),
    ("CPU us", "one", "proxy_us", lambda v: f"{v:.1f}"),
    ("EXECUTE/s, 64", "many", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "many", "p50_us", lambda v: f"{v:,.0f}"),
    ("p99 us", "many", "p99_us", lambda v: f"{v:,.0f}"),
    ("CPU us", "many", "proxy_us", lambda v: f"{v:.1f}"),
    ("machine us", "many", "machine_us", lambda v: f"{v:.1f}"),
    ("v5: EXECUTE/s, 64", "many5", "rps", lambda v: f"{v:,.0f}"),
    ("CPU us", "many5", "proxy_us", lambda v: f"{v:.1f}"),
    ("QUERY/s, 64", "query", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "query", "p50_us", lambda v: f"{v:,.0f}"),
    ("p99 us", "query", "p99_us", lambda v: f"{v:,.0f}"),
    ("CPU us", "query", "proxy_us", lambda v: f"{v:.1f}"),
    ("read GB/s", "read", "gbps", lambda v: f"{v:.2f}"),
    ("CPU s/GB", "read", "proxy_s_per_gb", lambda v: f"{v:.2f}"),
    ("v5: read GB/s", "read5", "gbps", lambda v: f"{v:.2f}"),
    ("CPU s/GB", "read5", "proxy_s_per_gb", lambda v: f"{v:.2f}"),
]
SOCKETS: Columns = [
    ("64 B: p50 us", "rtt64", "p50_us", lambda v: f"{v:.1f}"),
    ("p99 us", "rtt64", "p99_us", lambda v: f"{v:.1f}"),
    ("16 KiB: p50 us", "rtt16k", "p50_us", lambda v: f"{v:.1f}"),
    ("p99 us", "rtt16k", "p99_us", lambda v: f"{v:.1f}"),
    ("1 KiB writes: GB/s", "stream1k", "gbps", lambda v: f"{v:.2f}"),
    ("64 KiB writes: GB/s", "stream64k", "gbps", lambda v: f"{v:.2f}"),
    ("1 MiB writes: GB/s", "stream1m", "gbps", lambda v: f"{v:.2f}"),
    ("connections/s", "connect", "per_s", lambda v: f"{v:,.0f}"),
    ("p50 us", "connect", "p50_us", lambda v: f"{v:.1f}"),
    ("p99 us", "connect", "p99_us", lambda v: f"{v:,.0f}"),
]
SIDECARS: Columns = [
    ("64 B, 1 conn: req/s", "c1", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "c1", "p50_us", lambda v: f"{v:,.0f}"),
    ("p99 us", "c1", "p99_us", lambda v: f"{v:,.0f}"),
    ("64 B, 32 conn: req/s", "64", "rps", lambda v: f"{v:,.0f}"),
    ("p50 us", "64", "p50_us", lambda v: f"{v:,.0f}"),
    ("p99 us", "64", "p99_us", lambda v: f"{v:,.0f}"),
    ("CPU us/req", "64", "proxy_us", lambda v: f"{v:.1f}"),
    ("machine us/req", "64", "machine_us", lambda v: f"{v:.1f}"),
    ("1 KiB: req/s", "1k", "rps", lambda v: f"{v:,.0f}"),
    ("CPU us/req", "1k", "proxy_us", lambda v: f"{v:.1f}"),
    ("16 KiB: req/s", "16k", "rps", lambda v: f"{v:,.0f}"),
    ("CPU us/req", "16k", "proxy_us", lambda v: f"{v:.1f}"),
    ("1 MiB: req/s", "1m", "rps", lambda v: f"{v:,.0f}"),
    ("p99 us", "1m", "p99_us", lambda v: f"{v:,.0f}"),
    ("GB/s", "bulk1m", "gbps", lambda v: f"{v:.2f}"),
    ("CPU s/GB", "bulk1m", "proxy_s_per_gb", lambda v: f"{v:.2f}"),
    ("64 MiB: GB/s", "bulk64m", "gbps", lambda v: f"{v:.2f}"),
    ("CPU s/GB", "bulk64m", "proxy_s_per_gb", lambda v: f"{v:.2f}"),
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


def _cell(phases: dict[str, dict[str, list[float]]], phase: str, figure: str, shown: Callable[[float], str]) -> str:
    values = phases.get(phase, {}).get(figure, [])
    if not values or (figure.startswith("proxy_") and not any(values)):
        return "-"
    text = shown(median(values))
    if phase in _WITH_SPREAD and figure in ("rps", "proxy_us", "machine_us") and len(values) > 1:
        text += f" ({shown(min(values))}-{shown(max(values))})"
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
