"""What one Kafka request asks for, and what the policy says of it: thing by thing, and as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from l7proxy import ops
from l7proxy.held import Server, remember
from l7proxy.http1_exchange import Judge, unjudged
from l7proxy.kafka_known import KafkaKnown
from parsers.facts import KafkaRequest
from parsers.kafka import Head
from parsers.kafka_denials import GROUP, TOPIC, TRANSACTION
from parsers.kafka_names import NO_ID, Item
from parsers.kafka_refusals import code
from parsers.kafka_schema import APIS
from policies.verdict import L7Decision, Verdict

UNKNOWN_TOPIC_ID = 100
_SHOWN = 16
"""Topics, groups and transactional ids that a record lists."""
_MAX_NAME = 249
"""Characters of a topic's name: brokers have no longer ones."""
_CACHED_TEXT = 2048
"""Requests whose names are no longer than that together are remembered."""


@dataclass(slots=True, eq=False)
class Outcome:
    """A request as its record has it, the items that are refused, each with an error code, and the topics by name."""

    request: ops.KafkaRequest
    refused: Mapping[Item, int]
    topics: frozenset[str]


class Names:
    """Topic ids of one `server`. `told`: error codes of ids that it was asked for just now and has no name for.
    `listed`: the names of all topics, if it was asked for them just now."""

    __slots__ = ("_known", "listed", "server", "told")

    def __init__(self, known: KafkaKnown, server: Server) -> None:
        self._known, self.server = known, server
        self.told: dict[bytes, int] = {}
        self.listed: list[str] | None = None

    def of(self, item: Item) -> str | None:
        """The name of the topic that an item names; None if it names none, or by an id that is not known."""
        if item.topic_id is None:
            return item.topic
        return self._known.topics.get((self.server, item.topic_id))

    def learn(self, pairs: Iterable[tuple[str, bytes]]) -> None:
        """The server's own word."""
        for name, topic_id in pairs:
            if len(name) <= _MAX_NAME and topic_id != NO_ID:
                self._known.topics.put((self.server, topic_id), name, 1)

    def forget(self) -> None:
        """What was said just now holds for one request."""
        self.told.clear()
        self.listed = None

    def unknown(self, items: Iterable[Item]) -> list[bytes]:
        """Ids that the server may be asked for."""
        ids = (one.topic_id for one in items if one.topic_id is not None and self.of(one) is None)
        return [one for one in dict.fromkeys(ids) if one != NO_ID and one not in self.told]


def examine(head: Head, items: Sequence[Item], every: bool, names: Names, judge: Judge) -> Outcome:
    """The verdict on a request, remembered if it is of a usual size."""
    named = tuple(map(names.of, items))
    key = (head.api_key, head.version, head.client_id, items, named, every)
    found: Outcome | None = judge.calls.get(key)
    if found is not None:
        return found
    found = _judged(head, list(zip(items, named, strict=True)), every, names, judge)
    if len(items) <= _SHOWN and not any(map(_nameless, items, named)) and _size(head, items) <= _CACHED_TEXT:
        remember(judge, key, found)
    return found


def judge_item(head: Head, item: Item, name: str | None, every: bool, judge: Judge) -> L7Decision:
    """The policy's word on one thing."""
    return judge.judge(
        KafkaRequest(head.api_key, head.version, head.client_id or "", name, item.group, item.transactional_id, every)
    )


def unread(reason: str, judge: Judge, head: Head | None = None) -> ops.KafkaRequest:
    """What is recorded of a request that no rule could be asked about."""
    decision = unjudged(reason, judge)
    if head is None:
        return ops.KafkaRequest(decision)
    return ops.KafkaRequest(decision, _api(head), head.version, head.client_id or "")


def because(request: ops.KafkaRequest, reason: str) -> ops.KafkaRequest:
    """The same request, with more to say about what became of it."""
    return replace(request, decision=replace(request.decision, reason=f"{request.decision.reason}; {reason}"))


def _size(head: Head, items: Sequence[Item]) -> int:
    texts = (text for item in items for text in (item.topic, item.group, item.transactional_id))
    return len(head.client_id or "") + sum(len(text) for text in texts if text is not None)


def _nameless(item: Item, name: str | None) -> bool:
    return item.topic_id is not None and name is None


def _judged(head: Head, pairs: Sequence[tuple[Item, str | None]], every: bool, names: Names, judge: Judge) -> Outcome:
    worst: L7Decision | None = None
    refused: dict[Item, int] = {}
    verdicts: dict[str, Verdict] = {}
    for item, name in pairs:
        if item.topic_id is not None and name is None:
            decision = unjudged(f"no topic is known by the id {item.topic_id.hex()}", judge)
            error = _around(head, item, judge) or names.told.get(item.topic_id, UNKNOWN_TOPIC_ID)
        else:
            decision = judge_item(head, item, name, every and name is None, judge)
            error = 0
        if decision.verdict is Verdict.DROPPED:
            refused[item] = error or _code(head, item, name, judge)
        shown = name if name is not None or item.topic_id is None else item.topic_id.hex()
        if shown is not None and _WEIGHT[decision.verdict] >= _WEIGHT[verdicts.get(shown, Verdict.FORWARDED)]:
            verdicts[shown] = decision.verdict
        if worst is None or _WEIGHT[decision.verdict] > _WEIGHT[worst.verdict]:
            worst = decision
    assert worst is not None  # noqa: S101 -- a request that names nothing is one empty item
    request = _request(head, worst, verdicts, [item for item, _ in pairs])
    return Outcome(request, refused, frozenset(name for _, name in pairs if name is not None))


_WEIGHT = {Verdict.FORWARDED: 0, Verdict.AUDIT: 1, Verdict.DROPPED: 2}


def _code(head: Head, item: Item, name: str | None, judge: Judge) -> int:
    """What a broker would say of a refused item: it looks at the transaction first, then at the group."""
    if name is not None:
        return _around(head, item, judge) or TOPIC
    if item.group is not None and item.transactional_id is not None:
        return _around(head, item, judge) or GROUP
    return code(head, item)


def _around(head: Head, item: Item, judge: Judge) -> int:
    """The code if the transaction or the group of an item is refused; or 0."""
    for alone, error in ((Item(transactional_id=item.transactional_id), TRANSACTION), (Item(group=item.group), GROUP)):
        if alone != Item() and judge_item(head, alone, None, False, judge).verdict is Verdict.DROPPED:
            return error
    return 0


def _request(
    head: Head, decision: L7Decision, verdicts: Mapping[str, Verdict], items: Sequence[Item]
) -> ops.KafkaRequest:
    # What was refused is what one looks for.
    topics = sorted(verdicts.items(), key=lambda one: -_WEIGHT[one[1]])
    return ops.KafkaRequest(
        decision,
        _api(head),
        head.version,
        head.client_id or "",
        tuple(topics[:_SHOWN]),
        max(0, len(topics) - _SHOWN),
        _some(item.group for item in items),
        _some(item.transactional_id for item in items),
    )


def _some(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))[:_SHOWN]


def _api(head: Head) -> str:
    api = APIS.get(head.api_key)
    return api.name if api is not None else str(head.api_key)
