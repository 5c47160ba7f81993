"""One CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy: its name, its annotations and its specs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from policies.document import Node
from policies.load_fields import Reader, kind
from policies.load_l7 import L7Reader
from policies.load_rules import LISTS, RuleReader
from policies.load_selectors import endpoint_selector
from policies.model import Policy, Rule, TrafficDirection

API = "cilium.io/v2"
KINDS = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_OURS = "l7proxy.io/"
_ANNOTATIONS = (f"{_OURS}mode", f"{_OURS}reason")
_MAX_REASON = 500
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_NAME = 253
_OBJECT = ("apiVersion", "kind", "metadata", "spec", "specs", "description", "status")
_SPEC = ("endpointSelector", *LISTS, "enableDefaultDeny", "description", "labels")
_SPEC_LATER = {"nodeSelector": "policies for hosts", "log": "flow records name the policy and the rule"}


class ObjectReader:
    """Reads one object. `reader` holds what is wrong with it and, once its name is known, the policy's name."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._root = f"{node.key}." if node.key else ""
        self.reader = Reader("", None, self._root)
        self._l7 = L7Reader(self.reader)
        self._audit = False
        self._reason: str | None = None

    def policies(self) -> list[Policy]:
        """One policy for each spec."""
        clusterwide = self._kind()
        if clusterwide is None:
            return []
        # What the cluster's API server adds is of no concern here, even if it is empty.
        node = _without(self._node, "status")
        fields = self.reader.mapping(node, _OBJECT)
        self.reader.text(fields.get("description"))
        self._metadata(fields.get("metadata"), clusterwide)
        specs = [fields["spec"]] if "spec" in fields else []
        specs += self.reader.items(fields.get("specs"))
        if not specs and not (isinstance(node.value, dict) and {"spec", "specs"} & node.value.keys()):
            self.reader.fault(node, "needs a spec or specs")
        return [policy for policy in map(self._policy, specs) if policy is not None]

    def _kind(self) -> bool | None:
        """Whether the object is clusterwide; None if it is no policy at all."""
        node, reader = self._node, self.reader
        name, version = node.get("kind"), node.get("apiVersion")
        if not isinstance(node.value, dict) or name is None or version is None:
            reader.fault(node, f"no policy: apiVersion: {API} and kind: {KINDS[0]} are needed")
            return None
        if name.value not in KINDS:
            reader.fault(name, f"not supported: kind {name.plain()!r} (only {' and '.join(KINDS)} are)")
            return None
        if version.value != API:
            reader.fault(version, f"not supported: apiVersion {version.plain()!r} (must be {API})")
            return None
        return bool(name.value == KINDS[1])

    def _metadata(self, node: Node | None, clusterwide: bool) -> None:
        reader = self.reader
        if node is None or not isinstance(node.value, dict):
            reader.fault(node or self._node, "metadata with a name is needed")
            return
        name = self._name(node.get("name"), "name", node)
        namespace = node.get("namespace")
        if clusterwide and namespace is not None:
            reader.fault(namespace, "a clusterwide policy has no namespace")
        if not clusterwide:
            found = "default" if namespace is None else self._name(namespace, "namespace", node)
            reader.namespace = found or "default"
        reader.policy = name if clusterwide or not name else f"{reader.namespace}/{name}"
        annotations = node.get("annotations")
        if annotations is not None and annotations.value is not None:
            self._annotations(annotations)

    def _name(self, node: Node | None, what: str, parent: Node) -> str:
        if node is None:
            self.reader.fault(parent, f"metadata needs a {what}")
            return ""
        text = self.reader.text(node)
        if text is not None and (len(text) > _MAX_NAME or not _NAME.fullmatch(text)):
            self.reader.fault(node, f"{text[:100]!r} is no Kubernetes name (lower-case letters, digits, - and .)")
            return ""
        return text or ""

    def _annotations(self, node: Node) -> None:
        reader = self.reader
        if not isinstance(node.value, dict):
            reader.fault(node, f"must be a mapping, not {kind(node)}")
            return
        own = {key: child for key, child in node.value.items() if key.startswith(_OURS)}
        fields = reader.mapping(Node(own, node.file, node.line, node.key), _ANNOTATIONS)
        mode = reader.text(fields.get(_ANNOTATIONS[0]))
        if mode is not None and mode not in ("enforce", "audit"):
            reader.fault(fields[_ANNOTATIONS[0]], f"mode must be enforce or audit, not {mode!r}")
        self._audit = mode == "audit"
        self._reason = reader.text(fields.get(_ANNOTATIONS[1])) or None
        if self._reason is not None and (len(self._reason) > _MAX_REASON or not self._reason.isprintable()):
            reader.fault(fields[_ANNOTATIONS[1]], f"must be one line of at most {_MAX_REASON} printable characters")

    def _policy(self, node: Node) -> Policy | None:
        reader = self.reader
        reader.root = f"{self._root}spec." if node.key == f"{self._root}spec" else self._root
        fields = reader.mapping(node, _SPEC, _SPEC_LATER)
        reader.text(fields.get("description"))
        reader.items(fields.get("labels"))
        selector_node = fields.get("endpointSelector")
        if selector_node is None:
            if isinstance(node.value, dict) and not {"endpointSelector", "nodeSelector"} & node.value.keys():
                reader.fault(node, "needs an endpointSelector ({} is every endpoint)")
            return None
        selector = endpoint_selector(reader, selector_node)
        init = any(one.key == "reserved:init" for one in selector.requirements)
        rules = self._rules(fields, init)
        if not rules and not any(key in fields and not isinstance(fields[key].value, list) for key in LISTS):
            reader.fault(node, f"needs a rule in {', '.join(LISTS)} (all are empty or absent)")
        default_deny = self._default_deny(fields.get("enableDefaultDeny"), rules)
        return Policy(
            name=reader.policy,
            namespace=reader.namespace,
            selector=selector,
            rules=rules,
            default_deny=default_deny,
            audit=self._audit,
            reason=self._reason,
            file=node.file,
            line=node.line,
        )

    def _rules(self, fields: Mapping[str, Node], init: bool) -> tuple[Rule, ...]:
        rules = RuleReader(self.reader, self._l7, init)
        return tuple(
            rules.rule(item, direction, deny)
            for key, (direction, deny) in LISTS.items()
            for item in self.reader.items(fields.get(key))
        )

    def _default_deny(self, node: Node | None, rules: tuple[Rule, ...]) -> frozenset[TrafficDirection]:
        """The directions in default deny: those with any rule, allow or deny, unless enableDefaultDeny says."""
        flags = {} if node is None else self.reader.mapping(node, tuple(TrafficDirection))
        found = set()
        for direction in TrafficDirection:
            said = self.reader.flag(flags.get(direction))
            if any(rule.direction is direction for rule in rules) if said is None else said:
                found.add(direction)
        return frozenset(found)


def _without(node: Node, key: str) -> Node:
    return Node({k: v for k, v in node.value.items() if k != key}, node.file, node.line, node.key)
