"""Kafka rules that are likely mistakes: they hold nothing, or more or less than their author meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from parsers.kafka_schema import APIS
from policies.check_grpc import Remark
from policies.kafka_apis import ADMINISTRATION, API_VERSIONS, NAMING, Names, Scope, api_name, asked, scope
from policies.model import KafkaRule, PortRule
from policies.verdict import RuleRef

_KEYS = {Names.TOPIC: "topic", Names.GROUP: "group", Names.TRANSACTION: "transactional id"}
_CILIUM = "to Cilium it allows every API without a topic, such as ACLs, quotas and the deletion of groups, as well"


def kafka_remarks(entry: PortRule, deny: bool) -> Iterator[tuple[RuleRef, Remark]]:
    """What is odd about the rules of one entry."""
    rules: Sequence[Any] = entry.rules or ()
    scopes = [scope(rule, deny=deny) for rule in rules]
    for rule, about in zip(rules, scopes, strict=True):
        for remark in _rule(rule, about, deny):
            yield rule.ref, remark
    if deny:
        return
    bare = next((rule for rule, about in zip(rules, scopes, strict=True) if about.bare and rule.topics), None)
    if bare is not None:
        text = "a topic alone allows its use and what clients need around it, and no administration"
        yield bare.ref, ("note", f"{text}; {_CILIUM}")
    if not any(about.holds(API_VERSIONS, Names(0)) for about in scopes):
        yield entry.ref, ("note", "no rule here allows ApiVersions, with which clients begin (both roles do)")


def _rule(rule: KafkaRule, about: Scope, deny: bool) -> Iterator[Remark]:
    apis = frozenset(APIS) if about.apis is None else about.apis
    if rule.version is not None and not any(APIS[api].knows(rule.version) for api in apis):
        known = f"no API of this rule has version {rule.version}"
        if rule.api is not None:
            known = f"{api_name(rule.api)} has versions {APIS[rule.api].low} to {APIS[rule.api].high}"
        yield "warning", f"never matches: {known}"
    for names in asked(rule):
        if any(names in NAMING.get(api, Names(0)) for api in apis):
            continue
        who = api_name(rule.api) if rule.api is not None else f"what role {rule.role} is about"
        if deny or apis <= ADMINISTRATION:
            yield "warning", f"never matches: {who} names no {_KEYS[names]}"
        else:
            yield "warning", f"its {_KEYS[names]} restricts nothing: {who} names none"
