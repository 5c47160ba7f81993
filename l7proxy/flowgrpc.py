"""What flow records say of gRPC calls, as JSON: Hubble has no fields for that, so it stands in our extension."""

from __future__ import annotations

from typing import TypeAlias

from l7proxy.flowparts import END_OF_OWN, SHORT, Redaction, end, exchange, quote
from l7proxy.ops import Grpc, Request

GrpcParts: TypeAlias = tuple[str, str, str, str]
"""The text behind the latency, the facts of the call, the summary's ms, and its counts of messages."""

_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""Status codes by number, as gRPC's ``statuscodes.md`` has them."""


def status_name(status: int) -> str:
    """The name of a grpc-status, its number if it has none, and "" if none came (-1)."""
    if status < 0:
        return ""
    return _NAMES[status] if status < len(_NAMES) else str(status)


def call_facts(call: Grpc) -> str:
    """What differs between two calls of one method, as members of the extension's ``grpc``."""
    status = f'"status":{call.status},"status_name":"{status_name(call.status)}",' if call.status >= 0 else ""
    return f'{status}"request_messages":{call.requests},"response_messages":{call.responses}'


def outcome(call: Grpc) -> str:
    """How a call ended, in a word or two."""
    return status_name(call.status) or "no status"


def make_grpc_parts(request: Request, code: int, call: Grpc, redaction: Redaction, node: str) -> GrpcParts:
    """The parts of the lines of one method's calls. `node` is quoted."""
    service, method = quote(call.service, SHORT), quote(call.method, SHORT)
    return (
        f'{exchange(request, code, redaction)},"grpc":{{"service":{service},"method":{method},',
        f'}}{END_OF_OWN},"Summary":"gRPC ',
        f"ms ({service[1:-1]}/{method[1:-1]}, ",
        f" messages){end(node)}",
    )
