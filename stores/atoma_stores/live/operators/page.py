"""The page that a plan shows of an ordered result: after its cursor or before it, from its offset up to its limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from atoma.contracts.query import Plan
from atoma.ports.live import Change, ResultKey
from atoma.query.compiled import Getter
from atoma.query.walk import value_of
from atoma.schema.spec import AnyStore
from atoma_stores.live.operators.keys import Sorting
from atoma_stores.live.operators.window import Window
from atoma_stores.live.rows import KeyOf

R = TypeVar("R")


def is_turned(plan: Plan) -> bool:
    """Whether the rows of a page of ``plan`` are held in reverse order."""
    return plan.backward and (plan.limit is not None or plan.offset > 0)


def sorting_of(plan: Plan, getters: Sequence[Getter], stores: Sequence[AnyStore | None]) -> Sorting:
    """Return the order of the rows of ``plan`` on its page.

    Args:
        plan: The plan.
        getters: The functions that take its sort keys from a row of the result.
        stores: See ``Sorting``.
    """
    return Sorting(plan.order, getters, stores, turned=is_turned(plan))


class PageOperator(Generic[R]):
    """A window on the rows of a result that come after its cursor.

    Attributes:
        turned: Whether its rows are held in reverse order.
        window: The rows.

    Args:
        plan: The plan.
        params: Its values.
        sorting: The order of its rows; see :func:`sorting_of`.
        key_of: Makes the keys of the rows of the result.
    """

    def __init__(self, plan: Plan, params: Sequence[object], sorting: Sorting, key_of: KeyOf[R]) -> None:
        self.turned = is_turned(plan)
        self._sort = sorting.of
        seen = () if plan.seek is None else plan.seek.values
        self._seen = sorting.at([value_of(each, params) for each in seen]) if seen else None
        self._behind = not plan.backward or self.turned
        self._empty = plan.limit == 0
        self.window = Window(sorting.of, key_of, plan.limit, plan.offset, turned=self.turned)

    @property
    def capacity(self) -> int | None:
        """The maximum number of rows that are held; None for all."""
        return self.window.capacity

    def takes(self, row: R) -> bool:
        """Whether ``row``, which belongs to the result, comes after the cursor."""
        if self._seen is None:
            return not self._empty
        place = self._sort(row)
        return not self._empty and (place > self._seen if self._behind else place < self._seen)

    def put(self, key: ResultKey, row: R | None) -> None:
        """Replace the row of ``key`` by ``row``; None if the result no longer has it."""
        self.window.put(key, row if row is not None and self.takes(row) else None)

    def load(self, rows: Sequence[R]) -> None:
        """Hold ``rows`` from now on, the result of a query for the first :attr:`capacity` rows of the page."""
        self.window.load(rows[::-1] if self.turned else rows)

    def fill(self, rows: Iterable[R]) -> None:
        """Hold the page of ``rows``, which are the whole result in any order."""
        self.window.load(sorted(filter(self.takes, rows), key=self._sort)[: self.capacity])

    def collect(self) -> tuple[Change[R], ...]:
        """Return the changes of the page since the last call."""
        return self.window.collect()
