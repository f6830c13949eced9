"""The merge node: joins several query results into one, by stated rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec.structs import replace

from atoma.contracts.completeness import either
from atoma.contracts.execution import ExecutionMeta, QueryRequest, QueryResult
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.query.compiled import order_rows
from atoma.query.plans import is_count, listed, looks_at_one_store
from atoma.query.seek import cursor_of, page_of
from atoma.schema.kinds import INT64_MAX

Winner: TypeAlias = Literal["first", "last"]


class MergeNode:
    """A node that joins the results of several steps into one.

    * **Winner:** of rows with the same id, the one of the last step that has it counts, whole (``first``: of the first
      step). In ``hybrid`` the remote row wins over the local one.
    * **Order:** the query's: NULL first ascending, text by code point.
    * **Page:** each side is asked for the first ``offset + limit`` rows and one more, the page is cut from the merged
      rows, so it is the page a single database with all rows would give, as long as the winner of a row sorts where the
      sides' rows do. ``after`` and ``before`` are applied by the sides.
    * **Count:** the sides are asked for all matching rows and the merged ones are counted, since a row that both have
      counts once.

    Args:
        winner: Which step's row counts.
    """

    __slots__ = ("winner",)

    def __init__(self, winner: Winner = "last") -> None:
        self.winner: Winner = winner

    def spread(self, request: QueryRequest) -> QueryRequest:
        """What each side is asked: a page from the beginning with one row more, rows instead of a count.

        Raises:
            QueryError: The query makes something of its rows, or looks at others to find them, which cannot be put
                together from the answers of sides: what a row is joined with may be at the other one.
        """
        query = request.query
        plan = query.plan
        if not looks_at_one_store(plan):
            raise QueryError(
                "a policy that merges two sides can answer only with the rows of one store or their number; query one side"
            )
        if is_count(plan):
            return replace(request, query=listed(query))
        if plan.limit is None and not plan.offset:
            return request
        limit = None if plan.limit is None else min(plan.limit + plan.offset + 1, INT64_MAX)
        return replace(request, query=replace(query, plan=replace(plan, offset=0, limit=limit)))

    def merge(self, request: QueryRequest, results: Sequence[QueryResult]) -> QueryResult:
        """The merged rows in the query's order; see the class for the rules."""
        rows: dict[str, StoredRow] = {}
        for result in results if self.winner == "last" else reversed(results):
            rows.update({row.id: row for row in result.rows})
        query = request.query
        plan = query.plan
        meta = ExecutionMeta(
            commit=max((result.meta.commit for result in results), default=0),
            completeness=either(result.meta.completeness for result in results),
        )
        if is_count(plan):
            return QueryResult((), ((len(rows),),), meta)
        ordered = order_rows(query, list(rows.values()))
        if plan.backward:  # the nearest rows are the last ones
            ordered.reverse()
        page, more = page_of(plan, ordered[plan.offset :])
        if more and page:
            meta = replace(meta, cursor=cursor_of(query, page[-1]))
        return QueryResult(tuple(page), (), meta)


__all__ = ["MergeNode", "Winner"]
