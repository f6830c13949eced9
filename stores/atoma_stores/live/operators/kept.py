"""What a result shows beside its rows, updated from the changes alone: their children, and how many there are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from atoma.contracts.query import Include
from atoma.contracts.values import StoredRow
from atoma.query.compiled import Getter, compiled, condition
from atoma.schema import Schema
from atoma_stores.changes import BeforeAfter
from atoma_stores.live.links import StoreLink
from atoma_stores.live.operators.keys import Key, Sorting
from atoma_stores.live.operators.window import capacity_of
from atoma_stores.live.rows import same

Made: TypeAlias = Any
"""A row of a result that is made of several: a tuple."""


class Children:
    """The children of one row, sorted: all of them, or the first ones up to a bound.

    Args:
        keys: Their sort keys.
        rows: The children.
        limit: At most so many are shown; None for all.
        whole: Whether there are no others.
    """

    __slots__ = ("_bound", "_keys", "_limit", "_rows")

    def __init__(self, keys: list[Key], rows: list[StoredRow], limit: int | None, *, whole: bool) -> None:
        self._keys = keys
        self._rows = rows
        self._limit = limit
        self._bound = None if whole else keys[-1]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lacks(self) -> bool:
        """Whether more have to be shown than are known."""
        return self._bound is not None and self._limit is not None and len(self._rows) < self._limit

    @property
    def shown(self) -> tuple[StoredRow, ...]:
        """The children that are shown."""
        return tuple(self._rows[: self._limit])

    def change(self, before: Key | None, after: Key | None, row: StoredRow | None) -> None:
        """Replace the child with the sort key ``before`` by ``row``, which has the key ``after``; None where it was, or is, no child."""
        if before is not None and before != after:
            at = bisect_left(self._keys, before)
            if at < len(self._keys) and self._keys[at] == before:
                del self._keys[at], self._rows[at]
        if after is None or row is None or (self._bound is not None and after > self._bound):
            return
        at = bisect_left(self._keys, after)
        if at == len(self._keys) or self._keys[at] != after:
            self._keys.insert(at, after)
            self._rows.insert(at, row)
            self._trim()
        elif not same(self._rows[at], row):
            self._rows[at] = row

    def _trim(self) -> None:
        capacity = capacity_of(self._limit, 0)
        if capacity is not None and len(self._rows) > 2 * capacity:
            del self._keys[capacity:], self._rows[capacity:]
            self._bound = self._keys[-1]


class KeptPart(Protocol):
    """A keeper of what the rows of a result show in one place."""

    def after(self, id: str, value: object, row: Made, change: BeforeAfter) -> Made | None:
        """Return a row of the result after a change to one of the rows shown there; None if it has to be read.

        Args:
            id: The id of the row of the first source.
            value: The value by which it refers to the others.
            row: The row before the change.
            change: What changed in one of the others.
        """
        ...

    def shown(self, row: Made) -> Made:
        """Return what is shown of a row that was read with more than that."""
        ...

    def load(self, id: str, row: Made, read: Made) -> None:
        """Keep what was ``read`` with ``row``, beyond what it shows."""
        ...

    def forget(self, id: str) -> None:
        """Forget a row, which has left the result or is read again."""
        ...

    def clear(self) -> None:
        """Forget every row."""
        ...

    @property
    def held(self) -> int:
        """The number of rows that are kept sorted, including those that are shown."""
        ...


class KeptChildren:
    """The children of one include.

    The rows of the result contain them. Once something has changed, some that are not shown are kept as well: those that others have
    displaced, and a few more when a row had to be read.

    Args:
        link: The place where the plan reads them.
        include: The include.
        at: Their place in a row of the result.
        schema: The declared stores.
    """

    def __init__(self, link: StoreLink, include: Include, at: int, schema: Schema) -> None:
        plan = include.branches[0].query
        child = schema.store(link.store)
        self._own = link.own
        self._at = at
        self._one = include.one
        self._limit = None if link.own == "id" else 1 if include.one else plan.limit
        self._fits = condition(plan.where, ())
        self._sort = Sorting(plan.order, [compiled(each.expr, ()) for each in plan.order], (child,), turned=False).of
        self._children: dict[str, Children] = {}
        self.held = 0

    def after(self, id: str, value: object, row: Made, change: BeforeAfter) -> Made | None:
        """See ``KeptPart``."""
        before, after = (self._place(each, value) for each in change)
        if before is None and after is None:
            return row
        children = self._children.get(id)
        if children is None:
            found = self._found(row)
            whole = self._limit is None or len(found) < self._limit
            children = self._keep(id, found, whole=whole)
        self.held -= len(children)
        children.change(before, after, change[1])
        self.held += len(children)
        if children.lacks:
            return None
        return self._with(row, children.shown)

    def _place(self, row: StoredRow | None, value: object) -> Key | None:
        """Return the sort key of ``row`` among the children with ``value``; None if it is not one of them."""
        return self._sort(row) if row is not None and row.column(self._own) == value and self._fits(row) else None

    def _found(self, row: Made) -> list[StoredRow]:
        children = row[self._at]
        if self._one:
            return [] if children is None else [children]
        return list(children)

    def _with(self, row: Made, children: Sequence[StoredRow]) -> Made:
        part = (children[0] if children else None) if self._one else tuple(children)
        return (*row[: self._at], part, *row[self._at + 1 :])

    def shown(self, row: Made) -> Made:
        """See ``KeptPart``."""
        return row if self._one or self._limit is None else self._with(row, row[self._at][: self._limit])

    def load(self, id: str, row: Made, read: Made) -> None:
        """See ``KeptPart``."""
        if self._one or self._limit is None:
            self.forget(id)
            return
        found = [*row[self._at], *read[self._at][self._limit :]]
        whole = len(found) != capacity_of(self._limit, 0)
        self._keep(id, found, whole=whole)

    def _keep(self, id: str, found: list[StoredRow], *, whole: bool) -> Children:
        self.forget(id)
        children = self._children[id] = Children(list(map(self._sort, found)), found, self._limit, whole=whole)
        self.held += len(children)
        return children

    def forget(self, id: str) -> None:
        """See ``KeptPart``."""
        children = self._children.pop(id, None)
        if children is not None:
            self.held -= len(children)

    def clear(self) -> None:
        """See ``KeptPart``."""
        self._children, self.held = {}, 0


class KeptCount:
    """The column of a result that counts the rows of a subquery.

    Args:
        link: The place where the plan reads them.
        fits: Whether a row counts.
        column: The place of the column.
        within: Whether the columns are the first part of a row.
    """

    held = 0

    def __init__(self, link: StoreLink, fits: Getter, column: int, *, within: bool) -> None:
        self._own = link.own
        self._fits = fits
        self._column = column
        self._within = within

    def after(self, id: str, value: object, row: Made, change: BeforeAfter) -> Made | None:
        """See ``KeptPart``."""
        old, new = change
        more = self._counts(new, value) - self._counts(old, value)
        if not more:
            return row
        columns = row[0] if self._within else row
        counted = (*columns[: self._column], columns[self._column] + more, *columns[self._column + 1 :])
        return (counted, *row[1:]) if self._within else counted

    def _counts(self, row: StoredRow | None, value: object) -> bool:
        return row is not None and row.column(self._own) == value and bool(self._fits(row))

    def shown(self, row: Made) -> Made:
        """See ``KeptPart``."""
        return row

    def load(self, id: str, row: Made, read: Made) -> None:
        """See ``KeptPart``."""

    def forget(self, id: str) -> None:
        """See ``KeptPart``."""

    def clear(self) -> None:
        """See ``KeptPart``."""
