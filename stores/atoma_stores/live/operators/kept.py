"""What a result shows beside its rows, updated from the changes alone: their children, and how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from atoma.contracts.query import Include
from atoma.contracts.values import StoredRow
from atoma.query.compiled import Getter, compiled
from atoma.schema.spec import AnyStore
from atoma_stores.changes import BeforeAfter
from atoma_stores.live.operators.children import Children
from atoma_stores.live.operators.keys import Key, Sorting
from atoma_stores.live.operators.window import capacity_of

Made: TypeAlias = Any
"""A row of a result that is made of several: a tuple."""


@dataclass(frozen=True, slots=True)
class Belonging:
    """The test of whether a row is one of those that a row of the result refers to.

    Attributes:
        own: The column by which it is found.
        fits: Its own condition.
        pairs: Further columns, each with the value in the row of the result that it has to equal.
    """

    own: str
    fits: Getter
    pairs: tuple[tuple[str, Callable[[Made], object]], ...]

    def holds(self, row: StoredRow | None, value: object, made: Made) -> bool:
        """Return whether ``row`` belongs to ``made``, a row of the result that refers to others by ``value``."""
        if row is None or row.column(self.own) != value or not self.fits(row):
            return False
        for name, of in self.pairs:
            own = row.column(name)
            if own is None or own != of(made):
                return False
        return True


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

    def copied(self, row: Made, other: Made) -> Made:
        """Return ``row`` with the part of ``other``, which refers to the same value."""
        ...

    @property
    def is_own(self) -> bool:
        """Whether rows that refer to the same value may still differ in this part."""
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
        belonging: Whether a row is a child.
        include: The include.
        at: Their place in a row of the result.
        child: Their store.
    """

    def __init__(self, belonging: Belonging, include: Include, at: int, child: AnyStore) -> None:
        plan = include.branches[0].query
        self._belonging = belonging
        self.is_own = bool(belonging.pairs)
        self._at = at
        self._one = include.one
        self._limit = None if belonging.own == "id" else 1 if include.one else plan.limit
        self._sort = Sorting(plan.order, [compiled(each.expr, ()) for each in plan.order], (child,), turned=False).of
        self._children: dict[str, Children] = {}
        self.held = 0

    def after(self, id: str, value: object, row: Made, change: BeforeAfter) -> Made | None:
        """See ``KeptPart``."""
        before, after = (self._place(each, value, row) for each in change)
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

    def _place(self, child: StoredRow | None, value: object, row: Made) -> Key | None:
        """Return the sort key of ``child`` among the children of ``row``; None if it is not one of them."""
        return self._sort(child) if self._belonging.holds(child, value, row) else None

    def _found(self, row: Made) -> list[StoredRow]:
        children = row[self._at]
        if self._one:
            return [] if children is None else [children]
        return list(children)

    def _with(self, row: Made, children: Sequence[StoredRow]) -> Made:
        return self._put(row, (children[0] if children else None) if self._one else tuple(children))

    def _put(self, row: Made, part: object) -> Made:
        return (*row[: self._at], part, *row[self._at + 1 :])

    def copied(self, row: Made, other: Made) -> Made:
        """See ``KeptPart``."""
        return self._put(row, other[self._at])

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
        belonging: Whether a row counts.
        column: The place of the column.
        within: Whether the columns are the first part of a row.
    """

    held = 0

    def __init__(self, belonging: Belonging, column: int, *, within: bool) -> None:
        self._belonging = belonging
        self.is_own = bool(belonging.pairs)
        self._column = column
        self._within = within

    def after(self, id: str, value: object, row: Made, change: BeforeAfter) -> Made | None:
        """See ``KeptPart``."""
        old, new = change
        more = self._belonging.holds(new, value, row) - self._belonging.holds(old, value, row)
        if not more:
            return row
        return self._put(row, self._count(row) + more)

    def _count(self, row: Made) -> int:
        count: int = (row[0] if self._within else row)[self._column]
        return count

    def _put(self, row: Made, count: int) -> Made:
        columns = row[0] if self._within else row
        counted = (*columns[: self._column], count, *columns[self._column + 1 :])
        return (counted, *row[1:]) if self._within else counted

    def copied(self, row: Made, other: Made) -> Made:
        """See ``KeptPart``."""
        return self._put(row, self._count(other))

    def shown(self, row: Made) -> Made:
        """See ``KeptPart``."""
        return row

    def load(self, id: str, row: Made, read: Made) -> None:
        """See ``KeptPart``."""

    def forget(self, id: str) -> None:
        """See ``KeptPart``."""

    def clear(self) -> None:
        """See ``KeptPart``."""
