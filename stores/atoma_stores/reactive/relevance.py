"""Whether a commit can have changed a result: decided from the old and new rows alone, never wrongly "no"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from atoma.contracts.query import And, Compare, In, QuerySpec, Sort
from atoma.contracts.values import StoredRow
from atoma.query import matches
from atoma_stores.changes import StoreDelta

Places: TypeAlias = Callable[[StoredRow], bool]
"""Whether a row takes part in the result, or would move one that does."""


def column_of(row: StoredRow, field: str) -> object:
    """The stored value of a field; the id is one."""
    return row.id if field == "id" else row.image[field]


def touches(query: QuerySpec, rows: Sequence[StoredRow] | None, delta: StoreDelta) -> bool:
    """Whether ``delta`` may have changed the result of ``query``.

    Args:
        query: The query.
        rows: The result just before ``delta``, or None when it is not known; then only the filter decides.
        delta: What a commit did to the query's store.
    """
    takes_part = _taking_part(query, rows)
    for old, new in delta.values():
        if (old is not None and takes_part(old)) or (new is not None and takes_part(new)):
            return True
    return False


def _taking_part(query: QuerySpec, rows: Sequence[StoredRow] | None) -> Places:
    if query.ids is not None:
        wanted = frozenset(query.ids)
        return lambda row: row.id in wanted
    if query.limit == 0:
        return lambda _: False
    where, order, after = query.where, query.order, query.after
    # A full window depends on the rows up to its last one only: what sorts behind it cannot push or pull any of them,
    # whatever the offset. A window that is not full ends where the rows end, and anything may enter it.
    last: tuple[object, ...] | None = None
    if rows and query.limit is not None and len(rows) == query.limit:
        last = _keys(rows[-1], order)

    def takes_part(row: StoredRow) -> bool:
        if where is not None and not matches(where, row):
            return False
        if after is None and last is None:
            return True
        keys = _keys(row, order)
        if after is not None and not sorts_behind(keys, after, order):
            return False
        return last is None or not sorts_behind(keys, last, order)

    return takes_part


def _keys(row: StoredRow, order: Sequence[Sort]) -> tuple[object, ...]:
    return tuple([column_of(row, sort.field) for sort in order])


def sorts_behind(one: Sequence[object], other: Sequence[object], order: Sequence[Sort]) -> bool:
    """Whether the row with sort-key values ``one`` comes strictly behind the one with ``other``; NULL is the smallest."""
    for value, limit, sort in zip(one, other, order, strict=True):
        if value == limit:
            continue
        smaller = value is None if value is None or limit is None else _is_less(value, limit)
        return smaller == sort.descending
    return False


def _is_less(one: object, other: object) -> bool:
    return cast("str", one) < cast("str", other)  # two values of one STRICT column: text, numbers or bytes alike


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
