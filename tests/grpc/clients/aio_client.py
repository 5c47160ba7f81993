"""Calls with grpc.aio; see shared.py."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import shared
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from shared import ADMIN, CALLS, EVERY, METADATA, ORDERS, TIMEOUT

CHAT = [b"a", b"", b"c"]
STREAMS = ("stream_unary", "Sum"), ("stream_stream", "Chat")
CORE = ["INTERNAL", "Internal error from Core"]


async def four(channel: grpc.aio.Channel, service: str, names: tuple[str, str, str, str]) -> dict[str, Any]:
    """A call of each of the four kinds at once, and what each gave."""
    unary, client, server, both = (service + name for name in names)
    calls = {
        "unary": _unary(channel.unary_unary(unary)(b"one", timeout=TIMEOUT)),
        "client": _written(lambda: _unary(channel.stream_unary(client)(iter([b"x" * 1000] * 20), timeout=TIMEOUT))),
        "server": _stream(channel.unary_stream(server)(b"20 3000", timeout=TIMEOUT), len),
        "both": _written(lambda: _stream(channel.stream_stream(both)(iter(CHAT), timeout=TIMEOUT), bytes.decode)),
    }
    return dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))


async def _written(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call gives whose messages are written one by one.

    Where a write meets an answer that has just come, grpc.aio gives INTERNAL instead of that answer: of calls that a
    server of grpcio refuses by itself, one in fifteen. Such a call is made again.
    """
    while (answer := await call()) == CORE:
        pass
    return answer


async def _unary(call: Awaitable[bytes]) -> Any:
    try:
        return (await call).decode()
    except grpc.RpcError as error:
        return shared.failed(error)


async def _stream(call: Any, shown: Any) -> Any:
    try:
        return [shown(message) async for message in call]
    except grpc.RpcError as error:
        return shared.failed(error)


async def kinds(channel: grpc.aio.Channel) -> Any:
    """Allowed and refused calls of each kind, by turns on one channel."""
    allowed = "Get", "Sum", "List", "Chat"
    first = await four(channel, ORDERS, allowed)
    refused = await four(channel, ADMIN, ("Delete", "Purge", "Dump", "Shell"))
    return {"allowed": first, "refused": refused, "again": await four(channel, ORDERS, allowed)}


async def many_kinds(channel: grpc.aio.Channel) -> Any:
    """`kinds` 20 times at once: how many different results?"""
    results = await asyncio.gather(*(kinds(channel) for _ in range(20)))
    return len({json.dumps(result, sort_keys=True) for result in results})


async def deadline(channel: grpc.aio.Channel) -> Any:
    """A call that is over before it is answered, and one behind it."""
    first = await _unary(channel.unary_unary(ORDERS + "Wait")(b"", timeout=0.5))
    return [first[0], await _unary(channel.unary_unary(ORDERS + "Get")(b"after", timeout=TIMEOUT))]


async def cancel(channel: grpc.aio.Channel) -> Any:
    """A stream that the client cancels in the middle, one that the server does, and a call behind them."""
    call = channel.stream_stream(ORDERS + "Chat")(_endless(), timeout=TIMEOUT)
    seen = [(await call.read()).decode(), (await call.read()).decode()]
    call.cancel()
    sizes = []
    try:
        async for message in channel.unary_stream(ORDERS + "Cut")(b"3 10", timeout=TIMEOUT):
            sizes.append(len(message))
        ended = "OK"
    except grpc.RpcError as error:
        ended = error.code().name
    after = await _unary(channel.unary_unary(ORDERS + "Get")(b"after", timeout=TIMEOUT))
    return {"client": [seen, (await call.code()).name], "server": [len(sizes), ended], "after": after}


async def _endless() -> AsyncIterator[bytes]:
    for number in range(2000):
        yield b"%d" % number
        await asyncio.sleep(0.01)


