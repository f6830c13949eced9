"""The index that finds, by the values of a changed row, the views that it may concern; no other view is visited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from atoma.contracts.query import BoundQuery, Call, Col, Param
from atoma.contracts.values import StoredRow
from atoma.query.walk import conjuncts, value_of
from atoma_stores.live.ranges import Ranges

V = TypeVar("V")

_LOW, _HIGH = frozenset({"gt", "ge"}), frozenset({"lt", "le"})
FieldNames: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """The values that a row must have to concern a view; without columns, any row may.

    Attributes:
        columns: The columns by which the view is found.
        values: The values of these columns, one tuple for each combination that matches; None for a range.
        low: The lowest value of the only column's range; None if it has no lower bound.
        high: The highest value of the range; None if it has no upper bound.
        beside: Whether the only column has to hold the id of a row that the view has at that time.
    """

    columns: FieldNames = ()
    values: tuple[tuple[Any, ...], ...] | None = None
    low: Any = None
    high: Any = None
    beside: bool = False

    def __str__(self) -> str:
        if not self.columns:
            return "every row of the store"
        if self.beside:
            return f"{self.columns[0]}, while that has the row"
        return f"{'range of ' if self.values is None else ''}{', '.join(self.columns)}"


ANY_ROW = Needs()


def needs_of(query: BoundQuery) -> Needs:
    """Return what ``query`` demands of the rows of its first source: equal columns if any, else a list, else a range."""
    equal: dict[str, Any] = {}
    among: tuple[str, tuple[tuple[Any, ...], ...]] | None = None
    bounds: dict[str, list[Any]] = {}
    for part in conjuncts(query.plan.where):
        if not isinstance(part, Call) or not part.args:
            continue
        column, values = part.args[0], part.args[1:]
        if not isinstance(column, Col) or column.source != 0 or not all(isinstance(each, Param) for each in values):
            continue
        given = [value_of(each, query.params) for each in values]
        if part.fn == "eq":
            equal.setdefault(column.name, given[0])
        elif part.fn == "in" and among is None:
            among = (column.name, tuple([(value,) for value in given]))
        elif part.fn in _LOW or part.fn in _HIGH:
            bounds.setdefault(column.name, [None, None])[part.fn in _HIGH] = given[0]
    if equal:
        names = tuple(sorted(equal))
        return Needs(names, (tuple([equal[name] for name in names]),))
    if among is not None:
        return Needs((among[0],), among[1])
    if bounds:
        name = max(bounds, key=lambda each: sum(end is not None for end in bounds[each]))
        return Needs((name,), None, *bounds[name])
    return ANY_ROW


class Beside(Generic[V]):
    """The views whose rows have rows of another store beside them, by the ids of their own rows.

    The changes that a view has not taken yet may give it other rows, so it is found by every id until it has settled.
    """

    def __init__(self) -> None:
        self._held: dict[object, dict[V, None]] = {}
        self._ids: dict[V, set[object]] = {}
        self._loose: dict[V, None] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, view: V) -> None:
        """Find ``view`` by every id, until it has settled."""
        self._ids[view] = set()
        self._loose[view] = None

    def remove(self, view: V) -> None:
        """Forget ``view``."""
        for id in self._ids.pop(view):
            self._leave(id, view)
        self._loose.pop(view, None)

    def loosen(self, view: V) -> None:
        """Find ``view`` by every id from now on, as its rows are no longer those that were reported."""
        self._loose[view] = None

    def settle(self, view: V, moved: Mapping[str, bool]) -> None:
        """Find ``view`` by the ids of its rows alone.

        Args:
            view: The view.
            moved: The ids of rows that it may have gained or lost since it last settled, each with whether it has the row now.
        """
        self._loose.pop(view, None)
        ids = self._ids[view]
        for id, has in moved.items():
            if has and id not in ids:
                ids.add(id)
                self._held.setdefault(id, {})[view] = None
            elif not has and id in ids:
                ids.remove(id)
                self._leave(id, view)

    def _leave(self, id: object, view: V) -> None:
        views = self._held[id]
        del views[view]
        if not views:
            del self._held[id]

    def find(self, id: object, found: dict[V, None], *, every: bool) -> None:
        """Add to ``found`` the views that have, or may have, the row of that id; with ``every``, all of them."""
        found.update(self._ids if every else self._loose)  # type: ignore[arg-type]
        found.update(self._held.get(id, ()))


class PredicateIndex(Generic[V]):
    """The views of one store, by the values that they need."""

    def __init__(self) -> None:
        self._equal: dict[FieldNames, dict[tuple[Any, ...], dict[V, None]]] = {}
        self._ranges: dict[str, Ranges[V]] = {}
        self._beside: dict[str, Beside[V]] = {}
        self._rest: dict[V, None] = {}

    def add(self, needs: Needs, view: V) -> Beside[V] | None:
        """Add ``view`` under what it needs; if that depends on its rows, return what has to be notified of these."""
        if needs.beside:
            beside = self._beside.setdefault(needs.columns[0], Beside())
            beside.add(view)
            return beside
        if not needs.columns:
            self._rest[view] = None
        elif needs.values is None:
            self._ranges.setdefault(needs.columns[0], Ranges()).add(view, needs.low, needs.high)
        else:
            for values in needs.values:
                self._equal.setdefault(needs.columns, {}).setdefault(values, {})[view] = None
        return None

    def remove(self, needs: Needs, view: V) -> None:
        """Remove ``view`` from every place where :meth:`add` has put it."""
        if needs.beside:
            beside = self._beside[needs.columns[0]]
            beside.remove(view)
            if not beside:
                del self._beside[needs.columns[0]]
        elif not needs.columns:
            del self._rest[view]
        elif needs.values is None:
            ranges = self._ranges[needs.columns[0]]
            ranges.remove(view)
            if not ranges:
                del self._ranges[needs.columns[0]]
        elif needs.values:  # a list may be empty, and then nothing is found by it
            self._take_out(needs.columns, needs.values, view)

    def _take_out(self, columns: FieldNames, combinations: Sequence[tuple[Any, ...]], view: V) -> None:
        filed = self._equal[columns]
        for values in dict.fromkeys(combinations):
            views = filed[values]
            del views[view]
            if not views:
                del filed[values]
        if not filed:
            del self._equal[columns]

    def find(self, row: StoredRow, found: dict[V, None], *, every: bool = False) -> None:
        """Add to ``found`` every view that ``row`` may concern.

        Args:
            row: The row.
            found: The views that were found.
            every: Whether changes that have not been examined yet may give views other rows.
        """
        for columns, filed in self._equal.items():
            views = filed.get(tuple([row.column(name) for name in columns]))
            if views:
                found.update(views)
        for column, ranges in self._ranges.items():
            value = row.column(column)
            if value is not None:
                ranges.find(value, found)
        for column, beside in self._beside.items():
            beside.find(row.column(column), found, every=every)
        if self._rest:
            found.update(self._rest)
