"""Queries as they travel: one that says everything, one by ids, a count."""

from __future__ import annotations

from atoma.query.plans import by_ids
from atoma.schema.expressions import col
from atoma.testing.queries import count_of, rows_of
from atoma_transports.protocol.plans import encode_query

WHERE = (
    ((col("text") == "x") | (col("int") != 3))
    & ~col("int").in_((1, 2, 3))
    & (col("real") < 1.5)
    & (col("blob") > b"z")
    & col("none").is_null()
    & col("text").like("a\\%b%")
)
QUERIES = {
    "QueryCall": (
        encode_query(rows_of("cards", WHERE, order_by=("-int",), limit=10, offset=2, after=(5, "c1"))),
        "trace",
    ),
    "QueryCall, by id": (encode_query(by_ids("cards", ("c2", "c1"))), ""),
    "QueryCall, count": (encode_query(count_of("cards")), ""),
}
"""The encoded query and the trace of each."""
