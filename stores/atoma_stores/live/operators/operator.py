"""What the engine asks of the operators behind a live query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from atoma.contracts.execution import QueryResult
from atoma.contracts.raw import Question
from atoma.ports.live import Change, ResultRow
from atoma_stores.changes import StoreDelta

Deltas: TypeAlias = Mapping[str, StoreDelta]
"""Store name → what has changed in it."""


class Operator(Protocol):
    """A keeper of the result of one query. It holds no task and reads nothing itself: it says what it has to read.

    What it reads is the state of the database right behind the last change that it has taken.
    """

    @property
    def stale(self) -> bool:
        """Whether the whole result has to be read, so that changes need not be taken before."""
        ...

    @property
    def lacks(self) -> bool:
        """Whether the result, or a part of it, is not known before something was read."""
        ...

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """The changes of ``delta`` that may concern the result; cheap, never wrongly without one.

        Args:
            store: Where they were made.
            delta: The changes.
            settled: Whether the operator has taken every change before these.
        """
        ...

    def apply(self, deltas: Deltas) -> None:
        """Take changes."""
        ...

    def forget(self) -> None:
        """Read the whole result again before it is told next: changes were made that nobody has told."""
        ...

    def reads(self) -> Sequence[Question]:
        """What has to be read while it lacks something."""
        ...

    def load(self, results: Sequence[QueryResult]) -> None:
        """Take the answers to :meth:`reads`."""
        ...

    def collect(self) -> tuple[Change[ResultRow], ...]:
        """How the result has changed since the last time; only asked while it lacks nothing."""
        ...

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """The result; only asked while it lacks nothing."""
        ...

    @property
    def shown(self) -> int:
        """How many rows the result has."""
        ...

    @property
    def held(self) -> int:
        """How many rows are kept in memory for it."""
        ...


@runtime_checkable
class Surrounded(Protocol):
    """An operator beside whose rows those of other stores stand."""

    def moved(self) -> Mapping[str, bool]:
        """The ids of rows of the first store that it may have got or lost since the last call; whether it has them now."""
        ...
