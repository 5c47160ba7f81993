"""How each Kafka API says no: a table, recorded from Apache Kafka 4.1 with ACLs, for `parsers.kafka_refusals`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

TOPIC, GROUP, CLUSTER, TRANSACTION, NOT_ATTEMPTED, TOKEN, SASL_STATE = 29, 30, 31, 53, 55, 65, 34
UNKNOWN_TOPIC_ID = 100
"""Of an id that has no name, in place of `TOPIC`: clients then ask for their topics anew."""
OWN = "*"
INVALID = 42
"""Of what brokers refuse before they look at rights."""
TEXTS: Mapping[int, str] = {
    TOPIC: "Topic authorization failed.",
    GROUP: "Group authorization failed.",
    CLUSTER: "Cluster authorization failed.",
    TRANSACTION: "Transactional Id authorization failed.",
    UNKNOWN_TOPIC_ID: "This server does not host this topic ID.",
}
CLOSED = frozenset({52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82})
"""APIs of controllers and Envelope: a broker closes the connection, and no client may ever use them."""
_UNKNOWN_RIGHTS = -(1 << 31)


@dataclass(frozen=True, slots=True)
class Denial:
    """The refusal of one API.

    `array`: of the response, with an entry for each refused one of the request ("": there is none, the error stands at
    the top). `error`: where the code stands in an entry or, if there are `parts`, in each partition. `parts`: the
    request's array of partitions and the number's field in it ("": the array is of numbers); `answers`: the response's.
    `body`: what else stands beside the code. `head`: what else stands at the top.
    """

    array: str = ""
    parts: str = ""
    answers: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    error: str = "error_code"
    name: str = ""
    """The entry's field for the name, where it is not called as in the request."""
    text: str | None = None
    """The error's message: None is null, OWN is Kafka's text for the code."""
    each: str = ""
    """The request's array of entries, where they name nothing (`kafka_names.Names.entries` otherwise)."""
    scope: str = ""
    """The response's array around `array`, where it has the request's scopes."""
    whole: bool = False
    """One refused thing refuses the request: every entry gets the code."""
    top: bool = False
    """The code stands at the top as well (if this version has it there)."""
    code: int | None = None
    """The only code that this API refuses with."""
    others: int | None = None
    """The code of what is not refused itself in a request that is."""
    twice: str = ""
    """What the request names twice stands "once" in the response, with each partition once; or "joined", with the
    partitions of both; or "refused", once with the error `INVALID`; or ("") twice."""
    group: str = ""
    """Where a refused group (or transaction) stands: "top", "scope", or "" with the partitions."""


_INDEX = "partitions.partition_index"
_NOTHING: Mapping[str, Any] = {"committed_offset": -1, "committed_leader_epoch": -1, "metadata": ""}
_RIGHTS = {"authorized_operations": _UNKNOWN_RIGHTS}
_ADMIN = Denial(code=CLUSTER, text=OWN)
_SHARE_STATE = Denial("results", "partitions.partition", "partitions.partition", whole=True, code=CLUSTER, text=OWN)
_TOKEN = Denial(code=TOKEN)
_CONFIGS = Denial("responses", text=OWN)

