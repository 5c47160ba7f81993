"""The load of HTTP/2: h2load for requests and unary calls, ghz for streams. (Bulk is curl's: `load.download`.)"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import quantiles

from bench.contenders import Contender, colon, command
from bench.load import Figures, parsed, usage
from bench.rules import SMALL

CONNECTIONS, STREAMS = 4, 16
MESSAGES = 100
"""Each streaming call sends so many messages and gets them back."""
_TEXT = b"an item of a few words"
_MESSAGE = b"\x0a" + bytes([len(_TEXT)]) + _TEXT
"""bench.Item (bench/grpc/echo.proto), its one field filled."""
_CALL = b"\0" + len(_MESSAGE).to_bytes(4, "big") + _MESSAGE


def requests(contender: Contender, seconds: float) -> Figures:
    """Small GET requests: per second, latency in us, and CPU in us for each."""
    return _h2load(contender, seconds, contender.url(SMALL))[0]


def unary(contender: Contender, seconds: float) -> Figures:
    """Small unary gRPC calls."""
    body = contender.road.lab.folder / "call"
    body.write_bytes(_CALL)
    words = ["-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"]
    figures, output = _h2load(contender, seconds, *words, f"http://{colon(contender.calls)}/bench.Echo/Unary")
    answers = parsed(r"requests: .* (\d+) succeeded", output), parsed(r" \((\d+)\) data", output)
    if answers[1] < answers[0] * len(_CALL):  # a call that was refused has 200, but no message
        raise AssertionError(f"{contender.name}: calls failed\n{output}")
    return figures


def _h2load(contender: Contender, seconds: float, *words: str) -> tuple[Figures, str]:
    log = contender.road.lab.folder / "h2load.log"
    log.unlink(missing_ok=True)
    limits = ["-t1", f"-c{CONNECTIONS}", f"-m{STREAMS}", "-D", str(max(1, round(seconds)))]
    with usage(contender) as used:
        output = contender.road.run(["h2load", *limits, f"--log-file={log}", *words], seconds + 40)
        proxy, machine = used()
    count = _all_succeeded(contender, output)
    middle, late = percentiles(log)
    rate = parsed(r"finished in .*, ([\d.]+) req/s", output)
    costs = {"proxy_us": proxy / count * 1e6, "machine_us": machine / count * 1e6}
    return {"rps": rate, "p50_us": middle, "p99_us": late, **costs}, output


def _all_succeeded(contender: Contender, output: str) -> float:
    count = parsed(r"requests: .* (\d+) succeeded", output)
    bad = sum(parsed(rf"requests: .* (\d+) {kind}", output) for kind in ("failed", "errored", "timeout"))
    if bad or not count or parsed(r"status codes: (\d+) 2xx", output) < count:
        raise AssertionError(f"{contender.name}: {output}")
    return count


def percentiles(log: Path) -> tuple[float, float]:
    """Median and 99th of a log of h2load's: lines of start (us), status, duration (us)."""
    durations = [int(line.split("\t")[2]) for line in log.read_text().splitlines()]
    cuts = quantiles(durations, n=100)
    return cuts[49], cuts[98]


def streams(contender: Contender, seconds: float) -> Figures:
    """Streaming calls, messages both ways: messages per second, latency of whole calls, CPU in us for each message."""
    grpc = Path(__file__).parent / "grpc" / "echo.proto"
    argv = [command("ghz"), "--insecure", "--proto", str(grpc), "--call", "bench.Echo.Stream", "-O", "json"]
    argv += ["--binary-file", _message_file(contender), "--stream-call-count", str(MESSAGES)]
    argv += ["-c", str(STREAMS), "--connections", str(CONNECTIONS), "--duration-stop", "wait"]
    argv += ["-z", f"{max(1, round(seconds))}s", colon(contender.calls)]
    with usage(contender) as used:
        output = json.loads(contender.road.run(argv, seconds + 40))
        proxy, machine = used()
    if set(output["statusCodeDistribution"]) != {"OK"}:
        raise AssertionError(f"{contender.name}: {output['statusCodeDistribution']} {output['errorDistribution']}")
    messages = output["count"] * MESSAGES
    late = {entry["percentage"]: entry["latency"] / 1e3 for entry in output["latencyDistribution"]}
    costs = {"proxy_us": proxy / messages * 1e6, "machine_us": machine / messages * 1e6}
    return {"mps": output["rps"] * MESSAGES, "p50_us": late[50], "p99_us": late[99], **costs}


def _message_file(contender: Contender) -> str:
    file = contender.road.lab.folder / "message"
    file.write_bytes(_MESSAGE)
    return str(file)
