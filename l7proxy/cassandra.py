"""The conversation of one CQL connection: what passes, what is refused, and how that is answered.

A statement passes verbatim if all that it does is allowed; else it is answered at once as a server with an authorizer
does, with ERROR 0x2100 on its stream. Version, compression and the session's keyspace are followed by what the server
says of them. A USE passes when nothing that depends on the keyspace is under way, and what comes behind it waits until
it is answered: a server runs requests side by side. Prepared statements are those that a server has prepared before the
proxy's eyes; of others the client is told to prepare them again.

Which tables have materialized views is asked of the server, on the client's own connection. What is malformed ends the
connection behind what is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from l7proxy.cassandra_exchange import CACHED_TEXT, Outcome, Unprepared
from l7proxy.cassandra_known import CassandraKnown, Reading
from l7proxy.cassandra_parts import Due, Then
from l7proxy.cassandra_repeat import Repeating
from l7proxy.cassandra_requests import Step
from l7proxy.cassandra_views import VIEWS_FOR
from l7proxy.cql_judge import because, unread
from l7proxy.frames import State
from l7proxy.held import Server
from l7proxy.http1_exchange import Judge, refusal_text
from l7proxy.limits import Limits
from l7proxy.ops import Abort, Close, Direction, Op, Pass
from l7proxy.output import Output
from parsers.cassandra import Envelope, Opcode, Reader
from parsers.cassandra_compression import SNAPPY
from parsers.cassandra_requests import Batch, Execute, Message, Other, Prepare, Query, Startup, read_request
from parsers.cassandra_responses import (
    SERVER_ERROR,
    UNAUTHORIZED,
    UNPREPARED,
    Kind,
    refusal,
    unprepared,
)
from parsers.malformed import Malformed
from policies.model import L7Protocol

_AT_ONCE = frozenset((int(Opcode.EXECUTE), int(Opcode.QUERY)))


class CassandraConversation(Repeating):
    """See `l7proxy.conversation.Conversation`. `judge` may be replaced at any time; requests read later are judged by
    it, and so are prepared statements.

    Whatever is malformed is passed unread, with an AUDIT record, as long as `judge.audit_only` holds; a judge that
    enforces ends such a connection.
    """

    __slots__ = ("_keyspace", "_preparing")
    protocol: ClassVar[L7Protocol] = L7Protocol.CASSANDRA

    def __init__(self, judge: Judge, known: CassandraKnown, server: Server) -> None:
        super().__init__(judge, known, server)
        self._keyspace: str | None = None
        """That of the session, as the server has confirmed it."""
        self._preparing = 0
        """Bytes of what the server prepares now."""

    # -- what the relay asks -------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Between messages; or nothing is read any more."""
        if self._state is State.UNREAD:
            return True
        said = self._answers or self._carried or self._left or self._held or self._large_response
        return not (self._due or said or self.head_pending or self.receiving)

    @property
    def receiving(self) -> bool:
        """Within a request."""
        return bool(self._gather or self._large or self._rest)

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation.receive`."""
        if direction:
            return self._responses(data, end, now)
        position = self._passing_requests(data, now)
        if position and position == len(data) and not (end or self._answers):
            self.head_pending = False
            return (Pass(position),)
        output = Output()
        output.take(Pass, position)
        self._requests(data, position, end, now, output)
        self._settle(now, output)
        return output.done()

    def upstream_failed(self, reason: str, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        output = Output()
        for stream, due in self._due.items():
            if not due.own:
                self._answers.append(refusal(self._speaks, stream, SERVER_ERROR, f"upstream: {reason}"))
            if due.request is not None:
                due.request = because(due.request, f"upstream: {reason}")
        for record in self._records(now):
            output.add(record)
        if self._carried or self._left:
            self._end(output, Abort(f"upstream: {reason}"))  # The client is in the midst of an answer.
            return output.done()
        self._release(now, output)
        if not self._ended:
            self._end(output, Close(f"upstream: {reason}"))
        return output.done()

    def head_timeout(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        self._stream = None
        return super().head_timeout(now)

    def late(self, now: float, limits: Limits) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        self._stream = None
        return super().late(now, limits)

    def finish(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        self._forget_response()
        self._watch_no_more()
        return super().finish(now)

    # -- messages ------------------------------------------------------------------------------------------------

    def _judge_message(self, head: Envelope, message: Message, now: float, output: Output) -> Step:
        if isinstance(message, Other):
            return self._other(head, message, now)
        if isinstance(message, Startup):
            return self._startup(head, message, now)
        if not self._ready:
            raise Malformed(0, "a statement before the server has let the client in")
        if self._lost and not self.judge.audit_only:
            raise Malformed(0, "a policy enforces now what this connection was not read for")
        if now - self._statements.views.asked > VIEWS_FOR and not self._known_views(now):
            self._ask_for_views(head.version, now, output)
            return Step.WAIT
        try:
            return self._statement(head, message, now, output)
        except Unprepared as error:
            return self._unprepared(head, message, error, now, output)

    def _other(self, head: Envelope, message: Other, now: float) -> Step:
        if not self._open and head.opcode != Opcode.OPTIONS:
            raise Malformed(0, "a request before STARTUP")
        then: Then | None = None
        if head.opcode == Opcode.AUTH_RESPONSE:
            then = self._authenticated
            self._waits += 1
        self._registers(message)
        self._due[head.stream] = Due(None, now, then=then)
        return Step.PASS

    def _startup(self, head: Envelope, message: Startup, now: float) -> Step:
        if self._open:
            raise Malformed(0, "a second STARTUP")
        if head.version > 4 and message.compression == SNAPPY:
            raise Malformed(0, "version 5 with snappy")
        self._version, self._compression = head.version, message.compression
        self._waits += 1
        self._due[head.stream] = Due(None, now, then=self._started)
        return Step.PASS

    def _started(self, opcode: int, _code: int, _reader: Reader) -> None:
        self._waits -= 1
        if opcode == Opcode.ERROR:
            return
        if opcode not in (Opcode.READY, Opcode.AUTHENTICATE):
            raise Malformed(0, f"an answer to STARTUP with opcode {opcode}")
        self._open, self._ready = True, opcode == Opcode.READY
        self._framed = self._version > 4

    def _authenticated(self, opcode: int, _code: int, _reader: Reader) -> None:
        self._waits -= 1
        if opcode == Opcode.AUTH_SUCCESS:
            self._ready = True

    # -- statements ----------------------------------------------------------------------------------------------

    def _at_once(self, opcode: int, stream: int, data: bytes, start: int, stop: int, now: float) -> bool:
        statements, judge = self._statements, self.judge
        limits = judge.cassandra
        if opcode not in _AT_ONCE or self._waits or self._quiet or self._lost or stream in self._due:
            return False
        if opcode == Opcode.QUERY and stop - start > CACHED_TEXT:  # it would be read anew where it does not pass
            return False
        if len(self._due) >= limits.max_in_flight or stop - start > limits.max_frame:
            return False
        if now - statements.views.asked > VIEWS_FOR:
            return False
        message = read_request(opcode, self._version, 0, data, start, stop, 0)
        if isinstance(message, Execute):
            try:
                outcome = statements.execute(message, judge)
            except Unprepared:
                return False
        elif isinstance(message, Query):
            outcome = statements.query(message, self._keyspace, judge)
        else:
            return False
        if not outcome.plain:
            return False
        if self.offers is not None and opcode == Opcode.EXECUTE:
            self._offer(data, start, outcome.request, message.consistency)
        self._due[stream] = Due(outcome.request, now, message.consistency, outcome.leans)
        self._leaning += outcome.leans
        return True

    def _statement(
        self, head: Envelope, message: Query | Prepare | Execute | Batch, now: float, output: Output
    ) -> Step:
        then: Then | None = None
        consistency = -1
        if isinstance(message, Prepare) and not self._may_prepare(message):
            self._quiet = True
            return Step.WAIT
        if isinstance(message, Execute):
            outcome, consistency = self._statements.execute(message, self.judge), message.consistency
        elif isinstance(message, Query):
            outcome, consistency = self._statements.query(message, self._keyspace, self.judge), message.consistency
        elif isinstance(message, Batch):
            outcome, consistency = self._statements.batch(message, self._keyspace, self.judge), message.consistency
        else:
            outcome = self._statements.query(message, self._keyspace, self.judge)
            keyspace = self._keyspace if message.keyspace is None else message.keyspace
            then = partial(self._prepared, message.text, keyspace, outcome.reading)
        if outcome.refused:
            text = refusal_text(outcome.request.decision)
            self._answers.append(refusal(head.version, head.stream, UNAUTHORIZED, text))
            output.add(self._record(outcome.request, now, consistency, UNAUTHORIZED))
            return Step.DROP
        if outcome.reading.reason and self.judge.audit_only:
            self._lost = True
        elif then is None:
            if outcome.moves and self._leaning:
                self._quiet = True
                return Step.WAIT
            then = self._then(outcome)
            self._waits += outcome.moves
        if isinstance(message, Prepare):
            self._preparing += len(message.text)
        self._due[head.stream] = Due(outcome.request, now, consistency, outcome.leans, then)
        self._leaning += outcome.leans
        return Step.PASS

    def _may_prepare(self, message: Prepare) -> bool:
        """What is being prepared is kept until the server answers."""
        kept = self._preparing
        return not kept or kept + len(message.text) <= self.judge.cassandra.max_statement

    def _then(self, outcome: Outcome) -> Then | None:
        moves, changes = outcome.moves, outcome.changes
        return partial(self._moved, moves, changes) if moves or changes else None

    def _moved(self, moves: bool, changes: bool, opcode: int, code: int, reader: Reader) -> None:
        """The answer to what may have changed the keyspace, or views."""
        self._waits -= moves
        if changes:
            self._known.outdated(self._server)
        if opcode == Opcode.RESULT and reader.int() == Kind.SET_KEYSPACE:
            if not moves:
                raise Malformed(0, "a keyspace that nobody asked for")
            self._keyspace = reader.string()

    def _prepared(
        self, text: bytes, keyspace: str | None, reading: Reading, opcode: int, _code: int, reader: Reader
    ) -> None:
        self._preparing -= len(text)
        if opcode != Opcode.RESULT:
            return
        if reader.int() != Kind.PREPARED:
            raise Malformed(0, "a PREPARE that is answered otherwise")
        self._statements.bind(reader.short_bytes(), text, keyspace, reading)

    def _unprepared(self, head: Envelope, message: Message, error: Unprepared, now: float, output: Output) -> Step:
        """What the id stands for is not known: the client prepares it again. Where nothing is enforced, the server may
        know it."""
        opcode = "BATCH" if isinstance(message, Batch) else "EXECUTE"
        request = unread(self.judge, str(error), opcode)
        consistency = message.consistency if isinstance(message, Batch | Execute) else -1
        if self.judge.audit_only:
            self._lost = True
            self._due[head.stream] = Due(request, now, consistency)
            return Step.PASS
        self._answers.append(unprepared(head.version, head.stream, error.id))
        output.add(self._record(request, now, consistency, UNPREPARED))
        return Step.DROP
