"""Asking: the builder, its binding to a schema, keyset cursors, and evaluation in plain Python."""

from __future__ import annotations

from atoma.query.builder import Condition, Expression, Rows, SortKey, bind, case, col, select
from atoma.query.plans import by_ids, counted, every_row, is_count, number_of

__all__ = [
    "Condition",
    "Expression",
    "Rows",
    "SortKey",
    "bind",
    "by_ids",
    "case",
    "col",
    "counted",
    "every_row",
    "is_count",
    "number_of",
    "select",
]
