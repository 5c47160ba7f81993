"""Flow records of Kafka requests; see test_flowjson.py."""

from __future__ import annotations

from typing import Any

from l7proxy.ops import KafkaCall, KafkaRequest, Record
from policies.verdict import L7Decision, Verdict
from tests.conversations import changed
from tests.rim.test_flowjson import ALLOWED, REFUSED, encoder, l7, parsed


def kafka(decision: L7Decision = ALLOWED, code: int = 0, answered: bool = True, **changes: Any) -> Record:
    topics = (("orders", Verdict.FORWARDED), ("payments", decision.verdict))
    facts = {"api": "Produce", "version": 9, "client_id": "shop", "topics": topics, **changes}
    return Record(KafkaRequest(decision, **facts), code, 10.0, 10.0012, KafkaCall(7, answered))


def test_a_kafka_request() -> None:
    flow = l7(kafka())
    assert (flow["verdict"], flow["l7"]["type"]) == ("FORWARDED", "RESPONSE")
    assert flow["l7"]["kafka"] == {"api_version": 9, "api_key": "Produce", "correlation_id": 7, "topic": "orders"}
    passed = [{"name": name, "verdict": "FORWARDED"} for name in ("orders", "payments")]
    assert flow["extensions"]["value"]["l7proxy"]["kafka"] == {"client_id": "shop", "topics": passed}
    assert flow["Summary"] == "Kafka response Produce correlation id 7 topic 'orders' return code 0 (1ms)"


def test_a_refused_kafka_request() -> None:
    flow = l7(kafka(REFUSED, 29, False))
    assert (flow["verdict"], flow["l7"]["type"], flow["drop_reason_desc"]) == ("DROPPED", "REQUEST", "POLICY_DENIED")
    assert flow["l7"]["kafka"]["error_code"] == 29
    assert flow["extensions"]["value"]["l7proxy"]["kafka"]["topics"][1] == {"name": "payments", "verdict": "DROPPED"}
    unread = l7(kafka(REFUSED, 0, False, api="", topics=()))
    assert unread["drop_reason_desc"] == "INVALID_PACKET_DROPPED" and "topic" not in unread["l7"]["kafka"]
    assert unread["Summary"] == "Kafka request  correlation id 7 (no response, 1ms)"


def test_kafka_requests_that_ask_for_the_same_have_correlation_ids_of_their_own() -> None:
    one, first = encoder(), kafka(groups=("g",), transactional_ids=("t",))
    flows = [parsed(one.l7(changed(first, call=KafkaCall(number, True)), 1.0)) for number in (0, -1, 2**31 - 1)]
    assert [flow["l7"]["kafka"]["correlation_id"] for flow in flows] == [0, -1, 2**31 - 1]
    assert flows[0]["extensions"]["value"]["l7proxy"]["kafka"]["transactional_ids"] == ["t"]