_TABLE: Mapping[int, Denial | Mapping[int, Denial]] = {
    0: Denial(
        "responses",
        "partition_data.index",
        "partition_responses.index",
        {"base_offset": -1, "log_append_time": -1, "log_start_offset": -1},
        twice="once",
    ),
    1: Denial(
        "responses",
        "partitions.partition",
        _INDEX,
        {
            "high_watermark": -1,
            "last_stable_offset": -1,
            "log_start_offset": -1,
            "aborted_transactions": [],
            "preferred_read_replica": -1,
            "records": b"",
        },
        twice="once",
    ),
    2: Denial("topics", _INDEX, _INDEX, {"timestamp": -1, "offset": -1, "leader_epoch": -1}),
    3: Denial("topics", body={"topic_authorized_operations": _UNKNOWN_RIGHTS}, twice="once"),
    8: Denial("topics", _INDEX, _INDEX, twice="joined"),
    9: {
        1: Denial("topics", "partition_indexes.", _INDEX, _NOTHING),
        2: Denial("topics", "partition_indexes.", _INDEX, _NOTHING, group="top"),
        8: Denial("topics", "partition_indexes.", _INDEX, _NOTHING, scope="groups", group="scope"),
    },
    10: {
        0: Denial(head={"node_id": -1, "port": -1}, text=OWN),
        4: Denial("coordinators", name="key", body={"node_id": -1, "port": -1}, text=""),
    },
    11: Denial(head={"generation_id": -1}),
    15: Denial("groups", name="group_id", body=_RIGHTS),
    16: Denial(code=0),
    17: Denial(code=SASL_STATE),
    19: Denial(
        "topics",
        body={"num_partitions": -1, "replication_factor": -1, "configs": []},
        text="Authorization failed.",
        twice="refused",
    ),
    20: Denial("responses", text=OWN, twice="refused"),
    21: Denial("topics", _INDEX, _INDEX, {"low_watermark": -1}, twice="once"),
    22: Denial(
        head={"producer_id": -1, "producer_epoch": -1, "ongoing_txn_producer_id": -1, "ongoing_txn_producer_epoch": -1}
    ),
    23: Denial("topics", "partitions.partition", "partitions.partition", {"leader_epoch": -1, "end_offset": -1}),
    24: {
        0: Denial(
            "results_by_topic_v3_and_below",
            "partitions.",
            "results_by_partition.partition_index",
            error="partition_error_code",
            whole=True,
            others=NOT_ATTEMPTED,
            twice="once",
        ),
        4: Denial(code=CLUSTER),
    },
    26: Denial(head={"producer_id": -1, "producer_epoch": -1}),
    27: Denial("topics", "partition_indexes.", _INDEX, scope="markers", whole=True, code=CLUSTER),
    28: Denial("topics", _INDEX, _INDEX, twice="joined"),
    29: _ADMIN,
    30: Denial("results", each="creations", whole=True, code=CLUSTER, text=OWN),
    31: Denial("filter_results", each="filters", whole=True, code=CLUSTER, text=OWN),
    32: Denial("results", text=OWN),
    33: _CONFIGS,
    34: Denial("results", "partitions.", _INDEX, name="topic_name", whole=True, code=CLUSTER),
    35: Denial(code=CLUSTER),
    36: Denial(code=SASL_STATE),
    37: Denial("results", twice="refused"),
    38: _TOKEN,
    39: _TOKEN,
    40: _TOKEN,
    41: _TOKEN,
    42: Denial("results", name="group_id"),
    43: Denial(
        "replica_election_results",
        "partitions.",
        "partition_result.partition_id",
        text=OWN,
        whole=True,
        top=True,
        code=CLUSTER,
    ),
    44: _CONFIGS,
    45: Denial(
        "responses",
        _INDEX,
        _INDEX,
        head={"allow_replication_factor_change": True},
        text=OWN,
        whole=True,
        top=True,
        code=CLUSTER,
    ),
    46: Denial("topics", "partition_indexes.", _INDEX, text=OWN, whole=True, top=True, code=CLUSTER),
    47: Denial("topics", _INDEX, _INDEX, group="top", twice="joined"),
    48: Denial(code=CLUSTER),
    49: Denial("entries", each="entries", whole=True, code=CLUSTER, text=OWN),
    50: Denial(head={"results": [{"error_code": CLUSTER}]}, code=CLUSTER),
    51: Denial("results", each="users", whole=True, code=CLUSTER, text=OWN),
    55: _ADMIN,
    57: _ADMIN,
    60: Denial(
        head={"endpoint_type": 1, "controller_id": -1, "cluster_authorized_operations": _UNKNOWN_RIGHTS},
        code=CLUSTER,
        text=OWN,
    ),
    61: Denial("topics", "partition_indexes.", _INDEX, text=OWN),
    64: _ADMIN,
    65: Denial("transaction_states", name="transactional_id"),
    66: Denial(code=0),
    69: Denial("groups", name="group_id", body=_RIGHTS),
    74: _ADMIN,
    75: Denial("topics", body={"topic_authorized_operations": _UNKNOWN_RIGHTS}, twice="once"),
    77: Denial("groups", name="group_id", body=_RIGHTS),
    78: Denial("responses", _INDEX, _INDEX, group="top"),
    79: Denial("responses", _INDEX, _INDEX, group="top"),
    80: _ADMIN,
    81: _ADMIN,
    83: _SHARE_STATE,
    84: _SHARE_STATE,
    85: _SHARE_STATE,
    86: _SHARE_STATE,
    87: _SHARE_STATE,
    89: Denial("groups", name="group_id", body=_RIGHTS),
    90: Denial("topics", "partitions.", _INDEX, {"start_offset": -1}, text=OWN, scope="groups", group="scope"),
    91: Denial("responses", _INDEX, _INDEX, text=OWN, group="top", twice="joined"),
    92: Denial("responses", text=OWN, group="top"),
}
"""By API key; where versions differ, by the first version. APIs that are not here have the code at the top."""


@cache
def denial(key: int, version: int) -> Denial:
    """The row of an API's version."""
    row = _TABLE.get(key, Denial())
    return row if isinstance(row, Denial) else row[max(low for low in row if low <= version)]
