"""Which conversation a connection gets: by the protocol of its rules, and HTTP of either kind by the first bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from l7proxy.cassandra import CassandraConversation
from l7proxy.cassandra_known import CassandraKnown
from l7proxy.conversation import Conversation
from l7proxy.held import Server
from l7proxy.http1 import Http1Conversation
from l7proxy.http1_exchange import Exchange, Judge
from l7proxy.http2 import Http2Conversation
from l7proxy.kafka import KafkaConversation
from l7proxy.kafka_known import KafkaKnown
from l7proxy.limits import Limits
from l7proxy.ops import Direction, Op
from parsers.http2 import PREFACE
from parsers.options import CassandraOptions, KafkaOptions
from policies.model import L7Protocol


class Known(NamedTuple):
    """What the connections of a worker share, by protocol."""

    kafka: KafkaKnown
    cassandra: CassandraKnown


def known(kafka: KafkaOptions, cassandra: CassandraOptions) -> Known:
    """Of a worker that has just begun."""
    return Known(
        KafkaKnown(kafka.known_topics, kafka.sessions),
        CassandraKnown(cassandra.max_prepared, cassandra.max_prepared_text, cassandra.max_views),
    )


def converse(judge: Judge, known: Known, server: Server, owner: int) -> Conversation:
    """The conversation of a connection to `server`, whose client's identity has the number `owner`."""
    if judge.protocol is L7Protocol.KAFKA:
        return KafkaConversation(judge, known.kafka, server, owner)
    if judge.protocol is L7Protocol.CASSANDRA:
        return CassandraConversation(judge, known.cassandra, server)
    return HttpConversation(judge)


class HttpConversation:
    """HTTP/1.1, or HTTP/2 with prior knowledge (RFC 9113, section 3.3) or behind ``Upgrade: h2c``.

    See `l7proxy.conversation.Conversation`.

    A server that speaks before the client has begun is taken for one of HTTP/1.1.
    """

    protocol: ClassVar[L7Protocol] = L7Protocol.HTTP

    def __init__(self, judge: Judge) -> None:
        self._first = Http1Conversation(judge)
        self._first.on_h2c = self._go_on_in_http2
        self._inner: Conversation = self._first

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation.receive`."""
        if direction is Direction.REQUEST and data and PREFACE.startswith(data[: len(PREFACE)]):
            if len(data) >= len(PREFACE):
                self._inner = Http2Conversation(self._inner.judge)
            elif not end:
                self._first.head_pending = True
                return ()
        self._hand_over()
        return self._inner.receive(direction, data, end, now)

    def _hand_over(self) -> None:
        """Further bytes go to the one that was chosen, without a way through here."""
        self.receive = self._inner.receive  # type: ignore[method-assign]  # one call less for every read

    def _go_on_in_http2(self, exchange: Exchange, started: float, over: str) -> None:
        """The server has answered 101: what it was asked is stream 1 (RFC 7540, section 3.2)."""
        made = Http2Conversation(self._inner.judge)
        made.upgraded(exchange.request, exchange.h2c or b"", started, over)
        self._inner = made
        self._hand_over()

    @property
    def judge(self) -> Judge:
        """The rules in force."""
        return self._inner.judge

    @judge.setter
    def judge(self, judge: Judge) -> None:
        self._inner.judge = judge

    @property
    def idle(self) -> bool:
        """Between messages."""
        return self._inner.idle

    @property
    def head_pending(self) -> bool:
        """Part of a head waits."""
        return self._inner.head_pending

    @property
    def receiving(self) -> bool:
        """The client owes the rest of a request."""
        return self._inner.receiving

    def upstream_failed(self, reason: str, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        return self._inner.upstream_failed(reason, now)

    def head_timeout(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        return self._inner.head_timeout(now)

    def late(self, now: float, limits: Limits) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        return self._inner.late(now, limits)

    def draining(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        return self._inner.draining(now)

    def finish(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        return self._inner.finish(now)
