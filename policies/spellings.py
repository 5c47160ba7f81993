"""What servers may take a request for: the spellings that a deny rule must hold, and the one that gRPC has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from urllib.parse import unquote

NAME = re.compile(r"[A-Za-z0-9._~-]+")
"""A gRPC service's or method's name as it may stand in a path: characters with one spelling only (RFC 3986, 2.3)."""

_CALL = re.compile(rf"/({NAME.pattern})/({NAME.pattern})")
_PARAMETERS = re.compile(r";[^/]*")
_PORT = re.compile(r":[0-9]*\Z")


def path_forms(path: str) -> Sequence[str]:
    """What a server may take a path in normal form for: itself, without its query, with every escape decoded, and
    without path parameters (``;x``)."""
    plain = path.partition("?")[0]
    forms = [path, plain]
    if "%" in plain:
        forms.append(unquote(plain, "latin-1"))
    if ";" in plain or "%" in plain:
        forms += [_PARAMETERS.sub("", form) for form in forms[1:]]
    return tuple(dict.fromkeys(forms))


def host_forms(host: str) -> Sequence[str]:
    """What a server may take an authority for: itself, without its port, and without a final dot. In lower case."""
    text = host.lower()
    plain = _PORT.sub("", text)
    return tuple(dict.fromkeys((text, plain, plain.removesuffix("."))))


def call_of(method: str, path: str) -> tuple[str, str] | None:
    """(service, method) of a request that is a gRPC call as the protocol has it, ``POST /service/method``, or None."""
    found = _CALL.fullmatch(path) if method == "POST" else None
    return None if found is None else (found[1], found[2])


def call_forms(path: str, target: str) -> Iterable[tuple[str, str]]:
    """(service, method), in lower case, of every call that some server may take a request for: by its path in normal
    form, or by its target as sent, if options let a path pass that only some servers bring to that form.

    ASP.NET Core ignores case and a final slash; tonic, servlets and Go's http.Server ignore the query string, the last
    also decodes escapes; Armeria drops parameters and serves below a prefix; others ignore what follows the method.
    So it is the first two segments and the last two, of each of the path's forms.
    """
    found: dict[tuple[str, str], None] = {}
    plain = dict.fromkeys(text.partition("?")[0] for text in (path, target))
    for form in chain.from_iterable(map(path_forms, plain)):
        segments = [segment for segment in _fold(form).split("/") if segment]
        if len(segments) > 1:
            found[segments[0], segments[1]] = found[segments[-2], segments[-1]] = None
    return found


def _fold(text: str) -> str:
    """A text (UTF-8 read as latin-1) without case. To .NET some letters beyond ASCII are s or k as well."""
    if text.isascii():
        return text.lower()
    return text.encode("latin-1").decode("utf-8", "replace").casefold().encode().decode("latin-1")
