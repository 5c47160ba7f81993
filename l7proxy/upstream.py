"""The way to the server: a connection that leaves with the client's own address, and its port where that is free."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from l7proxy.listener import upstream, upstream_any_port

_TAKEN = frozenset({errno.EADDRNOTAVAIL, errno.EADDRINUSE})


async def dial(
    mark: int, client: tuple[str, int], server: tuple[str, int], timeout: float, *, keep_port: bool = True
) -> socket.socket:
    """A connected socket; with `keep_port` from the client's own port, if that is free. Raises OSError, or
    TimeoutError after `timeout` seconds."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    async with asyncio.timeout(timeout):
        if not keep_port:
            return await _connect(upstream_any_port(family, mark, client[0]), server)
        sock = upstream(family, mark, client)
        try:
            return await _connect(sock, server)
        except OSError as error:
            # The client's port is in use towards this very server: by the client itself, if it is on this host.
            if error.errno not in _TAKEN:
                raise
        return await _connect(upstream_any_port(family, mark, client[0]), server)


async def _connect(sock: socket.socket, server: tuple[str, int]) -> socket.socket:
    """Connect, or close the socket and raise. (The loop's own sock_connect asks a thread to look the address up: half
    of what a new connection would cost.)"""
    try:
        code = sock.connect_ex(server)
        if code == errno.EINPROGRESS:
            await _writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(sock.fileno(), writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(sock.fileno())
