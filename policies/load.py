"""Policy files: CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy (cilium.io/v2), read strictly.

What Cilium takes and this program does not enforce is an error that says so; what neither knows is an error, too.
Three things are our own:

- Annotations, which leave the file valid for Cilium: ``l7proxy.io/mode: audit`` (record what this policy would refuse
  and forward it; the default is ``enforce``) and ``l7proxy.io/reason: text`` (told to the client that is refused, and
  to the log).
- ``rules.http`` inside ingressDeny and egressDeny, which Cilium's schema does not have: requests that match are
  refused, whatever allows them. The rest of the port stays as the other rules make it. Like every deny rule of
  Cilium's it puts the endpoint in default deny, unless ``enableDefaultDeny`` says otherwise.
- ``rules.grpc`` and ``rules.cql``, for allow and deny rules; and of ``rules.kafka`` deny rules and the lists of globs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from policies import document
from policies.document import DocumentError, Node, Problem
from policies.load_fields import Reader
from policies.load_object import API, KINDS, ObjectReader
from policies.model import Policy

SUFFIXES = (".yaml", ".yml", ".json")
_LISTS = ("List", *(f"{kind}List" for kind in KINDS))


@dataclass(frozen=True)
class PolicySet:
    """All policies of some files, in the order of files and documents. `warnings` are traps seen while reading that
    the policies themselves no longer show."""

    policies: tuple[Policy, ...]
    files: tuple[Path, ...]
    warnings: tuple[Problem, ...] = ()


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files meant: each path itself, or every *.yaml, *.yml and *.json below a folder, sorted.

    Hidden files and folders are passed over (Kubernetes keeps a volume's old versions in such). Raises DocumentError
    for a path that is not there.
    """
    found: dict[Path, None] = {}
    problems: list[Problem] = []
    for path in paths:
        try:
            path.stat()
            found.update(dict.fromkeys(_below(path) if path.is_dir() else [path]))
        except OSError as error:
            problems.append(Problem(str(path), 0, "", f"cannot be read: {error.strerror or error}"))
    if problems:
        raise DocumentError(problems)
    return list(found)


def _below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def load_paths(paths: Iterable[Path]) -> PolicySet:
    """Every policy of files and folders. Raises DocumentError with all problems of all files."""
    files = find_files(paths)
    loader = _Loader()
    for file in files:
        try:
            loader.add(document.load(file))
        except DocumentError as error:
            loader.problems += error.problems
    return PolicySet(loader.result(), tuple(files), tuple(loader.warnings))


def load_text(text: str, file: str) -> list[Policy]:
    """The policies of one text; `file` is the name in complaints. Raises DocumentError with all problems."""
    loader = _Loader()
    loader.add(document.parse(text, file))
    return list(loader.result())


class _Loader:
    """Gathers the policies of several documents, and everything that is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._policies: list[Policy] = []
        self._seen: dict[str, Node] = {}

    def result(self) -> tuple[Policy, ...]:
        """The policies. Raises DocumentError if there was any problem."""
        if self.problems:
            raise DocumentError(self.problems)
        return tuple(self._policies)

    def add(self, documents: Iterable[Node]) -> None:
        """Read the policies of some documents."""
        for root in documents:
            for node in self._objects(root):
                self._object(node)

    def _objects(self, node: Node) -> Iterator[Node]:
        """A document's policy objects; those of a List one by one."""
        kind = node.get("kind")
        if kind is None or kind.value not in _LISTS:
            yield node
            return
        reader = Reader("", None, "")
        fields = reader.mapping(node, ("apiVersion", "kind", "metadata", "items"))
        version, wanted = fields.get("apiVersion"), "v1" if kind.value == "List" else API
        if version is None or version.value != wanted:
            reader.fault(version or node, f"apiVersion of a {kind.value} must be {wanted}")
        for item in reader.items(fields.get("items")):
            yield from self._objects(item)
        self.problems += reader.problems

    def _object(self, node: Node) -> None:
        found = ObjectReader(node)
        policies = found.policies()
        self._policies += policies
        self.problems += found.reader.problems
        self.warnings += found.reader.warnings
        if not found.reader.policy:
            return
        first = self._seen.setdefault(found.reader.policy, node)
        if first is not node:
            # Kubernetes would keep the last of them only.
            self.problems.append(node.problem(f"policy {found.reader.policy} is already in {first.file}:{first.line}"))
