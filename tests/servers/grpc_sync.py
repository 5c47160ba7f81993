"""A gRPC server with grpcio's threads; see grpc_parts.py for what it serves and writes down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc_parts as parts

LONGEST = 15.0


class Orders(parts.Services):
    """The behaviours, each in a thread of its own."""

    def get(self, request: bytes, context: Any) -> bytes:
        metadata = parts.returned(context.invocation_metadata())
        if ("x-gzip", "1") in metadata:
            context.set_compression(grpc.Compression.Gzip)
        context.send_initial_metadata(metadata)
        context.set_trailing_metadata(metadata)
        self.end(context, size=len(request), how=_how(context))
        return request

    def find(self, request: bytes, context: Any) -> bytes:
        self.end(context, how=_how(context))
        context.set_trailing_metadata((("x-why", "gone"), ("x-why-bin", b"\x00\xff")))
        context.abort(grpc.StatusCode.NOT_FOUND, parts.MISSING)
        return b""

    def wait(self, request: bytes, context: Any) -> bytes:
        over = threading.Event()
        context.add_callback(over.set)
        over.wait(LONGEST)
        self.end(context, how=_how(context))
        return b"waited"

    def list(self, request: bytes, context: Any) -> Iterator[bytes]:
        try:
            yield from parts.wanted(request)
        finally:
            self.end(context, how=_how(context))

    def cut(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield from parts.wanted(request)
        self.end(context, how=_how(context))
        context.cancel()

    def sum(self, requests: Iterator[bytes], context: Any) -> bytes:
        count = size = 0
        for request in requests:
            count, size = count + 1, size + len(request)
        self.end(context, count, size, _how(context))
        return b"%d %d" % (count, size)

    def chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        count = size = 0
        try:
            for request in requests:
                count, size = count + 1, size + len(request)
                yield request
        finally:
            self.end(context, count, size, _how(context))


class Notes(grpc.ServerInterceptor):
    """Sees every call before its handler is looked for."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.orders.begin(handler_call_details)
        return continuation(handler_call_details)


def _how(context: Any) -> str:
    return "ok" if context.is_active() else "cancelled"


def main() -> None:
    """Serve until killed."""
    options = parts.arguments()
    orders = Orders(parts.Journal(options.log))
    server = grpc.server(ThreadPoolExecutor(64), options=parts.UNLIMITED, interceptors=[Notes(orders)])
    server.add_generic_rpc_handlers((orders,))
    parts.add_services(server, "sync")
    server.add_insecure_port(f"{options.host}:{options.port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
