"""The conversation of one Kafka connection: what passes, what is refused, and how that is answered.

A request passes verbatim if everything that it names is allowed. If only a part is, the server is asked for that part,
and its response completed; if nothing is, the answer is ours alone, behind what is due before it. What a broker of
version 4.1 with ACLs would close the connection for, closes it here: bytes that are no request, APIs and versions that
nobody knows or that no client may use, and a refusal of what has no answer (acks=0). Then what is due is answered, but
nothing more is read.

Where a request has topic ids that are not known, the server is asked for their names first, on the same connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from l7proxy.frames import State
from l7proxy.held import Frame, Server
from l7proxy.http1_exchange import Judge
from l7proxy.kafka_changes import both, completes, learns, lists, question, rewrites, watches
from l7proxy.kafka_exchange import Names, because, examine, judge_item, unread
from l7proxy.kafka_known import KafkaKnown
from l7proxy.kafka_requests import Requests
from l7proxy.kafka_responses import Due, Fetched, Then
from l7proxy.kafka_sasl import HANDSHAKE
from l7proxy.kafka_sessions import FETCH, SHARE_FETCH, Sessions, Step
from l7proxy.ops import Close, Direction, Inject, KafkaCall, KafkaRequest, Op, Record
from l7proxy.output import Output
from parsers.kafka import API_VERSIONS, Head, read_head, request, response, unsupported_version
from parsers.kafka_codec import Tree, decode
from parsers.kafka_denials import CLOSED, TOPIC
from parsers.kafka_names import Asked, Item, asked
from parsers.kafka_refusals import page, refuse
from parsers.kafka_repeat import PRODUCE, repeated
from parsers.kafka_responses import found, narrow, onward, trim
from parsers.kafka_schema import REQUEST
from parsers.malformed import Malformed
from policies.model import L7Protocol
from policies.verdict import Verdict

PAGES, OFFSETS_BY_ID = 75, (9, 10)
"""DescribeTopicPartitions; OffsetFetch in the first version that has topic ids."""
UNSUPPORTED_VERSION = 35


class KafkaConversation(Requests):
    """See `l7proxy.conversation.Conversation`. `judge` may be replaced at any time; requests read later are judged by
    it, and what is left out of responses. `owner`: the number of the client's identity.

    Whatever is malformed is passed unread, with an AUDIT record, as long as `judge.audit_only` holds; a judge that
    enforces ends such a connection.
    """

    __slots__ = ("_sessions",)
    protocol: ClassVar[L7Protocol] = L7Protocol.KAFKA

    def __init__(self, judge: Judge, known: KafkaKnown, server: Server, owner: int) -> None:
        super().__init__(judge, known, Names(known, server))
        self._sessions = Sessions(known, server, owner, judge.kafka.max_names)

    # -- what the relay asks -------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Between messages; or nothing is read any more."""
        if self._state is State.UNREAD:
            return True
        return not (self._due or self._carried or self.head_pending or self.receiving)

    @property
    def receiving(self) -> bool:
        """Within a request."""
        return self._gather is not None or self._large is not None

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation.receive`."""
        if direction:
            return self._responses(data, end, now)
        if not end and (done := self._again(data, now)) is not None:
            return done
        output = Output()
        self._requests(data, 0, end, now, output)
        self._settle(now, output)
        return output.done()

    def upstream_failed(self, reason: str, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. Kafka has no words for it: clients try again."""
        for due in self._due:
            if due.request is not None and due.answer is None:
                due.request = because(due.request, f"upstream: {reason}")
        output = Output()
        for record in self._records(now):
            output.add(record)
        self._end(output, Close(f"upstream: {reason}"))
        return output.done()

    # -- requests ------------------------------------------------------------------------------------------------

    def _request(self, frame: Frame, now: float, output: Output) -> bool:
        head = read_head(frame.data, frame.start + 4, frame.stop)
        if not head.known or head.api_key in CLOSED:
            self._unknown(head, frame, now, output)
            return True
        wants = asked(head, frame.data)
        most = self.judge.kafka.max_names
        if len(wants.items) > most:
            raise Malformed(head.body, f"a request names {len(wants.items)} things, more than kafka.max_names,")
        if self._ask(head, wants.items, now, output):
            return False
        if head.api_key in (FETCH, SHARE_FETCH):
            step = self._sessions.step(head, frame.data, wants, self._names, self.judge)
        else:
            step = Step(examine(head, wants.items, wants.every_topic, self._names, self.judge))
        if wants.every_topic and self._list(head, step, now, output):
            return False
        self._decide(head, wants, step, frame, now, output)
        return True

    def _unknown(self, head: Head, frame: Frame, now: float, output: Output) -> None:
        """An API or version that is not known, or that no client may use."""
        reason = "no client may use this API" if head.known else "this API or version is not known"
        asks = unread(reason, self.judge, head)
        if self.judge.audit_only:
            self._due.append(Due(asks, head, now))
            frame.goes(output)
        elif head.api_key == API_VERSIONS:
            frame.ends(output)
            self._due.append(Due(asks, head, now, unsupported_version(head), UNSUPPORTED_VERSION))
        else:
            self._broken(asks, head, now, output)

    def _ask(self, head: Head, items: Sequence[Item], now: float, output: Output) -> bool:
        ids = self._names.unknown(items)
        if ids:
            own, frame = question(head, ids)
            self._due.append(Due(None, own, now, then=learns(own, ids, self._told)))
            output.add(Inject(Direction.REQUEST, frame))
            self._waits = True
        return bool(ids)

    def _list(self, head: Head, step: Step, now: float, output: Output) -> bool:
        """Whether the server has to be asked first which topics there are; it is. An OffsetFetch of all topics is
        answered by their ids."""
        if (head.api_key, head.version) != OFFSETS_BY_ID and (head.api_key != PAGES or step.outcome.refused):
            return False
        if self.judge.audit_only or self._names.listed is not None:
            return False
        own, frame = question(head, None)
        self._due.append(Due(None, own, now, then=lists(own, self._listed)))
        output.add(Inject(Direction.REQUEST, frame))
        self._waits = True
        return True

    def _listed(self, names: list[tuple[str, bytes]]) -> None:
        self._names.learn(names)
        self._names.listed = [name for name, _ in names]
        self._waits = False

    def _told(self, names: list[tuple[str, bytes]], codes: dict[bytes, int]) -> None:
        self._names.learn(names)
        self._names.told.update(codes)
        self._waits = False

    def _decide(self, head: Head, wants: Asked, step: Step, frame: Frame, now: float, output: Output) -> None:
        asks, refused = step.outcome.request, dict(step.outcome.refused)
        if step.lost or (wants.replica and not refused):
            reason = step.reason or "followers of partitions are no clients"
            # A verdict of the policy says more than this, where there is one.
            if not refused and asks.decision.verdict is Verdict.FORWARDED:
                asks = _told_so(asks, unread(reason, self.judge))
            refused = {} if self.judge.audit_only else dict.fromkeys(wants.items, TOPIC)
        page = None if refused else self._page(head, frame)
        if page is not None:
            self._turn_to(head, asks, page, frame, now, output)
        elif not refused:
            self._allow(head, wants, asks, step, frame, now, output)
        elif step.lost:
            frame.ends(output)
            self._due.append(Due(asks, head, now, response(head, {"error_code": step.lost}), step.lost))
        else:
            self._refuse(head, wants, asks, refused, step, frame, now, output)

    def _page(self, head: Head, frame: Frame) -> Tree | None:
        """Of all topics; None: this is another request, or nothing is to be left out."""
        listed = self._names.listed
        if listed is None or self.judge.audit_only or head.api_key != PAGES:
            return None
        tree = decode(head.api_key, head.version, REQUEST, frame.data, head.body, head.end)
        return page(tree, listed, lambda name: self._refuses(head, Item(name)), self.judge.kafka.max_names)

    def _turn_to(self, head: Head, asks: KafkaRequest, page: Tree, frame: Frame, now: float, output: Output) -> None:
        frame.ends(output)
        if not page["topics"]:
            self._due.append(Due(asks, head, now, response(head, {})))
            return
        start = _begins_at(head, frame)
        then = rewrites(head, lambda tree: self._trimmed(head, found(tree), start=start))
        output.add(Inject(Direction.REQUEST, request(head, frame.data, frame.start + 4, page)))
        self._due.append(Due(asks, head, now, then=then))

    def _allow(
        self, head: Head, wants: Asked, asks: KafkaRequest, step: Step, frame: Frame, now: float, output: Output
    ) -> None:
        if wants.acks0:
            output.add(Record(asks, 0, now, now, KafkaCall(head.correlation_id, False)))
        else:
            then = self._then(head, wants, step, frame)
            self._due.append(Due(asks, head, now, then=then, fetched=self._fetched(head, wants, step, frame)))
            if head.api_key == PRODUCE:
                self._remember(repeated, frame, head, asks)
        frame.goes(output)

    def _then(self, head: Head, wants: Asked, step: Step, frame: Frame) -> Then | None:
        if head.api_key == HANDSHAKE:
            self._waits = True
            return self._sasl.shakes(head, frame.data, self._shaken)
        if step.seen is not None:
            return watches(head, step.seen)
        if self.judge.audit_only:
            return None
        if head.api_key == API_VERSIONS:
            return rewrites(head, narrow)
        if wants.trims:
            start = _begins_at(head, frame)
            return rewrites(head, lambda tree: self._trimmed(head, tree, start=start))
        return None

    def _fetched(self, head: Head, wants: Asked, step: Step, frame: Frame) -> Fetched | None:
        if wants.trims and self.judge.audit_only:
            return Fetched(self.judge, None, None, _begins_at(head, frame))
        if head.api_key not in (FETCH, SHARE_FETCH):
            return None
        topics = None if step.lost else step.outcome.topics | step.held
        return Fetched(self.judge, topics, wants.items[0].group)

    def _judge_again(self, due: Due, fetched: Fetched) -> None:
        due.fetched, head = fetched._replace(judge=self.judge), due.head
        assert head is not None  # noqa: S101 -- it is a request's, which has one
        if self.judge.audit_only:
            return
        if fetched.topics is not None:
            items = tuple(Item(name, None, fetched.group) for name in sorted(fetched.topics))
            outcome = examine(head, items, False, self._names, self.judge) if items else None
            if outcome is None or not outcome.refused:
                return
            due.request, due.code = outcome.request, TOPIC
        due.then = both(rewrites(head, lambda tree: self._trimmed(head, tree, fetched.group, fetched.start)), due.then)

    def _shaken(self) -> None:
        self._waits = False

    def _trimmed(self, head: Head, tree: Tree, group: str | None = None, start: str = "") -> Tree:
        """A response without what the rules in force now refuse; what it names is for this group, if it names none. A
        page of topics was asked for from `start` on."""
        if self.judge.audit_only:
            return tree

        def refuses(item: Item) -> bool:
            return self._refuses(head, item, group)

        trimmed = trim(head, tree, refuses)
        return onward(trimmed, start, refuses) if head.api_key == PAGES else trimmed

    def _refuses(self, head: Head, item: Item, group: str | None = None) -> bool:
        name = self._names.of(item)
        if name is None and item.topic_id is not None:
            return True
        if group is not None and item.group is None:
            item = item._replace(group=group)
        return judge_item(head, item, name, False, self.judge).verdict is Verdict.DROPPED

    def _refuse(
        self,
        head: Head,
        wants: Asked,
        asks: KafkaRequest,
        refused: dict[Item, int],
        step: Step,
        frame: Frame,
        now: float,
        output: Output,
    ) -> None:
        """Answer it, or have the server answer the rest of it."""
        tree = decode(head.api_key, head.version, REQUEST, frame.data, head.body, head.end)
        if wants.session is not None:
            # Without a session each fetch names all topics, and hears of those that are refused.
            tree |= {"session_id": 0, "session_epoch": -1, "forgotten_topics_data": []}
        split, code = refuse(head, tree, refused), min(refused.values())
        if split.kept is None:
            if split.answer is None:
                self._broken(asks, head, now, output)
                return
            frame.ends(output)
            self._due.append(Due(asks, head, now, response(head, split.answer), code))
            return
        frame.ends(output)
        output.add(Inject(Direction.REQUEST, request(head, frame.data, frame.start + 4, split.kept)))
        if split.answer is None:
            self._due.append(Due(asks, head, now, b"", code))
            self._close_behind(asks.decision.reason)
            return
        change = (lambda tree: self._trimmed(head, tree)) if wants.trims else None
        then = completes(head, split, change, step.seen)
        self._due.append(Due(asks, head, now, code=code, then=then, fetched=self._fetched(head, wants, step, frame)))


def _begins_at(head: Head, frame: Frame) -> str:
    """The topic from which on a page of all topics is asked for, or ""."""
    if head.api_key != PAGES:
        return ""
    cursor = decode(head.api_key, head.version, REQUEST, frame.data, head.body, head.end)["cursor"]
    return "" if cursor is None else str(cursor["topic_name"])


def _told_so(asks: KafkaRequest, other: KafkaRequest) -> KafkaRequest:
    """The same request with the decision of another."""
    return replace(asks, decision=other.decision)
