"""What the checks of the self-test are written with: sockets of a process that is spliced, and what was counted."""

from __future__ import annotations

import array
import fcntl
import select
import socket
import struct
import termios
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from sockmap.splice import Pair, Scope, Splicer, Style, Way

SECONDS = 0.5
"""That a read may wait."""


class Wrong(Exception):
    """Something is not as without splicing; says what."""


def expect(name: str, got: object, wanted: object) -> None:
    """Raises Wrong if they differ."""
    if got != wanted:
        raise Wrong(f"{name}: {_short(got)}, not {_short(wanted)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}... ({len(text)})"


class Bench:
    """Makes the sockets of one check, and closes them."""

    def __init__(self, splicer: Splicer) -> None:
        self.splicer = splicer
        self._stack = ExitStack()
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def use(self, name: str) -> None:
        """Be a program of this name from now on, and splice."""
        self._name = name[:15]
        Path("/proc/thread-self/comm").write_text(self._name, encoding="ascii")
        self.on()

    def on(self, budget: int = 1 << 20) -> None:
        """Splice whatever is there."""
        self.splicer.start(Scope(learn=False, budget=budget))

    def off(self) -> None:
        """Leave all to the stack, of pairs as well that are there."""
        self.splicer.stop()

    def listen(self, address: str = "127.0.0.1") -> socket.socket:
        """A listener."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        dual = address == "::"
        return self.own(socket.create_server((address, 0), family=family, dualstack_ipv6=dual))

    def own(self, sock: socket.socket) -> socket.socket:
        """To be closed at the end."""
        sock.settimeout(SECONDS)
        return self._stack.enter_context(sock)

    def connect(self, listener: socket.socket, address: str = "") -> tuple[socket.socket, socket.socket]:
        """A client's socket and the accepted one."""
        host, port = listener.getsockname()[:2]
        client = self.own(socket.create_connection((address or host, port), timeout=SECONDS))
        return client, self.own(listener.accept()[0])

    def both(self, address: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
        """The two ends of a connection that is spliced."""
        ends = self.connect(self.listen(address))
        if not self.pair(ends[0]).spliceable:
            raise Wrong(f"a pair is not spliced: {self.refusals()}")
        return ends

    def pair(self, client: socket.socket) -> Pair:
        """By the client's end."""
        found = self._found(client)
        if found is None:
            raise Wrong(f"a pair is not found: {self.refusals()}")
        return found

    def is_spliced(self, client: socket.socket) -> bool:
        """Of a program that is left alone there is not even a pair."""
        found = self._found(client)
        return found is not None and found.spliceable

    def _found(self, client: socket.socket) -> Pair | None:
        port, peer = client.getsockname()[1], client.getpeername()[1]
        for pair in self.splicer.pairs():
            if (pair.client.port, pair.client.peer_port) == (port, peer) and pair.client.name == self._name:
                return pair
        return None

    def sent(self, client: socket.socket) -> Way:
        """What the client's end has sent."""
        return self.pair(client).sent[0]

    def style(self) -> Style | None:
        """How this check's sockets were read, those that are closed."""
        return next((style for style in self.splicer.styles() if style.name == self._name), None)

    def refusals(self) -> str:
        """What is counted."""
        return ", ".join(f"{name} {count}" for name, count in self.splicer.counts().items() if count) or "no counts"


def waiting(sock: socket.socket) -> int:
    """FIONREAD."""
    found = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, found)
    return found[0]


def take(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or what came before the end or an error."""
    data = b""
    while len(data) < size:
        try:
            part = sock.recv(size - len(data))
        except TimeoutError:
            raise Wrong(f"{len(data)} of {size} bytes came") from None
        if not part:
            break
        data += part
    return data


def ready(sock: socket.socket, milliseconds: int = 0) -> bool:
    """Whether poll(2) says that it can be read."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(milliseconds))


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
