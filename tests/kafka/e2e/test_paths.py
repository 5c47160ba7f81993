"""Both families of addresses, and logins by SASL/PLAIN: what is judged is the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from parsers.kafka_codec import encode
from parsers.kafka_schema import REQUEST
from tests.kafka.e2e import common
from tests.kafka.e2e.common import Net
from tests.kafka.e2e.test_clients import CLIENTS, OK, REFUSED
from tests.kafka.wire import SASL_AUTHENTICATE, SASL_HANDSHAKE, Closed, Wire, framed

pytestmark = pytest.mark.privileged
NAME = "paths"


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    with common.net(family=request.param) as made:
        for client in CLIENTS:
            common.prepare(made.broker, client)
        common.prepare(made.broker, NAME)
        with made.wire() as wire:  # a broker may know a topic before it leads its partitions
            made.lab.wait(lambda: set(produce(wire, "open", "write").values()) == {0})
        yield made


def produce(wire: Wire, *kinds: str) -> dict[str, int]:
    """What a Produce is told of each of these topics."""
    rows = [
        {"name": f"{kind}-{NAME}", "partition_data": [{"index": 0, "records": common.batch("x")}]} for kind in kinds
    ]
    said = wire.ask("Produce", 9, {"acks": 1, "timeout": 20000, "topic_data": rows})["responses"]
    return {row["name"].partition("-")[0]: row["partition_responses"][0]["error_code"] for row in said}


def shake(wire: Wire, version: int, mechanism: str = "PLAIN") -> int:
    return int(wire.ask(SASL_HANDSHAKE, version, {"mechanism": mechanism})["error_code"])


def log_in(wire: Wire, version: int, password: bytes = b"alice") -> None:
    """By a token that is a frame (version 0), or a request. Raises Closed; AssertionError if the answer is no."""
    assert shake(wire, version) == 0
    token = b"\0alice\0" + password
    if version == 0:
        wire.put(framed(token))
        assert wire.receive_any() == b""
    else:
        assert wire.ask(SASL_AUTHENTICATE, 2, {"auth_bytes": token})["error_code"] == 0


@pytest.mark.parametrize("version", [0, 1])
def test_a_client_that_has_logged_in_is_judged(net: Net, version: int) -> None:
    with net.wire(sasl=True) as wire:
        wire.ask("ApiVersions", 3, {"client_software_name": "paths", "client_software_version": "1"})
        log_in(wire, version)
        for _ in range(2):
            assert produce(wire, "open", "secret", "read") == {"open": 0, "secret": 29, "read": 29}
        # Within a session a handshake changes nothing, and is refused.
        assert shake(wire, version) == 34
        assert produce(wire, "secret", "write") == {"secret": 29, "write": 0}
    wanted = {f"secret-{NAME}": "DROPPED", f"write-{NAME}": "FORWARDED"}
    net.lab.wait(lambda: [one for one in net.records() if one["topics"] == wanted], what=str(wanted))


@pytest.mark.parametrize("version", [0, 1])
def test_a_login_that_fails(net: Net, version: int) -> None:
    with net.wire(sasl=True) as wire, pytest.raises((Closed, AssertionError)):
        log_in(wire, version, b"wrong")
    with net.wire(sasl=True) as wire:
        assert shake(wire, version, "GSSAPI") == 33
        # Nothing was accepted, so what looks like a token is a request, and none that there is.
        wire.put(framed(b"\0alice\0alice"))
        with pytest.raises(Closed):
            wire.receive()


def test_all_at_once(net: Net) -> None:
    """The token and a request wait until the server has accepted the handshake."""
    with net.wire(sasl=True) as wire:
        wire.send(SASL_HANDSHAKE, 0, encode(SASL_HANDSHAKE, 0, REQUEST, {"mechanism": "PLAIN"}))
        wire.put(framed(b"\0alice\0alice"))
        wire.send(3, 9, encode(3, 9, REQUEST, {"topics": [{"name": f"secret-{NAME}"}]}))
        assert wire.receive()[4:6] == b"\0\0" and wire.receive_any() == b""
        assert b"\0\x1d" in wire.receive()


@pytest.mark.parametrize("client", CLIENTS)
def test_real_clients_that_log_in(net: Net, client: str) -> None:
    found = net.run(client, "mixed", user="alice")
    topics = f"open-{client}-mixed", f"read-{client}"
    assert found["produce"] == dict(zip(topics, (OK[client], REFUSED[client]), strict=True))
    assert found["consume"] == sorted(["mixed", REFUSED[client]])


def test_a_client_that_does_not_log_in(net: Net) -> None:
    found = net.run("librdkafka", "refused")
    assert (found["produce"], found["produce on"]) == (REFUSED["librdkafka"], OK["librdkafka"])
