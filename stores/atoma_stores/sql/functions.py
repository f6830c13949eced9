"""The SQL of every function of the table. Arguments come as SQL; values are bound, never written into the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from atoma.contracts.functions import AGGREGATES, FUNCTIONS, for_each

Text: TypeAlias = Callable[[Sequence[str]], str]
"""Takes the SQL of the arguments, gives the SQL of the call."""

SUM, AVG, WHOLE_SUM = "atoma_sum", "atoma_avg", "atoma_whole_sum"
"""Aggregates over reals that are exact and rounded once; the connection has to know them."""


def _infix(sign: str) -> Text:
    return lambda args: f"({args[0]} {sign} {args[1]})"


def _balanced(args: Sequence[str], word: str) -> str:
    # SQLite's parser bounds the depth of an expression: a flat chain of 1,000 would be 1,000 deep
    if len(args) == 1:
        return args[0]
    half = len(args) // 2
    return f"({_balanced(args[:half], word)} {word} {_balanced(args[half:], word)})"


def _among(args: Sequence[str]) -> str:
    return f"({args[0]} IN ({', '.join(args[1:])}))" if len(args) > 1 else "0"


def _coalesce(args: Sequence[str]) -> str:
    return f"coalesce({', '.join(args)})" if len(args) > 1 else args[0]


SQL: Mapping[str, Text] = for_each(
    FUNCTIONS,
    "the SQL of a function",
    {
        "and": lambda args: _balanced(args, "AND") if args else "1",
        "or": lambda args: _balanced(args, "OR") if args else "0",
        "not": lambda args: f"(NOT {args[0]})",
        "eq": _infix("="),
        "ne": _infix("<>"),
        "lt": _infix("<"),
        "le": _infix("<="),
        "gt": _infix(">"),
        "ge": _infix(">="),
        "is_same": _infix("IS"),
        "is_null": lambda args: f"({args[0]} IS NULL)",
        "in": _among,
        "like": lambda args: f"({args[0]} LIKE {args[1]} ESCAPE '\\')",
        "coalesce": _coalesce,
        "lower": lambda args: f"lower({args[0]})",
        "upper": lambda args: f"upper({args[0]})",
        "length": lambda args: f"length({args[0]})",
    },
)

AGGREGATE_SQL: Mapping[str, str] = for_each(
    AGGREGATES,
    "the SQL of an aggregate",
    {"count": "count", "sum": "sum", "avg": AVG, "min": "min", "max": "max"},
)
"""The name of each aggregate; ``sum`` over reals is :data:`SUM`."""
