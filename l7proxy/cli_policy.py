"""The commands `check` and `explain`. They need no root, no BPF, and no running proxy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TextIO

from l7proxy.config import NodeConfig, load_config
from l7proxy.identities import IdentityTable
from l7proxy.queries import QueryError, Reader
from parsers.options import HttpOptions
from policies.check import check, fails
from policies.check_node import Known
from policies.explain import Explainer, Explanation
from policies.identity import RESERVED
from policies.load import load_paths
from policies.model import TrafficDirection
from policies.resolve import Resolver, cidr_prefixes
from policies.verdict import Verdict

_NAMES = ("topic", "group", "transactional_id", "client_id")
_WHO = "an endpoint's name, labels key=value[,key=value], an address, or an entity such as world"


def add_commands(commands: Any) -> None:
    """Add both to the parser's sub-commands; each sets `handler`."""
    lint = commands.add_parser("check", help="find errors and silent weakenings in policies")
    lint.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="policy files and folders")
    lint.add_argument("--config", type=Path, metavar="FILE", help="node.yaml: check it too, and against its endpoints")
    lint.set_defaults(handler=run_check)
    explain = commands.add_parser("explain", help="say which rule decides a flow or a request, and why")
    explain.add_argument("--policies", nargs="+", type=Path, metavar="PATH", help="policy files and folders")
    explain.add_argument("--config", type=Path, metavar="FILE", help="node.yaml: its policies, endpoints and modes")
    explain.add_argument("--requests", type=Path, metavar="FILE", help="JSON lines to answer one by one (- for stdin)")
    explain.add_argument("--json", action="store_true", help="answer in JSON")
    _add_flow(explain)
    explain.set_defaults(handler=run_explain)


def _add_flow(explain: argparse.ArgumentParser) -> None:
    flow = explain.add_argument_group("one flow or request")
    flow.add_argument("--from", dest="source", metavar="WHO", help=_WHO)
    flow.add_argument("--to", dest="destination", metavar="WHO", help="likewise")
    flow.add_argument("--from-namespace", metavar="NAME", help="of labels in --from (default: default)")
    flow.add_argument("--to-namespace", metavar="NAME", help="of labels in --to (default: default)")
    flow.add_argument("--named-port", action="append", metavar="NAME=PORT", help="a port name of labels in --to")
    flow.add_argument("--port", type=int, help="the destination's port")
    flow.add_argument("--protocol", help="TCP (the default), UDP, SCTP, ICMP")
    flow.add_argument("--direction", choices=list(map(str, TrafficDirection)), help="one side only (default: both)")
    request = explain.add_argument_group("an HTTP request or gRPC call in it")
    request.add_argument("--method", help="default: GET")
    request.add_argument("--grpc", metavar="SERVICE/METHOD", help="a gRPC call, in place of --method and --path")
    request.add_argument("--path", help="with its query string (default: /)")
    request.add_argument("--host", help="as the Host header or :authority has it, port included")
    request.add_argument(
        "-H", "--header", action="append", metavar="'NAME: VALUE'", help="a header field, or metadata of the call"
    )
    kafka = explain.add_argument_group("a Kafka request in it")
    kafka.add_argument("--kafka", metavar="API", help="by name or number, such as Produce")
    kafka.add_argument("--api-version", type=int, metavar="N", help="default: the highest there is")
    for key in _NAMES:
        kafka.add_argument(f"--{key.replace('_', '-')}", metavar="NAME")
    cql = explain.add_argument_group("a CQL statement in it")
    cql.add_argument("--cql", metavar="STATEMENT", help="such as 'SELECT * FROM shop.orders'")
    cql.add_argument("--keyspace", metavar="NAME", help="of unqualified names in it (default: none)")
    explain.add_argument("--expect", choices=list(map(str, Verdict)), help="exit 1 if this is not the verdict")


