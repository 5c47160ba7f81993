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
_COLUMNS: list[tuple[str, str, str, Callable[[float], str]]] = [
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


def table(results: Results) -> str:
    """Markdown: the median of all rounds, and the lowest and highest of the requests and CPU at 32 connections."""
    head = ["", *(title for title, *_ in _COLUMNS)]
    lines = [_row(head), _row(["---"] + ["---:"] * len(_COLUMNS))]
    lines += [_row([name, *(_cell(phases, *column[1:]) for column in _COLUMNS)]) for name, phases in results.items()]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(phases: dict[str, dict[str, list[float]]], phase: str, figure: str, shown: Callable[[float], str]) -> str:
    values = phases.get(phase, {}).get(figure, [])
    if not values or (figure == "proxy_us" and not any(values)):
        return "-"
    text = shown(median(values))
    if phase == "c32" and figure in ("rps", "proxy_us", "machine_us") and len(values) > 1:
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


def write(path: Path, results: Results, settings: dict[str, Any], versions: dict[str, str]) -> None:
    """The JSON file: settings, versions, medians with their spread, and every single value."""
    machine = {"kernel": platform.release(), "machine": platform.machine()}
    whole = {"settings": settings, "machine": machine | versions, "summary": summary(results), "rounds": results}
    path.write_text(json.dumps(whole, indent=1) + "\n")
