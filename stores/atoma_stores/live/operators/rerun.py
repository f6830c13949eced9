"""A result that is read again whenever a change may concern it, and compared with the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.ports.live import Change
from atoma_stores.changes import StoreDelta
from atoma_stores.live.diff import diff
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.rows import by_id, keep_unchanged

Test: TypeAlias = Callable[[StoredRow], object]
"""Whether a row can be part of a result, or can have been."""


class Rerun:
    """The operator of any query.

    Args:
        query: The query, checked and in normal form.
        tests: Store name → which of its rows may concern the result; None for all.
        rows: The result that was told last; None before the first time.
    """

    def __init__(
        self, query: BoundQuery, tests: Mapping[str, Test | None], rows: tuple[StoredRow, ...] | None = None
    ) -> None:
        self._query = query
        self._tests = tests
        self._rows = rows or ()
        self._before: tuple[StoredRow, ...] | None = None
        self._stale = True
        self._loaded = rows is not None

    @property
    def lacks(self) -> bool:
        """See ``Operator``."""
        return self._stale

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """See ``Operator``."""
        test = self._tests.get(store)
        if test is None:
            return delta
        return {
            id: (old, new)
            for id, (old, new) in delta.items()
            if (old is not None and test(old)) or (new is not None and test(new))
        }

    def apply(self, deltas: Deltas) -> None:
        """See ``Operator``."""
        self._stale = self._stale or any(deltas.values())

    def forget(self) -> None:
        """See ``Operator``."""
        self._stale = True

    def reads(self) -> Sequence[BoundQuery]:
        """See ``Operator``."""
        return (self._query,)

    def load(self, results: Sequence[QueryResult]) -> None:
        """See ``Operator``."""
        (result,) = results
        if self._loaded:
            self._before = self._rows if self._before is None else self._before
            self._rows = tuple(keep_unchanged(self._before, result.rows, by_id))
        else:
            self._rows, self._loaded = result.rows, True
        self._stale = False

    def collect(self) -> tuple[Change[StoredRow], ...]:
        """See ``Operator``."""
        before, self._before = self._before, None
        return () if before is None else diff(before, self._rows, by_id)

    @property
    def rows(self) -> tuple[StoredRow, ...]:
        """See ``Operator``."""
        return self._rows

    @property
    def shown(self) -> int:
        """See ``Operator``."""
        return len(self._rows)

    @property
    def held(self) -> int:
        """See ``Operator``."""
        return len(self._rows)