async def big(channel: grpc.aio.Channel) -> Any:
    """4 MiB there and back, alone and as a stream of four."""
    data = shared.big()
    unary = await channel.unary_unary(ORDERS + "Get")(data, timeout=TIMEOUT)
    call = channel.stream_stream(ORDERS + "Chat")(iter([data] * 4), timeout=TIMEOUT)
    stream = [shared.digest(message) async for message in call]
    return [unary == data, stream == [shared.digest(data)] * 4]


async def wasted(channel: grpc.aio.Channel) -> Any:
    """Ten refused calls of 4 MiB or more, four of them at once as streams; then one that needs the window."""
    data, delete, purge = shared.big(), channel.unary_unary(ADMIN + "Delete"), channel.stream_unary(ADMIN + "Purge")
    refused = [await _unary(delete(data, timeout=TIMEOUT)) for _ in range(6)]
    calls = (_written(lambda: _unary(purge(iter([data] * 3), timeout=TIMEOUT))) for _ in range(4))
    refused += await asyncio.gather(*calls)
    return [refused, await channel.unary_unary(ORDERS + "Get")(data, timeout=TIMEOUT) == data]


async def compressed(channel: grpc.aio.Channel) -> Any:
    """gzip both ways."""
    data, gzip = b"order " * 100_000, grpc.Compression.Gzip
    call = channel.unary_unary(ORDERS + "Get")(
        data, timeout=TIMEOUT, compression=gzip, metadata=grpc.aio.Metadata(("x-gzip", "1"))
    )
    answer = await call
    refused = channel.unary_unary(ADMIN + "Delete")(data, timeout=TIMEOUT, compression=gzip)
    return [answer == data, (await call.code()).name, await _unary(refused)]


async def metadata(channel: grpc.aio.Channel) -> Any:
    """The client's metadata, as they come back before and behind the answer; and an error with both."""
    call = channel.unary_unary(ORDERS + "Get")(b"", timeout=TIMEOUT, metadata=grpc.aio.Metadata(*METADATA))
    result = {"sent": shared.plain(METADATA), "initial": shared.plain(await call.initial_metadata())}
    result["trailing"] = shared.plain(await call.trailing_metadata())
    try:
        await channel.unary_unary(ORDERS + "Find")(b"", timeout=TIMEOUT)
    except grpc.RpcError as error:
        result["error"] = [*shared.failed(error), shared.plain(error.trailing_metadata())]
    return result


async def thousand(channel: grpc.aio.Channel) -> Any:
    """1,000 calls at once, of which every third is refused: [wrong answers, how many of each outcome]."""
    get, delete = channel.unary_unary(ORDERS + "Get"), channel.unary_unary(ADMIN + "Delete")
    calls = [(delete if n % EVERY == 0 else get)(b"%d" % n, timeout=TIMEOUT * 2) for n in range(CALLS)]
    answers = await asyncio.gather(*map(_unary, calls))
    counts = Counter(["OK" if isinstance(answer, str) else " ".join(answer) for answer in answers])
    right = [isinstance(answer, list) if n % EVERY == 0 else answer == str(n) for n, answer in enumerate(answers)]
    return {"wrong": [[n, answers[n]] for n, good in enumerate(right) if not good][:5], "counts": counts}


async def patient(channel: grpc.aio.Channel) -> Any:
    """A call that waits for a server which is not there yet; first one that does not wait."""
    get = channel.unary_unary(ORDERS + "Get")
    first = await _unary(get(b"now", timeout=TIMEOUT))
    print(json.dumps(first[0]), flush=True)
    return await _unary(get(b"later", timeout=TIMEOUT, wait_for_ready=True))


async def services(channel: grpc.aio.Channel) -> Any:
    """What the health and the reflection service say."""
    stub = health_pb2_grpc.HealthStub(channel)
    whole = (await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)).status
    watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    seen = (await watched.read()).status
    watched.cancel()
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked, timeout=TIMEOUT)
    answers = [answer async for answer in call]
    names = sorted(service.name for service in answers[0].list_services_response.service)
    return {"health": [whole, seen], "names": names}


