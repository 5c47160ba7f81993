"""What a real broker with ACLs answers to requests that name what is refused: asked again, or read from vectors/.

Users: *topics* may do all but with topics named ``secret...``, *groups* with such groups, *transactions* with such
transactional ids; *nobody* may do nothing. *everyone* may do all of that, and asks only for what is filtered for the
others; *several* is refused topics, groups and transactional ids of that kind. None has a right to the cluster.

    python -m tests.kafka.truth        # asks a broker and writes vectors/ anew

A vector's answer is settled: what differs between two runs (times, ids, ports) is levelled out, lists of structures
are sorted, since the order of topics in an answer is nobody's promise, and of a topic's settings the first one stays.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from parsers.kafka_codec import decode, encode
from parsers.kafka_schema import APIS, BY_NAME, REQUEST, RESPONSE
from tests.kafka import cases as asked
from tests.kafka.broker import GROUP, TOPIC, TRANSACTIONAL_ID, Broker, broker
from tests.kafka.wire import Closed, Wire, answer, head_size, request

FOLDER = Path(__file__).parent / "vectors"
USERS = ("topics", "groups", "transactions", "everyone", "nobody")
SEVERAL = "several"
SETTINGS = {
    "unstable.api.versions.enable": "true",
    "unstable.feature.versions.enable": "true",
    "auto.create.topics.enable": "false",
    # However slow the machine is, members stay until all is asked.
    "group.consumer.max.session.timeout.ms": 600_000,
    "group.consumer.session.timeout.ms": 600_000,
    "group.share.max.session.timeout.ms": 600_000,
    "group.share.session.timeout.ms": 600_000,
}
_LEVELLED = {
    "throttle_time", "base_offset", "log_append_time", "timestamp", "max_timestamp", "producer_id", "session_id",
    "port", "high_watermark", "last_stable_offset", "offset", "member_epoch", "group_epoch", "assignment_epoch",
    "transaction_start_time", "acquisition_lock_timeout",
}  # fmt: skip
"""Numbers of which only is kept whether they are negative."""
STRICTER = {(BY_NAME["sharegroupdescribe"].key, "their readers")}
"""Where a broker tells what is refused: it looks at what members of a share group are assigned, not at what they
subscribe to."""

_WHOSE_REQUEST = re.compile(r"Request Request\(.*\)(?= needs )")


_ADD_PARTITIONS, _ALTER_SHARE_OFFSETS = 24, 91


class Vector(NamedTuple):
    """`request` and `answer`: header and body, without the length. `answer` None: the broker closes."""

    key: int
    version: int
    user: str
    case: str
    request: bytes
    answer: bytes | None

    @property
    def name(self) -> str:
        """For people."""
        return f"{APIS[self.key].name} v{self.version}, {self.user}: {self.case}"

    def tree(self) -> dict[str, Any]:
        """The request's."""
        start = len(request(self.key, self.version, b""))
        return decode(self.key, self.version, REQUEST, self.request, start, len(self.request))

    def answer_tree(self) -> dict[str, Any] | None:
        """The answer's, which is settled already."""
        return None if self.answer is None else answer(self.key, self.version, self.answer)


def load() -> list[Vector]:
    """All vectors, by user and API. Raises OSError."""
    return [_read(user, line) for user in USERS for line in _file(user).read_text().splitlines()]


def _file(user: str) -> Path:
    return FOLDER / f"{user}.jsonl"


def _read(user: str, line: str) -> Vector:
    row = json.loads(line)
    got = None if row["answer"] is None else base64.b64decode(row["answer"])
    key = BY_NAME[row["api"].lower()].key
    return Vector(key, row["version"], user, row["case"], base64.b64decode(row["request"]), got)


def write(vectors: Iterable[Vector]) -> None:
    """Replace the files."""
    FOLDER.mkdir(exist_ok=True)
    for user, some in groupby(sorted(vectors, key=lambda one: one.user), lambda one: one.user):
        _file(user).write_text("".join(_line(vector) for vector in some))


def _line(one: Vector) -> str:
    row = {"api": APIS[one.key].name, "version": one.version, "case": one.case}
    row |= {"request": base64.b64encode(one.request).decode()}
    row |= {"answer": None if one.answer is None else base64.b64encode(one.answer).decode()}
    return json.dumps(row) + "\n"


