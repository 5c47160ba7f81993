"""What flow records say of Kafka's requests, as JSON: Hubble's ``l7.kafka``, and in our extension what it lacks."""

from __future__ import annotations

from typing import TypeAlias

from l7proxy.flowparts import END_OF_OWN, SHORT, end, fitting, kind, quote, verdict_on
from l7proxy.ops import KafkaRequest

KafkaParts: TypeAlias = tuple[str, str, str, str]
"""The text behind the latency, the correlation id, its repetition in the summary, and the summary's ms."""


def make_kafka_parts(request: KafkaRequest, code: int, answered: bool, node: str) -> KafkaParts:
    """The parts of the lines of equal requests with equal answers. `node` is quoted."""
    api, first = quote(request.api, SHORT), quote(request.topics[0][0] if request.topics else "", SHORT)
    facts = [f'"error_code":{code}'] if code else []
    facts += [f'"topic":{first}'] if request.topics else []
    facts += [f'"api_version":{request.version}', f'"api_key":{api}', '"correlation_id":']
    verdict = verdict_on(request.decision, request.decision.reason, read=request.api != "")
    word = "response" if answered else "request"
    shown = f" topic '{first[1:-1]}'" if request.topics else ""
    return (
        f'{kind(request.decision, answered)},"kafka":{{{",".join(facts)}',
        f'}}}},{verdict},"kafka":{{{_own(request)}}}{END_OF_OWN},"Summary":"Kafka {word} {api[1:-1]} correlation id ',
        f"{shown} return code {code} (" if answered or code else f"{shown} (no response, ",
        f"ms){end(node)}",
    )


def _own(request: KafkaRequest) -> str:
    parts = [f'"client_id":{quote(request.client_id, SHORT)}']
    if request.topics:
        pairs = ((f'{{"name":{quote(name, SHORT)},"verdict":"{verdict}"}}') for name, verdict in request.topics)
        shown = fitting(pairs)
        more = request.more_topics + len(request.topics) - len(shown)
        parts += [f'"topics":[{",".join(shown)}]', *([f'"more_topics":{more}'] if more else [])]
    for key, names in (("groups", request.groups), ("transactional_ids", request.transactional_ids)):
        if names:
            parts.append(f'"{key}":[{",".join(fitting(quote(name, SHORT) for name in names))}]')
    return ",".join(parts)