def run_check(arguments: argparse.Namespace) -> int:
    """Print every problem; the exit code is 1 if there is more than advice. Raises DocumentError for node.yaml."""
    config = load_config(arguments.config) if arguments.config is not None else None
    paths = arguments.paths or (config.policies if config is not None else ())
    if not paths:
        print("l7proxy check: name policy files or folders, or --config node.yaml", file=sys.stderr)
        return 2
    system_tables = config is None or config.cassandra.system_tables
    problems = check(paths, _known(config), system_tables=system_tables)
    for problem in problems:
        print(problem)
    counts = {severity: sum(one.severity == severity for one in problems) for severity in ("error", "warning", "note")}
    found = [f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count]
    print(f"l7proxy check: {', '.join(found) or 'no problems'}", file=sys.stderr)
    return 1 if fails(problems) else 0


def _known(config: NodeConfig | None) -> list[Known] | None:
    if config is None:
        return None
    workloads = _table(config).workloads.values()
    return [Known(one.name, one.identity, one.addresses) for one in workloads]


def _table(config: NodeConfig | None) -> IdentityTable:
    table = IdentityTable()
    for one in config.endpoints if config is not None else ():
        table.add(
            one.name,
            one.labels,
            addresses=one.addresses,
            named_ports=one.named_ports,
            interface=one.interface,
            cgroup=one.cgroup,
        )
    return table


def run_explain(arguments: argparse.Namespace) -> int:
    """Answer; the exit code is 1 for a query that cannot be read or whose verdict is not the expected one. Raises
    DocumentError for policies or a node.yaml that cannot be loaded."""
    config = load_config(arguments.config) if arguments.config is not None else None
    paths = arguments.policies or (config.policies if config is not None else ())
    if not paths:
        print("l7proxy explain: name --policies or --config node.yaml", file=sys.stderr)
        return 2
    loaded = load_paths(paths)
    table = _table(config)
    table.set_prefixes(cidr_prefixes(loaded.policies))
    audit, localhost = (config.audit, config.allow_localhost == "always") if config is not None else (False, False)
    resolver = Resolver(loaded.policies, node_audit=audit, allow_localhost=localhost)
    explainer = Explainer(resolver, system_tables=config is None or config.cassandra.system_tables)
    options = config.http if config is not None else HttpOptions()
    try:
        return _answer(_queries(arguments, table), Reader(table, options), explainer, arguments)
    except QueryError as error:
        print(f"l7proxy explain: {error}", file=sys.stderr)
        return 1


def _queries(arguments: argparse.Namespace, table: IdentityTable) -> Iterable[tuple[str, Any]]:
    """(place, decoded JSON) of each query. Raises QueryError."""
    single = [arguments.source, arguments.destination]
    if arguments.requests is None:
        if None in single:
            raise QueryError("name --from and --to, or --requests FILE")
        return [("", _from_arguments(arguments, table))]
    if single != [None, None]:
        raise QueryError("--requests and --from, --to exclude each other")
    return _from_file(arguments.requests)


def _from_file(path: Path) -> Iterator[tuple[str, Any]]:
    if str(path) == "-":
        yield from _from_lines(sys.stdin, "stdin")
        return
    try:
        with path.open(encoding="utf-8") as file:
            yield from _from_lines(file, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"{path}: cannot be read: {error}") from error


