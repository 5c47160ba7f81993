"""Large bodies by `splice`: from socket to pipe to socket, without a copy through this process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable

_ROUNDS = 16
"""Pipefuls moved in one callback before others have their turn."""
_IN_VAIN = 3
"""How often in a row a socket may be called readable while `splice` finds nothing in it."""


class Pump:
    """Moves up to `size` bytes from one socket to another; their transports must be quiet meanwhile.

    `done(moved, error)` is called once: when all is moved, when the source has no more (FIN, or an error), with the
    error that ended it, or when it is `useless`: the source is one that only `recv` reads, because a sockmap that is
    not ours carries its bytes. At most `buffer` bytes are in the pipe. Raises OSError if no pipe can be had.
    """

    def __init__(
        self, source: int, sink: int, size: int, buffer: int, done: Callable[[int, OSError | None], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._left, self._inside, self.moved = size, 0, 0
        self._buffer, self._done = buffer, done
        self._out, self._in, self._source, self._sink = _descriptors(source, sink)
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, buffer)
        self._vain, self.useless = 0, False
        self._running = True
        self._loop.add_reader(self._source, self._turn)
        self._writing = False

    def backlog(self) -> int:
        """Not 0 while the sink does not take what is in the pipe, and another number whenever it took some."""
        return -1 - self.moved if self._inside else 0

    def stop(self) -> None:
        """End without a word; what is in the pipe is lost, so only for a connection that is reset."""
        if self._running:
            self._running = False
            self._loop.remove_reader(self._source)
            self._loop.remove_writer(self._sink)
            for descriptor in (self._source, self._sink, self._out, self._in):
                os.close(descriptor)

    def _finish(self, error: OSError | None = None) -> None:
        self.stop()
        self._done(self.moved, error)

    def _turn(self) -> None:
        try:
            for _ in range(_ROUNDS):
                if not self._inside and not self._fill():
                    return
                if not self._empty():
                    return
        except OSError as error:
            self._finish(error)

    def _fill(self) -> bool:
        """Socket to pipe. False: nothing there just now, or the end."""
        self._watch(writing=False)
        if not self._left:
            self._finish()
            return False
        try:
            size = os.splice(self._source, self._in, min(self._left, self._buffer))
        except BlockingIOError:
            self._vain += 1
            if self._vain > _IN_VAIN:
                self.useless = True
                self._finish()
            return False
        self._vain = 0
        if not size:
            self._finish()
            return False
        self._inside = size
        self._left -= size
        return True

    def _empty(self) -> bool:
        """Pipe to socket. False: the socket is full."""
        try:
            while self._inside:
                size = os.splice(self._out, self._sink, self._inside)
                self._inside -= size
                self.moved += size
        except BlockingIOError:
            self._watch(writing=True)
            return False
        return True

    def _watch(self, *, writing: bool) -> None:
        if writing != self._writing:
            self._writing = writing
            if writing:
                self._loop.remove_reader(self._source)
                self._loop.add_writer(self._sink, self._turn)
            else:
                self._loop.remove_writer(self._sink)
                self._loop.add_reader(self._source, self._turn)


def _descriptors(source: int, sink: int) -> list[int]:
    """A pipe's two ends, and both sockets again: the loop lets nobody watch the descriptors its transports have."""
    found = list(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        found += [os.dup(source)]
        found += [os.dup(sink)]
    except OSError:
        for descriptor in found:
            os.close(descriptor)
        raise
    return found
