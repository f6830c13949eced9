"""Results that are read again whenever a change may concern them, and compared with the previous ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from atoma.contracts.execution import QueryResult
from atoma.contracts.raw import Question
from atoma.ports.live import Change, ResultRow
from atoma_stores.changes import BeforeAfter, StoreDelta
from atoma_stores.live.diff import diff
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.rows import KeyOf, keep_unchanged

ChangeTest: TypeAlias = Callable[[BeforeAfter], object]
"""Says whether the change of a row can have changed the result."""


class Rerun:
    """The operator of any query, and of any statement.

    Args:
        question: The query, checked and in normal form, or the statement.
        key_of: Makes the keys of its rows.
        tests: Store name → the test whether a change of its rows may concern the result; None if every change may.
        rows: The result that was last reported; None before the first time.
    """

    def __init__(
        self,
        question: Question,
        key_of: KeyOf[Any],
        tests: Mapping[str, ChangeTest | None],
        rows: tuple[ResultRow, ...] | None = None,
    ) -> None:
        self._question = question
        self._tests = tests
        self._key_of = key_of
        self._rows: tuple[ResultRow, ...] = rows or ()
        self._before: tuple[ResultRow, ...] | None = None
        self._stale = True
        self._loaded = rows is not None

    @property
    def stale(self) -> bool:
        """See ``Operator``."""
        return self._stale

    @property
    def lacks(self) -> bool:
        """See ``Operator``."""
        return self._stale

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """See ``Operator``."""
        test = self._tests.get(store)
        if test is None:
            return delta
        return {id: change for id, change in delta.items() if test(change)}

    def apply(self, deltas: Deltas) -> None:
        """See ``Operator``."""
        self._stale = self._stale or any(deltas.values())

    def forget(self) -> None:
        """See ``Operator``."""
        self._stale = True

    def reads(self) -> Sequence[Question]:
        """See ``Operator``."""
        return (self._question,)

    def load(self, results: Sequence[QueryResult]) -> None:
        """See ``Operator``."""
        (result,) = results
        rows: tuple[ResultRow, ...] = tuple(result.rows or result.tuples)
        if self._loaded:
            self._before = self._rows if self._before is None else self._before
            self._rows = tuple(keep_unchanged(self._before, rows, self._key_of))
        else:
            self._rows, self._loaded = rows, True
        self._stale = False

    def collect(self) -> tuple[Change[ResultRow], ...]:
        """See ``Operator``."""
        before, self._before = self._before, None
        return () if before is None else diff(before, self._rows, self._key_of)

    @property
    def rows(self) -> tuple[ResultRow, ...]:
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
