"""Groups, or distinct rows, of one store, which are kept up to date from the changed rows alone."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.ports.live import Change
from atoma.query.compiled import compiled, condition
from atoma_stores.changes import StoreDelta
from atoma_stores.live.operators.grouping import Grouping, GroupParts
from atoma_stores.live.operators.groups import Groups
from atoma_stores.live.operators.operator import Deltas


class Grouped:
    """The operator of groups, or of distinct rows, of a store, with conditions on one row at a time.

    Args:
        store: The store.
        grouping: The groups of the plan.
    """

    def __init__(self, store: str, grouping: Grouping) -> None:
        self._store = store
        self._grouping = grouping
        self._fits = condition(grouping.plan.where, ())
        self._parts = [compiled(expr, ()) for expr in grouping.parts]
        self._groups = Groups(grouping)
        self._stale = True

    @property
    def stale(self) -> bool:
        """See ``Operator``."""
        return self._stale

    @property
    def lacks(self) -> bool:
        """See ``Operator``."""
        return self._stale or self._groups.lacks

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """See ``Operator``."""
        of = self._of
        return {id: change for id, change in delta.items() if of(change[0]) != of(change[1])}

    def apply(self, deltas: Deltas) -> None:
        """See ``Operator``."""
        for old, new in deltas.get(self._store, {}).values():
            self._groups.put(self._of(old), self._of(new))
        if self._groups.overflown:
            self._stale = True

    def forget(self) -> None:
        """See ``Operator``."""
        self._stale = True

    def reads(self) -> Sequence[BoundQuery]:
        """See ``Operator``."""
        return (self._grouping.rows,) if self._stale else self._groups.reads()

    def load(self, results: Sequence[QueryResult]) -> None:
        """See ``Operator``."""
        if self._stale:
            self._groups.load(results[0].tuples)
            self._stale = False
        else:
            self._groups.take(results)

    def collect(self) -> tuple[Change[GroupParts], ...]:
        """See ``Operator``."""
        return self._groups.collect()

    @property
    def rows(self) -> tuple[GroupParts, ...]:
        """See ``Operator``."""
        return self._groups.page.window.rows

    @property
    def shown(self) -> int:
        """See ``Operator``."""
        return self._groups.page.window.shown

    @property
    def held(self) -> int:
        """See ``Operator``."""
        return len(self._groups)

    def _of(self, row: StoredRow | None) -> GroupParts | None:
        """Return the parts of ``row``; None if it does not belong to the result."""
        if row is None or not self._fits(row):
            return None
        return tuple([get(row) for get in self._parts])
