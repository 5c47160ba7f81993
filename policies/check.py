"""The lint behind `l7proxy check`: errors, what weakens a policy silently, and likely mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from policies.check_cql import start_remarks
from policies.check_node import Known, node_problems
from policies.check_rules import problem, rule_problems
from policies.check_text import text_problems
from policies.document import DocumentError, Problem, load
from policies.load import load_paths


def check(
    paths: Iterable[Path], endpoints: Sequence[Known] | None = None, *, system_tables: bool = True
) -> list[Problem]:
    """All problems of policy files and folders, in the order of files and lines.

    With errors only these are told: what cannot be loaded cannot be judged. `endpoints`, if given, are those of a
    node, and selectors that select none of them are told as well. `system_tables`: see `policies.match.RuleSet`.
    """
    try:
        loaded = load_paths(paths)
        problems = list(loaded.warnings)
        for file in loaded.files:
            problems += text_problems(load(file))
    except DocumentError as error:
        return _sorted(error.problems)
    problems += rule_problems(loaded.policies)
    started = start_remarks(loaded.policies, system_tables=system_tables)
    problems += (problem(ref, text, severity) for ref, (severity, text) in started)
    if endpoints is not None:
        problems += node_problems(loaded.policies, endpoints)
    return _sorted(problems)


def fails(problems: Iterable[Problem]) -> bool:
    """Whether there is more than advice: an error, or a warning (the policy does less than it seems to)."""
    return any(one.severity != "note" for one in problems)


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda one: (one.file, one.line, one.key))
