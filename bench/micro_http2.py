"""What HTTP/2 costs in the conversation alone: ``python -m bench.micro_http2``.

Prints microseconds of CPU, without sockets: a gRPC call, a message there and back on a stream that is open (one by one,
and sixteen at once), and a MiB of DATA.
"""

from __future__ import annotations

from time import process_time

from bench.micro_http1 import AllowAll
from l7proxy.http2 import Http2Conversation
from l7proxy.http2_blocks import literal
from l7proxy.ops import Direction
from parsers.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, frame, settings_frame, window_update

_ROUNDS = 20_000
_ASK = literal(
    [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/bench.Echo/Stream"),
        (b":authority", b"api.example:8080"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
)
_ANSWER = literal([(b":status", b"200"), (b"content-type", b"application/grpc")])
_TRAILERS = literal([(b"grpc-status", b"0"), (b"grpc-message", b"")])
_MESSAGE, _LARGE = (b"\0" + size.to_bytes(4, "big") + bytes(size) for size in (22, 16_379))


def _begun() -> Http2Conversation:
    talk = Http2Conversation(AllowAll())
    talk.receive(Direction.REQUEST, PREFACE + settings_frame([]), False, 1.0)
    talk.receive(Direction.RESPONSE, settings_frame([]) + settings_frame([]), False, 1.0)
    return talk


def calls() -> float:
    """A unary call."""
    talk = _begun()
    pairs = []
    for number in range(1, 2 * _ROUNDS, 2):
        ask = frame(HEADERS, END_HEADERS, number, _ASK) + frame(DATA, END_STREAM, number, _MESSAGE)
        answer = frame(HEADERS, END_HEADERS, number, _ANSWER) + frame(DATA, 0, number, _MESSAGE)
        answer += frame(HEADERS, END_HEADERS | END_STREAM, number, _TRAILERS)
        pairs.append((ask, answer))
    start = process_time()
    for ask, answer in pairs:
        talk.receive(Direction.REQUEST, ask, False, 1.0)
        talk.receive(Direction.RESPONSE, answer, False, 1.0)
    return (process_time() - start) / _ROUNDS * 1e6


def exchanged(payload: bytes, at_once: int) -> float:
    """A DATA frame there and back, of which so many come at once."""
    talk = _begun()
    talk.receive(Direction.REQUEST, frame(HEADERS, END_HEADERS, 1, _ASK), False, 1.0)
    talk.receive(Direction.RESPONSE, frame(HEADERS, END_HEADERS, 1, _ANSWER), False, 1.0)
    batch = frame(DATA, 0, 1, payload) * at_once
    update = window_update(0, len(payload) * at_once)
    start = process_time()
    for turn in range(_ROUNDS // at_once):
        talk.receive(Direction.REQUEST, batch, False, 1.0)
        talk.receive(Direction.RESPONSE, batch, False, 1.0)
        talk.receive(Direction.REQUEST, update, False, float(turn))
    return (process_time() - start) / _ROUNDS * 1e6


def main() -> None:
    """Print what is measured."""
    print(f"a unary call:                          {calls():6.2f} us")
    print(f"a message there and back:              {exchanged(_MESSAGE, 1):6.2f} us")
    print(f"a message there and back, of 16:       {exchanged(_MESSAGE, 16):6.2f} us")
    print(f"a frame of 16 KiB there and back, of 3: {exchanged(_LARGE, 3):5.2f} us")


if __name__ == "__main__":
    main()
