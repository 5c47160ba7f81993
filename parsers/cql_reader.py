"""Reading the tokens of one CQL statement from left to right: what its kinds have in common.

The grammar is that of Apache Cassandra 5.0 (its src/antlr/Parser.g). Reserved keywords divide a statement: FROM stands
nowhere in what is selected, WHERE and IF in no term. What lies between them need not be understood, but every bracket
in it is closed by its like, and every call of a function is seen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NoReturn, TypeAlias

from parsers.cql_lexer import END, NAME, QUOTED, STRING, SYMBOL, WORD, Unclassifiable, tokenize
from parsers.facts import CqlRequest

MOST_TOKENS = 65_536
"""Tokens, comments and doubled quotes of a text."""
MOST_NESTED = 16
"""Brackets in each other."""
MOST_WORK = 32_768
"""What Cassandra may try to read what is selected or grouped: it reads what stands in a bracket twice, and doubles that
with each bracket in it and with each type hint, ``(int)``, before it. 24 brackets in each other take it five seconds;
this many tokens tens of milliseconds. Elsewhere, what it takes to find out the types within one term doubles twice with
each operator of arithmetic: ``?+?+?+?+?+?+?+?+?`` takes a second, three more a minute. So four may stand in one. With
each function that is called in another's arguments it doubles, or more: 15 times ``mask_default(`` take ten seconds."""
NONE: frozenset[str] = frozenset()
_CLOSES = {")": "(", "]": "[", "}": "{"}
_OPERATORS = frozenset("+-*/%")
_DIVIDES = frozenset((",", "=", "<", ">", "<=", ">=", "!=", "+=", "-="))
"""What one term ends at, outside brackets, but for keywords."""
_NO_FUNCTIONS = frozenset(("cast", "distinct", "json", "key", "maxwritetime", "ttl", "writetime"))
"""Names that are no function's unless quoted, whatever follows."""
_CASTS = "ascii bigint date decimal double float int smallint text timestamp tinyint varint"
_BLOBS = _CASTS + " boolean counter duration empty inet time timeuuid uuid varchar"
_OTHERS = """abs avg collection_avg collection_count collection_max collection_min collection_sum count count_rows
current_date current_time current_timestamp current_timeuuid currentdate currenttime currenttimestamp currenttimeuuid
exp floor from_json fromjson log log10 map_keys map_values mask_default mask_hash mask_inner mask_null mask_outer
mask_replace max max_timeuuid maxtimeuuid min min_timeuuid mintimeuuid now round similarity_cosine
similarity_dot_product similarity_euclidean sum to_date to_json to_timestamp to_unix_timestamp todate tojson token
totimestamp tounixtimestamp uuid"""
_FORMS = {"{}_as_blob": _BLOBS, "{}asblob": _BLOBS, "blob_as_{}": _BLOBS, "blobas{}": _BLOBS, "cast_as_{}": _CASTS}
NATIVE = frozenset(_OTHERS.split()).union(form.format(one) for form, all_ in _FORMS.items() for one in all_.split())
"""Cassandra's own functions, which nobody needs a permission for."""
Name: TypeAlias = tuple[str | None, str]
"""Keyspace, None if it is not said, and name."""


