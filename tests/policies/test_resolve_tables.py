"""Tables of ports and signatures of peers: shared, and quick with thousands."""

from __future__ import annotations

import textwrap
import time
from ipaddress import ip_network

from policies.identity import Identity, cidr, reserved, workload
from policies.resolve import Resolver, cidr_prefixes
from tests.policies.texts import (
    ABROAD,
    ALLOW,
    API,
    BATCH,
    DENY,
    DESK,
    HOST,
    INGRESS,
    OFFICE,
    PROXY,
    WEB,
    WORLD,
    api,
    http,
    load,
    resolver,
    to_api,
)


def test_a_table_reads_as_expected() -> None:
    found = resolver(
        api(f"ingress: [{{fromEndpoints: [{{}}], toPorts: [{http('/a')}, {{ports: [{{port: '0', protocol: UDP}}]}}]}}]")
    )
    rows = [(row.protocol, row.low, row.high, row.decision.kind) for row in found.table(INGRESS, API, WEB)]
    assert rows == [
        ("TCP", 0, 79, DENY),
        ("TCP", 80, 80, PROXY),
        ("TCP", 81, 65535, DENY),
        ("UDP", 0, 65535, ALLOW),
        ("SCTP", 0, 65535, DENY),
        ("OTHER", 0, 65535, DENY),
    ]


def test_signatures_are_equal_where_the_rules_are() -> None:
    found = resolver(api("ingress: [{fromEndpoints: [{}]}, {fromCIDR: [10.0.0.0/8]}]"))

    def sign(one: Identity) -> object:
        return found.peer_signature(INGRESS, API, one)

    assert sign(WEB) == sign(BATCH) != sign(WORLD)
    assert sign(OFFICE) == sign(DESK) != sign(WEB)
    assert sign(HOST) == sign(WORLD) == sign(reserved("unknown")) == sign(ABROAD)
    assert found.table(INGRESS, API, WEB) is found.table(INGRESS, API, BATCH)


def test_identities_are_told_apart_by_labels_and_not_by_number() -> None:
    found = resolver(api("ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]"))
    assert to_api(found, workload(0, {"app": "web"})).kind is ALLOW
    assert to_api(found, workload(0, {"app": "batch"})).kind is DENY


def test_thousands_of_prefixes_share_their_tables() -> None:
    networks = [ip_network((10 << 24 | number << 8, 24)) for number in range(5000)]
    text = "ingress: [{fromCIDR: [" + ", ".join(map(str, networks)) + "]}]"
    policies = load(api(text))
    assert cidr_prefixes(policies) == set(networks)
    found = Resolver(policies)
    started = time.process_time()
    tables = {id(found.table(INGRESS, API, cidr(32768 + n, one))) for n, one in enumerate(networks)}
    assert len(tables) == 1
    assert time.process_time() - started < 3


def test_ten_thousand_ports_make_a_table_in_seconds() -> None:
    entries = textwrap.indent(
        "".join(f"- ports: [{{port: '{n}', protocol: TCP}}]\n" for n in range(1, 20_001, 2)), "  "
    )
    found = resolver(api(f"ingress:\n- toPorts:\n{entries}"))
    started = time.process_time()
    rows = [row for row in found.table(INGRESS, API, WEB) if row.protocol == "TCP"]
    assert time.process_time() - started < 3
    assert len(rows) == 20_001 and sum(row.decision.kind is ALLOW for row in rows) == 10_000


def test_prefixes_and_exceptions_are_named() -> None:
    policies = load(
        api("ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]\negressDeny: [{toCIDR: ['::/0']}]")
    )
    assert cidr_prefixes(policies) == {ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16"), ip_network("::/0")}
