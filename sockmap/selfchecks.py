"""What the self-test tries (selftest.py): each check says what it saw, or raises Wrong.

Where a check does not say otherwise, the client writes and the server's socket reads, on 127.0.0.1.
"""

from __future__ import annotations

import errno
import os
import platform
import select
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sockmap.selfbench import SECONDS, Bench, Wrong, expect, ready, reset, take, waiting

Check = Callable[[Bench], str]
_ROOM = 65_536
_FASTOPEN_NO_COOKIE, _ULP = 34, 31
"""TCP_FASTOPEN_NO_COOKIE and TCP_ULP of linux/tcp.h."""
_RECVFROM = {"x86_64": "45", "aarch64": "207", "riscv64": "207"}
"""The system call's number by machine."""


def pairs(bench: Bench) -> str:
    """Ends are found by their numbers and every byte goes past the stack: IPv4, IPv6, IPv4 at an IPv6 listener."""
    tried = []
    for listen, to in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")):
        try:
            listener = bench.listen(listen)
        except OSError:
            continue  # no IPv6 here
        client, server = bench.connect(listener, to)
        for index in range(10):
            client.sendall(b"ask%d" % index)
            expect("read", take(server, 4), b"ask%d" % index)
            server.sendall(b"answer%d" % index)
            expect("read", take(client, 7), b"answer%d" % index)
        ways = bench.pair(client).sent
        expect("bytes spliced", [way.spliced for way in ways], [40, 70])
        expect("bytes by the stack", [way.stack for way in ways], [0, 0])
        tried.append(f"{to} at {listen}")
    return ", ".join(tried)


def fionread(bench: Bench) -> str:
    """FIONREAD, of what is spliced, what comes by the stack, and both; after a part of it was read."""
    client, server = bench.both()
    client.sendall(bytes(100))
    expect("of spliced bytes", waiting(server), 100)
    bench.off()
    client.sendall(bytes(50))
    expect("of both", waiting(server), 150)
    take(server, 120)
    expect("of the rest", waiting(server), 30)
    take(server, 30)
    client.sendall(bytes(7))
    expect("of the stack's", waiting(server), 7)
    return "right, spliced, by the stack, and mixed"


def early(bench: Bench) -> str:
    """What comes before the accept, and with the last packet of the handshake."""
    listener = bench.listen()
    client = bench.own(socket.create_connection(listener.getsockname()))
    client.sendall(b"spliced")
    bench.off()
    client.sendall(b"stack")
    server = bench.own(listener.accept()[0])
    expect("poll", ready(server), True)
    expect("read", take(server, 12), b"splicedstack")
    bench.on()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    client = bench.own(socket.create_connection(listener.getsockname()))
    client.sendall(b"first")
    server = bench.own(listener.accept()[0])
    expect("FIONREAD of the handshake's bytes", waiting(server), 5)
    expect("read", take(server, 5), b"first")
    return f"right; refused: {bench.splicer.counts()['fast_open']}"


def readiness(bench: Bench) -> str:
    """poll and epoll, level and edge: an event for each arrival, none without."""
    client, server = bench.both()
    level, edge = select.epoll(), select.epoll()
    with level, edge:
        level.register(server, select.EPOLLIN)
        edge.register(server, select.EPOLLIN | select.EPOLLET)
        for way in ("spliced", "stack"):
            expect(f"{way}: poll, nothing there", (ready(server), level.poll(0), edge.poll(0)), (False, [], []))
            for _ in range(2):
                client.sendall(b"four")
                expect(f"{way}: edge", len(edge.poll(SECONDS)), 1)
                expect(f"{way}: edge again", edge.poll(0), [])
            expect(f"{way}: poll, level", (ready(server), len(level.poll(0))), (True, 1))
            take(server, 3)
            expect(f"{way}: after a part", (ready(server), len(level.poll(0)), edge.poll(0)), (True, 1, []))
            take(server, 5)
            bench.off()
    return "right"


def order(bench: Bench) -> str:
    """To the stack and back again, with data unread at each change: what is read is what was sent."""
    bench.on(budget=3000)
    client, server = bench.both()
    sent, got, left = b"", b"", 0
    for turn in range(120):
        part = turn.to_bytes(2, "big") * (1 + turn * 7 % 60)
        client.sendall(part)
        sent, left = sent + part, left + len(part)
        if turn % 5 == 4:
            size = left if turn % 15 == 14 else left * 2 // 3
            got, left = got + take(server, size), left - size
    expect("what was read", got + take(server, left) == sent, True)
    way = bench.sent(client)
    if way.flips < 4 or not way.stack or not way.spliced:
        raise Wrong(f"the two ways do not take turns: {way}")
    return f"{way.flips} flips, {way.spliced} bytes spliced, {way.stack} by the stack"


