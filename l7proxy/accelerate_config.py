"""What `l7proxy accelerate` is told: flags, accel.yaml, or the key `accelerate` of node.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from l7proxy.schema import INVALID, Converter, describe, read, text
from policies.document import DocumentError, Node, Problem, load
from sockmap.namespaces import cookie
from sockmap.splice import Scope

_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SIZE = re.compile(r"(\d{1,12})\s*([kmg]ib)?", re.IGNORECASE)
_LEAST, _MOST = 4096, 1 << 30
NO_CGROUP = (
    "no cgroup is named: `--cgroup PATH`, or `cgroup: [PATH]` in the file, chooses the processes whose connections "
    "are spliced (`systemd-cgls` shows the paths); `/` is every process of this machine"
)


@dataclass(frozen=True, slots=True)
class AccelerateConfig:
    """Which connections are spliced: those whose both ends are processes in one of `cgroup` (paths below the cgroup2
    root, or in full) or in those below.

    Of these, `netns` leaves the clients in these network namespaces (name, path, or process id), `port` those to these
    ports, `process` those with such a program at an end, `not_process` takes out those with such a program at an end.
    `anywhere`: not only to loopback addresses. `budget`: bytes that may wait at a reader before the stack takes over.
    `learn`: splice a program's connections only when it was seen how it reads. `dry_run`: splice nothing.
    """

    cgroup: tuple[str, ...] = ()
    netns: tuple[str, ...] = ()
    port: tuple[int, ...] = ()
    process: tuple[str, ...] = ()
    not_process: tuple[str, ...] = ()
    anywhere: bool = False
    budget: int = 1 << 20
    learn: bool = True
    dry_run: bool = False

    def with_flags(self, **flags: Any) -> AccelerateConfig:
        """Lists are added to, other keys are put in the place of what was there; None is no flag."""
        given = {name: value for name, value in flags.items() if value is not None}
        before = {field.name: getattr(self, field.name) for field in fields(self)}
        merged: dict[str, Any] = {
            name: (*before[name], *value) if isinstance(before[name], tuple) else value for name, value in given.items()
        }
        return replace(self, **merged)

    def scope(self) -> Scope:
        """As the programs take it. Raises DatapathError for a network namespace that is not there."""
        return Scope(
            anywhere=self.anywhere,
            ports=self.port,
            namespaces=[cookie(name) for name in self.netns],
            names=self.process,
            not_names=self.not_process,
            learn=self.learn,
            dry_run=self.dry_run,
            budget=self.budget,
        )


def load_accelerate(path: Path) -> AccelerateConfig:
    """Read accel.yaml. Raises DocumentError with every problem found."""
    documents = load(path)
    if len(documents) != 1:
        raise DocumentError([Problem(str(path), 0, "", f"holds {len(documents)} documents, not one configuration")])
    problems: list[Problem] = []
    config = read_accelerate(documents[0], problems)
    if problems or config is INVALID:
        raise DocumentError(problems)
    return config  # type: ignore[no-any-return]  # a converter returns one, or INVALID


def read_accelerate(node: Node, problems: list[Problem]) -> Any:
    """An AccelerateConfig, or INVALID."""
    value = read(AccelerateConfig, node, problems, _CONVERTERS)
    return INVALID if value is None else value


def read_needed(node: Node, problems: list[Problem]) -> Any:
    """read_accelerate where nothing is added to it: a cgroup must be named."""
    before = len(problems)
    value = read_accelerate(node, problems)
    if value is not INVALID and not value.cgroup and len(problems) == before:
        problems.append(node.problem(NO_CGROUP))
    return value


def size(given: str) -> int:
    """Bytes, as ``65536``, ``64KiB`` or ``1MiB``. Raises ValueError."""
    match = _SIZE.fullmatch(given.strip())
    value = int(match[1]) * _UNITS[(match[2] or "").lower()] if match else 0
    if not _LEAST <= value <= _MOST:
        raise ValueError(f"{given!r} is no size from 4KiB to 1GiB (such as 65536, 64KiB, 1MiB)")
    return value


def port(given: str) -> int:
    """A TCP port. Raises ValueError."""
    if not given.isascii() or not given.isdecimal() or not 1 <= int(given) <= 65535:
        raise ValueError(f"{given!r} is no port from 1 to 65535")
    return int(given)


def _one_or_more(convert: Converter) -> Converter:
    def collect(node: Node, problems: list[Problem]) -> Any:
        nodes = node.value if isinstance(node.value, list) else [node]
        items = [convert(item, problems) for item in nodes]
        return tuple(item for item in items if item is not INVALID)

    return collect


def _written(parse: Any) -> Converter:
    """A number, or its text."""

    def convert(node: Node, problems: list[Problem]) -> Any:
        if not isinstance(node.value, int | str) or isinstance(node.value, bool):
            problems.append(node.problem(f"must be a number or a text, not {describe(node)}"))
            return INVALID
        try:
            return parse(str(node.value))
        except ValueError as error:
            problems.append(node.problem(str(error)))
            return INVALID

    return convert


_CONVERTERS: dict[str, Converter] = {
    "cgroup": _one_or_more(text),
    "netns": _one_or_more(_written(str)),
    "port": _one_or_more(_written(port)),
    "process": _one_or_more(text),
    "not_process": _one_or_more(text),
    "budget": _written(size),
}
