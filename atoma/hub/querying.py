"""Direct queries: checked as strictly as if a stranger had sent them, and fenced, source by source."""

from __future__ import annotations

from collections.abc import Callable

from atoma.contracts.execution import ExecutionMeta, QueryRequest, QueryResult, Step
from atoma.contracts.limits import BOUNDS, ROWS_MAX, Bounds
from atoma.contracts.query import BoundQuery
from atoma.errors import RemoteError
from atoma.ports.hub_queries import QueryPage
from atoma.query.normal import rebind
from atoma.query.plans import reads_deleted
from atoma.query.seek import cursor_of
from atoma.schema.schema import Schema


def check_query(
    query: BoundQuery, schema: Schema, bounds: Bounds = BOUNDS, *, deleted_rows: Callable[[], bool] | None = None
) -> BoundQuery:
    """``query`` as the hub's own schema understands it, once it is clear that it fits and is of bounded size.

    Args:
        query: The query.
        schema: The hub's stores.
        bounds: The bounds.
        deleted_rows: Says whether the caller may see rows that were deleted softly, and is asked about queries of such rows
            only; None when the hub lets nobody.

    Raises:
        QueryError: It does not fit.
        RemoteError: ``UNSUPPORTED`` or ``PERMISSION_DENIED``: it asks for rows that were deleted softly; ``TOO_LARGE``: it asks
            for more rows than one answer may have.
        UnknownStore: The store is not declared.
    """
    bound = rebind(query, schema.store, bounds)
    if reads_deleted(bound.plan):
        if deleted_rows is None:
            raise RemoteError(
                "this hub shows softly deleted rows to nobody: open_hub(deleted_rows=…) says who may see them",
                remote_code="UNSUPPORTED",
            )
        if not deleted_rows():
            raise RemoteError("you may not see softly deleted rows", remote_code="PERMISSION_DENIED")
    if (bound.plan.limit or 0) > ROWS_MAX:
        raise RemoteError(f"{bound.plan.limit} rows asked for, the limit is {ROWS_MAX}", remote_code="TOO_LARGE")
    return bound


def query_result(request: QueryRequest, query: BoundQuery, page: QueryPage, seconds: float) -> QueryResult:
    """The result of ``request``; its cursor is empty when there is no further page.

    Args:
        request: The request.
        query: The query that was carried out.
        page: What the database answered.
        seconds: How long it took.

    Raises:
        RemoteError: ``TOO_LARGE``: the answer does not fit.
    """
    if not page.complete:
        raise RemoteError(
            f"more than {ROWS_MAX} rows or too many bytes, children included; state a limit", remote_code="TOO_LARGE"
        )
    found = page.rows or page.tuples
    cursor = cursor_of(query, found[-1]) if page.more and found else ""
    meta = ExecutionMeta("remote", (Step("hub", "ok", seconds),), request.context.trace_id, cursor=cursor)
    return QueryResult(page.rows, page.tuples, meta)
