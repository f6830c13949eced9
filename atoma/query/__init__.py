"""Asking: the builder, its binding to a schema, keyset cursors, and evaluation in plain Python."""

from __future__ import annotations

from atoma.query.binding import bind
from atoma.query.builder import (
    Condition,
    Expression,
    Included,
    IncludedProjection,
    Joined,
    Projection,
    Query,
    Rows,
    SortKey,
    Table,
    case,
    col,
    select,
)
from atoma.query.plans import by_ids, counted, every_row, is_count, number_of
from atoma.query.subqueries import count_of, exists, scalar
from atoma.schema.aggregates import avg, count, max_, min_, sum_

__all__ = [
    "Condition",
    "Expression",
    "Included",
    "IncludedProjection",
    "Joined",
    "Projection",
    "Query",
    "Rows",
    "SortKey",
    "Table",
    "avg",
    "bind",
    "by_ids",
    "case",
    "col",
    "count",
    "count_of",
    "counted",
    "every_row",
    "exists",
    "is_count",
    "max_",
    "min_",
    "number_of",
    "scalar",
    "select",
    "sum_",
]
