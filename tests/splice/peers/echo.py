"""A peer that uses sockets as asyncio does, or (second word `uvloop`) as libuv does. Modes as in echo.go."""

from __future__ import annotations

import asyncio
import hashlib
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    mode = await reader.readexactly(1)
    digest = hashlib.sha256()
    while data := await reader.read(30_000):
        if mode == b"D":
            digest.update(data)
            continue
        writer.write(data)
        await writer.drain()
    if mode == b"D":
        writer.write(digest.hexdigest().encode())
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    """Listens until it is killed."""
    server = await asyncio.start_server(serve, sys.argv[1], 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if sys.argv[2:] == ["uvloop"]:
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
asyncio.run(main())
