"""Kafka's APIs as policies see them: which ones a role needs, what each one names, and what is administration.

Roles are Cilium's (produce: 0, 3, 18; consume: 1, 2, 3, 8 to 14, 18), with what clients of today need for the same.
Administration is what Kafka's own ACLs ask more for than READ, WRITE and DESCRIBE of a topic, group or transaction.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntFlag
from functools import cache

from parsers.kafka_schema import APIS, BY_NAME, Api
from policies.model import KafkaRole, KafkaRule

_ALIASES = {"offsets": "listoffsets"}
"""Cilium's names of APIs that are not Kafka's."""
_REMOVED = ("leaderandisr", "stopreplica", "updatemetadata", "controlledshutdown")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")


class Names(IntFlag):
    """What a request or a rule names."""

    TOPIC = 1
    GROUP = 2
    TRANSACTION = 4


def _keys(names: str) -> frozenset[int]:
    return frozenset(BY_NAME[name.lower()].key for name in names.split())


API_VERSIONS = BY_NAME["apiversions"].key
NEVER = _keys(
    "Vote BeginQuorumEpoch EndQuorumEpoch AlterPartition Envelope FetchSnapshot BrokerRegistration BrokerHeartbeat"
    " AllocateProducerIds ControllerRegistration AssignReplicasToDirs UpdateRaftVoter"
)
"""What only controllers serve: brokers close the connection on it, and no rule allows it."""
_AROUND = _keys(
    "ApiVersions SaslHandshake SaslAuthenticate Metadata DescribeTopicPartitions DescribeCluster FindCoordinator"
    " GetTelemetrySubscriptions PushTelemetry"
)
_MEMBERS = _keys(
    "JoinGroup SyncGroup Heartbeat LeaveGroup ConsumerGroupHeartbeat ShareGroupHeartbeat StreamsGroupHeartbeat"
)
_PRODUCERS = _keys("InitProducerId AddOffsetsToTxn EndTxn")
ROLES: Mapping[KafkaRole, frozenset[int]] = {
    KafkaRole.PRODUCE: _AROUND | _PRODUCERS | _keys("Produce AddPartitionsToTxn ListOffsets"),
    KafkaRole.CONSUME: _AROUND
    | _MEMBERS
    | _keys("Fetch ListOffsets OffsetForLeaderEpoch OffsetCommit TxnOffsetCommit OffsetFetch")
    | _keys("ShareFetch ShareAcknowledge"),
}
"""What an allow rule with a role allows; a deny rule refuses what of it the other role has no need of. TxnOffsetCommit
names the topics that were read. To Kafka's ACLs too whoever may write to a topic may ask for its offsets: consumers
in Python that are refused them ask again for ever, and never come to a Fetch, whose refusal they tell."""
BASE = _AROUND | _MEMBERS | _PRODUCERS
"""What clients need around the requests that name something."""
ADMINISTRATION = _keys(
    "CreateTopics DeleteTopics DeleteRecords CreatePartitions DescribeConfigs AlterConfigs IncrementalAlterConfigs"
    " AlterReplicaLogDirs DescribeLogDirs ElectLeaders AlterPartitionReassignments ListPartitionReassignments"
    " DescribeQuorum WriteTxnMarkers DeleteGroups OffsetDelete DeleteShareGroupOffsets InitializeShareGroupState"
    " ReadShareGroupState WriteShareGroupState DeleteShareGroupState ReadShareGroupStateSummary"
)
"""What names topics or groups and is not allowed by naming these alone: its API must be named."""
SWEEPING = _keys("ElectLeaders")
"""What changes every topic if it names none."""

_T, _G, _X = Names.TOPIC, Names.GROUP, Names.TRANSACTION
_NAMING = {
    _T: "Fetch ListOffsets Metadata CreateTopics DeleteTopics DeleteRecords OffsetForLeaderEpoch WriteTxnMarkers"
    " AlterReplicaLogDirs DescribeLogDirs CreatePartitions ElectLeaders AlterPartitionReassignments"
    " ListPartitionReassignments DescribeQuorum DescribeProducers DescribeTopicPartitions",
    _G: "JoinGroup SyncGroup Heartbeat LeaveGroup DescribeGroups ListGroups DeleteGroups",
    _X: "InitProducerId EndTxn ListTransactions",
    _T | _G: "OffsetCommit OffsetFetch OffsetDelete DescribeConfigs AlterConfigs IncrementalAlterConfigs"
    " ConsumerGroupHeartbeat ConsumerGroupDescribe ShareGroupHeartbeat ShareGroupDescribe StreamsGroupHeartbeat"
    " StreamsGroupDescribe ShareFetch ShareAcknowledge DescribeShareGroupOffsets AlterShareGroupOffsets"
    " DeleteShareGroupOffsets InitializeShareGroupState ReadShareGroupState WriteShareGroupState"
    " DeleteShareGroupState ReadShareGroupStateSummary",
    _T | _X: "Produce AddPartitionsToTxn DescribeTransactions",
    _G | _X: "FindCoordinator AddOffsetsToTxn",
    _T | _G | _X: "TxnOffsetCommit",
}
NAMING: Mapping[int, Names] = {key: names for names, text in _NAMING.items() for key in _keys(text)}
"""What requests of an API name, or their answers list."""
_OWNERS: Mapping[Names, frozenset[int]] = {
    # A group's description tells the topics of its members, and a transaction's those that are in it; naming a topic
    # does not give these away.
    _T: frozenset(key for key, names in NAMING.items() if _T in names)
    - _keys("ConsumerGroupDescribe ShareGroupDescribe StreamsGroupDescribe DescribeTransactions"),
    _G: frozenset(key for key, names in NAMING.items() if _G in names),
    _X: frozenset(key for key, names in NAMING.items() if _X in names),
}
_ALLOWED = frozenset(APIS) - NEVER


@dataclass(frozen=True, slots=True)
class Scope:
    """The APIs that a rule is about (None: all, known or not), and what it asks about. With `bare` that alone says
    which APIs: then a request for a topic must name something of it. So must administration, which without names is
    about brokers or about everything."""

    apis: frozenset[int] | None
    names: Names
    bare: bool = False

    def holds(self, api: int, named: Names) -> bool:
        """Whether the rule is about a request of an API that names this."""
        if not self.names & named and ((self.bare and Names.TOPIC in named) or (self.names and api in ADMINISTRATION)):
            return False
        return self.apis is None or api in self.apis

    def covers(self, other: Scope) -> bool:
        """Whether all that another scope holds is held."""
        if self.apis is not None and (other.apis is None or not other.apis <= self.apis):
            return False
        if self.bare and Names.TOPIC not in self.names:
            return other.bare and other.names == self.names
        administers = other.apis is None or not other.apis.isdisjoint(ADMINISTRATION)
        return not (self.names and administers) or other.names == self.names


def asked(rule: KafkaRule) -> Names:
    """What a rule asks about."""
    fields = ((_T, rule.topics), (_G, rule.groups), (_X, rule.transactional_ids))
    return Names(sum(name for name, globs in fields if globs is not None))


def scope(rule: KafkaRule, *, deny: bool) -> Scope:
    """What a rule is about, as an allow or a deny rule."""
    names = asked(rule)
    return _scope(rule.api, rule.role, names, deny)


@cache
def _scope(api: int | None, role: KafkaRole | None, names: Names, deny: bool) -> Scope:
    if api is not None:
        return Scope(frozenset((api,)), names)
    if role is not None:
        others = (apis for other, apis in ROLES.items() if deny and other is not role)
        return Scope(ROLES[role].difference(*others), names)
    if deny or not names:
        return Scope(None if deny else _ALLOWED, names)
    return Scope(BASE | (_united(_OWNERS[one] for one in names) - ADMINISTRATION), names, bare=True)


def _united(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset[int]().union(*sets)


def api_name(key: int) -> str:
    """An API's name as Kafka writes it."""
    return APIS[key].name if key in APIS else f"API {key}"


def find_api(text: str) -> Api | None:
    """An API by its name, in any case, or its key as a text."""
    name = text.lower()
    if _NUMBER.fullmatch(name):
        return APIS.get(int(name))
    return BY_NAME.get(_ALIASES.get(name, name))


def unknown_api(text: str) -> str:
    """What is told of an API that there is none of."""
    if text.lower() in _REMOVED:
        return f"no broker has {text!r} any longer"
    close = difflib.get_close_matches(text.lower(), BY_NAME, 1)
    hint = f", did you mean {BY_NAME[close[0]].name}?" if close else " (names are Kafka's own, such as Produce)"
    return f"no API is named {text[:100]!r}{hint}"
