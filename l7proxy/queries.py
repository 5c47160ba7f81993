"""Flows and requests that `explain` is asked about: from JSON to identities and facts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from l7proxy.identities import IdentityError, IdentityTable
from parsers import http1
from parsers.cql_statement import Unclassifiable, classify
from parsers.facts import UNKNOWN, CqlRequest, HttpRequest, KafkaRequest, Request
from parsers.options import HttpOptions
from policies.explain import Query, Refusal
from policies.identity import NAMESPACE_LABEL, Identity
from policies.kafka_apis import NEVER, find_api, unknown_api
from policies.model import TrafficDirection
from policies.verdict import Verdict

_KEYS = ("direction", "source", "destination", "port", "protocol", "http", "grpc", "kafka", "cql", "expect")
_HTTP = ("method", "path", "host", "headers")
_GRPC = ("service", "method", "host", "metadata")
_KAFKA = ("api", "version", "client_id", "topic", "group", "transactional_id")
_CQL = ("query", "keyspace")
_REQUESTS = ("http", "grpc", "kafka", "cql")
_ENDS = ("endpoint", "labels", "ip", "entity")
_UNKNOWN = (CqlRequest(UNKNOWN),)
_PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP", "ICMPV6")


class QueryError(Exception):
    """A query that cannot be read: which key, and why."""


class _Asked(NamedTuple):
    """What goes into a `Query` under the same names."""

    request: Request | tuple[CqlRequest, ...] | None
    refusal: Refusal | None = None
    remark: str = ""


class Reader:
    """Reads queries against the identities of a node, or of no node at all."""

    def __init__(self, table: IdentityTable, options: HttpOptions) -> None:
        self._table, self._options = table, options
        self._addresses: dict[str, Identity] = {}

    def query(self, value: object) -> tuple[Query, Verdict | None]:
        """The query in decoded JSON, and the verdict it expects, if it says so. Raises QueryError.

        Source and destination are objects with one of `endpoint`, `labels` (beside it `namespace` and `named_ports`),
        `ip` or `entity`. `protocol` is TCP unless given; `direction` ingress, egress, or absent for both. The request
        is `http`, `grpc`, `kafka` or `cql`, or there is none.
        """
        fields = _mapping(value, "", _KEYS, ("source", "destination"))
        source, destination = self._end(fields["source"], "source"), self._end(fields["destination"], "destination")
        protocol = _choice(fields.get("protocol", "TCP"), "protocol", _PROTOCOLS)
        direction = fields.get("direction")
        asked = self._request(fields)
        query = Query(
            source,
            destination,
            protocol,
            _port(fields, protocol),
            asked.request,
            None if direction is None else TrafficDirection(_choice(direction, "direction", tuple(TrafficDirection))),
            asked.refusal,
            asked.remark,
        )
        expect = fields.get("expect")
        return query, None if expect is None else Verdict(_choice(expect, "expect", tuple(Verdict)))

    def _request(self, fields: Mapping[str, Any]) -> _Asked:
        given = [key for key in _REQUESTS if fields.get(key) is not None]
        if len(given) > 1:
            raise QueryError(f"{' and '.join(given)} exclude each other")
        if not given:
            return _Asked(None)
        value = fields[given[0]]
        if given[0] == "kafka":
            return _kafka(value)
        if given[0] == "cql":
            return _cql(value)
        head = _Head(_call(value) if given[0] == "grpc" else value, self._options)
        return _Asked(head.request, head.refusal)

    def _end(self, value: object, key: str) -> Identity:
        fields = _mapping(value, key, (*_ENDS, "namespace", "named_ports"))
        kinds = [kind for kind in _ENDS if kind in fields]
        if len(kinds) != 1:
            raise QueryError(f"{key}: needs exactly one of {', '.join(_ENDS)}")
        if kinds[0] != "labels" and fields.keys() & {"namespace", "named_ports"}:
            raise QueryError(f"{key}: namespace and named_ports go with labels only")
        try:
            if kinds[0] == "labels":
                return self._labels(fields, key)
            text = _text(fields[kinds[0]], f"{key}.{kinds[0]}")
            if kinds[0] == "ip":
                return self._address(text)
            return self._table.entity(text) if kinds[0] == "entity" else self._table.by_name(text).identity
        except (IdentityError, ValueError) as error:
            raise QueryError(f"{key}.{kinds[0]}: {error}") from error

    def _labels(self, fields: Mapping[str, Any], key: str) -> Identity:
        labels = _strings(fields["labels"], f"{key}.labels")
        namespace = fields.get("namespace")
        if namespace is not None:
            labels[NAMESPACE_LABEL] = _text(namespace, f"{key}.namespace")
        if any(name.startswith(("reserved:", "cidr:")) for name in labels):
            raise QueryError(f"{key}.labels: reserved and cidr labels are for entity and ip")
        ports: dict[str, int] = {}
        for name, port in _mapping(fields.get("named_ports", {}), f"{key}.named_ports").items():
            ports[name] = _number(port, f"{key}.named_ports.{name}", 1)
        return self._table.intern(labels, ports)

    def _address(self, text: str) -> Identity:
        found = self._addresses.get(text)
        if found is None:
            found = self._addresses[text] = self._table.by_address(ip_address(text))
        return found


def _port(fields: Mapping[str, Any], protocol: str) -> int:
    if "port" in fields:
        return _number(fields["port"], "port", 0)
    if not protocol.startswith("ICMP"):
        raise QueryError("needs port")
    return 0


def _call(grpc: object) -> object:
    """A gRPC call as the HTTP request that it is, ``POST /service/method``."""
    call = _mapping(grpc, "grpc", _GRPC, ("service", "method"))
    metadata = _list(call.get("metadata", []), "grpc.metadata")
    for key in ("service", "method"):
        _line(call[key], f"grpc.{key}")
    for one in metadata:
        _field(one, "grpc.metadata")
    path = f"/{call['service']}/{call['method']}"
    return {"method": "POST", "path": path, "headers": metadata, "host": call.get("host")}


def _kafka(value: object) -> _Asked:
    """A Kafka request, and why the proxy refuses it whatever the rules say. Without a topic it is about all of them."""
    fields = _mapping(value, "kafka", _KAFKA, ("api",))
    text = _text(fields["api"], "kafka.api")
    api = find_api(text)
    if api is None:
        raise QueryError(f"kafka.api: {unknown_api(text)}")
    version = _number(fields.get("version", api.high), "kafka.version", 0)
    names = {key: _name(fields[key], f"kafka.{key}") for key in _KAFKA[2:] if fields.get(key) is not None}
    refusal = None
    if api.key in NEVER:
        refusal = f"{api.name} is for controllers alone"
    elif not api.knows(version):
        refusal = f"{api.name} {version} is not known (versions {api.low} to {api.high} are)"
    return _Asked(KafkaRequest(api.key, version, **names, every_topic="topic" not in names), lambda _: refusal)


def _cql(value: object) -> _Asked:
    """What a CQL statement does. One that cannot be read is asked about as such."""
    fields = _mapping(value, "cql", _CQL, ("query",))
    keyspace = fields.get("keyspace")
    query, keyspace = _name(fields["query"], "cql.query"), None if keyspace is None else _name(keyspace, "cql.keyspace")
    try:
        return _Asked(classify(query, keyspace).requests or _UNKNOWN)
    except Unclassifiable as error:
        return _Asked(_UNKNOWN, remark=f"; {error}")


class _Head:
    """A request as the head a client would send, read by the proxy's own parser."""

    def __init__(self, value: object, options: HttpOptions) -> None:
        fields = _mapping(value, "http", _HTTP)
        method, path = _line(fields.get("method", "GET"), "http.method"), _line(fields.get("path", "/"), "http.path")
        lines = [_field(one, "http.headers") for one in _list(fields.get("headers", []), "http.headers")]
        if fields.get("host") is not None:
            lines.insert(0, f"Host: {_line(fields['host'], 'http.host')}")
        # HTTP/1.0 asks for no Host: a query without one is about every host.
        named = any(line.lower().startswith("host:") for line in lines)
        head = "\r\n".join([f"{method} {path} HTTP/1.{int(named)}", *lines, "", ""])
        self._head, self._options = head.encode("latin-1"), options
        self._refusal: str | None = None
        try:
            self.request = self._read(frozenset())
        except http1.Refused as error:
            self._refusal = f"{error.reason} ({error.status})"
            self.request = HttpRequest(method, path, "")

    def _read(self, watched: frozenset[str]) -> HttpRequest:
        http1.find_head(self._head, 0, 0, self._options)
        found = http1.parse_request(self._head, self._options, watched)
        return HttpRequest(found.method, found.path, found.host, headers=http1.headers(self._head), target=found.target)

    def refusal(self, watched: frozenset[str]) -> str | None:
        """Why the proxy refuses the head, or None."""
        if self._refusal is None and watched:
            try:
                self._read(watched)
            except http1.Refused as error:
                return f"{error.reason} ({error.status})"
        return self._refusal