def settled(tree: Any, name: str = "") -> Any:
    """A response without what differs from run to run."""
    if isinstance(tree, dict):
        return {key: settled(value, key) for key, value in tree.items()}
    if isinstance(tree, list):
        some = [settled(value) for value in tree[: 1 if name == "configs" else None]]
        some = _joined(some) if name == "responses" else some
        return sorted(some, key=repr) if some and isinstance(some[0], dict) else some
    if name in _LEVELLED and isinstance(tree, int):
        return min(tree, 0)
    if name == "error_message" and tree:
        return _WHOSE_REQUEST.sub("Request", tree)
    if name == "topic_id" and tree != asked.ZERO and not tree.startswith(b"id:"):
        return asked.stand_in("new")
    return b"" if name == "records" and tree else tree


def _joined(some: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fetch has a topic twice if its partitions do not come one behind the other."""
    found: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(some):
        rest = repr({key: value for key, value in entry.items() if key != "partitions"})
        if rest in found:
            parts = sorted([*found[rest]["partitions"], *entry["partitions"]], key=repr)
            found[rest] = {**entry, "partitions": parts}
        else:
            fetched = any("records" in part for part in entry.get("partitions", ()))
            found[rest if fetched else str(number)] = entry
    return list(found.values())


def plain(tree: Any, key: int) -> Any:
    """Without what a broker says of its own insides and what cannot be known without its topics."""
    if isinstance(tree, list):
        return [plain(one, key) for one in tree]
    if not isinstance(tree, dict):
        return "Cluster authorization failed." if str(tree).startswith("Request needs ") else tree
    tree = {name: plain(value, key) for name, value in tree.items()}
    if key == _ADD_PARTITIONS and tree.get("partition_error_code") == 3:
        tree["partition_error_code"] = 55
    if key == _ALTER_SHARE_OFFSETS and any(one.get("error_code") == 29 for one in tree.get("partitions", ())):
        tree["topic_id"] = asked.ZERO  # the id of a topic that was named and is refused
    return tree


# -- recording -------------------------------------------------------------------------------------------------------


def record() -> list[Vector]:
    """Ask a broker of our own."""
    with refusing() as asking:
        return list(asking.all())


@contextmanager
def refusing() -> Iterator[Recorder]:
    """A broker of our own, with the users' rights and what they ask for."""
    with broker(acls=True, users=(*USERS, SEVERAL), settings=SETTINGS) as running:
        _entitle(running)
        with recorder(running, running.wire) as asking:
            yield asking


@contextmanager
def recorder(running: Broker, connect: Callable[[str], Wire]) -> Iterator[Recorder]:
    """Asks a new broker (of `SETTINGS`), which gets what the users ask for. `connect`: a user's connection."""
    asking = Recorder(running, connect)
    try:
        yield asking
    finally:
        for wire in asking.wires.values():
            wire.close()


class Recorder:
    """Asks a broker, one connection for each user."""

    def __init__(self, running: Broker, connect: Callable[[str], Wire]) -> None:
        self._connect = connect
        self.wires: dict[str, Wire] = {}
        running.create(*_TOPICS)
        _prepare(running)
        with running.wire() as wire:
            rows = wire.ask("Metadata", 12, {"topics": None})["topics"]
            apis = wire.ask("ApiVersions", 0, {})["api_keys"]
        self.ids = {asked.stand_in(row["name"]): row["topic_id"] for row in rows}
        self.served = {row["api_key"]: (row["min_version"], row["max_version"]) for row in apis}

    def all(self) -> Iterator[Vector]:
        """Every case. Raises AssertionError if there is no answer to one, or one that we would write otherwise."""
        for case in asked.cases(self.served):
            yield self.ask(case)

    def ask(self, case: asked.Case) -> Vector:
        """One case."""
        body = encode(case.key, case.version, REQUEST, case.tree)
        vector = Vector(case.key, case.version, case.user, case.name, request(case.key, case.version, body), None)
        wire = self.wires.get(case.user) or self._connect(case.user)
        self.wires[case.user] = wire
        try:
            number = wire.send(case.key, case.version, self._real(body))
            got = self._stand_in(wire.receive())
        except Closed:
            wire.close()
            del self.wires[case.user]
            return vector
        except TimeoutError:
            raise AssertionError(f"no answer to {vector.name}: {case.tree}") from None
        assert int.from_bytes(got[:4]) == number, vector.name
        size = head_size(case.key, case.version, got)
        tree = answer(case.key, case.version, got)
        assert encode(case.key, case.version, RESPONSE, tree) == got[size:], vector.name
        head = b"\0\0\0\1" + got[4:size]
        return vector._replace(answer=head + encode(case.key, case.version, RESPONSE, settled(tree)))

    def _real(self, data: bytes) -> bytes:
        for ours, theirs in self.ids.items():
            data = data.replace(ours, theirs)
        return data

    def _stand_in(self, data: bytes) -> bytes:
        for ours, theirs in self.ids.items():
            data = data.replace(theirs, ours)
        return data


_TOPICS = ("open", "other", "secret", "open-log")


def _entitle(running: Broker) -> None:
    """Rights."""
    for user in (*USERS[:-1], SEVERAL):
        for resource in (TOPIC, GROUP, TRANSACTIONAL_ID):
            running.allow(user, resource)
    for user, resource in (("topics", TOPIC), ("groups", GROUP), ("transactions", TRANSACTIONAL_ID)):
        running.refuse(user, resource, "secret")
        running.refuse(SEVERAL, resource, "secret")


def _prepare(running: Broker) -> None:
    """Groups that have committed something, and members that stay."""
    features = [
        {"feature": f"{name}.version", "max_version_level": 1, "upgrade_type": 1} for name in ("share", "streams")
    ]
    with running.wire() as wire:
        done = wire.ask("UpdateFeatures", 1, {"timeout": 20000, "feature_updates": features})
        assert not done["error_code"], done
        for group in (asked.OPEN_GROUP, asked.SECRET_GROUP):
            _commit(wire, group)
        for kind, groups in asked.READERS.items():
            for group, topics in zip(groups, (["open"], ["open", "secret"]), strict=True):
                _join(wire, kind, group, topics)
        _join(wire, "ShareGroup", asked.SHARE_GROUP, ["open", "secret"])
        _join(wire, "ShareGroup", asked.SHARE_GROUP, None)
        _settle(lambda: _coordinator(wire, asked.OPEN_TXN))
        _settle(lambda: _begin(wire))


def _settle(attempt: Callable[[], int]) -> None:
    """Until it gives no error: a broker makes its own topics when the first one asks for them."""
    end = time.monotonic() + 30
    while code := attempt():
        assert time.monotonic() < end, code
        time.sleep(0.05)


def _coordinator(wire: Wire, transaction: str) -> int:
    found = wire.ask("FindCoordinator", 4, {"key_type": 1, "coordinator_keys": [transaction]})
    return int(found["coordinators"][0]["error_code"])


def _begin(wire: Wire) -> int:
    """A transaction with two topics in it."""
    made = wire.ask("InitProducerId", 4, {"transactional_id": asked.RUNNING, "transaction_timeout": 600000})
    if made["error_code"]:
        return int(made["error_code"])
    tree = {
        "v3_and_below_transactional_id": asked.RUNNING,
        "v3_and_below_producer_id": made["producer_id"],
        "v3_and_below_producer_epoch": made["producer_epoch"],
        "v3_and_below_topics": [{"name": name, "partitions": [0]} for name in ("open", "secret")],
    }
    found = wire.ask("AddPartitionsToTxn", 3, tree)["results_by_topic_v3_and_below"]
    return max(int(part["partition_error_code"]) for row in found for part in row["results_by_partition"])


def _join(wire: Wire, kind: str, group: str, topics: list[str] | None) -> None:
    """Become a member that reads `topics`; None: leave."""
    tree = {
        "group_id": group,
        "member_id": asked.MEMBER,
        "member_epoch": 0 if topics else -1,
        "subscribed_topic_names": topics,
    }
    if kind == "ConsumerGroup":
        tree |= {"rebalance_timeout": 60000, "topic_partitions": []}
    _settle(lambda: int(wire.ask(f"{kind}Heartbeat", 1, tree)["error_code"]))


def _commit(wire: Wire, group: str) -> None:
    topics = [{"name": name, "partitions": [{"committed_leader_epoch": -1}]} for name in ("open", "secret")]
    tree = {"group_id": group, "generation_id_or_member_epoch": -1, "topics": topics}

    def attempt() -> int:
        wire.ask("FindCoordinator", 4, {"coordinator_keys": [group]})
        found = wire.ask("OffsetCommit", 8, tree)["topics"]
        return max(int(part["error_code"]) for row in found for part in row["partitions"])

    _settle(attempt)


if __name__ == "__main__":
    write(record())
