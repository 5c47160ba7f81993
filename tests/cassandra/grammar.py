"""Statements by chance: made after the grammar, and spoilt."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

_NAMES = """
a b t ks "t" "T" "a""b" json values list key all role type function as count ttl cast token set distinct keyspaces
tables text int P1 P1Y deadbeef expr contains like group per mbean user users masked select "select" counter exists
permission only cluster false nan x1 writetime abs "from"
"""
NAMES = [*_NAMES.split(), '"from x.y"', '" IF "', '"--"']
"""Names that mislead; some are none."""
_TERMS = """
1 -1 1.5 -2e3 'x' 'it''s' $$y$$ true null ? :n 0xCAFE 1d P1Y2M NaN -infinity 12345678-1234-1234-1234-123456789abc
deadbeef-1234-1234-1234-123456789abc '' $$--$$ '/*'
"""
TERMS = [*_TERMS.split(), "' FROM x.y '", "$$ IF $$"]
_TYPES = ["int", "text", "list<int>", "set<frozen<ty>>", "map<int, set<text>>", "ks.ty", "vector<float, 3>"]
_GAPS = ["", " ", "\n", "\t\r", "/**/", "/* FROM x.y */", "--'\n", '// "\r', "/*/ */"]
_SIGNS = "'\"$-/*;()[]{}<>.,:?=\\@_0aP\n\r\v\f\0\u00a0é"
_WORDS = ["FROM x.y", "IF", "SELECT", "INSERT INTO x.y (a) VALUES (1)", "AND", "APPLY BATCH", "WHERE", "ON x.y", "x.y"]
_NOISE = [*_SIGNS, "--", "//", "/*", "*/", "$$", "''", '""', "; ", *(f" {word} " for word in _WORDS)]


def statement(random: Random) -> str:
    """One after the grammar, most of the time; the names are such as mislead."""
    makers = (_select, _select, _insert, _insert, _update, _delete, _batch, _schema, _access)
    return _join(random, random.choice(makers)(random) + [";"] * random.choice((0, 0, 0, 1, 2)))


def spoilt(random: Random) -> str:
    """The same with parts lost, doubled, swapped or strewn in."""
    text = statement(random)
    for _ in range(random.choice((1, 1, 2))):
        at, to = sorted((random.randint(0, len(text)), random.randint(0, len(text))))
        how = random.randrange(6)
        if how == 0:
            text = text[:at] + text[min(to, at + 8) :]
        elif how == 1:
            text = text[:at] + text[at : min(to, at + 30)] + text[at:]
        elif how == 2:
            text = text[:to] + text[at:to] + text[to:]
        else:
            text = text[:at] + random.choice(_NOISE) + text[at:]
    return text


def _join(random: Random, parts: Sequence[str]) -> str:
    """Mostly blanks between them, sometimes nothing, where the lexer needs none, and sometimes where it does."""
    out = random.choice(_GAPS) if random.random() < 0.1 else ""
    for part in parts:
        odd = random.random() < 0.25
        out += part + (random.choice(_GAPS) if odd else " ")
    return out if random.random() < 0.3 else out.rstrip(" ")


def _name(random: Random) -> list[str]:
    return [_case(random, random.choice(NAMES))]


def _case(random: Random, word: str) -> str:
    return "".join(random.choice((c.upper(), c.lower())) for c in word) if random.random() < 0.2 else word


def _table(random: Random) -> list[str]:
    return [*_name(random), ".", *_name(random)] if random.random() < 0.6 else _name(random)


def _term(random: Random, depth: int = 0) -> list[str]:
    what = random.random()
    if what < 0.55 or depth > 3:
        return [random.choice(TERMS)]
    inner = _term(random, depth + 1)
    if what < 0.7:
        return [*_table(random), "(", *inner, ")"]
    if what < 0.78:
        return ["[", *inner, ",", *_term(random, depth + 1), "]"]
    if what < 0.84:
        return ["{", *inner, ":", *_term(random, depth + 1), "}"]
    if what < 0.9:
        return ["(", random.choice(_TYPES), ")", *inner]
    return [*inner, random.choice("+-*/%"), *_term(random, depth + 1)]


def _selector(random: Random) -> list[str]:
    what = random.random()
    if what < 0.4:
        return _name(random)
    if what < 0.5:
        return ["count", "(", "*", ")"]
    if what < 0.6:
        return [random.choice(("writetime", "TTL", "maxwritetime")), "(", *_name(random), ")"]
    if what < 0.7:
        return ["CAST", "(", *_name(random), "AS", "text", ")"]
    if what < 0.8:
        return [*_name(random), ".", *_name(random), "[", *_term(random), "]"]
    return _term(random)


def _listed(random: Random, made: Sequence[list[str]]) -> list[str]:
    return [part for index, one in enumerate(made) for part in ([","] if index else []) + one]


def _relation(random: Random) -> list[str]:
    name = _name(random)
    return random.choice(
        (
            [*name, random.choice(("=", "<", ">=", "!=")), *_term(random)],
            [*name, "IN", "(", *_term(random), ",", *_term(random), ")"],
            [*name, "CONTAINS", "KEY", *_term(random)],
            [*name, "LIKE", *_term(random)],
            [*name, "IS", "NOT", "NULL"],
            ["token", "(", *name, ")", ">", *_term(random)],
            ["(", *name, ",", "b", ")", "=", "(", "1", ",", *_term(random), ")"],
            ["expr(", *name, ",", "'x'", ")"],
        )
    )


def _where(random: Random) -> list[str]:
    return ["WHERE", *_relation(random), *(["AND", *_relation(random)] if random.random() < 0.4 else [])]


def _maybe(random: Random, parts: Sequence[str], chance: float = 0.3) -> list[str]:
    return list(parts) if random.random() < chance else []


def _select(random: Random) -> list[str]:
    what = ["*"] if random.random() < 0.3 else _listed(random, [_selector(random) for _ in range(random.randint(1, 3))])
    return [
        *[_case(random, "SELECT"), *_maybe(random, ["JSON"], 0.2), *_maybe(random, ["DISTINCT"], 0.1), *what],
        *_maybe(random, ["AS", *_name(random)], 0.2),
        *[_case(random, "FROM"), *_table(random), *_maybe(random, _where(random), 0.6)],
        *_maybe(random, ["GROUP", "BY", *_selector(random)], 0.15),
        *_maybe(random, ["ORDER", "BY", *_name(random), "DESC"], 0.15),
        *_maybe(random, ["PER", "PARTITION", "LIMIT", "1"], 0.1),
        *_maybe(random, ["LIMIT", "?"], 0.2),
        *_maybe(random, ["ALLOW", "FILTERING"], 0.2),
    ]


def _insert(random: Random) -> list[str]:
    if random.random() < 0.3:
        what = ["JSON", random.choice(("'{}'", "?", ":j")), *_maybe(random, ["DEFAULT", "UNSET"])]
    else:
        terms = _listed(random, [_term(random), _term(random)])
        what = ["(", *_name(random), ",", *_name(random), ")", "VALUES", "(", *terms, ")"]
    condition = _maybe(random, ["IF", "NOT", "EXISTS"])
    return ["INSERT", "INTO", *_table(random), *what, *condition, *_maybe(random, ["USING", "TTL", "1"], 0.2)]


def _condition(random: Random) -> list[str]:
    return random.choice(([], [], ["IF", "EXISTS"], ["IF", *_name(random), "=", *_term(random)]))


def _update(random: Random) -> list[str]:
    using = _maybe(random, ["USING", "TIMESTAMP", "1", "AND", "TTL", "?"], 0.2)
    column = _name(random)
    sets = random.choice(
        (
            [*column, "=", *_term(random)],
            [*column, "=", *column, "+", *_term(random)],
            [*column, "+=", *_term(random)],
            [*column, "[", *_term(random), "]", "=", *_term(random)],
        )
    )
    return ["UPDATE", *_table(random), *using, "SET", *sets, *_where(random), *_condition(random)]


def _delete(random: Random) -> list[str]:
    what = _maybe(random, [*_name(random), "[", *_term(random), "]"])
    return ["DELETE", *what, "FROM", *_table(random), *_where(random), *_condition(random)]


def _batch(random: Random) -> list[str]:
    found = ["BEGIN", *_maybe(random, [random.choice(("UNLOGGED", "COUNTER"))]), "BATCH"]
    for _ in range(random.randint(1, 3)):
        found += [*random.choice((_insert, _update, _delete))(random), *_maybe(random, [";"], 0.5)]
    return [*found, "APPLY", "BATCH"]


def _schema(random: Random) -> list[str]:
    one, other = _table(random), _table(random)
    some, none = _maybe(random, ["IF", "EXISTS"]), _maybe(random, ["IF", "NOT", "EXISTS"])
    column = [*_name(random), random.choice(_TYPES)]
    mask = _maybe(random, ["MASKED", "WITH", *one, "(", *_term(random), ")"])
    properties = _maybe(random, ["WITH", "a", "=", "1"])
    view = ["AS", "SELECT", *_selector(random), "FROM", *other, *_where(random), "PRIMARY", "KEY", "(", "a", ")"]
    function = ["(", *column, ")", "CALLED", "ON", "NULL", "INPUT", "RETURNS", "int", "LANGUAGE", "java", "AS", "'x'"]
    aggregate = ["(", "int", ")", "SFUNC", "f", "STYPE", "int", *_maybe(random, ["INITCOND", *_term(random)])]
    dropped = random.choice(("TABLE", "TYPE", "INDEX", "MATERIALIZED VIEW", "FUNCTION", "AGGREGATE"))
    index = ["INDEX", *none, *_maybe(random, _name(random))]
    return random.choice(
        (
            ["CREATE", "TABLE", *none, *one, "(", *column, *mask, "PRIMARY", "KEY", ")", *properties],
            ["ALTER", "TABLE", *some, *one, "ADD", *column, *mask],
            ["DROP", dropped, *some, *one],
            ["CREATE", *index, "ON", *one, "(", "keys", "(", *_name(random), ")", ")"],
            ["CREATE", "MATERIALIZED", "VIEW", *none, *one, *view],
            ["CREATE", "TYPE", *none, *one, "(", *column, ")"],
            ["CREATE", "FUNCTION", *none, *one, *function],
            ["CREATE", "AGGREGATE", *one, *aggregate],
            ["CREATE", "TRIGGER", *none, *_name(random), "ON", *one, "USING", "'x'"],
            ["DROP", "TRIGGER", *some, *_name(random), "ON", *one],
            ["DROP", "KEYSPACE", *some, *_name(random)],
            ["ALTER", "KEYSPACE", *_name(random), "WITH", "durable_writes", "=", "true"],
            ["TRUNCATE", *_maybe(random, ["TABLE"]), *one],
            ["USE", *_name(random)],
        )
    )


def _access(random: Random) -> list[str]:
    one = _table(random)
    resource = random.choice(
        (
            one,
            ["TABLE", *one],
            ["KEYSPACE", *_name(random)],
            ["ALL", "KEYSPACES"],
            ["ALL", "TABLES", "IN", "KEYSPACE", *_name(random)],
            ["ALL", "FUNCTIONS", "IN", "KEYSPACE", *_name(random)],
            ["ROLE", *_name(random)],
            ["ALL", random.choice(("ROLES", "MBEANS", "FUNCTIONS"))],
        )
    )
    rights = random.choice((["ALL"], ["ALL", "PERMISSIONS"], ["SELECT"], ["MODIFY", "PERMISSION", ",", "SELECT"]))
    named = random.choice(("TABLE", "INDEX", "TYPE", "FUNCTION", "AGGREGATE", "MATERIALIZED VIEW"))
    return random.choice(
        (
            ["GRANT", *rights, "ON", *resource, "TO", *_name(random)],
            ["REVOKE", *rights, "ON", *resource, "FROM", *_name(random)],
            ["LIST", *rights, *_maybe(random, ["ON", *resource]), *_maybe(random, ["OF", *_name(random)])],
            ["GRANT", *_name(random), "TO", *_name(random)],
            ["REVOKE", *_name(random), "FROM", *_name(random)],
            ["CREATE", "ROLE", *_name(random), "WITH", "LOGIN", "=", "true"],
            ["LIST", "ROLES", *_maybe(random, ["OF", *_name(random)])],
            ["DESCRIBE", named, *one],
            ["DESC", *_maybe(random, ["ONLY"]), "KEYSPACE", *_maybe(random, _name(random))],
            ["DESC", *one, *_maybe(random, ["WITH", "INTERNALS"])],
        )
    )