async def changed(channel: grpc.aio.Channel) -> Any:
    """Calls beside two running streams, of which one is answered already, until a call is refused; then each stream is
    given ten more messages."""
    total, chat = (getattr(channel, kind)(ORDERS + name)(timeout=TIMEOUT) for kind, name in STREAMS)
    await total.write(b"x")
    await _echo(chat)
    get = channel.unary_unary(ORDERS + "Get")
    answer = await _unary(get(b"x", timeout=TIMEOUT))
    print(json.dumps("open"), flush=True)
    while isinstance(answer, str):
        answer = await _unary(get(b"x", timeout=TIMEOUT))
        await asyncio.sleep(0.02)
    return {"calls": answer, "chat": await _ten_more(chat, _echo), "sum": await _ten_more(total, _add)}


async def _ten_more(call: Any, action: Callable[[Any], Awaitable[None]]) -> Any:
    try:
        for _ in range(10):
            await action(call)
    except (grpc.RpcError, asyncio.InvalidStateError):
        return [(await call.code()).name, await call.details()]
    call.cancel()
    return "alive"


async def _add(total: Any) -> None:
    await total.write(b"x")
    for _ in range(20):
        await asyncio.sleep(0.01)
        if total.done():
            raise asyncio.InvalidStateError


async def _echo(chat: Any) -> None:
    await chat.write(b"x")
    if await chat.read() != b"x":
        raise asyncio.InvalidStateError


async def leaving(channel: grpc.aio.Channel) -> Any:
    """A stream that runs on behind a GOAWAY, to its end."""
    chat = channel.stream_stream(ORDERS + "Chat")(timeout=TIMEOUT)
    await _echo(chat)
    print(json.dumps("open"), flush=True)
    async with asyncio.timeout(TIMEOUT):
        while channel.get_state() is grpc.ChannelConnectivity.READY:
            await asyncio.sleep(0.01)
    for _ in range(10):
        await _echo(chat)
    await chat.done_writing()
    return [await chat.read() is grpc.aio.EOF, (await chat.code()).name]


async def steady(_: grpc.aio.Channel) -> Any:
    """Calls one behind the other, each of them long on its way, until SIGTERM; how many of each outcome."""
    told, answers = asyncio.Event(), Counter[str]()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    way = await asyncio.start_server(_long_way, "127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{way.sockets[0].getsockname()[1]}", shared.OPTIONS) as channel:
        get = channel.unary_unary(ORDERS + "Get")
        while not told.is_set():
            answer = await _unary(get(b"x", timeout=TIMEOUT, wait_for_ready=True))
            answers[answer if isinstance(answer, str) else " ".join(answer)] += 1
            if answers.total() == 5:
                print(json.dumps("open"), flush=True)
    return answers


async def _long_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """To the target, which hears everything late."""
    host, _, port = shared.options()[0].rpartition(":")
    try:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_carry(reader, far_writer, 0.05), _carry(far_reader, writer, 0))
    except OSError:
        writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: float) -> None:
    while data := await reader.read(1 << 16):
        await asyncio.sleep(late)
        writer.write(data)
    writer.close()


async def resting(channel: grpc.aio.Channel) -> Any:
    """A call, and another once the connection has been ended for want of calls."""
    get = channel.unary_unary(ORDERS + "Get")
    answers = [await _unary(get(b"first", timeout=TIMEOUT))]
    print(json.dumps("open"), flush=True)
    async with asyncio.timeout(TIMEOUT):
        while channel.get_state() is grpc.ChannelConnectivity.READY:
            await asyncio.sleep(0.01)
    return [*answers, await _unary(get(b"second", timeout=TIMEOUT))]


ALL = (kinds, many_kinds, deadline, cancel, big, wasted, compressed, metadata, thousand, patient, services)
ALL += (changed, leaving, steady, resting)
SCENARIOS = {one.__name__: one for one in ALL}


async def main() -> None:
    """One scenario on one channel."""
    target, scenario = shared.options()
    async with grpc.aio.insecure_channel(target, options=shared.OPTIONS) as channel:
        print(json.dumps(await SCENARIOS[scenario](channel)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
