"""Comparisons with text that holds a NUL: no row may hold such text, and not every engine can be sent it."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.functions import COMPARISONS
from atoma.contracts.query import Call, Expr, Lit
from atoma.query.scope import Typed

_PATTERNS = frozenset({"like", "starts", "ends", "contains"})


def has_nul(expr: Expr) -> bool:
    """Whether it is a literal that no row can hold."""
    return isinstance(expr, Lit) and type(expr.value) is str and "\x00" in expr.value


def without_nul(call: Call, args: Sequence[Typed]) -> Expr:
    """What asks the same as ``call``, whose arguments are ``args``, without text that no row can hold."""
    column = args[0] if args else None
    if column is None or column.field is None or not column.field.comparisons.any_text:
        return call
    foreign = [arg for arg in call.args[1:] if has_nul(arg)]
    if not foreign:
        return call
    if call.fn == "in":
        kept = [arg for arg in call.args[1:] if not has_nul(arg)]
        return Call("in", (column.expr, *kept)) if kept else _no_text(column.expr)
    if call.fn in _PATTERNS:
        return _no_text(column.expr)
    if call.fn in COMPARISONS:
        assert isinstance(foreign[0], Lit)
        before = str(foreign[0].value).partition("\x00")[0]
        return _compared_with_nul(call.fn, column.expr, before)
    return call


def _compared_with_nul(fn: str, column: Expr, before: str) -> Expr:
    """``column fn text`` for a text that begins with ``before`` and a NUL: it stands right behind ``before``."""
    match fn:
        case "eq":
            return _no_text(column)
        case "ne":
            return Call("ge", (column, Lit("text", "")))  # every text
        case "lt" | "le":
            return Call("le", (column, Lit("text", before)))
        case _:
            return Call("gt", (column, Lit("text", before)))


def _no_text(column: Expr) -> Expr:
    """False, and unknown where the column is NULL."""
    return Call("lt", (column, Lit("text", "")))
