"""``rules`` of toPorts entries: which lists there are, and who reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from policies.document import Node
from policies.load_cql import cql_rules, l7_rules
from policies.load_fields import Reader
from policies.load_grpc import grpc_rules
from policies.load_http import HttpReader
from policies.load_kafka import kafka_rules
from policies.model import L7Rules

_LATER = {"dns": "HTTP, gRPC, Kafka and Cassandra only"}
_GENERIC = ("l7proto", "l7")


class L7Reader:
    """Reads the L7 rules of one policy. `reader` is told of faults."""

    def __init__(self, reader: Reader) -> None:
        http = HttpReader(reader)
        self.reader, self._http = reader, http
        self._kinds: Mapping[str, Callable[[Node, bool], L7Rules]] = {
            "http": http.rules,
            "grpc": partial(grpc_rules, http),
            "kafka": partial(kafka_rules, reader),
            "cql": partial(cql_rules, reader),
        }

    def rules(self, node: Node, deny: bool) -> L7Rules:
        """The rules of one entry, for allow or deny rules; none if its list is empty."""
        lists = self.reader.mapping(node, (*self._kinds, *_GENERIC), _LATER)
        if node.value == {}:
            known = ", ".join(self._kinds)
            self.reader.fault(node, f"an empty rules is refused, by Cilium too (write one of {known}, or leave it out)")
        generic, kinds = lists.keys() & set(_GENERIC), [key for key in lists if key not in _GENERIC]
        if len(kinds) + bool(generic) > 1:
            text = f"{' and '.join(lists)} cannot stand in one rules, which is of one protocol"
            self.reader.fault(node, f"{text} (write two entries of toPorts)")
        if generic:
            return l7_rules(self._http, lists, node, deny)
        found = [self._kinds[key](lists[key], deny) for key in kinds]
        return found[0] if found else ()
