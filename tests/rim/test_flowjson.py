"""Flow records are Hubble's: valid JSON whatever a client sends, no field that flow.proto does not have, no secret."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from operator import is_
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.config import FlowLogConfig, RedactConfig
from l7proxy.flowjson import MAX_LINE, ConnectionEncoder, FlowEncoder, lost_line, timestamp
from l7proxy.flowparts import MAX_TEXT, REDACTED
from l7proxy.ops import Carried, CqlCall, CqlStatement, Grpc, KafkaCall, KafkaRequest, Record, Request
from parsers.facts import CqlRequest
from policies.identity import cidr, reserved, workload
from policies.verdict import L7Decision, RuleRef, Verdict
from sockmap.events import Event
from tests.conversations import changed

RULE = RuleRef("default/api-policy", "ingress[0].toPorts[0].rules.http[0]", "policies/api.yaml", 12)
ALLOWED = L7Decision(Verdict.FORWARDED, RULE, "a rule allows it")
REFUSED = L7Decision(Verdict.DROPPED, None, "no rule allows GET /secret")
FRONTEND = workload(256, {"app": "frontend"})
API = workload(257, {"app": "api", "io.kubernetes.pod.namespace": "prod"})

# What messages of flow.proto may hold, by the path they have in a record; a value of None is a scalar.
ENDPOINT = dict.fromkeys(["ID", "identity", "namespace", "labels", "pod_name"])
PORTS = {"source_port": None, "destination_port": None, "flags": dict.fromkeys(["SYN", "ACK", "FIN", "RST", "PSH"])}
POLICY = dict.fromkeys(["name", "namespace", "kind", "labels", "revision"])
CALL = dict.fromkeys(["service", "method", "status", "status_name", "request_messages", "response_messages"])
CARRIED = dict.fromkeys(["straight", "relayed", "by_stack_in", "by_stack_out"])
NAMED: dict[str, Any] = {
    **dict.fromkeys(["client_id", "more_topics", "groups", "transactional_ids"]),
    "topics": {"name": None, "verdict": None},
}
CQL: dict[str, Any] = {
    **dict.fromkeys(["opcode", "kind", "prepared", "more_actions", "statement", "consistency", "error_code", "stream"]),
    "actions": dict.fromkeys(["action", "keyspace", "table", "verdict"]),
}
OWN = {
    **dict.fromkeys(["policy", "rule", "file", "line", "reason"]),
    "grpc": CALL,
    "kafka": NAMED,
    "cassandra": CQL,
    "carried": {"requests": CARRIED, "responses": CARRIED},
}
FLOW: dict[str, Any] = {
    **dict.fromkeys(["time", "verdict", "drop_reason", "Type", "node_name", "traffic_direction", "drop_reason_desc"]),
    **dict.fromkeys(["is_reply", "Summary"]),
    "IP": dict.fromkeys(["source", "destination", "ipVersion"]),
    "l4": {"TCP": PORTS, "UDP": PORTS, "SCTP": PORTS, "ICMPv4": {"type": None, "code": None}},
    "source": ENDPOINT,
    "destination": ENDPOINT,
    "l7": {
        "type": None,
        "latency_ns": None,
        "http": {**dict.fromkeys(["code", "method", "url", "protocol"]), "headers": {"key": None, "value": None}},
        "kafka": dict.fromkeys(["error_code", "api_version", "api_key", "correlation_id", "topic"]),
    },
    "event_type": {"type": None, "sub_type": None},
    "extensions": {"@type": None, "value": {"l7proxy": OWN}},
    **dict.fromkeys([f"{way}_{what}_by" for way in ("ingress", "egress") for what in ("allowed", "denied")], POLICY),
}
LINE: dict[str, Any] = {"flow": FLOW, "node_name": None, "time": None}
LINE["flow"]["l4"]["ICMPv6"] = LINE["flow"]["l4"]["ICMPv4"]


def check_schema(value: Any, schema: Any, path: str = "") -> None:
    for item in value if isinstance(value, list) else [value]:
        if schema is None:
            assert not isinstance(item, dict), path
            continue
        assert set(item) <= set(schema), path
        for key, child in item.items():
            check_schema(child, schema[key], f"{path}.{key}")


def encoder(config: FlowLogConfig | None = None) -> ConnectionEncoder:
    return FlowEncoder("node-1", config).connection(
        (FRONTEND, 3, "frontend"), (API, 4, "api"), ("10.77.0.2", 4000), ("10.77.0.3", 80)
    )


def record(decision: L7Decision = ALLOWED, url: str = "/public/x", code: int = 200, **changes: Any) -> Record:
    return Record(Request(decision, "GET", url, **{"host": "api", **changes}), code, 10.0, 10.0012)


def parsed(line: bytes) -> dict[str, Any]:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    value: dict[str, Any] = json.loads(line)
    check_schema(value, LINE)
    flow: dict[str, Any] = value["flow"]
    assert value["node_name"] == flow["node_name"]
    assert value["time"] == flow["time"]
    return flow


def l7(one: Record, config: FlowLogConfig | None = None) -> dict[str, Any]:
    return parsed(encoder(config).l7(one, 1764093600.123456))


def test_an_allowed_request() -> None:
    flow = l7(record())
    assert flow["time"] == "2025-11-25T18:00:00.123456Z"
    assert (flow["verdict"], flow["Type"], flow["traffic_direction"]) == ("FORWARDED", "L7", "INGRESS")
    assert flow["IP"] == {"source": "10.77.0.2", "destination": "10.77.0.3", "ipVersion": "IPv4"}
    assert flow["l4"] == {"TCP": {"source_port": 4000, "destination_port": 80}}
    assert flow["source"]["labels"] == ["k8s:app=frontend", "k8s:io.kubernetes.pod.namespace=default"]
    assert flow["destination"]["namespace"] == "prod"
    assert (flow["destination"]["ID"], flow["destination"]["identity"]) == (4, 257)
    assert flow["l7"]["type"] == "RESPONSE"
    assert int(flow["l7"]["latency_ns"]) == pytest.approx(1_200_000, abs=1)
    http = {"code": 200, "method": "GET", "url": "http://api/public/x", "protocol": "HTTP/1.1"}
    assert flow["l7"]["http"] == http
    policy = {"name": "api-policy", "namespace": "default", "kind": "CiliumNetworkPolicy"}
    assert flow["ingress_allowed_by"] == [policy]
    own = flow["extensions"]["value"]["l7proxy"]
    assert own == {
        "reason": "a rule allows it",
        "policy": "default/api-policy",
        "rule": RULE.rule,
        "file": "policies/api.yaml",
        "line": 12,
    }
    assert flow["Summary"] == "HTTP/1.1 200 1ms (GET http://api/public/x)"


def test_a_refused_request() -> None:
    flow = l7(record(REFUSED, code=403))
    assert (flow["verdict"], flow["l7"]["type"], flow["l7"]["http"]["code"]) == ("DROPPED", "REQUEST", 403)
    assert (flow["drop_reason"], flow["drop_reason_desc"]) == (133, "POLICY_DENIED")
    assert "ingress_denied_by" not in flow
    assert l7(record(REFUSED, code=400))["drop_reason_desc"] == "INVALID_PACKET_DROPPED"


def test_denied_by_a_clusterwide_rule_on_egress() -> None:
    rule = RuleRef("lockdown", "egressDeny[0]", "p.yaml", 3)
    flow = l7(record(L7Decision(Verdict.DROPPED, rule, "a deny rule", None, "egress"), code=403))
    assert flow["egress_denied_by"] == [{"name": "lockdown", "kind": "CiliumClusterwideNetworkPolicy"}]
    assert (flow["drop_reason_desc"], flow["traffic_direction"]) == ("POLICY_DENY", "EGRESS")


def test_an_audited_request_has_its_answer() -> None:
    flow = l7(record(L7Decision(Verdict.AUDIT, None, "no rule allows it")))
    assert (flow["verdict"], flow["l7"]["type"]) == ("AUDIT", "RESPONSE")
    assert "drop_reason_desc" not in flow


def test_no_answer_came() -> None:
    flow = l7(record(code=0))
    assert flow["l7"]["type"] == "REQUEST"
    assert "code" not in flow["l7"]["http"]
    assert flow["Summary"] == "HTTP/1.1 GET http://api/public/x (no response, 1ms)"


def test_equal_requests_of_other_decisions_do_not_mix() -> None:
    one = encoder()
    for _ in range(2):
        assert parsed(one.l7(record(), 1.0))["verdict"] == "FORWARDED"
        assert parsed(one.l7(record(REFUSED), 1.0))["verdict"] == "DROPPED"
        assert parsed(one.l7(record(code=500), 1.0))["l7"]["http"]["code"] == 500
        made = L7Decision(Verdict.AUDIT, None, "made anew each time, so that ids come again")
        assert parsed(one.l7(record(made), 1.0))["verdict"] == "AUDIT"
        del made


def call(status: int = 0, requests: int = 1, responses: int = 1, **changes: Any) -> Record:
    url = "/orders.v1.Orders/GetOrder"
    one = record(**{"url": url, "protocol": "HTTP/2", **changes})
    return changed(one, call=Grpc("orders.v1.Orders", "GetOrder", status, requests, responses))


def test_a_grpc_call() -> None:
    flow = l7(call())
    http = {"code": 200, "method": "GET", "url": "http://api/orders.v1.Orders/GetOrder", "protocol": "HTTP/2"}
    assert (flow["verdict"], flow["l7"]["type"], flow["l7"]["http"]) == ("FORWARDED", "RESPONSE", http)
    own = flow["extensions"]["value"]["l7proxy"]
    assert own.pop("grpc") == {
        "service": "orders.v1.Orders",
        "method": "GetOrder",
        "status": 0,
        "status_name": "OK",
        "request_messages": 1,
        "response_messages": 1,
    }
    assert own == l7(record())["extensions"]["value"]["l7proxy"]
    assert flow["Summary"] == "gRPC OK 1ms (orders.v1.Orders/GetOrder, 1 -> 1 messages)"


def test_a_refused_call() -> None:
    flow = l7(call(7, 0, 0, decision=REFUSED))
    assert (flow["verdict"], flow["l7"]["type"], flow["drop_reason_desc"]) == ("DROPPED", "REQUEST", "POLICY_DENIED")
    assert flow["extensions"]["value"]["l7proxy"]["grpc"]["status_name"] == "PERMISSION_DENIED"
    assert flow["Summary"] == "gRPC PERMISSION_DENIED 1ms (orders.v1.Orders/GetOrder, 0 -> 0 messages)"
    assert l7(call(-1, code=400, decision=REFUSED))["drop_reason_desc"] == "INVALID_PACKET_DROPPED"


def test_calls_that_ended_in_other_ways() -> None:
    flow = l7(call(-1, 3, 2, code=0))
    assert flow["l7"]["type"] == "REQUEST"
    facts = flow["extensions"]["value"]["l7proxy"]["grpc"]
    assert facts == {"service": "orders.v1.Orders", "method": "GetOrder", "request_messages": 3, "response_messages": 2}
    assert flow["Summary"] == "gRPC no status 1ms (orders.v1.Orders/GetOrder, 3 -> 2 messages)"
    for status, name in ((16, "UNAUTHENTICATED"), (17, "17")):
        facts = l7(call(status))["extensions"]["value"]["l7proxy"]["grpc"]
        assert (facts["status"], facts["status_name"]) == (status, name)


def test_calls_of_one_request_have_numbers_of_their_own_and_share_their_text() -> None:
    flows = FlowEncoder("n")
    one = flows.connection((FRONTEND, 3, "f"), (API, 4, "a"), ("10.0.0.1", 1), ("10.0.0.2", 2))
    first = call()
    for count in range(1, 5):
        numbers = Grpc("orders.v1.Orders", "GetOrder", count, count, 2 * count)
        flow = parsed(one.l7(changed(first, ended=10.0 + count, call=numbers), 1.0))
        facts = flow["extensions"]["value"]["l7proxy"]["grpc"]
        shown = [facts[name] for name in ("status", "request_messages", "response_messages")]
        assert shown == [count, count, 2 * count]
        assert f" {count}000ms (" in flow["Summary"] and f"{count} -> {2 * count} messages" in flow["Summary"]
        key = (first.request, first.code)
        assert all(map(is_, flows.grpc_parts(key, numbers), flows.grpc_parts(key, first.call or numbers)))
    assert "grpc" not in parsed(one.l7(changed(first, call=None), 1.0))["extensions"]["value"]["l7proxy"]


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("http://other/x?y=1", "api", "http://other/x?y=1"),
        ("*", "api", "*"),
        ("/x", "", "/x"),
        ("http://user:pw@api/x", "api", f"http://{REDACTED}@api/x"),
        ("/x", "user:pw@api", f"http://{REDACTED}@api/x"),
        ("/a@b", "api", "http://api/a@b"),
    ],
)
def test_urls(url: str, host: str, expected: str) -> None:
    assert l7(record(url=url, host=host))["l7"]["http"]["url"] == expected


def test_secrets_are_left_out() -> None:
    secret = (("Authorization", "Basic s3cret"), ("cookie", "s3cret"), ("set-cookie", "s3cret"), ("accept", "a"))
    headers = (*secret, ("x-key", "s3cret"), ("referer", "/y?s3cret"))
    refused = L7Decision(Verdict.DROPPED, None, "no rule allows /x?token=s3cret#s3cret")
    one = record(refused, "/x?token=s3cret#s3cret", headers=headers)
    line = encoder(FlowLogConfig(redact=RedactConfig(True, ("X-Key",)))).l7(one, 1.0)
    assert b"s3cret" not in line
    flow = parsed(line)
    assert flow["l7"]["http"]["url"] == "http://api/x"
    assert {"key": "accept", "value": "a"} in flow["l7"]["http"]["headers"]
    assert {"key": "x-key", "value": REDACTED} in flow["l7"]["http"]["headers"]
    assert "token=s3cret" in l7(one)["l7"]["http"]["url"]


def test_a_huge_request_gives_a_line_that_hubble_can_read() -> None:
    flow = l7(record(url="/" + "a" * 100_000))
    assert len(flow["l7"]["http"]["url"]) == MAX_TEXT + 3
    assert len(flow["Summary"]) < 1000
    huge = "\x80" * 60_000
    refused = L7Decision(Verdict.DROPPED, RULE, huge)
    headers = tuple((huge, huge) for _ in range(100))
    line = encoder().l7(Record(Request(refused, huge, huge, huge, huge, headers), 403, 1.0, 2.0), 1.0)
    assert len(line) < MAX_LINE
    long = Record(Request(refused, huge, huge, huge, huge, headers), 403, 1.0, 2.0, Grpc(huge, huge, 10**9, 1, 1))
    assert len(encoder().l7(long, 1.0)) < MAX_LINE
    names, topics = (huge,) * 1000, ((huge, Verdict.DROPPED),) * 1000
    asked = KafkaRequest(refused, huge, 1, huge, topics, 5, names, names)
    named = encoder().l7(Record(asked, 29, 1.0, 2.0, KafkaCall(1, False)), 1.0)
    own = parsed(named)["extensions"]["value"]["l7proxy"]["kafka"]
    assert len(named) < MAX_LINE and len(own["topics"]) + own["more_topics"] == 1005
    assert parsed(line)["l7"]["http"]["headers"][-1] == {"key": "", "value": "99 more"}
    actions = ((CqlRequest(huge, huge, huge), Verdict.DROPPED),) * 1000
    statement = CqlStatement(refused, huge, huge, actions, 5, True, huge)
    line = encoder().l7(Record(statement, 0x2100, 1.0, 2.0, CqlCall(1, 99, False)), 1.0)
    own = parsed(line)["extensions"]["value"]["l7proxy"]["cassandra"]
    assert len(line) < MAX_LINE and len(own["actions"]) + own["more_actions"] == 1005


text = st.text(st.characters(exclude_categories=()), max_size=40) | st.binary(max_size=40).map(
    lambda raw: raw.decode("latin-1")
)


@given(text, text, text, text, st.lists(st.tuples(text, text), max_size=3), st.integers(0, 999), st.floats(0, 4e9))
def test_any_bytes_give_valid_json(
    method: str, url: str, host: str, protocol: str, headers: list[tuple[str, str]], code: int, when: float
) -> None:
    one = Record(Request(ALLOWED, method, url, protocol, host, tuple(headers)), code, 5.0, 4.0)
    encode = encoder()
    for _ in range(2):
        flow = parsed(encode.l7(one, when))
    other = parsed(encode.l7(changed(one, call=Grpc(host, url, code - 1, 1, 1)), when))
    assert other["l7"] == flow["l7"]
    valid = method.encode("utf-8", "replace").decode()
    assert other["extensions"]["value"]["l7proxy"]["grpc"]["service"] == host.encode("utf-8", "replace").decode()
    assert flow["l7"]["http"]["method"] == valid
    assert flow["l7"]["latency_ns"] == "0"


@given(st.floats(0, 4e9))
def test_time_is_well_formed(when: float) -> None:
    encoder_stamp = FlowEncoder("n").stamp(when)
    assert encoder_stamp == timestamp(when)
    assert len(encoder_stamp) == len("2025-11-25T18:00:00.123456Z")


PACKET = Event(
    reason="Policy denied",
    kind="drop",
    src="10.0.0.1",
    dst="10.0.0.2",
    proto=6,
    sport=1234,
    dport=80,
    src_identity=40000,
    dst_identity=257,
    endpoint_id=4,
    direction=0,
    ifindex=1,
    icmp_type=0,
    icmp_code=0,
    length=74,
    tcp_flags=2,
    time_ns=0,
    dst_endpoint=4,
)


def dropped(rule: RuleRef | None = None, **changes: Any) -> dict[str, Any]:
    identities = {40000: cidr(40000, ip_network("10.0.0.0/8")), 257: API}
    return parsed(FlowEncoder("n").drop(PACKET._replace(**changes), identities, {4: "api"}, 1764093600.5, rule))


def test_a_dropped_packet() -> None:
    flow = dropped()
    assert (flow["verdict"], flow["Type"], flow["traffic_direction"]) == ("DROPPED", "L3_L4", "INGRESS")
    assert flow["l4"]["TCP"] == {"source_port": 1234, "destination_port": 80, "flags": {"SYN": True}}
    assert (flow["drop_reason_desc"], flow["event_type"]) == ("POLICY_DENIED", {"type": 1, "sub_type": 133})
    assert flow["source"] == {"identity": 40000, "labels": ["cidr:10.0.0.0/8", "reserved:world"]}
    assert (flow["destination"]["ID"], flow["destination"]["pod_name"]) == (4, "api")
    assert (flow["Summary"], flow["time"]) == ("TCP Flags: SYN", "2025-11-25T18:00:00.500000Z")
    assert flow["extensions"]["value"]["l7proxy"] == {"reason": "Policy denied"}


def test_dropped_packets_of_other_kinds() -> None:
    flow = dropped(RULE, direction=1, src_endpoint=4, dst_endpoint=0)
    assert (flow["drop_reason_desc"], flow["egress_denied_by"][0]["name"]) == ("POLICY_DENY", "api-policy")
    assert (flow["source"]["pod_name"], "pod_name" in flow["destination"]) == ("api", False)
    assert dropped(src_identity=999)["source"] == {"identity": 999, "labels": []}
    flow = dropped(src="fd77::1", dst="fd77::2", proto=58, icmp_type=128)
    assert flow["l4"] == {"ICMPv6": {"type": 128, "code": 0}}
    assert flow["IP"]["ipVersion"] == "IPv6"
    assert dropped(proto=17)["l4"] == {"UDP": {"source_port": 1234, "destination_port": 80}}
    flow = dropped(proto=47)
    assert "l4" not in flow
    assert flow["Summary"] == "IP protocol 47"
    flow = dropped(kind="audit")
    assert (flow["verdict"], flow["event_type"]) == ("AUDIT", {"type": 5})
    assert "drop_reason" not in flow


def test_lost_events_as_hubble_prints_them() -> None:
    assert json.loads(lost_line("n", 12, 1764093600.0)) == {
        "lost_events": {"source": "OBSERVER_EVENTS_QUEUE", "num_events_lost": "12"},
        "node_name": "n",
        "time": "2025-11-25T18:00:00.000000Z",
    }


def test_a_reserved_identity() -> None:
    host = FlowEncoder("n").connection((reserved("host"), 0, ""), (API, 4, "api"), ("10.0.0.1", 1), ("10.0.0.2", 2))
    assert parsed(host.l7(record(), 1.0))["source"] == {"identity": 1, "labels": ["reserved:host"]}


def test_every_reason_of_the_datapath_has_a_word_of_hubble() -> None:
    header = (Path(__file__).parents[2] / "sockmap/bpf/reasons.h").read_text()
    reasons = re.findall(r'X\([A-Z0-9_]+, "([^"]+)"\)', header.partition("#define COUNTERS")[0])
    assert len(reasons) > 10
    for reason in reasons:
        assert dropped(reason=reason)["drop_reason"] >= 132, reason


def test_a_connection_that_is_over_says_how_its_bytes_went() -> None:
    flow = parsed(encoder().over(Carried(1000, 24, 20, 0), Carried(0, 5, 5, 5), 1.5))
    assert (flow["Type"], flow["verdict"], flow["event_type"]) == ("L3_L4", "FORWARDED", {"type": 4})
    assert flow["source"]["pod_name"] == "frontend" and flow["time"] == "1970-01-01T00:00:01.500000Z"
    assert flow["extensions"]["value"]["l7proxy"] == {
        "reason": "the connection is over",
        "carried": {
            "requests": {"straight": 1000, "relayed": 24, "by_stack_in": 20, "by_stack_out": 0},
            "responses": {"straight": 0, "relayed": 5, "by_stack_in": 5, "by_stack_out": 5},
        },
    }
    assert flow["Summary"] == "TCP over: 1000 of 1024 bytes straight, 0 of 5 bytes straight"
