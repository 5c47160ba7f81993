"""After a policy has changed, the stack carries bytes, and is judged for it, before more are spliced."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from sockmap.selfbench import Bench, take
from sockmap.splice import Way
from tests import netns
from tests.splice.bench import talk

pytestmark = pytest.mark.privileged
REASON = "the policy has changed, and the stack is judged first"


def carried(way: Way) -> tuple[int, int]:
    """Bytes spliced, and by the stack."""
    return way.spliced, way.stack


def say(writer: socket.socket, reader: socket.socket) -> None:
    """Four bytes, sent and read."""
    writer.sendall(b"four")
    assert take(reader, 4) == b"four"


def test_one_message_of_each_end_takes_the_stack_and_the_next_is_spliced(bench: Bench) -> None:
    client, server = bench.both()
    talk(client, server)
    bench.splicer.judged_anew()
    for turn, (writer, reader) in enumerate(((client, server), (server, client))):
        say(writer, reader)
        way = bench.pair(client).sent[turn]
        assert (carried(way), way.reason) == ((12, 4), REASON)
        say(writer, reader)
        way = bench.pair(client).sent[turn]
        assert (carried(way), way.flips) == ((16, 4), 2)
    assert bench.splicer.counts()["policy"] == 2


def test_all_that_the_stack_was_given_is_read_first(bench: Bench) -> None:
    client, server = bench.both()
    bench.splicer.judged_anew()
    client.sendall(b"one")
    client.sendall(b"two")
    assert carried(bench.sent(client)) == (0, 6)
    assert take(server, 3) == b"one"
    client.sendall(b"six")
    assert carried(bench.sent(client)) == (0, 9)
    assert take(server, 6) == b"twosix"
    say(client, server)
    assert carried(bench.sent(client)) == (4, 9)


def test_spliced_bytes_that_wait_are_read_before_the_stacks(bench: Bench) -> None:
    client, server = bench.both()
    client.sendall(b"one")
    bench.splicer.judged_anew()
    client.sendall(b"two")
    assert carried(bench.sent(client)) == (3, 3)
    assert take(server, 6) == b"onetwo"
    say(client, server)
    assert carried(bench.sent(client)) == (7, 3)


def test_each_change_asks_anew(bench: Bench) -> None:
    client, server = bench.both()
    bench.splicer.judged_anew()
    client.sendall(b"four")
    bench.splicer.judged_anew()
    assert take(server, 4) == b"four"
    say(client, server)
    assert carried(bench.sent(client)) == (0, 8)
    bench.splicer.judged_anew()
    bench.splicer.judged_anew()
    say(client, server)
    say(client, server)
    assert carried(bench.sent(client)) == (4, 12)


@pytest.fixture
def namespace() -> Iterator[str]:
    """With a loopback."""
    name = f"l7-splice-policy-{os.getpid()}"
    netns.add(name)
    yield name
    netns.delete(name)


def test_a_change_in_the_midst_of_a_handshake(bench: Bench, namespace: str) -> None:
    """The client's packets were judged before it: that they have come says nothing of the policy now."""
    listener = netns.call(namespace, bench.listen)
    client = bench.own(netns.call(namespace, socket.socket))
    rule = ["INPUT", "-p", "tcp", "--tcp-flags", "SYN,ACK,FIN", "ACK", "-j", "DROP"]
    netns.run(netns.inside(namespace, ["iptables", "-A", *rule]))
    client.connect(listener.getsockname())
    bench.splicer.judged_anew()
    netns.run(netns.inside(namespace, ["iptables", "-D", *rule]))
    listener.settimeout(10)  # until the server asks for the lost ACK
    server = bench.own(listener.accept()[0])
    say(client, server)
    say(client, server)
    assert [carried(way) for way in bench.pair(client).sent] == [(4, 4), (0, 0)]


def test_connections_made_afterwards_are_spliced_at_once(bench: Bench) -> None:
    bench.splicer.judged_anew()
    client, server = bench.both()
    say(client, server)
    assert carried(bench.sent(client)) == (4, 0)


def test_a_scope_that_is_set_again_and_a_switch_keep_to_it(bench: Bench) -> None:
    client, server = bench.both()
    bench.splicer.judged_anew()
    bench.off()
    bench.on()
    say(client, server)
    assert (carried(bench.sent(client)), bench.sent(client).reason) == ((0, 4), REASON)


def test_corked_bytes_and_empty_sends_prove_nothing(bench: Bench) -> None:
    client, server = bench.both()
    bench.splicer.judged_anew()
    client.send(b"")
    client.send(b"more", socket.MSG_MORE)
    client.sendall(b"late")
    assert carried(bench.sent(client)) == (0, 8)
    assert take(server, 8) == b"morelate"
    say(client, server)
    assert carried(bench.sent(client)) == (4, 8)
