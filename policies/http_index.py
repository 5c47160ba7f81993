"""The HTTP and gRPC rules of one list, indexed by what they ask: method, path and host, or service and method."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from parsers.facts import HttpRequest
from policies.expressions import wire
from policies.http_table import Entry, HeaderView, Table, first_of
from policies.model import GrpcCall, HttpRule
from policies.patterns import Style, literals
from policies.spellings import call_forms, call_of, host_forms, path_forms

_SHOWN = 200
"""Characters of a method or path that a reason quotes."""


class HttpIndex:
    """The rules of one list (see `policies.index.Index`). With `deny`, requests are asked in every form a server might
    read them in, so that no other spelling gets past (see `policies.spellings` and `HeaderView`)."""

    def __init__(self, rules: Sequence[HttpRule], deny: bool = False) -> None:
        """Raises PatternError."""
        self._deny = deny
        plain, folding = Style(deny), Style(deny, fold=deny)
        self._http, self._grpc = Table(plain, plain, folding), Table(folding, folding)
        self._exact: dict[tuple[str, str], Entry] = {}
        self.header_names = frozenset(header.name for rule in rules for header in rule.headers)
        self.remarks = any(header.log for rule in rules for header in rule.headers)
        for order, rule in enumerate(rules):
            self._add(Entry(rule, order))
        self._http.compile()
        self._grpc.compile()

    def _add(self, entry: Entry) -> None:
        rule = entry.rule
        if rule.grpc is not None:
            service = None if rule.grpc.service is None else re.escape(rule.grpc.service)
            self._grpc.add(entry, service, rule.grpc.method)
        else:
            self._http.add(entry, rule.method, rule.path, rule.host)
        if not (self._deny or rule.headers):
            for request in _requests(rule):
                self._exact.setdefault(request, entry)

    def find(self, request: HttpRequest) -> Entry | None:
        """The rule that matches: a wholly literal one if there is one, else the first in the order of the files."""
        exact = self._exact.get((request.method, request.path))
        if exact is not None:
            return exact
        view = HeaderView(request, self.header_names, self._deny)
        found = None
        if self._http:
            paths = path_forms(request.path) if self._deny else (request.path,)
            hosts = host_forms(request.host) if self._deny else (request.host,)
            found = self._http.find(view, (request.method,), paths, hosts)
        if self._grpc:
            for service, method in self._calls(request):
                found = first_of(found, self._grpc.find(view, (service,), (method,)))
        return found

    def remark(self, entry: Entry, request: HttpRequest) -> str:
        """The headers that ``mismatch: LOG`` asks to be told of."""
        logged = [header for header in entry.rule.headers if header.log]
        view = HeaderView(request, self.header_names, deny=False)
        names = [header.name for header in logged if not view.has(header.name, header.value)]
        return f"; header {', '.join(names)} does not match (mismatch: LOG)" if names else ""

    @staticmethod
    def told(request: HttpRequest) -> str:
        """``GET /path``. The query is not quoted: it may hold secrets, and reasons are written to the log."""
        path, mark, _ = request.path.partition("?")
        return f"{request.method[:_SHOWN]} {path[:_SHOWN]}{' with its query string' if mark else ''}"

    def _calls(self, request: HttpRequest) -> Iterable[tuple[str, str]]:
        if self._deny:
            return call_forms(request.path, request.target)
        call = call_of(request.method, request.path)
        return () if call is None else (call,)


def _requests(rule: HttpRule) -> Iterable[tuple[str, str]]:
    """(method, path) of the only requests that a rule without conditions on headers allows, if they can be told."""
    if rule.grpc is not None:
        return _literal_calls(rule.grpc)
    if rule.method is None or rule.path is None or rule.host is not None:
        return ()
    paths = [wire(path) for path in literals(rule.path) or ()]
    return [(wire(method), path) for method in literals(rule.method) or () for path in paths]


def _literal_calls(call: GrpcCall) -> Iterable[tuple[str, str]]:
    if call.service is None or call.method is None:
        return ()
    found = [("POST", f"/{call.service}/{method}") for method in literals(call.method) or ()]
    return [one for one in found if call_of(*one) is not None]
