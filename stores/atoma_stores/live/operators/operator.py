"""The protocol of the operators behind live queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from atoma.contracts.execution import QueryResult
from atoma.contracts.raw import Question
from atoma.ports.live import Change, ResultRow
from atoma_stores.changes import StoreDelta

Deltas: TypeAlias = Mapping[str, StoreDelta]
"""Store name → the changes in it."""


class Operator(Protocol):
    """The keeper of one query's result, without a task; it reads nothing itself, but says what has to be read.

    The answers have to be those of the database right after the last change that it has taken.
    """

    @property
    def stale(self) -> bool:
        """Whether the whole result has to be read, so that no changes need to be taken before."""
        ...

    @property
    def lacks(self) -> bool:
        """Whether something has to be read before the whole result is known."""
        ...

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """Return the changes of ``delta`` that may concern the result; this is cheap, and never misses one.

        Args:
            store: The store of the changes.
            delta: The changes.
            settled: Whether the operator has taken every change before these.
        """
        ...

    def apply(self, deltas: Deltas) -> None:
        """Take changes."""
        ...

    def forget(self) -> None:
        """Have the whole result read again before it is next reported, as some changes were not reported."""
        ...

    def reads(self) -> Sequence[Question]:
        """Return what has to be read while it lacks something."""
        ...

    def load(self, results: Sequence[QueryResult]) -> None:
        """Take the answers to :meth:`reads`."""
        ...

    def collect(self) -> tuple[Change[ResultRow], ...]:
        """Return the changes of the result since the last call; only called while it lacks nothing."""
        ...

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """The result; only read while the operator lacks nothing."""
        ...

    @property
    def shown(self) -> int:
        """The number of rows of the result."""
        ...

    @property
    def held(self) -> int:
        """The number of rows that are kept in memory for it."""
        ...


@runtime_checkable
class Surrounded(Protocol):
    """An operator whose rows show rows of other stores beside them."""

    def moved(self) -> Mapping[str, bool]:
        """Return the ids of the first store's rows that it may have gained or lost since the last call, and which it has now."""
        ...

    @property
    def beside(self) -> int:
        """The number of these rows that are kept sorted."""
        ...