def budget(bench: Bench) -> str:
    """A reader that stops makes the writer stop, whatever the size of its sends, and loses nothing."""
    seen = []
    for size in (1, 16_384):
        listener = bench.listen()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        bench.on(budget=_ROOM)
        client, server = bench.connect(listener)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        client.setblocking(False)
        given, checksum = _fill(client, size, 20_000 if size == 1 else 16 << 20)
        way = bench.sent(client)
        if way.spliced > (_ROOM // 1024 + 2) * size + _ROOM:
            raise Wrong(f"{way.spliced} bytes wait in sends of {size}")
        if size > 1:
            expect("the writer stopped", given < 16 << 20, True)
        got = take(server, given)
        expect("bytes and their checksum", (len(got), zlib.crc32(got)), (given, checksum))
        expect("room to write again", select.select([], [client], [], SECONDS)[1], [client])
        seen.append(f"sends of {size}: {way.spliced} spliced, {way.stack} by the stack")
    return "; ".join(seen)


def _fill(client: socket.socket, size: int, most: int) -> tuple[int, int]:
    given, checksum = 0, 0
    with suppress(BlockingIOError):
        while given < most:
            part = (given % 251).to_bytes(1, "big") * size
            count = client.send(part)
            checksum = zlib.crc32(part[:count], checksum)
            given += count
    return given, checksum


def switched(bench: Bench) -> str:
    """Off and on in mid-stream loses nothing."""
    client, server = bench.both()
    sent, got = b"", b""
    for turn in range(12):
        (bench.off if turn % 3 == 1 else bench.on)()
        client.sendall(part := bytes([turn]) * 3000)
        sent += part
        if turn % 3 == 2:
            got += take(server, len(sent) - len(got))
    expect("what was read", got == sent, True)
    way = bench.sent(client)
    expect("both ways", bool(way.spliced and way.stack), True)
    return f"{way.spliced} bytes spliced, {way.stack} by the stack"


def fin(bench: Bench) -> str:
    """A writer that closes, or shuts one way down, with data unread: all of it, then the end."""
    client, server = bench.both()
    client.sendall(bytes(5000))
    client.close()
    expect("bytes before the end", len(take(server, 6000)), 5000)
    client, server = bench.both()
    client.sendall(b"request")
    client.shutdown(socket.SHUT_WR)
    expect("request and end", take(server, 100), b"request")
    server.sendall(bytes(5000))
    server.close()
    expect("bytes of the answer", len(take(client, 6000)), 5000)
    client, server = bench.both()
    client.shutdown(socket.SHUT_WR)
    try:
        client.sendall(b"late")
    except BrokenPipeError:
        return "data, then the end; EPIPE after a shutdown"
    raise Wrong("bytes were taken after the shutdown")


def rst(bench: Bench) -> str:
    """A reset with data unread: the data, then the error, as on TCP."""
    client, server = bench.both()
    client.sendall(bytes(5000))
    reset(client)
    expect("bytes before the reset", len(take(server, 5000)), 5000)
    for name, wanted, call in (
        ("read", errno.ECONNRESET, lambda: server.recv(1)),
        ("write", errno.EPIPE, lambda: server.send(b"x")),
    ):
        try:
            expect(name, call(), os.strerror(wanted))
        except OSError as error:
            expect(name, error.errno, wanted)
    return "data, then the error"


def peek(bench: Bench) -> str:
    """MSG_PEEK takes nothing."""
    client, server = bench.both()
    client.sendall(b"look")
    expect("peeked", [server.recv(10, socket.MSG_PEEK) for _ in range(2)], [b"look"] * 2)
    expect("FIONREAD", waiting(server), 4)
    bench.off()
    client.sendall(b"more")
    expect("read", take(server, 8), b"lookmore")
    return "right"


def sendfile(bench: Bench) -> str:
    """sendfile(2), in small parts and large."""
    client, server = bench.both()
    data = bytes(range(256)) * 200
    with open(os.memfd_create("selftest"), "w+b") as file:
        file.write(data)
        file.flush()
        place = 0
        while place < len(data):
            place += os.sendfile(client.fileno(), file.fileno(), place, 777 if place < 5000 else len(data))
        expect("what was read", take(server, len(data)) == data, True)
    return f"{len(data)} bytes"


def low_water(bench: Bench) -> str:
    """SO_RCVLOWAT: a socket that has it already is left alone; one that gets it, to the stack."""
    client, server = bench.both()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
    client.sendall(b"abc")
    expect("ready below the mark", ready(server), False)
    client.sendall(b"defghijklm")
    expect("ready above it", ready(server, 500), True)
    expect("read", take(server, 13), b"abcdefghijklm")
    expect("reason", bench.sent(client).reason, "the peer waits for several bytes at once")
    listener = bench.listen()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
    client, _ = bench.connect(listener)
    expect("spliced with a mark", bench.pair(client).spliceable, False)
    return "left alone"


def wait_all(bench: Bench) -> str:
    """MSG_WAITALL is noticed, and the program's next sockets left alone."""
    client, server = bench.both()
    client.sendall(b"abcdef")
    expect("read", server.recv(6, socket.MSG_WAITALL), b"abcdef")
    client.close()
    server.close()
    style = bench.style()
    expect("style", style is not None and style.otherwise > 0, True)
    client, server = bench.connect(bench.listen())
    expect("spliced once it is known", bench.is_spliced(client), False)
    expect("counted once it is known", bench.splicer.counts()["reads_otherwise"] > 0, True)
    server.settimeout(None)  # a time-out is O_NONBLOCK, and that has no MSG_WAITALL
    client.sendall(b"abc")
    threading.Timer(0.005, client.sendall, [b"def"]).start()
    expect("read whole", server.recv(6, socket.MSG_WAITALL), b"abcdef")
    return "learned"


def upper_layer(bench: Bench) -> str:
    """A socket with kTLS is left alone."""
    client, server = bench.both()
    try:
        client.setsockopt(socket.IPPROTO_TCP, _ULP, b"tls")
    except OSError as error:
        return f"not tried, there is no kTLS: {error.strerror}"
    server.sendall(b"x")
    expect("reason", bench.pair(client).sent[1].reason, "an upper layer protocol (kTLS)")
    return "left alone"


def fast_open(bench: Bench) -> str:
    """Data in the SYN, or, where it is off, while the connection is made."""
    listener = bench.listen()
    with suppress(OSError):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        listener.setsockopt(socket.IPPROTO_TCP, _FASTOPEN_NO_COOKIE, 1)
    client = bench.own(socket.socket())
    with suppress(OSError):
        client.setsockopt(socket.IPPROTO_TCP, _FASTOPEN_NO_COOKIE, 1)
    client.sendto(b"early", socket.MSG_FASTOPEN, listener.getsockname())
    server = bench.own(listener.accept()[0])
    expect("poll", ready(server, 500), True)
    expect("FIONREAD", waiting(server), 5)
    client.sendall(b"late")
    expect("read", take(server, 9), b"earlylate")
    server.sendall(b"answer")
    expect("read", take(client, 6), b"answer")
    return "right"


def full(bench: Bench) -> str:
    """More pairs than there is room for are left to the stack."""
    most = bench.splicer.most
    if most > 64:
        return f"not tried: there is room for {most} pairs"
    listener = bench.listen()
    ends = [bench.connect(listener) for _ in range(most + 3)]
    for index, (client, server) in enumerate(ends):
        client.sendall(bytes([index]) * 9)
        expect("read", take(server, 9), bytes([index]) * 9)
    if not bench.splicer.counts()["pairs_full"]:
        raise Wrong("no pair was refused")
    return "the others go by the stack"


def _interrupt(number: int, thread: int) -> None:
    """Once the thread waits in recvfrom(2), and not before: else nothing would be shown. Where that cannot be seen, the
    check comes to no end, and fails."""
    call = _RECVFROM.get(platform.machine(), "")
    while Path(f"/proc/self/task/{number}/syscall").read_text(encoding="ascii").split()[0] != call:
        time.sleep(0.001)
    signal.pthread_kill(thread, signal.SIGUSR1)


def interrupted(bench: Bench) -> str:
    """A signal does not end a read that waits."""
    client, server = bench.both()
    server.settimeout(None)
    signal.signal(signal.SIGUSR1, lambda *_: client.sendall(b"after the signal"))
    reader = threading.get_native_id(), threading.get_ident()
    threading.Thread(target=_interrupt, args=reader, daemon=True).start()
    try:
        expect("read", server.recv(100), b"after the signal")
    except BlockingIOError:
        raise Wrong("a read that waits ends with EAGAIN at a signal") from None
    return "it goes on"


CHECKS: tuple[Check, ...] = (
    pairs, fionread, early, readiness, order, budget, switched, fin, rst, peek, sendfile, low_water, wait_all,
    upper_layer, fast_open, full, interrupted,
)  # fmt: skip
