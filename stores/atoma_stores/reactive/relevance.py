"""Whether a commit can have changed a result: decided from the old and new rows alone, never wrongly "no"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from atoma.contracts.query import BoundQuery, Call, Col, Param
from atoma.contracts.values import StoredRow
from atoma.query.compiled import condition, order_keys
from atoma.query.evaluate import is_beyond, sort_key
from atoma.query.walk import conjuncts, value_of
from atoma_stores.changes import StoreDelta

Places: TypeAlias = Callable[[StoredRow], bool]
"""Whether a row takes part in the result, or would move one that does."""


class Relevance:
    """Decides for one query.

    Args:
        query: The query: rows of one store, checked and in normal form.
    """

    def __init__(self, query: BoundQuery) -> None:
        plan, params = query.plan, query.params
        self._order, self._limit = plan.order, plan.limit
        self._fits = condition(plan.where, params)
        self._keys = order_keys(query)
        self._forward = not plan.backward
        values = () if plan.seek is None else plan.seek.values
        self._seen = [sort_key(value_of(each, params)) for each in values] or None

    def touches(self, rows: Sequence[StoredRow] | None, delta: StoreDelta) -> bool:
        """Whether ``delta`` may have changed the result.

        Args:
            rows: The result just before ``delta``, or None when it is not known; then only the filter decides.
            delta: What a commit did to the query's store.
        """
        takes_part = self._taking_part(rows)
        for old, new in delta.values():
            if (old is not None and takes_part(old)) or (new is not None and takes_part(new)):
                return True
        return False

    def _taking_part(self, rows: Sequence[StoredRow] | None) -> Places:
        if self._limit == 0:
            return lambda _: False
        fits, keys, seen, order, forward = self._fits, self._keys, self._seen, self._order, self._forward
        # A full window depends on the rows up to its last one only: what sorts behind it cannot push or pull any of
        # them, whatever the offset. A window that is not full ends where the rows end, and anything may enter it.
        last = None
        if rows and self._limit is not None and len(rows) == self._limit and forward:
            last = keys(rows[-1])

        def takes_part(row: StoredRow) -> bool:
            if not fits(row):
                return False
            if seen is None and last is None:
                return True
            own = keys(row)
            if seen is not None and not is_beyond(own, seen, order, forward=forward):
                return False
            return last is None or not is_beyond(own, last, order, forward=True)

        return takes_part


def required_values(query: BoundQuery) -> tuple[str, tuple[object, ...]] | None:
    """A field and the values of which a row must have one to take part, if the query says so; the index goes by it."""
    parts = [part for part in conjuncts(query.plan.where) if isinstance(part, Call)]
    for wanted in ("eq", "in"):
        for part in parts:
            column = part.args[0] if part.args else None
            if part.fn == wanted and isinstance(column, Col) and all(isinstance(arg, Param) for arg in part.args[1:]):
                return column.name, tuple([value_of(arg, query.params) for arg in part.args[1:]])
    return None
