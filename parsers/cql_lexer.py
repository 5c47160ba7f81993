"""The tokens of a CQL text, as the lexer of Apache Cassandra 5.0 makes them (its src/antlr/Lexer.g).

Nothing here depends on a language's idea of letters and blanks: keywords and unquoted names are ASCII, white space is
blank, tab, LF and CR. A text in which Cassandra finds a lexical error, or in which it is not certain what it finds, is
refused. Stricter than Cassandra: a number, UUID, blob or duration that a letter, digit or `_` follows directly (of
``LIMIT 1IF``, ``0x0G`` Cassandra reads some), ``-infinityx``, and a ``$`` right behind a ``$$`` literal.
"""

from __future__ import annotations

import re

NAME, QUOTED, WORD, STRING, CONSTANT, SYMBOL, END = range(7)
"""Kinds of tokens: an unquoted name (unreserved keywords among them), a quoted one, a reserved keyword, a string, any
other constant, an operator or bracket, and the end of the text."""
_RESERVED = """
add allow alter and apply asc authorize batch begin by columnfamily create delete desc describe drop entries execute
from full grant if in index infinity insert into is keyspace limit materialized modify nan norecursive not null of on or
order primary rename revoke schema select set table to token truncate unlogged update use using view where with
"""
RESERVED = frozenset(_RESERVED.split())
"""Keywords that are names only in quotes; true and false are constants, and names as little."""


