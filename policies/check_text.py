"""What looks harmless in a policy file and is not: traps of the format that the loaded policy no longer shows.

Those that the loader itself meets (endPort below port, an empty toPorts) come from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policies.document import Node, Problem

_RULES = ("ingress", "egress", "ingressDeny", "egressDeny")
_PEERS = tuple(
    f"{way}{kind}" for way in ("from", "to") for kind in ("Endpoints", "Entities", "CIDR", "CIDRSet", "Requires")
)


def text_problems(documents: Sequence[Node]) -> Iterator[Problem]:
    """Warnings about one file's documents, which must have loaded without errors."""
    for spec in _specs(documents):
        for direction in _RULES:
            listed = spec.get(direction)
            if listed is not None and isinstance(listed.value, list):
                yield from _rules(listed)


def _policies(documents: Sequence[Node]) -> Iterator[Node]:
    for document in documents:
        items = document.get("items")
        if items is not None and isinstance(items.value, list):
            yield from _policies(items.value)
        else:
            yield document


def _specs(documents: Sequence[Node]) -> Iterator[Node]:
    for document in _policies(documents):
        spec = document.get("spec")
        if spec is not None:
            yield spec
        yield from _items(document, "specs")


def _items(node: Node, key: str) -> list[Node]:
    child = node.get(key)
    return child.value if child is not None and isinstance(child.value, list) else []


def _rules(listed: Node) -> Iterator[Problem]:
    if not listed.value:
        text = "an empty list is no rule and starts no default deny: nothing is refused (`[{}]` refuses everything)"
        yield listed.problem(text, "warning")
    deny = listed.key.endswith("Deny")
    for rule in listed.value:
        if rule.value == {} and (deny or len(listed.value) > 1):
            word = "denies" if deny else "allows"
            yield rule.problem(f"`{{}}` {word} nothing: a rule needs peers or ports", "warning")
        yield from _rule(rule, "denies" if deny else "allows")


def _rule(rule: Node, word: str) -> Iterator[Problem]:
    for key in _PEERS:
        peers = rule.get(key)
        if peers is not None and peers.value == []:
            text = f"an empty list holds nobody, so this rule {word} nothing (leave {key} out for everybody)"
            yield peers.problem(text, "warning")
    for entry in _items(rule, "toPorts"):
        yield from _port_rule(entry)


def _port_rule(entry: Node) -> Iterator[Problem]:
    if not _items(entry, "ports"):
        yield entry.problem("without ports this entry matches nothing", "warning")
    rules = entry.get("rules")
    for listed in rules.value.values() if rules is not None else ():
        if listed.value == []:
            text = "an empty list is no L7 rule: every request passes, unread by the proxy"
            yield listed.problem(text, "warning")
    for kind, conditions in (("http", "headers"), ("grpc", "metadata")):
        for rule in _items(rules, kind) if rules is not None else ():
            for header in _items(rule, conditions):
                if isinstance(header.value, str):
                    yield from _header(header)


def _header(header: Node) -> Iterator[Problem]:
    text: str = header.value
    name, space, value = text.partition(" ")
    if not space and ":" in text:
        name, _, value = text.partition(":")
        meant = f'"{name}: {value}"' if value else f'"{name}"'
        message = f"without a space {text!r} is the name of a header, and none has a colon in it: it never matches"
        yield header.problem(f"{message}; write {meant}", "warning")
    elif value != value.strip(" \t"):
        message = f"the value {value!r} begins or ends with a space, and header values never do: it never matches"
        yield header.problem(message, "warning")