class Reader:
    """A statement's tokens, `at` one of them, and what has been found out on the way.

    `requests` in the order of the text; `calls`: functions that were called; `unqualified`: a name needed the
    session's `keyspace`. Whatever finds something else than it wants raises Unclassifiable.
    """

    __slots__ = (
        "_keyspace",
        "_kinds",
        "_no_call",
        "_starts",
        "_text",
        "_texts",
        "_work",
        "at",
        "calls",
        "natives",
        "requests",
        "unqualified",
    )

    def __init__(self, text: str, keyspace: str | None) -> None:
        tokens = tokenize(text, MOST_TOKENS)
        self._text, self._keyspace = text, keyspace
        self._kinds, self._texts, self._starts = tokens.kinds, tokens.texts, tokens.starts
        self._work = 0
        self.at = 0
        self._no_call = -1
        self.requests: list[CqlRequest] = []
        self.calls: list[Name] = []
        self.natives: set[Name] = set()
        self.unqualified = False

    def fail(self, wanted: str) -> NoReturn:
        """Raise Unclassifiable for the token at hand."""
        start = self._starts[self.at]
        raise Unclassifiable(f"not {wanted}", start)

    # -- what the statement does -------------------------------------------------------------------------------------

    def add(self, action: str, name: Name | None = None, *, table: bool = True) -> None:
        """Note a request for `name`, None for one that concerns no keyspace. Of what is no table only the keyspace is
        noted."""
        if name is None:
            request = CqlRequest(action)
        else:
            keyspace, own = name
            if keyspace is None:
                keyspace, self.unqualified = self._keyspace, True
            request = CqlRequest(action, keyspace, own if table else None)
        if request not in self.requests[-64:]:
            self.requests.append(request)

    def add_keyspace(self, action: str, keyspace: str) -> None:
        """The same for a keyspace."""
        self.add(action, (keyspace, ""), table=False)

    def add_calls(self, keyspace: str | None) -> None:
        """Note the functions called so far that Cassandra asks EXECUTE for; those without a keyspace are of `keyspace`,
        or where that is None too, of the session's. One of Cassandra's own is called by its name unless that keyspace
        has another of this name."""
        for own, name in self.calls:
            if own not in (None, "system") or name not in NATIVE:
                self.add("execute", (keyspace if own is None else own, name), table=False)
            elif own is None:
                self.natives.add((self._keyspace if keyspace is None else keyspace, name))
        self.calls.clear()

    def first(self) -> str:
        """The keyword at hand, "" if it is none."""
        return self._texts[self.at] if self._kinds[self.at] in (NAME, WORD) else ""

    # -- single tokens -----------------------------------------------------------------------------------------------

    def sees(self, kind: int, text: str, ahead: int = 0) -> bool:
        """Whether that stands here, or so many tokens further."""
        at = min(self.at + ahead, len(self._kinds) - 1)
        return self._kinds[at] == kind and self._texts[at] == text

    def word(self, *words: str) -> bool:
        """Go past a reserved keyword, if it is one of these."""
        if self._kinds[self.at] == WORD and self._texts[self.at] in words:
            self.at += 1
            return True
        return False

    def plain(self, *words: str) -> bool:
        """Go past an unreserved keyword, if it is one of these."""
        if self._kinds[self.at] == NAME and self._texts[self.at] in words:
            self.at += 1
            return True
        return False

    def symbol(self, symbol: str) -> bool:
        """Go past a symbol, if it is this."""
        if self._kinds[self.at] == SYMBOL and self._texts[self.at] == symbol:
            self.at += 1
            return True
        return False

    def need_word(self, *words: str) -> None:
        """Go past these reserved keywords."""
        for word in words:
            if not self.word(word):
                self.fail(word.upper())

    def need_plain(self, word: str) -> None:
        """Go past this unreserved keyword."""
        if not self.plain(word):
            self.fail(word.upper())

    def need_symbol(self, symbol: str) -> None:
        """Go past this symbol."""
        if not self.symbol(symbol):
            self.fail(f"a {symbol}")

    def sees_name(self, ahead: int = 0) -> bool:
        """Whether a name stands here, or so many tokens further."""
        return self._kinds[min(self.at + ahead, len(self._kinds) - 1)] in (NAME, QUOTED)

    def sees_role(self, ahead: int = 0) -> bool:
        """The same for the name of a role, which may be a string."""
        return self.sees_name(ahead) or self._kinds[min(self.at + ahead, len(self._kinds) - 1)] == STRING

    def sees_end(self) -> bool:
        """Whether the statement ends here."""
        return self._kinds[self.at] == END or self.sees(SYMBOL, ";")

    # -- names -------------------------------------------------------------------------------------------------------

    def name(self) -> str:
        """A name of something that has one."""
        if self._kinds[self.at] not in (NAME, QUOTED) or not self._texts[self.at]:
            self.fail("a name")
        self.at += 1
        return self._texts[self.at - 1]

    def qualified(self) -> Name:
        """A name with or without its keyspace."""
        first = self.name()
        return (first, self.name()) if self.symbol(".") else (None, first)

    def table(self) -> Name:
        """The same where a name ends: nothing goes on with it."""
        found = self.qualified()
        if self._kinds[self.at] == SYMBOL and not self.sees_end():
            self.fail("the end of a name")
        return found

    def column(self) -> None:
        """The name of a column, which may be empty."""
        if not self.sees_name():
            self.fail("a column")
        self.at += 1

    def function(self) -> Name:
        """The name of a function, which may be the keyword TOKEN."""
        if self.word("token"):
            return None, "token"
        first = self.name()
        if not self.symbol("."):
            return None, first
        return first, "token" if self.word("token") else self.name()

    def role(self) -> None:
        """The name of a role, user or identity."""
        if not self.sees_role():
            self.fail("the name of a role")
        self.at += 1

    def string(self) -> None:
        """A string."""
        if self._kinds[self.at] != STRING:
            self.fail("a string")
        self.at += 1

    # -- the rest ----------------------------------------------------------------------------------------------------

    def plain_bracket(self) -> None:
        """The bracket at hand is no call's, though a name stands before it."""
        if not self.sees(SYMBOL, "("):
            self.fail("a (")
        self._no_call = self.at

    def conditional(self, *words: str) -> bool:
        """IF, and these words behind it: EXISTS is an unreserved one."""
        if not self.word("if"):
            return False
        self.need_word(*words)
        self.need_plain("exists")
        return True

    def end(self) -> None:
        """Nothing follows but semicolons."""
        while self.symbol(";"):
            pass
        if self._kinds[self.at] != END:
            self.fail("the end of the statement")

    def selected(self, words: Collection[str]) -> None:
        """What is selected, up to its FROM and past it."""
        if self.sees(WORD, "from"):
            self.fail("anything to select")
        self.skip(words, ("from",), selected=True)
        self.need_word("from")

    def skip(
        self,
        words: Collection[str],
        until: Collection[str] = NONE,
        *,
        calls: bool = True,
        masks: bool = False,
        selected: bool = False,
    ) -> None:
        """Go on to one of the keywords `until` outside brackets, or to the end of the statement.

        On the way there may stand, of reserved keywords, `words` only (and SET in types). Functions that are called are
        noted with `calls`; with `masks`, only those that mask columns, and in their arguments. `selected`: in what is
        selected or grouped.
        """
        kinds, texts = self._kinds, self._texts
        brackets: list[str] = []
        called: list[int] = []
        hints = masked = operators = 0
        while True:
            kind, text = kinds[self.at], texts[self.at]
            if kind == SYMBOL:
                if text in ("(", "[", "{"):
                    if text == "(" and calls and self.at != self._no_call and self._see_call(masks and not masked):
                        masked = masked or len(brackets) + 1
                        called.append(len(brackets))
                        self._find_types(operators, 0 if selected else len(called))
                    brackets.append(text)
                    if len(brackets) > MOST_NESTED:
                        self.fail(f"within {MOST_NESTED} brackets in each other")
                elif text in _CLOSES:
                    if not brackets or brackets.pop() != _CLOSES[text]:
                        self.fail("closed by its like")
                    masked = masked if len(brackets) >= masked else 0
                    if called and called[-1] == len(brackets):
                        called.pop()
                    hints += selected and text == ")" and self._begins_operand()
                elif text == ";":
                    break
                elif text in _OPERATORS:
                    operators += not selected
                    self._find_types(operators, len(called))
                elif text in _DIVIDES and not brackets:
                    hints = operators = 0
            elif kind == WORD:
                if not brackets:
                    if text in until:
                        break
                    operators = 0
                if text not in words and not (text == "set" and texts[self.at + 1] == "<"):
                    self.fail("a word that may stand here")
            elif kind == END:
                break
            if selected:
                self._spend(1 << min(len(brackets) + hints, 30))
            self.at += 1
        if brackets:
            self.fail("a closed bracket")

    def _find_types(self, operators: int, calls: int) -> None:
        """What that takes where so many of them are in each other; one operator and two calls are nothing."""
        work = 3 * operators + 2 * calls
        if work > 5:
            self._spend(1 << min(work, 30))

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MOST_WORK:
            self.fail("within what Cassandra reads in a short time")

    def _begins_operand(self) -> bool:
        """Whether what is behind this bracket is read on with it, as what a type hint is for."""
        kind, text = self._kinds[self.at + 1], self._texts[self.at + 1]
        return kind not in (END, WORD) and (kind != SYMBOL or text in ("(", "[", "{", "?", ":"))

    def _see_call(self, masks: bool) -> bool:
        """Note the function whose arguments begin here, if any; with `masks`, if it masks a column."""
        kinds, texts, at = self._kinds, self._texts, self.at - 1
        if at < 0 or not (kinds[at] in (NAME, QUOTED) or (kinds[at] == WORD and texts[at] == "token")):
            return False
        if kinds[at] == NAME and (texts[at] in _NO_FUNCTIONS or self._text.startswith("expr(", self._starts[at])):
            return False
        name: Name = (None, texts[at])
        if at > 1 and kinds[at - 1] == SYMBOL and texts[at - 1] == "." and kinds[at - 2] in (NAME, QUOTED):
            name = (texts[at - 2], texts[at])
            at -= 2
        if masks and not (at > 1 and kinds[at - 1] == WORD and texts[at - 1] == "with" and texts[at - 2] == "masked"):
            return False
        if name not in self.calls[-64:]:
            self.calls.append(name)
        return True
