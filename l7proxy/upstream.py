"""The way to the server: a connection that leaves with the client's own address, and its port where that is free."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import cast

from l7proxy.listener import upstream, upstream_any_port

_TAKEN = frozenset({errno.EADDRNOTAVAIL, errno.EADDRINUSE})


class Dial:
    """One attempt to connect; with `keep_port` from the client's own port, if that is free.

    `protocol` is asked for the connection's callbacks once it is there, and hears of it by its `connection_made`;
    `failed(reason)` is called, later, if there will be none, after `timeout` seconds at the latest. By callbacks, not
    in a task: that would cost as much as the connection. (And the loop's own sock_connect asks a thread to look the
    address up.)
    """

    __slots__ = ("_failed", "_loop", "_made", "_protocol", "_retry", "_server", "_sock", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        mark: int,
        client: tuple[str, int],
        server: tuple[str, int],
        *,
        timeout: float,
        keep_port: bool,
        protocol: Callable[[], asyncio.BaseProtocol],
        failed: Callable[[str], None],
    ) -> None:
        self._loop, self._server = loop, server
        self._protocol, self._failed = protocol, failed
        self._made: asyncio.Task[object] | None = None
        self._sock: socket.socket | None = None
        self._timer = loop.call_later(timeout, self._end, "connect timed out")
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        # The client's port may be in use towards this very server: by the client itself, if it is on this host.
        any_port = partial(upstream_any_port, family, mark, client[0])
        self._retry: Callable[[], socket.socket] | None = any_port if keep_port else None
        self._try(partial(upstream, family, mark, client) if keep_port else any_port)

    def cancel(self) -> None:
        """Nobody waits for it any more. A connection that is just being handed over is told so by its protocol."""
        self._timer.cancel()
        if self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _try(self, make: Callable[[], socket.socket]) -> None:
        try:
            self._sock = sock = make()
            code = sock.connect_ex(self._server)
        except OSError as error:
            self._loop.call_soon(self._end, str(error))
            return
        if code == errno.EINPROGRESS:
            self._loop.add_writer(sock.fileno(), self._writable)
        else:
            self._loop.call_soon(self._answered, code)

    def _writable(self) -> None:
        sock = cast(socket.socket, self._sock)
        self._loop.remove_writer(sock.fileno())
        self._answered(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _answered(self, code: int) -> None:
        sock = self._sock
        if sock is None:
            return
        if code in _TAKEN and self._retry is not None:
            retry, self._retry = self._retry, None
            sock.close()
            self._try(retry)
        elif code:
            self._end(os.strerror(code))
        else:
            self._timer.cancel()
            self._sock = None
            # Not create_connection: uvloop's would close the descriptor twice if the connection ended before that
            # returned, the second time perhaps as somebody else's.
            self._made = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, sock))
            self._made.add_done_callback(self._handed_over)

    def _handed_over(self, task: asyncio.Task[object]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(str(error))

    def _end(self, reason: str) -> None:
        self.cancel()
        self._failed(reason)
