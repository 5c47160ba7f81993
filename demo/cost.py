"""Times requests over one connection: prints the median and the 99th percentile in microseconds."""

from __future__ import annotations

import socket
import sys
from time import perf_counter

from demo.stage import percentiles

REQUEST = b"GET /public/ping HTTP/1.1\r\nHost: api\r\n\r\n"


def main(host: str, count: int) -> None:
    """Ask `count` times, one after the other."""
    times = []
    with socket.create_connection((host, 80), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = perf_counter()
            connection.sendall(REQUEST)
            answer = b""
            while not answer.endswith(b'/public/ping"'):
                part = connection.recv(65536)
                if not part:
                    sys.exit("the connection was closed")
                answer += part
            times.append((perf_counter() - began) * 1e6)
    print(percentiles(times))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
