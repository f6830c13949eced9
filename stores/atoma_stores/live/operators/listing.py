"""Rows of one store, filtered, ordered, cut: kept up from the changed rows alone."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.ports.live import Change
from atoma.query.compiled import condition
from atoma.query.walk import value_of
from atoma.schema.spec import StoreSpec
from atoma_stores.changes import StoreDelta
from atoma_stores.live.operators.keys import Sorting
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.operators.window import Window
from atoma_stores.live.rows import by_id


class Listing:
    """The operator of a plan of whole rows whose conditions look at one row at a time.

    Args:
        query: The query, checked and in normal form.
        store: The store that it reads.
    """

    def __init__(self, query: BoundQuery, store: StoreSpec[object]) -> None:
        plan, params = query.plan, query.params
        turned = plan.backward and plan.limit is not None
        sorting = Sorting(plan.order, params, store, turned=turned)
        self._store = store.name
        self._sort = sorting.of
        self._turned = turned
        self._fits = condition(plan.where, params)
        seen = () if plan.seek is None else plan.seek.values
        self._seen = sorting.at([value_of(each, params) for each in seen]) if seen else None
        self._behind = not plan.backward or turned
        self._empty = plan.limit == 0
        self._window = Window(sorting.of, by_id, plan.limit, plan.offset, turned=turned)
        self._whole = BoundQuery(replace(plan, limit=self._window.capacity, offset=0), params)
        self._stale = True

    @property
    def lacks(self) -> bool:
        """See ``Operator``."""
        return self._stale or self._window.lacks

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """See ``Operator``."""
        window, takes = self._window, self._takes
        if settled:
            return {
                id: change
                for id, change in delta.items()
                if window.holds(id) or ((new := change[1]) is not None and takes(new) and window.admits(new))
            }
        return {
            id: (old, new)
            for id, (old, new) in delta.items()
            if window.holds(id) or (old is not None and takes(old)) or (new is not None and takes(new))
        }

    def apply(self, deltas: Deltas) -> None:
        """See ``Operator``."""
        for id, (_, new) in deltas.get(self._store, {}).items():
            self._window.put(id, new if new is not None and self._takes(new) else None)

    def forget(self) -> None:
        """See ``Operator``."""
        self._stale = True

    def reads(self) -> Sequence[BoundQuery]:
        """See ``Operator``."""
        return (self._whole,)

    def load(self, results: Sequence[QueryResult]) -> None:
        """See ``Operator``."""
        (result,) = results
        self._window.load(result.rows[::-1] if self._turned else result.rows)
        self._stale = False

    def collect(self) -> tuple[Change[StoredRow], ...]:
        """See ``Operator``."""
        return self._window.collect()

    @property
    def rows(self) -> tuple[StoredRow, ...]:
        """See ``Operator``."""
        return self._window.rows

    @property
    def shown(self) -> int:
        """See ``Operator``."""
        return self._window.shown

    @property
    def held(self) -> int:
        """See ``Operator``."""
        return len(self._window)

    def _takes(self, row: StoredRow) -> bool:
        if self._empty or not self._fits(row):
            return False
        if self._seen is None:
            return True
        place = self._sort(row)
        return place > self._seen if self._behind else place < self._seen
