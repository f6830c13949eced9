"""Whether a commit can have changed a result: decided from the old and new rows alone, never wrongly "no"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from atoma.contracts.query import And, Compare, In, QuerySpec
from atoma.contracts.values import StoredRow
from atoma.query.evaluate import is_behind
from atoma_stores.changes import StoreDelta
from atoma_stores.reactive.filters import Filter

Places: TypeAlias = Callable[[StoredRow], bool]
"""Whether a row takes part in the result, or would move one that does."""


def column_of(row: StoredRow, field: str) -> object:
    """The stored value of a field; the id is one."""
    return row.id if field == "id" else row.image[field]


def touches(query: QuerySpec, fits: Filter, rows: Sequence[StoredRow] | None, delta: StoreDelta) -> bool:
    """Whether ``delta`` may have changed the result of ``query``.

    Args:
        query: The query.
        fits: Its filter.
        rows: The result just before ``delta``, or None when it is not known; then only the filter decides.
        delta: What a commit did to the query's store.
    """
    takes_part = _taking_part(query, fits, rows)
    for old, new in delta.values():
        if (old is not None and takes_part(old)) or (new is not None and takes_part(new)):
            return True
    return False


def _taking_part(query: QuerySpec, fits: Filter, rows: Sequence[StoredRow] | None) -> Places:
    if query.ids is not None:
        wanted = frozenset(query.ids)
        return lambda row: row.id in wanted
    if query.limit == 0:
        return lambda _: False
    order, after = query.order, query.after
    # A full window depends on the rows up to its last one only: what sorts behind it cannot push or pull any of them,
    # whatever the offset. A window that is not full ends where the rows end, and anything may enter it.
    last: tuple[object, ...] | None = None
    if rows and query.limit is not None and len(rows) == query.limit:
        last = tuple([column_of(rows[-1], sort.field) for sort in order])

    def takes_part(row: StoredRow) -> bool:
        if fits(row.id, row.image) is not True:
            return False
        if after is not None and not is_behind(row, order, after):
            return False
        return last is None or not is_behind(row, order, last)

    return takes_part


def required_values(query: QuerySpec) -> tuple[str, tuple[object, ...]] | None:
    """A field and the values of which a row must have one to take part, if the query says so; the index goes by it."""
    if query.ids is not None:
        return "id", query.ids
    parts = query.where.items if isinstance(query.where, And) else (query.where,)
    for part in parts:
        if isinstance(part, Compare) and part.op == "eq" and part.value is not None:
            return part.field, (part.value,)
    for part in parts:
        if isinstance(part, In):
            return part.field, tuple(value for value in part.values if value is not None)
    return None
