"""Asking: the builder, its binding to a schema, keyset cursors, and evaluation in plain Python."""

from __future__ import annotations

from atoma.query.binding import bind
from atoma.query.builder import Condition, Expression, Query, Rows, SortKey, case, col, select
from atoma.query.plans import by_ids, counted, every_row, is_count, number_of
from atoma.schema.aggregates import avg, count, max_, min_, sum_

__all__ = [
    "Condition",
    "Expression",
    "Query",
    "Rows",
    "SortKey",
    "avg",
    "bind",
    "by_ids",
    "case",
    "col",
    "count",
    "counted",
    "every_row",
    "is_count",
    "max_",
    "min_",
    "number_of",
    "select",
    "sum_",
]
