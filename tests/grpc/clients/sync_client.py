"""Calls with grpcio's synchronous API; see shared.py."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import shared
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from shared import ADMIN, CALLS, EVERY, METADATA, ORDERS, TIMEOUT


def four(channel: grpc.Channel, service: str, names: tuple[str, str, str, str]) -> dict[str, Any]:
    """A call of each of the four kinds, and what each gave."""
    unary, client, server, both = (service + name for name in names)
    makes = {
        "unary": lambda: channel.unary_unary(unary)(b"one", timeout=TIMEOUT).decode(),
        "client": lambda: channel.stream_unary(client)(iter([b"x" * 1000] * 20), timeout=TIMEOUT).decode(),
        "server": lambda: [len(message) for message in channel.unary_stream(server)(b"20 3000", timeout=TIMEOUT)],
        "both": lambda: [m.decode() for m in channel.stream_stream(both)(iter([b"a", b"", b"c"]), timeout=TIMEOUT)],
    }
    return {kind: _attempt(make) for kind, make in makes.items()}


def _attempt(make: Any) -> Any:
    try:
        return make()
    except grpc.RpcError as error:
        return shared.failed(error)


def kinds(channel: grpc.Channel) -> Any:
    """Allowed and refused calls of each kind, by turns on one channel."""
    allowed = "Get", "Sum", "List", "Chat"
    first = four(channel, ORDERS, allowed)
    refused = four(channel, ADMIN, ("Delete", "Purge", "Dump", "Shell"))
    return {"allowed": first, "refused": refused, "again": four(channel, ORDERS, allowed)}


def deadline(channel: grpc.Channel) -> Any:
    """A call that is over before it is answered, and one behind it."""
    first = _attempt(lambda: channel.unary_unary(ORDERS + "Wait")(b"", timeout=0.5))
    return [first[0], channel.unary_unary(ORDERS + "Get")(b"after", timeout=TIMEOUT).decode()]


def cancel(channel: grpc.Channel) -> Any:
    """A stream that the client cancels in the middle, one that the server does, and a call behind them."""
    call = channel.stream_stream(ORDERS + "Chat")(_endless(), timeout=TIMEOUT)
    seen = [next(call).decode(), next(call).decode()]
    call.cancel()
    cut = channel.unary_stream(ORDERS + "Cut")(b"3 10", timeout=TIMEOUT)
    sizes = []
    try:
        for message in cut:
            sizes.append(len(message))
        ended = "OK"
    except grpc.RpcError as error:
        ended = error.code().name
    after = channel.unary_unary(ORDERS + "Get")(b"after", timeout=TIMEOUT).decode()
    return {"client": [seen, call.code().name], "server": [len(sizes), ended], "after": after}


def _endless() -> Iterator[bytes]:
    for number in range(2000):
        yield b"%d" % number
        time.sleep(0.01)


def big(channel: grpc.Channel) -> Any:
    """4 MiB there and back, alone and as a stream of four."""
    data = shared.big()
    unary = channel.unary_unary(ORDERS + "Get")(data, timeout=TIMEOUT)
    stream = [shared.digest(m) for m in channel.stream_stream(ORDERS + "Chat")(iter([data] * 4), timeout=TIMEOUT)]
    return [unary == data, stream == [shared.digest(data)] * 4]


def wasted(channel: grpc.Channel) -> Any:
    """Ten refused calls of 4 MiB each, four at a time as streams; then one that needs the connection's window."""
    data, delete, purge = shared.big(), channel.unary_unary(ADMIN + "Delete"), channel.stream_unary(ADMIN + "Purge")
    refused = [_attempt(lambda: delete(data, timeout=TIMEOUT)) for _ in range(6)]
    calls = [purge.future(iter([data] * 3), timeout=TIMEOUT) for _ in range(4)]
    refused += [_attempt(call.result) for call in calls]
    return [refused, channel.unary_unary(ORDERS + "Get")(data, timeout=TIMEOUT) == data]


def compressed(channel: grpc.Channel) -> Any:
    """gzip both ways."""
    data, gzip = b"order " * 100_000, grpc.Compression.Gzip
    unary = channel.unary_unary(ORDERS + "Get")
    answer, call = unary.with_call(data, timeout=TIMEOUT, compression=gzip, metadata=(("x-gzip", "1"),))
    refused = _attempt(lambda: channel.unary_unary(ADMIN + "Delete")(data, timeout=TIMEOUT, compression=gzip))
    return [answer == data, call.code().name, refused]


def metadata(channel: grpc.Channel) -> Any:
    """The client's metadata, as they come back before and behind the answer; and an error with both."""
    _, call = channel.unary_unary(ORDERS + "Get").with_call(b"", timeout=TIMEOUT, metadata=METADATA)
    result = {"sent": shared.plain(METADATA), "initial": shared.plain(call.initial_metadata())}
    result["trailing"] = shared.plain(call.trailing_metadata())
    try:
        channel.unary_unary(ORDERS + "Find")(b"", timeout=TIMEOUT)
    except grpc.RpcError as error:
        result["error"] = [*shared.failed(error), shared.plain(error.trailing_metadata())]
    return result


def thousand(channel: grpc.Channel) -> Any:
    """1,000 calls at once, of which every third is refused: [wrong answers, how many of each outcome]."""
    get, delete = channel.unary_unary(ORDERS + "Get"), channel.unary_unary(ADMIN + "Delete")
    calls = [(delete if n % EVERY == 0 else get).future(b"%d" % n, timeout=TIMEOUT * 2) for n in range(CALLS)]
    counts: dict[str, int] = {}
    wrong = []
    for number, call in enumerate(calls):
        outcome = f"{call.code().name} {call.details()}".strip()
        counts[outcome] = counts.get(outcome, 0) + 1
        if (number % EVERY == 0) == (call.code() is grpc.StatusCode.OK) or (
            call.code() is grpc.StatusCode.OK and call.result() != b"%d" % number
        ):
            wrong.append([number, outcome])
    return {"wrong": wrong[:5], "counts": counts}


def patient(channel: grpc.Channel) -> Any:
    """A call that waits for a server which is not there yet; first one that does not wait."""
    get = channel.unary_unary(ORDERS + "Get")
    first = _attempt(lambda: get(b"now", timeout=TIMEOUT))
    print(json.dumps(first[0]), flush=True)
    return get(b"later", timeout=TIMEOUT, wait_for_ready=True).decode()


def services(channel: grpc.Channel) -> Any:
    """What the health and the reflection service say."""
    stub = health_pb2_grpc.HealthStub(channel)
    whole = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status
    watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    seen = next(watched).status
    watched.cancel()
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="orders.v1.Orders"),
    ]
    answers = list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(asked), timeout=TIMEOUT))
    names = sorted(service.name for service in answers[0].list_services_response.service)
    described = answers[1].file_descriptor_response.file_descriptor_proto
    files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in described]
    methods = [method.name for file in files for service in file.service for method in service.method]
    return {"health": [whole, seen], "names": names, "methods": methods}


def many_kinds(channel: grpc.Channel) -> Any:
    """`kinds` 20 times over: does the 20th still give what the first gave?"""
    results = [json.dumps(kinds(channel), sort_keys=True) for _ in range(20)]
    return len(set(results))


SCENARIOS = {
    one.__name__: one
    for one in (kinds, deadline, cancel, big, wasted, compressed, metadata, thousand, patient, services, many_kinds)
}

if __name__ == "__main__":
    target, scenario = shared.options()
    with grpc.insecure_channel(target, options=shared.OPTIONS) as opened:
        print(json.dumps(SCENARIOS[scenario](opened)), flush=True)
