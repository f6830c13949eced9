"""The groups of a result: the rows that enter and leave them, and the page of group rows that is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, cast

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.ports.live import Change
from atoma.query.bounds import check_groups
from atoma_stores.live.operators.aggregates import Distinct, Extreme, RunningAggregate
from atoma_stores.live.operators.grouping import Grouping, GroupKey, GroupParts
from atoma_stores.live.operators.page import PageOperator, sorting_of

READS = 32
"""Number of extremes that are read one by one; if there are more, the groups are read again."""


class Group:
    """One group: the number of its rows, and their aggregates."""

    __slots__ = ("aggregates", "rows")

    def __init__(self, aggregates: list[RunningAggregate]) -> None:
        self.rows = 0
        self.aggregates = aggregates

    @property
    def held(self) -> int:
        """The number of values that are kept for it."""
        return 1 + sum([len(each) for each in self.aggregates if isinstance(each, (Distinct, Extreme))])


class Groups:
    """The groups of a plan, and the page that is shown of them.

    Args:
        grouping: The groups of the plan.
    """

    def __init__(self, grouping: Grouping) -> None:
        plan = grouping.plan
        self._grouping = grouping
        self._groups: dict[GroupKey, Group] = {}
        self._changed: dict[GroupKey, None] = {}
        self._lacking: dict[tuple[GroupKey, int], None] = {}  # extremes whose best values have to be read
        self._columns = [grouping.getter(named.expr) for named in plan.columns or ()]
        self._having = None if plan.having is None else grouping.getter(plan.having)
        places = grouping.places
        getters = [itemgetter(places[each.expr]) for each in plan.order]
        keys = [places[expr] for expr in grouping.keys]
        self.page: PageOperator[GroupParts] = PageOperator(
            plan, (), sorting_of(plan, getters, ()), lambda row: tuple([row[at] for at in keys])
        )
        self._held = 0
        self._sized = any(isinstance(each, (Distinct, Extreme)) for each in grouping.make())

    def __len__(self) -> int:
        return self._held

    def put(self, old: GroupParts | None, new: GroupParts | None) -> None:
        """Replace the parts ``old`` of a row by ``new``; None if it did, or does, not belong to the result."""
        if old == new:
            return
        if new is not None:
            self._add(new, 1)
        if old is not None:
            self._remove(old)

    def load(self, found: Iterable[tuple[Any, ...]]) -> None:
        """Hold the groups of ``found`` from now on: parts of rows, each with its count."""
        self._groups, self._held = {}, 0
        if self._grouping.is_one:
            self._groups[()] = Group(self._grouping.make())
        for each in found:
            self._add(each[:-1], each[-1])
        self._changed, self._lacking = {}, {}
        self._fill()

    @property
    def lacks(self) -> bool:
        """Whether the best values of an extreme have to be read before it is known."""
        return bool(self._lacking)

    @property
    def overflown(self) -> bool:
        """Whether these are too many to be read one by one, or include one that no query can ask for."""
        return len(self._lacking) > READS or any(map(_has_nul, chain.from_iterable(key for key, _ in self._lacking)))

    def reads(self) -> list[BoundQuery]:
        """Return what has to be read about the groups that are held."""
        return [self._grouping.extreme(key, number) for key, number in self._lacking]

    def take(self, results: Sequence[QueryResult]) -> None:
        """Take the answers to :meth:`reads`."""
        lacking, self._lacking = self._lacking, {}
        for (key, number), result in zip(lacking, results, strict=True):
            group = self._groups[key]
            each = group.aggregates[number]
            assert isinstance(each, Extreme)
            before = group.held
            each.read(cast("Iterable[tuple[Any, int]]", result.tuples))
            self._held += group.held - before

    def collect(self) -> tuple[Change[GroupParts], ...]:
        """Return the changes of the page since the last call.

        Raises:
            QueryError: A result does not fit into 64 bits, or there are too many groups.
        """
        changed, self._changed = self._changed, {}
        for key in changed:
            self.page.put(key, self._row(key))
        if self.page.window.lacks:
            self._fill()
        if self._grouping.plan.group:
            check_groups(self.page.window.shown)
        return self.page.collect()

    def _fill(self) -> None:
        self.page.fill(self._rows())

    def _rows(self) -> Iterator[GroupParts]:
        for key in self._groups:
            row = self._row(key)
            if row is not None:
                yield row

    def _row(self, key: GroupKey) -> GroupParts | None:
        group = self._groups.get(key)
        if group is None:
            return None
        cells = (*key, *[each.value for each in group.aggregates])
        if self._having is not None and not self._having(cells):
            return None
        return tuple([get(cells) for get in self._columns])

    def _add(self, parts: GroupParts, times: int) -> None:
        key = parts[: len(self._grouping.keys)]
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self._grouping.make())
            self._held += 1
        before = group.held if self._sized else 1
        group.rows += times
        for each, value in zip(group.aggregates, islice(parts, len(key), None), strict=True):
            if value is not None:
                each.add(value, times)
        self._settle(key, group, before)

    def _remove(self, parts: GroupParts) -> None:
        key = parts[: len(self._grouping.keys)]
        group = self._groups[key]
        before = group.held if self._sized else 1
        group.rows -= 1
        for number, (each, value) in enumerate(zip(group.aggregates, islice(parts, len(key), None), strict=True)):
            if value is not None:
                each.remove(value)
                if isinstance(each, Extreme) and each.lacks:
                    self._lacking[key, number] = None
        self._settle(key, group, before)
        if not group.rows and not self._grouping.is_one:
            del self._groups[key]
            self._held -= 1
            for number in range(len(group.aggregates)):
                self._lacking.pop((key, number), None)

    def _settle(self, key: GroupKey, group: Group, before: int) -> None:
        self._changed[key] = None
        if self._sized:
            self._held += group.held - before


def _has_nul(value: object) -> bool:
    """Whether a value is a text, of an older file or another tool, that no query may contain."""
    return isinstance(value, str) and "\x00" in value
