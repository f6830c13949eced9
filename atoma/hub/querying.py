"""Direct queries: checked as strictly as if a stranger had sent them, and kept to the scopes one may read."""

from __future__ import annotations

from typing import Any

import msgspec

from atoma.contracts.execution import ExecutionMeta, QueryRequest, QueryResult, Step
from atoma.contracts.limits import ROWS_MAX
from atoma.contracts.query import And, Compare, QuerySpec
from atoma.errors import QueryError, RemoteError
from atoma.ports.hub import QueryPage
from atoma.query import check
from atoma.query.builder import encode_cursor
from atoma.schema.kinds import INT64_MAX, is_unicode
from atoma.schema.spec import StoreSpec


def check_query(query: QuerySpec, store: StoreSpec[Any]) -> QuerySpec:
    """``query`` with a total order, once it is clear that it fits ``store`` and is of bounded size.

    Raises:
        QueryError: It does not.
        RemoteError: ``TOO_LARGE``: it asks for more rows than one answer may have.
    """
    asked = max(query.limit or 0, len(query.ids or ()))
    if asked > ROWS_MAX:
        raise RemoteError(f"{asked} rows asked for, the limit is {ROWS_MAX}", remote_code="TOO_LARGE")
    if not 0 <= query.offset <= INT64_MAX or (query.limit or 0) < 0:
        raise QueryError("limit and offset must be 0 or more")
    if not all(is_unicode(id) for id in query.ids or ()):
        raise QueryError("an id has a lone surrogate")
    return check.check_query(query, store)


def pinned_scope(query: QuerySpec, store: StoreSpec[Any]) -> str | None:
    """The only scope the query can find rows in, None when it may be several."""
    if store.scope_field is None:
        return store.fixed_scope
    parts = query.where.items if isinstance(query.where, And) else (query.where,)
    for part in parts:
        if isinstance(part, Compare) and part.op == "eq" and part.field == store.scope_field:
            return part.value if isinstance(part.value, str) else None
    return None


def query_result(request: QueryRequest, query: QuerySpec, page: QueryPage, seconds: float) -> QueryResult:
    """The result of ``request``; its cursor is empty when there is no further page.

    Args:
        request: The request.
        query: The query that was carried out, with one row more than was asked for.
        page: What the database answered.
        seconds: How long it took.

    Raises:
        RemoteError: ``TOO_LARGE``: the answer does not fit.
    """
    if not page.complete:
        raise RemoteError(f"more than {ROWS_MAX} rows or too many bytes; state a limit", remote_code="TOO_LARGE")
    rows, cursor, limit = page.rows, "", request.query.limit
    if limit is not None and len(rows) > limit:
        rows = rows[:limit]
        cursor = encode_cursor(rows[-1], query.order) if rows else ""
    meta = ExecutionMeta("remote", (Step("hub", "ok", seconds),), request.context.trace_id, cursor)
    return QueryResult(rows, page.total, meta)


def with_one_more(query: QuerySpec) -> QuerySpec:
    """``query`` asking for one row more, to see whether there is a further page."""
    if query.limit is None or query.ids is not None or query.count:
        return query
    return msgspec.structs.replace(query, limit=query.limit + 1)
