"""The SQL of every function of the table. Arguments come as SQL; values are bound, never written into the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from atoma.contracts.functions import AGGREGATES, FUNCTIONS, family, for_each

Text: TypeAlias = Callable[[Sequence[str]], str]
"""Takes the SQL of the arguments and returns the SQL of the call."""

OURS = "atoma_"
"""The prefix of the functions that we register with SQLite."""
SUM, AVG, WHOLE_SUM = "atoma_sum", "atoma_avg", "atoma_whole_sum"
"""Aggregates over reals that are exact and rounded once; the connection has to register them."""


MATCHES, RANK, HIGHLIGHT, SNIPPET = "atoma_matches", "atoma_rank", "atoma_highlight", "atoma_snippet"
"""The functions of a search in texts."""
FTS, NEAR, DIGEST = "atoma_fts", "atoma_near", "atoma_digest"
"""A search in the form that an index takes, whether it may match other words, and the digest of a row of texts."""
WHOLE, ROUND, TO_INT, TO_REAL = "atoma_whole", "atoma_round", "atoma_to_int", "atoma_to_real"
"""Functions that SQLite lacks: a whole number if it fits into 64 bits, and conversions that agree everywhere."""
REPLACE = "atoma_replace"
"""SQLite's ``replace``, with a bound."""
REGEX = "atoma_regex"
"""The match of a regular expression: SQLite reserves the operator, but does not implement it."""


_IS_NULL = " IS NULL)"


def _infix(sign: str) -> Text:
    return lambda args: f"({args[0]} {sign} {args[1]})"


def _balanced(args: Sequence[str], word: str) -> str:
    # SQLite's parser bounds the depth of an expression: a flat chain of 1,000 would be 1,000 deep
    if len(args) == 1:
        return args[0]
    half = len(args) // 2
    return f"({_balanced(args[:half], word)} {word} {_balanced(args[half:], word)})"


def _not(args: Sequence[str]) -> str:
    # a partial index is used for "IS NOT NULL", and not for the negation of its opposite
    given = args[0].removesuffix(_IS_NULL)
    return f"{given} IS NOT NULL)" if given != args[0] else f"(NOT {given})"


def _among(args: Sequence[str]) -> str:
    return f"({args[0]} IN ({', '.join(args[1:])}))" if len(args) > 1 else "0"


def _coalesce(args: Sequence[str]) -> str:
    return f"coalesce({', '.join(args)})" if len(args) > 1 else args[0]


def _whole(sign: str) -> Text:
    return lambda args: f"{WHOLE}({args[0]} {sign} {args[1]})"


def _at(kinds: str, value: str) -> Text:
    """Return ``value`` if the place of a document has one of these kinds; ``{0}`` is the document, ``{1}`` the place."""
    return lambda args: f"(CASE WHEN json_type({args[0]}, {args[1]}) IN ({kinds}) THEN {value.format(*args)} END)"


def _element(condition: str) -> Text:
    """Return the SQL for whether an array in a document has an element that meets ``condition``; ``{0}`` is the wanted value."""
    return lambda args: (
        f"(CASE WHEN {args[0]} IS NOT NULL AND {args[2]} IS NOT NULL THEN json_type({args[0]}, {args[1]}) IS 'array' AND "
        f"EXISTS (SELECT 1 FROM json_each({args[0]}, {args[1]}) AS e WHERE {condition.format(args[2])}) END)"
    )


def _called(name: str) -> Text:
    return lambda args: f"{name}({', '.join(args)})"


def _concat(args: Sequence[str]) -> str:
    return _balanced(args, "||") if args else "''"


def _substr(args: Sequence[str]) -> str:
    text, start, length = args  # below 1 and beyond the end SQLite counts from the end
    return f"substr({text}, max({start}, 1), max({start} + {length} - max({start}, 1), 0))"


def _digits(at: int, count: int = 2) -> Text:
    return lambda args: f"CAST(substr({args[0]}, {at}, {count}) AS INTEGER)"


_INTEGER = _at("'integer'", "json_extract({0}, {1})")
_NUMBERS = "'integer', 'real'"

