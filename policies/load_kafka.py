"""``rules.kafka`` of policy files: Cilium's fields, and lists of globs of our own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from policies.document import Node
from policies.kafka_apis import NEVER, find_api, unknown_api
from policies.load_fields import Reader
from policies.model import KafkaRole, KafkaRule

_KEYS = ("role", "apiKey", "apiVersion", "clientID", "topic", "topics", "groups", "transactionalIDs")
_TOPIC = re.compile(r"[A-Za-z0-9._-]+")
_TOPIC_GLOB = re.compile(r"[A-Za-z0-9._*?-]+")
_ALPHABET = "names are of A-Z, a-z, 0-9, ., _ and -"
_LONGEST = 249
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_LAST_VERSION = 32767


def kafka_rules(reader: Reader, node: Node, deny: bool) -> tuple[KafkaRule, ...]:
    """The rules of one list, for allow or deny rules, which are written alike."""
    return tuple(_rule(reader, item) for item in reader.items(node))


def _rule(reader: Reader, node: Node) -> KafkaRule:
    fields = reader.mapping(node, _KEYS)
    api, role = _api(reader, fields.get("apiKey")), _role(reader, fields.get("role"))
    if api is not None and role is not None:
        reader.fault(node, "role and apiKey cannot stand in one rule (a role is a list of APIs; write two rules)")
    if fields.keys() >= {"topic", "topics"}:
        reader.fault(node, "topic and topics cannot stand in one rule (write all under topics)")
    return KafkaRule(
        api,
        role,
        _version(reader, fields.get("apiVersion")),
        reader.text(fields.get("clientID")) or None,
        _topic(reader, fields.get("topic")) or _globs(reader, fields, "topics"),
        _globs(reader, fields, "groups"),
        _globs(reader, fields, "transactionalIDs"),
        reader.ref(node),
    )


def _api(reader: Reader, node: Node | None) -> int | None:
    """An API's key. An empty text is not asked, as in Cilium; so it is with all of Cilium's fields."""
    text = reader.text(node)
    if node is None or not text:
        return None
    api = find_api(text)
    if api is None:
        reader.fault(node, unknown_api(text))
    elif api.key in NEVER:
        reader.fault(node, f"{api.name} is for controllers alone, and always refused: leave this rule out")
    return None if api is None else api.key


def _role(reader: Reader, node: Node | None) -> KafkaRole | None:
    text = reader.text(node)
    if node is None or not text:
        return None
    if text.lower() not in tuple(KafkaRole):
        reader.fault(node, f"role must be one of {', '.join(KafkaRole)}, not {text[:100]!r}")
        return None
    return KafkaRole(text.lower())


def _version(reader: Reader, node: Node | None) -> int | None:
    text = reader.text(node)
    if node is None or not text:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > _LAST_VERSION:
        reader.fault(node, f"apiVersion must be a number from 0 to {_LAST_VERSION}, not {text[:100]!r}")
        return None
    return int(text)


def _topic(reader: Reader, node: Node | None) -> tuple[str, ...] | None:
    text = reader.text(node)
    if node is None or not text:
        return None
    if not _TOPIC.fullmatch(text):
        hint = f"; globs are written as topics: [{text!r}]" if _TOPIC_GLOB.fullmatch(text) else ""
        reader.fault(node, f"no topic is named {text[:100]!r}: {_ALPHABET}{hint}")
    _check_topic(reader, node, text)
    return (text,)


def _globs(reader: Reader, fields: Mapping[str, Node], key: str) -> tuple[str, ...] | None:
    """The globs of a list, of which there must be one."""
    node = fields.get(key)
    if node is None:
        return None
    if node.value == []:
        reader.fault(node, f"an empty list holds nothing: leave {key} out for any")
    found = []
    for item in reader.items(node):
        text = reader.text(item)
        if text is None:
            continue
        if text == "":
            reader.fault(item, "an empty text is no name")
        elif key == "topics":
            if not _TOPIC_GLOB.fullmatch(text):
                reader.fault(item, f"no topic is named {text[:100]!r}: {_ALPHABET}, with * and ?")
            _check_topic(reader, item, text)
        found.append(text)
    return tuple(dict.fromkeys(found))


def _check_topic(reader: Reader, node: Node, text: str) -> None:
    size = len(text.replace("*", ""))
    if size > _LONGEST:
        reader.fault(node, f"a topic's name has at most {_LONGEST} characters, this has {size}")
    if text in (".", ".."):
        reader.fault(node, f"no topic may be named {text!r}")
