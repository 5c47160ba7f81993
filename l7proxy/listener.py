"""Sockets at the rim: a worker's transparent listeners, and upstream sockets that carry the client's address."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct

_IP_TRANSPARENT = 19  # <linux/in.h>; Python's socket module has no name for these two
_IPV6_TRANSPARENT = 75  # <linux/in6.h>
_BACKLOG = 4096
_RESET = struct.pack("ii", 1, 0)


def _transparent(family: socket.AddressFamily, mark: int) -> socket.socket:
    """A non-blocking TCP socket that may have foreign addresses and whose packets the datapath knows as ours."""
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


def listen(family: socket.AddressFamily, mark: int) -> socket.socket:
    """A listener for steered flows. It is bound to loopback and any port: nobody needs to reach it by address, the
    datapath assigns it, and an accepted socket's own address is then the flow's original destination."""
    sock = _transparent(family, mark)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    sock.listen(_BACKLOG)
    return sock


def upstream(family: socket.AddressFamily, mark: int, client: tuple[str, int]) -> socket.socket:
    """An unconnected socket that leaves with the client's address, and its port where that is free."""
    sock = _transparent(family, mark)
    try:
        sock.bind(client)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            sock.close()
            raise
        _bind_any_port(sock, client[0])
    return sock


def upstream_any_port(family: socket.AddressFamily, mark: int, address: str) -> socket.socket:
    """Like `upstream`, when the client's own port cannot be had for this destination."""
    sock = _transparent(family, mark)
    _bind_any_port(sock, address)
    return sock


def _bind_any_port(sock: socket.socket, address: str) -> None:
    try:
        # The port is chosen at connect, when the whole tuple is known: 28,000 ports for each destination, not in all.
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((address, 0))
    except OSError:
        sock.close()
        raise


def reset(transport: asyncio.Transport | None) -> None:
    """Close a connection with RST, not FIN, whatever is still queued."""
    if transport is not None:
        sock = transport.get_extra_info("socket")
        if sock is not None and not transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
