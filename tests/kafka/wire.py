"""A small Kafka client for tests: it sends any bytes as a request, and reads what comes, one connection each."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from parsers.kafka_codec import decode, encode, varint
from parsers.kafka_schema import BY_NAME, REQUEST, RESPONSE, message
from tests import netns

SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 17, 18, 36
CLIENT = "wire"
"""The client id that requests bear."""
_LONGEST = 1 << 27


class Closed(Exception):
    """The other side has ended the connection."""


def request(key: int, version: int, body: bytes, *, correlation: int = 1, client: str | None = CLIENT) -> bytes:
    """A request without its length: the header, v2 if the API is flexible in this version and v1 otherwise, and
    `body`."""
    raw = None if client is None else client.encode()
    head = struct.pack(">hhih", key, version, correlation, -1 if raw is None else len(raw)) + (raw or b"")
    return head + (b"\0" if message(key, version, REQUEST).flexible else b"") + body


def head_size(key: int, version: int, payload: bytes) -> int:
    """The size of a response's header. Raises Malformed for tags that are none."""
    if key == API_VERSIONS or not message(key, version, RESPONSE).flexible:
        return 4
    count, place = varint(payload, 4, len(payload))
    for _ in range(count):
        _, place = varint(payload, place, len(payload))
        size, place = varint(payload, place, len(payload))
        place += size
    return place


def answer(key: int, version: int, payload: bytes) -> dict[str, Any]:
    """The tree of a response without its length. Raises Malformed. What is behind the message is an error too."""
    if key == API_VERSIONS and payload[4:6] == b"\0\x23":  # UNSUPPORTED_VERSION is said in the oldest version
        version = 0
    return decode(key, version, RESPONSE, payload, head_size(key, version, payload), len(payload))


def framed(payload: bytes) -> bytes:
    """With its length in front."""
    return struct.pack(">i", len(payload)) + payload


class Wire:
    """One connection. `user` logs in by SASL/PLAIN, with the name as the password (see `broker`)."""

    def __init__(
        self, address: tuple[str, int], *, user: str | None = None, namespace: str | None = None, timeout: float = 20.0
    ) -> None:
        if namespace is None:
            self.socket = socket.create_connection(address, timeout)
        else:
            self.socket = netns.connect(namespace, address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._numbers = itertools.count(1)
        self._held = b""
        if user is not None:
            self._log_in(user)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        with suppress(OSError):
            self.socket.close()

    def ask(self, api: int | str, version: int, tree: Mapping[str, Any]) -> dict[str, Any]:
        """The tree of the answer to a request. Raises Closed; TimeoutError; AssertionError if it answers another."""
        key = api if isinstance(api, int) else BY_NAME[api.lower()].key
        number = self.send(key, version, encode(key, version, REQUEST, tree))
        payload = self.receive()
        assert payload[:4] == struct.pack(">i", number), (payload[:4], number)
        return answer(key, version, payload)

    def send(self, key: int, version: int, body: bytes) -> int:
        """Send a request and return its correlation id. Raises Closed."""
        number = next(self._numbers)
        self.put(framed(request(key, version, body, correlation=number)))
        return number

    def put(self, data: bytes) -> None:
        """Send bytes as they are. Raises Closed."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, BrokenPipeError) as error:
            raise Closed(str(error)) from error

    def receive(self) -> bytes:
        """The next response, without its length. Raises Closed; TimeoutError; AssertionError for a bad length."""
        found = self.receive_any()
        assert len(found) >= 4, found
        return found

    def receive_any(self) -> bytes:
        """The next frame, without its length; behind a SaslHandshake of version 0 it is a token, perhaps empty. Raises
        Closed; TimeoutError; AssertionError for a bad length."""
        (size,) = struct.unpack(">i", self._exactly(4))
        assert 0 <= size < _LONGEST, size
        return self._exactly(size)

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for that long, and the connection stays."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            self._held += self.socket.recv(65536)
            return False
        except TimeoutError:
            return True
        except ConnectionError:
            return False
        finally:
            self.socket.settimeout(before)

    def _exactly(self, size: int) -> bytes:
        parts, due = [self._held], size - len(self._held)
        while due > 0:
            try:
                data = self.socket.recv(min(due + 65536, 1 << 20))
            except ConnectionError as error:
                raise Closed(str(error)) from error
            if not data:
                raise Closed(f"the connection ended {due} bytes short")
            parts.append(data)
            due -= len(data)
        whole = b"".join(parts)
        self._held = whole[size:]
        return whole[:size]

    def _log_in(self, user: str) -> None:
        found = self.ask(SASL_HANDSHAKE, 1, {"mechanism": "PLAIN"})
        assert found["error_code"] == 0, found
        found = self.ask(SASL_AUTHENTICATE, 2, {"auth_bytes": f"\0{user}\0{user}".encode()})
        assert found["error_code"] == 0, found
