"""The shape of a CQL text: what all statements have in common that differ in their constants alone.

A client that writes its values into its statements never sends the same text twice, but few shapes. A text and its
shape are the same tokens to `parsers.cql_lexer`, which sees constants and strings by their kind only, and so the same
statement to `parsers.cql_statement`.
"""

from __future__ import annotations

import re

_HEX = "[0-9a-fA-F]"
# Where no string is, and with these characters only, every blank, bracket, comma and `=` stands between tokens, and a
# quotation mark begins a string: there are no comments (but for `--`), quoted names or `$$`.
# (No possessive group: CPython 3.11.2 goes on from the wrong place where one fails.)
_PLAIN = re.compile(r"[A-Za-z0-9_ \t\n\r,.()=?*<>+:\[\]{};%!'-]*+")
_CONSTANT = re.compile(
    r"(?<=[ \t\n\r(,=])"
    rf"(?:-?[0-9]{{1,40}}(?:\.[0-9]{{1,40}})?|0[xX]{_HEX}*+|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})"
    r"(?=[ \t\n\r),;]|\Z)"
)


def shape(text: str) -> str | None:
    """The text with empty strings for all strings and 0 for other constants, where it is easily seen that this is the
    same statement; else None. Takes time linear in its length."""
    pieces = text.split("'")
    outside = "''".join(pieces[::2])
    if not len(pieces) & 1 or "--" in outside or _PLAIN.fullmatch(outside) is None:
        return None
    return _CONSTANT.sub("0", outside)
