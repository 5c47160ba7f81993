"""The load: wrk for requests, curl for bulk, sockets of our own that sit idle, programs of our own (bench/load.h)."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import processes
from bench.contenders import Contender
from bench.rules import BIG, SMALL, UPLOAD
from tests import netns

Figures = dict[str, float]
Costs = tuple[float, float]
"""CPU seconds of the proxy, and of the whole machine."""
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


@contextmanager
def usage(contender: Contender) -> Iterator[Callable[[], Costs]]:
    """Gives a function that says, at the end, the CPU seconds of the proxy and those of the whole machine."""
    pids = contender.pids()
    before = processes.cpu_seconds(pids), processes.machine_seconds()

    def used() -> Costs:
        return processes.cpu_seconds(pids) - before[0], processes.machine_seconds() - before[1]

    yield used


def requests(contender: Contender, connections: int, seconds: float) -> Figures:
    """Keep-alive requests: per second, latency in us, and CPU in us for each."""
    return _wrk(contender, connections, seconds)


def fresh_connections(contender: Contender, seconds: float) -> Figures:
    """A new connection for each request, 32 at a time."""
    return _wrk(contender, 32, seconds, "-H", "Connection: close")


def _wrk(contender: Contender, connections: int, seconds: float, *words: str) -> Figures:
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", *words, contender.url(SMALL)]
    with usage(contender) as used:
        output = contender.road.run(argv, seconds + 40)
        proxy, machine = used()
    count = parsed(r"(\d+) requests in", output)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if refused or not count:
        raise AssertionError(f"{contender.name}: {output}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    return {
        "rps": parsed(r"Requests/sec: +([\d.]+)", output),
        "p50_us": latency("50%", output),
        "p99_us": latency("99%", output),
        "proxy_us": proxy / count * 1e6,
        "machine_us": machine / count * 1e6,
        "errors": float(sum(map(int, errors.groups()))) if errors else 0.0,
    }


def parsed(expression: str, text: str) -> float:
    """A number in a command's output. Raises AssertionError if it is not there."""
    match = re.search(expression, text)
    if match is None:
        raise AssertionError(f"no {expression!r} in:\n{text}")
    return float(match[1])


def latency(percentile: str, output: str) -> float:
    """Microseconds at ``50%`` and so on in wrk's output. Raises AssertionError if they are not there."""
    match = re.search(rf"^ +{percentile} +([\d.]+)(us|ms|s|m)\b", output, re.MULTILINE)
    if match is None:
        raise AssertionError(f"no {percentile} in:\n{output}")
    return float(match[1]) * _UNITS[match[2]]


def download(contender: Contender, *words: str) -> Figures:
    """One large body from the server: GB/s, and the proxy's CPU seconds for each GB. `words` are curl's."""
    return _curl(contender, "speed_download", "size_download", *words, contender.url(BIG))


def upload(contender: Contender, big: Path, *more: str) -> Figures:
    """One large body to the server."""
    words = ("-T", str(big), "-H", "Expect:", *more, contender.url(UPLOAD))
    return _curl(contender, "speed_upload", "size_upload", *words)


def _curl(contender: Contender, speed: str, size: str, *words: str) -> Figures:
    wanted = f"%{{http_code}} %{{{speed}}} %{{{size}}}"
    argv = ["curl", "-sS", "-o", "/dev/null", "-w", wanted, "--max-time", "100", *words]
    with usage(contender) as used:
        output = contender.road.run(argv, 110)
        proxy, machine = used()
    code, rate, amount = output.split()
    if code != "200":
        raise AssertionError(f"{contender.name}: status {code}")
    gigabytes = float(amount) / 1e9
    if not gigabytes:
        return {}  # answered before any of the body was sent: there is no rate to tell
    return {"gbps": float(rate) / 1e9, "proxy_s_per_gb": proxy / gigabytes, "machine_s_per_gb": machine / gigabytes}


def idle(contender: Contender, count: int) -> Figures:
    """Memory of the proxy for each connection that has made one request and is kept, in KiB (user space only)."""
    pids = contender.pids()
    if not pids:
        return {}
    before = processes.memory(pids)
    kept: list[socket.socket] = []
    try:
        netns.call(contender.road.client_ns, lambda: _open(contender, count, kept))
        time.sleep(0.5)
        after = processes.memory(pids)
    finally:
        for connection in kept:
            connection.close()
    return {"idle_kib": (after - before) / count / 1024}


def _open(contender: Contender, count: int, kept: list[socket.socket]) -> None:
    request = f"GET {SMALL} HTTP/1.1\r\nHost: {contender.address[0]}:{contender.address[1]}\r\n\r\n".encode()
    for _ in range(count):
        kept.append(socket.create_connection(contender.address, timeout=10))
        kept[-1].sendall(request)
        if not kept[-1].recv(65536).startswith(b"HTTP/1.1 200"):
            raise AssertionError(f"{contender.name}: an idle connection was not served")


def compile_load(source: Path, folder: Path) -> None:
    """A program that stands on bench/load.h, as ``load`` in a folder."""
    netns.run(["gcc", "-O2", "-Wall", "-o", str(folder / "load"), str(source)])


def run_load(contender: Contender, words: Iterable[object], seconds: float, size: float) -> tuple[Figures, Costs]:
    """That program's own figures. `words` of it stand between the server's address, and `seconds` and bytes, after
    which it ends."""
    folder, (host, port) = contender.road.lab.folder, contender.address
    with usage(contender) as used:
        argv = [str(word) for word in (folder / "load", host, port, *words, seconds, size)]
        output = contender.road.run(argv, seconds + 40)
        costs = used()
    return {key: float(value) for key, value in json.loads(output).items()}, costs


def per_request(found: Figures, costs: Costs) -> Figures:
    """Requests a second, latency in us, and CPU in us for each."""
    proxy, machine = (seconds / found["count"] * 1e6 for seconds in costs)
    latency = {key: found[key] for key in ("p50_us", "p99_us")}
    return {"rps": found["count"] / found["seconds"], **latency, "proxy_us": proxy, "machine_us": machine}


def per_gigabyte(found: Figures, costs: Costs) -> Figures:
    """GB/s, and CPU seconds for each GB."""
    proxy, machine = (seconds / found["bytes"] * 1e9 for seconds in costs)
    return {"gbps": found["bytes"] / found["seconds"] / 1e9, "proxy_s_per_gb": proxy, "machine_s_per_gb": machine}
