"""A gRPC server with grpc.aio; see grpc_parts.py for what it serves and writes down."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc_parts as parts

LONGEST, GRACE = 15.0, 10.0


class Orders(parts.Services):
    """The behaviours, each in a task of its own."""

    async def get(self, request: bytes, context: Any) -> bytes:
        metadata = parts.returned(context.invocation_metadata())
        if ("x-gzip", "1") in metadata:
            context.set_compression(grpc.Compression.Gzip)
        await context.send_initial_metadata(metadata)
        context.set_trailing_metadata(metadata)
        self.end(context, size=len(request))
        return request

    async def find(self, request: bytes, context: Any) -> bytes:
        self.end(context)
        context.set_trailing_metadata((("x-why", "gone"), ("x-why-bin", b"\x00\xff")))
        await context.abort(grpc.StatusCode.NOT_FOUND, parts.MISSING)
        return b""

    async def wait(self, request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(LONGEST)
        except asyncio.CancelledError:
            self.end(context, how="cancelled")
            raise
        self.end(context)
        return b"waited"

    async def list(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for message in parts.wanted(request):
            yield message
        self.end(context)

    async def cut(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for message in parts.wanted(request):
            yield message
        self.end(context)
        await context.abort(grpc.StatusCode.CANCELLED, "cut")

    async def sum(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        count = size = 0
        async for request in requests:
            count, size = count + 1, size + len(request)
        self.end(context, count, size)
        return b"%d %d" % (count, size)

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        sizes: list[int] = []
        peer, whole = context.peer(), False

        # Not in a `finally`: where the call is cancelled behind a yield, that runs when the garbage is collected.
        def note(_: Any) -> None:
            self.journal.end(peer, len(sizes), sum(sizes), "ok" if whole else "cancelled")

        context.add_done_callback(note)
        async for request in requests:
            sizes.append(len(request))
            yield request
        whole = True


class Notes(grpc.aio.ServerInterceptor):
    """Sees every call before its handler is looked for."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.orders.begin(handler_call_details)
        return await continuation(handler_call_details)


async def main() -> None:
    """Serve until SIGTERM, and then what runs already."""
    options = parts.arguments()
    orders = Orders(parts.Journal(options.log))
    server = grpc.aio.server(options=parts.UNLIMITED, interceptors=[Notes(orders)])
    server.add_generic_rpc_handlers((orders,))
    parts.add_services(server, "aio")
    server.add_insecure_port(f"{options.host}:{options.port}")
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print("ready", flush=True)
    await stopping.wait()
    await server.stop(GRACE)


if __name__ == "__main__":
    asyncio.run(main())
