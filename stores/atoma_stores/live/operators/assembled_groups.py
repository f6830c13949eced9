"""Groups, or distinct rows, of rows that are made of several rows: the parts of those that have changed are read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.ports.live import Change
from atoma.schema import Schema
from atoma_stores.changes import StoreDelta
from atoma_stores.live.links import Links, reaches
from atoma_stores.live.operators.affected import Affected
from atoma_stores.live.operators.assembled import source_condition
from atoma_stores.live.operators.grouping import Grouping, GroupParts
from atoma_stores.live.operators.groups import Groups
from atoma_stores.live.operators.operator import Deltas

Ids = tuple[Any, ...]


class AssembledGroups:
    """The operator of groups, or of distinct rows, over joined rows or rows with subqueries in their conditions.

    It keeps the parts of every row that is in a group.

    Args:
        grouping: What the plan makes of its rows.
        links: The places where it reads rows.
        schema: The declared stores.
    """

    def __init__(self, grouping: Grouping, links: Links, schema: Schema) -> None:
        self._grouping = grouping
        self._groups = Groups(grouping)
        self._affected = Affected(grouping.bindings, links, None, schema)
        self._fits = source_condition(grouping.plan)
        self._parts: dict[str, dict[Ids, GroupParts]] = {}  # by the id of the first row, then by the ids of all
        self._count = 0
        self._stale = True

    @property
    def stale(self) -> bool:
        """See ``Operator``."""
        return self._stale

    @property
    def lacks(self) -> bool:
        """See ``Operator``."""
        return self._stale or bool(self._affected) or self._groups.lacks

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """See ``Operator``."""
        links = self._affected.links(store)
        found = {id: change for id, change in delta.items() if any(reaches(change, link.columns) for link in links)}
        if all(link.parent is None for link in links):
            fits = self._fits
            return {id: change for id, change in found.items() if any(row is not None and fits(row) for row in change)}
        return found

    def apply(self, deltas: Deltas) -> None:
        """See ``Operator``."""
        self._affected.note(deltas)
        if self._affected.overflown:
            self.forget()

    def forget(self) -> None:
        """See ``Operator``."""
        self._stale = True
        self._affected.forget()

    def reads(self) -> Sequence[BoundQuery]:
        """See ``Operator``."""
        if self._stale:
            return (self._grouping.bound,)
        return self._affected.reads() if self._affected else self._groups.reads()

    def load(self, results: Sequence[QueryResult]) -> None:
        """See ``Operator``."""
        if self._stale:
            self._parts, self._count = {}, 0
            self._groups.load((*self._keep(row), 1) for row in results[0].tuples)
            self._stale = False
            self._affected.forget()
        elif self._affected:
            found = self._affected.load(results)
            if found is not None:
                self._replace(tuple(found[0]), found[1].tuples)
        else:
            self._groups.take(results)
        if self._affected.overflown or (not self._affected and self._groups.overflown):
            self.forget()

    def _keep(self, row: tuple[Any, ...]) -> GroupParts:
        """Keep a row that was read, and return its parts."""
        width = len(self._grouping.parts)
        parts, ids = row[:width], row[width:]
        self._parts.setdefault(ids[0], {})[ids] = parts
        self._count += 1
        return parts

    def _replace(self, ids: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """Replace what is made of the rows ``ids`` of the first source by ``rows``."""
        before = {id: self._parts.pop(id, {}) for id in ids}
        self._count -= sum(map(len, before.values()))
        for row in rows:
            self._keep(row)
        for id, old in before.items():
            new = self._parts.get(id, {})
            for key in dict.fromkeys((*old, *new)):
                self._groups.put(old.get(key), new.get(key))

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
        return len(self._groups) + self._count
