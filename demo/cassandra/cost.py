"""Times a prepared statement that is executed one at a time: prints the median and the 99th percentile in microseconds.
cost.py HOST COUNT"""

from __future__ import annotations

import socket
import sys
from time import perf_counter

from demo.stage import percentiles
from parsers.cassandra import HEADER, Opcode, Reader, read_response_envelope
from parsers.cassandra_responses import Kind
from tests.cassandra import words

VERSION = 4


def ask(connection: socket.socket, envelope: bytes) -> tuple[int, bytes]:
    """Opcode and body of the answer."""
    connection.sendall(envelope)
    answer = b""
    while len(answer) < HEADER or len(answer) < HEADER + read_response_envelope(answer, 0).size:
        part = connection.recv(65536)
        if not part:
            sys.exit("the connection was closed")
        answer += part
    return read_response_envelope(answer, 0).opcode, answer[HEADER:]


def main(host: str, count: int) -> None:
    """Execute `count` times, the first half to warm up."""
    times = []
    with socket.create_connection((host, 9042), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask(connection, words.startup(VERSION))
        _, body = ask(connection, words.prepare("SELECT item FROM shop.orders WHERE id = ?", VERSION))
        execute = words.execute(Reader(body, 4, len(body)).short_bytes(), VERSION, 0, [b"\0\0\0\1"])
        for _ in range(count):
            began = perf_counter()
            opcode, body = ask(connection, execute)
            times.append((perf_counter() - began) * 1e6)
            if opcode != Opcode.RESULT or body[3] != Kind.ROWS:
                sys.exit(f"an answer that is none: {body!r}")
    print(percentiles(times[count // 2 :]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
