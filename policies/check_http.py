"""Expressions that are likely mistakes: they can never match, or match more or less than their author meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from policies.check_grpc import Remark, meant_for_grpc
from policies.model import HttpRule, PortRule
from policies.patterns import literals

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LOOSE_DOT = re.compile(r"(?<=[A-Za-z0-9-])\.(?=[A-Za-z0-9-])")
_LOOSE_START = re.compile(r"\^?\.[*+]\\?[A-Za-z0-9-]")
_PLAIN_QUERY = re.compile(r"(?<=[A-Za-z0-9/_-])\?[A-Za-z_]+=")
_WORD_FIRST = re.compile(r"\^?[A-Za-z0-9_-](?![*?{])")
_GLOB = re.compile(r"/\*")
_WORD_THEN_ANY = re.compile(r"[A-Za-z0-9]\.\*\$?\Z")
_ENCODED_PLAIN = re.compile(r"%(?:2[dDeE]|3\d|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])")
_REFUSED = re.compile(r"//|/\.\.?(?:/|\Z)|%(?:2[fF]|5[cC]|00)|[\\#\x00-\x20\x7f]")


def http_remarks(rule: HttpRule, ports: PortRule, *, deny: bool) -> Iterator[Remark]:
    """What is odd about one rule of one port list."""
    fields: tuple[tuple[str, str | None, Callable[[str], Iterator[Remark]]], ...] = (
        ("method", rule.method, _method),
        ("path", rule.path, _deny_path if deny else _path),
        ("host", rule.host, _host),
    )
    for name, pattern, remarks in fields:
        if pattern is not None:
            yield from ((severity, f"{name} {pattern!r} {text}") for severity, text in remarks(pattern))
    if rule.host is not None and not deny:
        yield from _host_port(rule.host, ports)
    if deny and rule.method is not None and "HEAD" not in (texts := literals(rule.method) or ()) and "GET" in texts:
        yield "note", f"method {rule.method!r} leaves HEAD, which servers answer like GET"


def _method(pattern: str) -> Iterator[Remark]:
    texts = literals(pattern) or ()
    if texts and not any(_TOKEN.fullmatch(text) and text == text.upper() for text in texts):
        yield "warning", "never matches: methods are upper case"


def _path(pattern: str) -> Iterator[Remark]:
    found = list(_never(pattern))
    yield from found
    if _GLOB.search(pattern):
        yield "warning", "repeats the slash (`/*`): everything below is `/.*`"
    if _PLAIN_QUERY.search(pattern):
        yield "warning", r"makes the letter before `?` optional: a query string begins with `\?`"
    texts = literals(pattern)
    if found or pattern.startswith("^") or pattern.endswith("$"):
        return
    if texts and any("?" not in text and text not in ("/", "*") for text in texts):
        text = "matches exactly that, with nothing below it and no query string: "
        yield "note", f"{text}write {pattern}.* if more is meant, or ^{pattern}$ if not"
    elif _WORD_THEN_ANY.search(pattern):
        yield "note", f"goes on in the middle of a word: write {_below(pattern)} if only what lies below is meant"


def _below(pattern: str) -> str:
    return f"{pattern.removesuffix('$').removesuffix('.*')}([/?].*)?"


def _deny_path(pattern: str) -> Iterator[Remark]:
    yield from _never(pattern)
    if literals(pattern) is not None and not pattern.startswith("^"):
        yield "note", f"does not deny what lies below it: write {pattern}(/.*)? if that is meant"


def _never(pattern: str) -> Iterator[Remark]:
    """Reasons for which a path, judged in its normal form, cannot match."""
    if not pattern.isascii():
        yield "warning", "never matches as written: paths are percent-encoded before they are judged (ä is %C3%A4)"
    texts = [text.partition("?")[0] for text in literals(pattern) or ()]
    if not _may_begin_with_slash(pattern, texts):
        yield "warning", f"never matches: paths begin with /{meant_for_grpc(pattern)}"
    elif texts and all(_REFUSED.search(text) for text in texts):
        yield "warning", "never matches: such paths are refused, or brought to their normal form before they are judged"
    elif texts and all(_ENCODED_PLAIN.search(text) for text in texts):
        yield "warning", "never matches: letters, digits and -._~ are decoded before paths are judged"


def _may_begin_with_slash(pattern: str, texts: list[str]) -> bool:
    if texts:
        return any(text.startswith("/") or text == "*" for text in texts)
    return "|" in pattern or not _WORD_FIRST.match(pattern)


def _host(pattern: str) -> Iterator[Remark]:
    if "/" in pattern:
        yield "warning", "never matches: a host has no slash"
    if _LOOSE_DOT.search(pattern):
        meant = _LOOSE_DOT.sub(r"\\.", pattern)
        yield "warning", f"has a dot that matches any character: write {meant}"
    if _LOOSE_START.match(pattern):
        yield "warning", r"also matches hosts that only end so, such as evil-... : write (.*\.)? before the name"
    texts = literals(pattern)
    if texts and any(text != text.lower() for text in texts):
        yield "note", "is compared with its case, and most clients send hosts in lower case"


def _host_port(pattern: str, ports: PortRule) -> Iterator[Remark]:
    """Clients name the port in the Host header unless it is 80."""
    may_be_80 = any(port.name is not None or port.low <= 80 <= port.high for port in ports.ports)
    if not may_be_80 and ports.ports and not re.search(r":|\.[*+]\)?\$?\Z", pattern):
        text = "never matches here: on ports other than 80 clients send the port too"
        yield "warning", f"host {pattern!r} {text}; write {pattern}(:[0-9]+)?"
