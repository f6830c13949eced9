"""The merge node: one query result of several, by stated rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec

from atoma.contracts.execution import ExecutionMeta, QueryRequest, QueryResult
from atoma.contracts.query import Sort
from atoma.contracts.values import Scalar, StoredRow

Winner: TypeAlias = Literal["first", "last"]


class MergeNode:
    """Joins the results of several steps into one.

    * **Winner:** of rows with the same id, the one of the last step that has it counts, whole (``first``: of the first
      step). In ``hybrid`` the remote row wins over the local one.
    * **Order:** the query's, compared as SQLite does: NULL, numbers, text, blobs; text and blobs by their bytes.
    * **Page:** each side is asked for the first ``offset + limit`` rows, the page is cut from the merged rows, so it is
      the page a single database with all rows would give, as long as the winner of a row sorts where the sides' rows
      do. ``after`` is applied by the sides.
    * **Ids:** answered in the order asked for.
    * **Total:** a count asks the sides for all matching rows and counts the merged ones, since a row that both have
      counts once.

    Args:
        winner: Which step's row counts.
    """

    __slots__ = ("winner",)

    def __init__(self, winner: Winner = "last") -> None:
        self.winner: Winner = winner

    def spread(self, request: QueryRequest) -> QueryRequest:
        """What each side is asked: a page from the beginning, rows instead of a count."""
        query = request.query
        if query.ids is not None and not query.count:
            return request
        if query.count:
            query = msgspec.structs.replace(query, count=False, limit=None, offset=0, after=None)
        elif query.offset:
            limit = None if query.limit is None else query.limit + query.offset
            query = msgspec.structs.replace(query, offset=0, limit=limit)
        return QueryRequest(request.store, query, request.context)

    def merge(self, request: QueryRequest, results: Sequence[QueryResult]) -> QueryResult:
        """The merged rows in the query's order; see the class for the rules."""
        rows: dict[str, StoredRow] = {}
        for result in results if self.winner == "last" else reversed(results):
            rows.update({row.id: row for row in result.rows})
        query = request.query
        commit = max((result.meta.commit for result in results), default=0)
        if query.count:
            return QueryResult((), len(rows), ExecutionMeta(commit=commit))
        if query.ids is not None:
            found = tuple(rows[id] for id in dict.fromkeys(query.ids) if id in rows)
            return QueryResult(found, None, ExecutionMeta(commit=commit))
        ordered = sort_rows(list(rows.values()), query.order)
        end = None if query.limit is None else query.offset + query.limit
        page = tuple(ordered[query.offset : end])
        return QueryResult(page, None, ExecutionMeta(commit=commit, cursor=_cursor(page, results)))


def sort_rows(rows: list[StoredRow], order: Sequence[Sort]) -> list[StoredRow]:
    """``rows`` in SQLite's order of ``order``; the id decides what is left."""
    rows.sort(key=lambda row: row.id.encode())
    for sort in reversed(order):
        rows.sort(key=_key_of(sort.field), reverse=sort.descending)
    return rows


def _key_of(field: str) -> Callable[[StoredRow], tuple[int, object]]:
    if field == "id":
        return lambda row: rank(row.id)
    return lambda row: rank(row.image.get(field))


def rank(value: Scalar) -> tuple[int, float | bytes]:
    """A key that compares as SQLite compares stored values: NULL, numbers, text by its UTF-8 bytes, blobs."""
    if value is None:
        return (0, 0)
    if isinstance(value, (int, float)):
        return (1, value)
    return (2, value.encode()) if isinstance(value, str) else (3, value)


def _cursor(page: Sequence[StoredRow], results: Sequence[QueryResult]) -> str:
    """A side's own cursor, when it was made for the last row of the page."""
    if not page:
        return ""
    last = page[-1].id
    return next((one.meta.cursor for one in results if one.meta.cursor and one.rows and one.rows[-1].id == last), "")


__all__ = ["MergeNode", "Winner", "rank", "sort_rows"]