class Unclassifiable(ValueError):
    """A text of which it is not certain what Cassandra does with it. `offset`: where in the text, in characters."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} (at character {offset})")
        self.reason = reason
        self.offset = offset


class Tokens:
    """The tokens of a text, without its white space and comments; the last one is of kind END.

    `texts[i]` is a name as Cassandra has it, a keyword in lower case (COLUMNFAMILY is ``table``), a symbol, or "" for
    constants, strings and the end; `starts[i]` is where it begins, in characters.
    """

    __slots__ = ("kinds", "starts", "texts")

    def __init__(self) -> None:
        self.kinds: list[int] = []
        self.texts: list[str] = []
        self.starts: list[int] = []


MOST_NAME = 1024
"""Characters of a name; keyspaces and tables have 222 at most."""
MOST_NUMBER = 1000
"""Characters of a number: of twice as many, Cassandra makes one in four times the time, of a million in a minute."""
_WORDS = {word: (WORD, word) for word in RESERVED}
_WORDLY_CONSTANTS = ("true", "false", "nan", "infinity")
_WORDS |= dict.fromkeys(_WORDLY_CONSTANTS, (CONSTANT, ""))
_WORDS |= {"columnfamily": (WORD, "table")}

# Possessive quantifiers stand behind single characters only: CPython 3.11 goes on from the wrong place where the body
# of a possessive group has failed.
_UNIT = r"(?:[yYwWdDhHsS]|[mM][oOsS]?|[uU\u00b5nN][sS])"
_DATE = r"P(?:[0-9]+Y(?:[0-9]+M)?(?:[0-9]+D)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
_TIME = r"T(?:[0-9]+H(?:[0-9]+M)?(?:[0-9]+S)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
_ISO = rf"{_DATE}(?:{_TIME})?|P{_TIME}|P[0-9]+W|P[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}"
_HEX = "[0-9a-fA-F]"
# To Cassandra, eight hexadecimal digits before a '-' are the start of a UUID, P0001- that of a duration.
_UNSURE = rf"(?!{_HEX}{{8}}-|P[0-9]{{4}}-)"
_EXPONENT = "(?:[eE][+-]?[0-9]++)?"
_CONSTANT = (
    rf"(?:{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
    rf"|-?(?:{_ISO})"
    rf"|{_UNSURE}0[xX]{_HEX}*+"
    rf"|{_UNSURE}-?(?:[0-9]++\.(?!\.)[0-9]*+{_EXPONENT}|[0-9]++(?!\.(?!\.)){_EXPONENT}|(?:[0-9]++{_UNIT}){{1,16}})"
    r"|-(?:[nN][aA][nN]|[iI][nN][fF][iI][nN][iI][tT][yY])"
    r")(?![A-Za-z0-9_\u00b5])"
)
_TOKEN = re.compile(
    # Names come first, as most tokens are names, but for those that may be constants.
    rf"[ \t\n\r]*+(?:(?!{_HEX}{{8}}-|P[0-9T])([A-Za-z][A-Za-z0-9_]*+)|({_CONSTANT})|{_UNSURE}(P[A-Za-z0-9_]*+)"
    r"|([<>+]=?|!=|-=|-(?![-0-9iInNP])|/(?![/*])|\.\.(?!\.)|\.(?!\.)|[=*%,;:?()\[\]{}])"
    r"|('[^']*+')|(\$\$.*?\$\$)"
    r'|("[^"]*+")'
    r"|((?:--|//)[^\n\r]*+[\n\r]|/\*.*?\*/)"
    r"|(\Z)|(.))",
    re.DOTALL,
)
_NAME_GROUP, _CONSTANT_GROUP, _P_GROUP, _SYMBOL_GROUP, _TEXT_GROUP, _DOLLAR_GROUP = range(1, 7)
_QUOTED_GROUP, _COMMENT_GROUP, _END_GROUP, _BAD_GROUP = range(7, 11)
_LITERALS = (_CONSTANT_GROUP, _TEXT_GROUP, _DOLLAR_GROUP)


def tokenize(text: str, most: int) -> Tokens:
    """The tokens of a text, of at most `most` parts: tokens, comments, and what a doubled quote divides. Takes time
    linear in its length. Raises Unclassifiable."""
    found = Tokens()
    kinds, texts, starts = found.kinds, found.texts, found.starts
    parts = before = last = 0
    for match in _TOKEN.finditer(text):
        group = match.lastindex or _BAD_GROUP
        start, end = match.span(group)
        parts += 1
        if parts > most:
            raise Unclassifiable(f"more than {most} tokens", start)
        kind, value = CONSTANT, ""
        if group in (_NAME_GROUP, _P_GROUP):
            word = match[group].lower()
            kind, value = _WORDS.get(word) or (NAME, word)
            _check_length(end - start, start)
        elif group == _SYMBOL_GROUP:
            kind, value = SYMBOL, match[group]
        elif group == _COMMENT_GROUP:
            continue
        elif group == _CONSTANT_GROUP:
            if end - start > MOST_NUMBER and text[start + 1] not in "xX":
                raise Unclassifiable(f"a number of more than {MOST_NUMBER} characters", start)
        elif group == _QUOTED_GROUP:
            kind, value = QUOTED, text[start + 1 : min(end - 1, start + MOST_NAME + 2)]
            if group == before and start == last:
                value = f'{texts.pop()}"{value}'
                kinds.pop()
                start = starts.pop()
            _check_length(len(value), start)
        elif group in (_TEXT_GROUP, _DOLLAR_GROUP):
            kind = STRING
            if group == before == _TEXT_GROUP and start == last:
                last = end
                continue
        elif group == _END_GROUP:
            kind = END
        elif group == _BAD_GROUP:
            raise Unclassifiable("not a token of CQL", start)
        kinds.append(kind)
        texts.append(value)
        starts.append(start)
        before, last = group, end
        if kind == END:
            break
    return found


def _check_length(length: int, start: int) -> None:
    if length > MOST_NAME:
        raise Unclassifiable(f"a name of more than {MOST_NAME} characters", start)


def redacted(text: str, limit: int = 2048) -> str:
    """The text with every constant replaced by ``?``, its comments left out and blanks made one; cut with ``…`` at
    `limit` characters. Of a text that is not CQL, what stands before the first thing that is no token."""
    parts: list[str] = []
    size = before = last = 0
    for number, match in enumerate(_TOKEN.finditer(text)):
        group = match.lastindex or _BAD_GROUP
        start, end = match.span(group)
        if group == _END_GROUP:
            break
        if number > 8 * limit:  # comments, or parts of one string
            return "".join(parts) + "…"
        if group == _COMMENT_GROUP or (group == _TEXT_GROUP == before and start == last):
            last = end if group == _TEXT_GROUP else last
            continue
        part = "?" if group in _LITERALS else text[start : min(end, start + limit)]
        if group == _NAME_GROUP and part.lower() in _WORDLY_CONSTANTS:
            part = "?"
        if start > last and parts:
            part = f" {part}"
        size += len(part)
        if group == _BAD_GROUP or size > limit:
            return "".join(parts) + "…"
        parts.append(part)
        before, last = group, end
    return "".join(parts)
