"""Request targets: the path a server will resolve, in one normal form, or the reason why there is no telling.

The normal form is what Cilium's Envoy matches rules against: escapes of unreserved characters (``A-Za-z0-9-._~``, RFC
3986, section 2.3) are decoded, all others stay as they were written; raw ``"<>^`{|}`` and bytes from 0x7F up are
escaped; the query string is not touched. Nothing else is rewritten: what servers resolve in different ways is refused,
unless an option allows it. Refused are

- dot segments, however written: ``..``, ``%2e%2e``, ``..;x``, or between ``%2F``, ``\\`` and ``%5C``;
- empty segments: ``//``, and ``/;x/``, which some servers read as one;
- ``%2F``, ``\\``, ``%5C``, escapes of control characters, ``%25`` before two hex digits (double encoding), ``%`` that
  no two hex digits follow (``%u002e``), escapes that are not UTF-8 (overlong forms), raw bytes from 0x80 up;
- ``#``, and a target that is neither ``/...``, nor ``http://host/...``, nor ``*`` of OPTIONS. No option allows these.
"""

from __future__ import annotations

import re

from parsers.options import HttpOptions

HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
"""An authority as it is taken: a name or address, perhaps a port. No user, no sub-delimiters, no escapes."""
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*+)+/?(?:\?[\x21\x22\x24-\x7e]*+)?|/")
"""Most targets: no escape, no empty segment, none that begins with a dot or holds a parameter."""
_ABSOLUTE = re.compile(rb"(?i:http)://([^/?#]*)(/[^#]*)")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(rb"%(?:2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aA]|5[fF]|6[1-9a-fA-F]|7[0-9aA]|7[eE])")
_RAW = re.compile(rb"[\"<>^`{|}\x7f-\xff]")
_SEPARATOR = re.compile(rb"[/\\]|%2[fF]|%5[cC]")
_SLASHES = re.compile(rb"/{2,}")
_SHOWN = 60


class BadTarget(ValueError):
    """A request target that is refused; the text says why."""


def split(target: bytes, method: bytes) -> tuple[bytes | None, bytes]:
    """(authority, or None if the target names none; path with query). Raises BadTarget.

    `target` holds no space and no control character. The forms are those of RFC 9112, section 3.2.
    """
    if target.startswith(b"/"):
        return None, target
    if target == b"*" and method == b"OPTIONS":
        return None, target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadTarget(f"target {_show(target)} is neither a path nor http://host/path")
    authority, path = absolute.groups()
    if HOST.fullmatch(authority) is None:
        raise BadTarget(f"target {_show(target)} has no plain host")
    return authority, path


def normal(path: bytes, options: HttpOptions) -> bytes:
    """The normal form of a path with its query, as `split` gives it. Raises BadTarget."""
    if _PLAIN.fullmatch(path) is not None or path == b"*":
        return path
    if b"#" in path:
        raise BadTarget("a fragment (#) in the target")
    plain, mark, query = path.partition(b"?")
    if not path.isascii() and not options.allow_non_ascii_path:
        raise BadTarget("a byte from 0x80 up in the target")
    if b"%" in plain:
        plain = _unescape(plain, options)
    if b"\\" in plain and not options.allow_backslash:
        raise BadTarget("a backslash in the path")
    _check_segments(plain, options)
    if options.merge_slashes:
        plain = _SLASHES.sub(b"/", plain)
    if options.allow_dot_segments:
        plain = remove_dot_segments(plain)
    return _RAW.sub(_encode, plain) + mark + query


def _unescape(plain: bytes, options: HttpOptions) -> bytes:
    """The path with the escapes of unreserved characters decoded, if no other escape hides anything."""
    escapes = len(_ESCAPE.findall(plain))
    if plain.count(b"%") != escapes and not options.allow_bad_escapes:
        raise BadTarget("a % without two hex digits in the path")
    decoded, count = _UNRESERVED.subn(_decode, plain)
    if len(_ESCAPE.findall(decoded)) != escapes - count:
        raise BadTarget("an escape of an escape in the path")
    for permitted, pattern, what in _HIDING:
        if not getattr(options, permitted) and (found := pattern.search(decoded)) is not None:
            raise BadTarget(f"{what} in the path: {_show(found[0])}")
    if not options.allow_non_utf8_path and plain.isascii():
        _check_utf8(_ESCAPE.sub(_decode, plain))
    return decoded


_HIDING = (
    ("allow_encoded_slash", re.compile(rb"%2[fF]"), "an encoded slash"),
    ("allow_backslash", re.compile(rb"%5[cC]"), "an encoded backslash"),
    ("allow_encoded_controls", re.compile(rb"%(?:[01][0-9A-Fa-f]|7[fF])"), "an encoded control character"),
    ("allow_double_encoding", re.compile(rb"%25(?=[0-9A-Fa-f]{2}|[uU][0-9A-Fa-f]{4})"), "double encoding"),
)
"""(option that allows it, what is looked for, what it is called)."""


def _check_utf8(decoded: bytes) -> None:
    try:
        decoded.decode()
    except UnicodeDecodeError:
        raise BadTarget("escapes that are not UTF-8 in the path") from None


def _check_segments(plain: bytes, options: HttpOptions) -> None:
    """Dot segments and empty ones, with and without parameters. Escapes of unreserved characters are decoded."""
    literal = plain.split(b"/")
    pieces = [_bare(piece) for piece in _SEPARATOR.split(plain)]
    if any(piece in (b".", b"..") for piece in pieces):
        hidden = sum(piece in (b".", b"..") for piece in literal) != sum(piece in (b".", b"..") for piece in pieces)
        if hidden or not options.allow_dot_segments:
            raise BadTarget("a dot segment in the path" + (" that only some servers see" if hidden else ""))
    if any(piece[:1] == b";" or piece[:3].lower() == b"%3b" for piece in literal):
        raise BadTarget("a path segment that is only a parameter (;)")
    if b"" in literal[1:-1] and not options.merge_slashes:
        raise BadTarget("an empty segment (//) in the path")


def _bare(piece: bytes) -> bytes:
    """A segment without its parameters."""
    return re.split(rb";|%3[bB]", piece, maxsplit=1)[0]


def remove_dot_segments(path: bytes) -> bytes:
    """RFC 3986, section 5.2.4, of a path that begins with a slash."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            kept = kept[:-1]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


def _decode(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex(escape[0][1:].decode())


def _encode(raw: re.Match[bytes]) -> bytes:
    return b"%%%02X" % raw[0][0]


def _show(text: bytes) -> str:
    return repr(text[:_SHOWN].decode("latin-1"))
