"""Fetch sessions (KIP-227) and share sessions (KIP-932): a server hands out what is in one to whoever has its number.

So a session belongs to the identity that opened it, and each fetch is judged by every topic that may be in it. Whoever
has no such session, or has a refused topic in it, is told that it is gone: clients then open another with all their
topics. Where one of these is refused no fetch session is opened: each fetch names all topics, and hears of the refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeAlias

from l7proxy.held import Server
from l7proxy.http1_exchange import Judge
from l7proxy.kafka_exchange import Names, Outcome, examine
from l7proxy.kafka_known import KafkaKnown, Session
from parsers.kafka import Head
from parsers.kafka_codec import wanted
from parsers.kafka_names import Asked, Item
from parsers.kafka_schema import REQUEST

FETCH, SHARE_FETCH = 1, 78
FETCH_SESSION_ID_NOT_FOUND, SHARE_SESSION_NOT_FOUND = 70, 122
_GONE = {70, 71, 122, 123}
"""Errors after which a session is of no use: not found, or a wrong epoch."""
Seen: TypeAlias = Callable[[int, int], None]
"""Told of a response's error code and session number (0: none)."""
_SHARE = frozenset({"group_id", "member_id", "share_session_epoch"})


class Step(NamedTuple):
    """What becomes of a fetch: it is answered with `lost` (an error code, for this `reason`), or goes on as `outcome`
    says; `seen` has to be told of its response. `held`: topics of its session that `outcome` does not tell of."""

    outcome: Outcome
    lost: int = 0
    reason: str = ""
    seen: Seen | None = None
    held: frozenset[str] = frozenset()


class Sessions:
    """As one connection sees them. `owner`: the number of its client's identity. `most`: topics in a session."""

    __slots__ = ("_known", "_most", "_owner", "_server")

    def __init__(self, known: KafkaKnown, server: Server, owner: int, most: int) -> None:
        self._known, self._server, self._owner, self._most = known, server, owner, most

    def step(self, head: Head, data: bytes, asked: Asked, names: Names, judge: Judge) -> Step:
        """Judge a fetch of either kind."""
        if head.api_key == SHARE_FETCH:
            return self._share(head, data, asked, names, judge)
        outcome = examine(head, asked.items, False, names, judge)
        number, epoch = asked.session or (0, 0)
        if epoch not in (0, -1):
            return self._next(head, asked, number, names, judge)
        if number:
            if self._own(number) is None:
                return self._lost(outcome, FETCH_SESSION_ID_NOT_FOUND)
            self._known.sessions.drop((self._server, number))
        if epoch or outcome.refused or asked.session is None:
            return Step(outcome)
        return Step(outcome, seen=self._opened(outcome))

    def _own(self, *name: Hashable) -> Session | None:
        session = self._known.sessions.get((self._server, *name))
        return session if session is not None and session.owner == self._owner else None

    def _keep(self, key: tuple[Hashable, ...], session: Session) -> None:
        self._known.sessions.put(key, session, session.weight)

    @staticmethod
    def _lost(outcome: Outcome, error: int, reason: str = "was not opened by this client, or is forgotten") -> Step:
        return Step(outcome, error, f"the session {reason}: the client has to open another")

    def _opened(self, outcome: Outcome) -> Seen:
        def seen(error: int, number: int) -> None:
            if not error and number:
                self._keep((self._server, number), Session(self._owner, set(outcome.topics)))

        return seen

    def _next(self, head: Head, asked: Asked, number: int, names: Names, judge: Judge) -> Step:
        """An incremental fetch."""
        session = self._own(number)
        if session is None:
            return self._lost(examine(head, asked.items, False, names, judge), FETCH_SESSION_ID_NOT_FOUND)
        return self._go_on(head, asked, session, (self._server, number), names, judge)

    def _go_on(
        self, head: Head, asked: Asked, session: Session, key: tuple[Hashable, ...], names: Names, judge: Judge
    ) -> Step:
        named = tuple(item for item in asked.items if item.topic is not None or item.topic_id is not None)
        outcome = _all_of(head, session, named, names, judge)
        if outcome.refused:
            self._known.sessions.drop(key)
            return self._lost(outcome, FETCH_SESSION_ID_NOT_FOUND, "has a topic that is refused")
        if not outcome.topics <= session.topics:
            session.topics |= outcome.topics
            self._keep(key, session)
        if len(session.topics) > self._most:
            self._known.sessions.drop(key)
            return self._lost(outcome, FETCH_SESSION_ID_NOT_FOUND, "has too many topics")
        return Step(outcome, seen=self._watched(key))

    def _watched(self, key: tuple[Hashable, ...]) -> Seen:
        def seen(error: int, _: int) -> None:
            if error in _GONE:
                self._known.sessions.drop(key)

        return seen

    # -- of share groups -----------------------------------------------------------------------------------------

    def _share(self, head: Head, data: bytes, asked: Asked, names: Names, judge: Judge) -> Step:
        tree = wanted(SHARE_FETCH, head.version, REQUEST, _SHARE)(data, head.body, head.end)
        key = (self._server, tree["group_id"], tree["member_id"])
        outcome = examine(head, asked.items, False, names, judge)
        refused = frozenset(name for item in outcome.refused if (name := names.of(item)) is not None)
        if tree["share_session_epoch"] == 0:
            return Step(outcome, seen=self._joined(key, outcome.topics - refused, refused))
        session = self._own(*key[1:])
        if session is None:
            return self._lost(outcome, SHARE_SESSION_NOT_FOUND)
        reason = self._changed(head, session, tree["group_id"], names, judge)
        if not reason and len(session.topics) + len(session.refused) > self._most:
            reason = "has too many topics"
        if reason:
            self._known.sessions.drop(key)
            return self._lost(outcome, SHARE_SESSION_NOT_FOUND, reason)
        if not outcome.topics <= session.topics | session.refused:
            session.topics |= outcome.topics - refused
            session.refused |= refused
            self._keep(key, session)
        return Step(outcome, seen=self._watched(key), held=frozenset(session.topics))

    def _joined(self, key: tuple[Hashable, ...], topics: frozenset[str], refused: frozenset[str]) -> Seen:
        def seen(error: int, _: int) -> None:
            if not error:
                self._keep(key, Session(self._owner, set(topics), refused))

        return seen

    @staticmethod
    def _changed(head: Head, session: Session, group: Any, names: Names, judge: Judge) -> str:
        """Why a share session does not hold what the policy says now."""

        def refused(name: str) -> bool:
            return bool(examine(head, (Item(name, None, group),), False, names, judge).refused)

        if any(map(refused, session.topics)):
            return "has a topic that is refused"
        return "" if all(map(refused, session.refused)) else "lacks a topic that is allowed now"


def _all_of(head: Head, session: Session, named: tuple[Item, ...], names: Names, judge: Judge) -> Outcome:
    """The verdict on what a session may hold and what a fetch adds to it, remembered as long as nothing is added."""
    asker = (judge, head.version, head.client_id)
    if not named and session.allowed is not None and session.allowed[0] == asker:
        remembered: Outcome = session.allowed[1]
        return remembered
    known = tuple(Item(name) for name in sorted(session.topics))
    items = tuple(dict.fromkeys((*known, *named))) or (Item(),)
    outcome = examine(head, items, False, names, judge)
    session.allowed = None if named or outcome.refused else (asker, outcome)
    return outcome