def _field(value: object, key: str) -> str:
    match value:
        case [str(name), str(text)]:
            return f"{_line(name, key)}: {_line(text, key)}"
    raise QueryError(f"{key}: {value!r} is not [name, value]")


def _line(value: object, key: str) -> str:
    """A text as it is on the wire: its UTF-8 bytes, read as latin-1."""
    text = _text(value, key)
    if "\r" in text or "\n" in text:
        raise QueryError(f"{key}: holds the end of a line")
    try:
        return text if text.isascii() else text.encode().decode("latin-1")
    except UnicodeEncodeError:
        raise QueryError(f"{key}: {text!r} is no text") from None


def _name(value: object, key: str) -> str:
    text = _text(value, key)
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise QueryError(f"{key}: {text!r} is no text")
    return text


def _list(value: object, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise QueryError(f"{key}: must be a list")
    return value


def _mapping(value: object, key: str, known: Collection[str] | None = None, needed: Collection[str] = ()) -> Any:
    where = f"{key}: " if key else ""
    if not isinstance(value, dict):
        raise QueryError(f"{where}must be an object")
    for name in value:
        if known is not None and name not in known:
            raise QueryError(f"{where}unknown key {name!r} (known: {', '.join(known)})")
    for name in needed:
        if name not in value:
            raise QueryError(f"{where}needs {name}")
    return value


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise QueryError(f"{key}: must be a string")
    return value


def _strings(value: object, key: str) -> dict[str, str]:
    return {name: _text(text, f"{key}.{name}") for name, text in _mapping(value, key).items()}


def _number(value: object, key: str, lowest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= 65535:
        raise QueryError(f"{key}: must be a number from {lowest} to 65535")
    return value


def _choice(value: object, key: str, known: Collection[str]) -> str:
    text = _text(value, key)
    change: Callable[[str], str] = str.lower if all(one.islower() for one in known) else str.upper
    if change(text) not in known:
        raise QueryError(f"{key}: must be one of {', '.join(known)}, not {text!r}")
    return change(text)
