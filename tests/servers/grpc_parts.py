"""What the gRPC servers of these tests share: the journal, the names, and the services of others (health, reflection).

All messages of ``orders.v1`` are plain bytes, so nothing has to be generated. The methods of ``orders.v1.Orders``:

======  =================  =====================================================================================
Get     unary              answers with the request; sends the client's ``x-`` metadata back, before and behind it
Find    unary              fails with NOT_FOUND and a text that has to be percent-encoded
Wait    unary              answers when it is cancelled, or after 15 s
List    server streaming   a request of ``COUNT SIZE`` is answered with COUNT messages of SIZE bytes
Cut     server streaming   the same, and then the server cancels the call by itself
Sum     client streaming   answers with ``COUNT BYTES`` of what came
Chat    bidirectional      answers each message with itself
======  =================  =====================================================================================

``orders.v1.Admin`` has Delete (unary), Purge (client streaming), Dump (server streaming) and Shell (bidirectional),
which do as Get, Sum, List and Chat do. The journal has a line of JSON for each call that began (`call`) and for each
that ended (`end`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

ORDERS, ADMIN = "orders.v1.Orders", "orders.v1.Admin"
KINDS = {"unary": ("Get", "Delete"), "client": ("Sum", "Purge"), "server": ("List", "Dump"), "both": ("Chat", "Shell")}
"""The methods of both services that do the same."""
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
_MAKERS: dict[str, Callable[..., Any]] = {
    "unary": grpc.unary_unary_rpc_method_handler,
    "client": grpc.stream_unary_rpc_method_handler,
    "server": grpc.unary_stream_rpc_method_handler,
    "both": grpc.stream_stream_rpc_method_handler,
}
MISSING = "no order called naïve/ü%"


class Journal:
    """The log: one write a line, so that threads and processes may share the file."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, event: str, **facts: Any) -> None:
        """Add a line."""
        os.write(self.file, json.dumps({"event": event, **facts}).encode() + b"\n")

    def end(self, peer: str, requests: int, size: int, how: str) -> None:
        """A call is over, as the server sees it: ok or cancelled, with so many messages and bytes from the client."""
        self.write("end", peer=peer, requests=requests, bytes=size, how=how)


class Services(grpc.GenericRpcHandler):
    """Both services of ours, with the behaviours of a subclass."""

    get: Callable[..., Any]
    list: Callable[..., Any]
    sum: Callable[..., Any]
    chat: Callable[..., Any]
    find: Callable[..., Any]
    wait: Callable[..., Any]
    cut: Callable[..., Any]

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.methods: dict[str, Any] = {}
        behaviours = {"unary": self.get, "client": self.sum, "server": self.list, "both": self.chat}
        for place, service in enumerate((ORDERS, ADMIN)):
            for kind, names in KINDS.items():
                self._add(service, names[place], kind, behaviours[kind])
        self._add(ORDERS, "Find", "unary", self.find)
        self._add(ORDERS, "Wait", "unary", self.wait)
        self._add(ORDERS, "Cut", "server", self.cut)

    def _add(self, service: str, name: str, kind: str, behaviour: Callable[..., Any]) -> None:
        self.methods[f"/{service}/{name}"] = _MAKERS[kind](behaviour)

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call, or None: then another's services are asked."""
        return self.methods.get(handler_call_details.method)

    def begin(self, details: Any) -> None:
        """Write down that a call has come, known or not. `details` is a grpc.HandlerCallDetails."""
        self.journal.write("call", method=details.method, metadata=shown(details.invocation_metadata))

    def end(self, context: Any, requests: int = 1, size: int = 0, how: str = "ok") -> None:
        """Write down how a call ended."""
        self.journal.end(context.peer(), requests, size, how)


def shown(metadata: Iterable[Any]) -> list[list[str]]:
    """Pairs of a call's metadata as JSON can hold them: bytes in hexadecimal."""
    return [[key, value.hex() if isinstance(value, bytes) else value] for key, value in metadata or ()]


def returned(metadata: Iterable[Any]) -> tuple[Any, ...]:
    """What is sent back to the client of what it sent."""
    return tuple((key, value) for key, value in metadata if key.startswith("x-"))


def wanted(request: bytes) -> Iterable[bytes]:
    """The messages that List answers with."""
    count, size = map(int, request.split())
    return (number.to_bytes(4, "big").rjust(size, b"\0") for number in range(count))


def add_services(server: Any, kind: str) -> None:
    """Health (SERVING, and NOT_SERVING for the admin service) and reflection, as grpcio brings them."""
    asynchronous = kind == "aio"
    servicer = health.aio.HealthServicer() if asynchronous else health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if not asynchronous:
        servicer.set(ADMIN, health_pb2.HealthCheckResponse.NOT_SERVING)
    _describe()
    names = (ORDERS, ADMIN, "grpc.health.v1.Health", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


def _describe() -> None:
    """Tell protobuf's pool of our services, as generated code would."""
    file = descriptor_pb2.FileDescriptorProto(name="orders.proto", package="orders.v1", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for place, service in enumerate(("Orders", "Admin")):
        described = file.service.add(name=service)
        for kind, names in KINDS.items():
            method = described.method.add(name=names[place])
            method.input_type = method.output_type = ".google.protobuf.BytesValue"
            method.client_streaming = kind in ("client", "both")
            method.server_streaming = kind in ("server", "both")
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


def arguments() -> argparse.Namespace:
    """The command line of both programs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="[::]")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    return parser.parse_args()