def _from_lines(lines: TextIO, name: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield f"{name}:{number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QueryError(f"{name}:{number}: no JSON: {error}") from error


def _answer(
    queries: Iterable[tuple[str, Any]], reader: Reader, explainer: Explainer, arguments: argparse.Namespace
) -> int:
    wrong = 0
    for place, value in queries:
        try:
            query, expected = reader.query(value)
        except QueryError as error:
            raise QueryError(f"{place}: {error}" if place else str(error)) from error
        answer = explainer.explain(query)
        print(json.dumps(answer.plain()) if arguments.json else _readable(place, answer))
        if expected is not None and answer.verdict is not expected:
            wrong += 1
            print(f"{place}{': ' if place else ''}{answer.verdict} where {expected} is expected", file=sys.stderr)
    return 1 if wrong else 0


def _readable(place: str, answer: Explanation) -> str:
    ref = answer.rule
    where = f"\n  rule {ref.policy} {ref.rule}\n  at   {ref.file}:{ref.line}" if ref is not None and not place else ""
    return f"{place}{': ' if place else ''}{answer.verdict} ({answer.layer}): {answer.reason}{where}"


def _from_arguments(arguments: argparse.Namespace, table: IdentityTable) -> dict[str, Any]:
    """The command line as the JSON that --requests takes."""
    result: dict[str, Any] = {
        "source": _end(arguments.source, table, arguments.from_namespace),
        "destination": _end(arguments.destination, table, arguments.to_namespace),
    }
    if arguments.named_port:
        result["destination"]["named_ports"] = dict(map(_named_port, arguments.named_port))
    for key in ("port", "protocol", "direction", "expect"):
        if getattr(arguments, key) is not None:
            result[key] = getattr(arguments, key)
    request = _request(arguments)
    if arguments.cql is not None:
        if request:
            raise QueryError("--cql and the options of other requests exclude each other")
        request = _statement(arguments)
    elif arguments.keyspace is not None:
        raise QueryError("--keyspace needs --cql STATEMENT")
    return result | request


def _request(arguments: argparse.Namespace) -> dict[str, Any]:
    kind, fields = ("http", "headers") if arguments.grpc is None else ("grpc", "metadata")
    given = {key: getattr(arguments, key) for key in ("method", "path", "host")}
    request: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if kind == "grpc":
        if request.keys() & {"method", "path"}:
            raise QueryError("--grpc and --method, --path exclude each other")
        request |= _call(arguments.grpc)
    if arguments.header:
        request[fields] = list(map(_field, arguments.header))
    named = {key: getattr(arguments, key) for key in _NAMES if getattr(arguments, key) is not None}
    if arguments.api_version is not None:
        named["version"] = arguments.api_version
    if arguments.kafka is not None:
        if request:
            raise QueryError("--kafka and the options of an HTTP request exclude each other")
        return {"kafka": {"api": arguments.kafka, **named}}
    if named:
        raise QueryError("the options of a Kafka request need --kafka API")
    return {kind: request} if request else {}


def _statement(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.keyspace is None:
        return {"cql": {"query": arguments.cql}}
    return {"cql": {"query": arguments.cql, "keyspace": arguments.keyspace}}


def _call(text: str) -> dict[str, str]:
    service, _, method = text.removeprefix("/").partition("/")
    if not service or not method or "/" in method:
        raise QueryError(f"--grpc {text!r} is not SERVICE/METHOD")
    return {"service": service, "method": method}


def _end(who: str, table: IdentityTable, namespace: str | None) -> dict[str, Any]:
    end: dict[str, Any] = {_kind(who, table): who}
    if "=" in who and "endpoint" not in end:
        pairs = [part.partition("=") for part in who.split(",")]
        end = {"labels": {key: value for key, _, value in pairs}}
    return end if namespace is None else end | {"namespace": namespace}


def _kind(who: str, table: IdentityTable) -> str:
    if who in table.workloads:
        return "endpoint"
    try:
        ip_address(who)
    except ValueError:
        return "entity" if who in RESERVED else "endpoint" if "=" not in who else "labels"
    return "ip"


def _named_port(text: str) -> tuple[str, int]:
    name, equals, port = text.partition("=")
    if not equals or not port.isdecimal():
        raise QueryError(f"--named-port {text!r} is not NAME=PORT")
    return name, int(port)


def _field(text: str) -> list[str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise QueryError(f"-H {text!r} is not 'NAME: VALUE'")
    return [name.strip(), value.strip(" \t")]