SQL: Mapping[str, Text] = for_each(
    FUNCTIONS,
    "the SQL of a function",
    {
        "and": lambda args: _balanced(args, "AND") if args else "1",
        "or": lambda args: _balanced(args, "OR") if args else "0",
        "not": _not,
        "eq": _infix("="),
        "ne": _infix("<>"),
        "lt": _infix("<"),
        "le": _infix("<="),
        "gt": _infix(">"),
        "ge": _infix(">="),
        "is_same": _infix("IS"),
        "is_null": lambda args: f"({args[0]}{_IS_NULL}",
        "in": _among,
        "like": lambda args: f"({args[0]} LIKE {args[1]} ESCAPE '\\')",
        "starts": lambda args: f"(substr({args[0]}, 1, length({args[1]})) = {args[1]})",
        "ends": lambda args: f"(substr({args[0]}, -length({args[1]}), length({args[1]})) = {args[1]})",
        "contains": lambda args: f"(instr({args[0]}, {args[1]}) > 0)",
        "regex": _called(REGEX),
        "if": lambda args: f"(CASE WHEN {args[0]} THEN {args[1]} ELSE {args[2]} END)",
        "coalesce": _coalesce,
        "add": _whole("+"),
        "sub": _whole("-"),
        "mul": _whole("*"),
        "div": lambda args: f"(CAST({args[0]} AS REAL) / {args[1]} + 0.0)",
        "floordiv": _whole("/"),
        "mod": _infix("%"),
        "neg": lambda args: f"{WHOLE}(-{args[0]})",
        "abs": _called("abs"),
        "round": _called(ROUND),
        "lower": _called("lower"),
        "upper": _called("upper"),
        "length": _called("length"),
        "concat": _concat,
        "substr": _substr,
        "replace": _called(REPLACE),
        "trim": _called("trim"),
        "ltrim": _called("ltrim"),
        "rtrim": _called("rtrim"),
        "to_int": _called(TO_INT),
        "to_real": _called(TO_REAL),
        "to_text": lambda args: f"CAST({args[0]} AS TEXT)",
        "to_date": lambda args: f"substr({args[0]}, 1, 10)",
        "year": _digits(1, 4),
        "month": _digits(6),
        "day": _digits(9),
        "hour": _digits(1),
        "minute": _digits(4),
        "second": _digits(7),
        "matches": _called(MATCHES),
        "rank": _called(RANK),
        "highlight": _called(HIGHLIGHT),
        "snippet": _called(SNIPPET),
        "json_int": lambda args: f"(CASE WHEN typeof({args[0]} ->> {args[1]}) = 'integer' THEN {_INTEGER(args)} END)",
        "json_real": lambda args: f"{TO_REAL}({_at(_NUMBERS, '{0} -> {1}')(args)})",
        "json_text": _at("'text'", "json_extract({0}, {1})"),
        "json_bool": _at("'true', 'false'", "json_extract({0}, {1})"),
        "json_has": _element("e.type = 'integer' AND e.value = {0}"),
    },
)

OF_KIND: Mapping[tuple[str, str], Text] = {
    ("add", "real"): lambda args: f"({args[0]} + {args[1]} + 0.0)",
    ("sub", "real"): lambda args: f"({args[0]} - {args[1]} + 0.0)",
    ("mul", "real"): lambda args: f"({args[0]} * {args[1]} + 0.0)",
    ("neg", "real"): lambda args: f"(0.0 - {args[0]})",
    ("to_real", "int"): lambda args: f"CAST({args[0]} AS REAL)",
    ("hour", "time"): _digits(12),
    ("minute", "time"): _digits(15),
    ("second", "time"): _digits(18),
    ("json_has", "text"): _element("e.type = 'text' AND e.value = {0}"),
}
"""The calls that are written differently for arguments of a certain type."""
BY_KIND = frozenset(name for name, _ in OF_KIND)
"""The functions with such calls."""


def sql_of(fn: str, args: Sequence[str], kind: str = "") -> str:
    """Return the SQL of a call with the arguments ``args``; the first one has the type ``kind``, where that matters."""
    return OF_KIND.get((fn, family(kind)), SQL[fn])(args)


AGGREGATE_SQL: Mapping[str, str] = for_each(
    AGGREGATES,
    "the SQL of an aggregate",
    {"count": "count", "sum": "sum", "avg": AVG, "min": "min", "max": "max"},
)
"""The name of each aggregate in SQL; ``sum`` over reals is :data:`SUM`."""
