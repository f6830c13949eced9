"""Which views a changed row may concern, found by its values: views that ask for others are not even looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from atoma.contracts.query import BoundQuery, Call, Col, Param
from atoma.contracts.values import StoredRow
from atoma.query.walk import conjuncts, value_of
from atoma_stores.live.ranges import Ranges

V = TypeVar("V")

_LOW, _HIGH = frozenset({"gt", "ge"}), frozenset({"lt", "le"})
Names: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """The values a row must have to concern a view; without columns any row may.

    Attributes:
        columns: The columns it is found by.
        values: The values of these columns, one tuple for each combination that will do; None for a range.
        low: Where the range of the only column begins, it included; None where it has no beginning.
        high: Where it ends, it included.
    """

    columns: Names = ()
    values: tuple[tuple[Any, ...], ...] | None = None
    low: Any = None
    high: Any = None

    def __str__(self) -> str:
        if not self.columns:
            return "every row of the store"
        return f"{'range of ' if self.values is None else ''}{', '.join(self.columns)}"


ANY_ROW = Needs()


def needs_of(query: BoundQuery) -> Needs:
    """What ``query`` demands of the rows of its first source: equal columns if there are any, else a list, else a range."""
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


class PredicateIndex(Generic[V]):
    """The views of one store by what they need."""

    def __init__(self) -> None:
        self._equal: dict[Names, dict[tuple[Any, ...], dict[V, None]]] = {}
        self._ranges: dict[str, Ranges[V]] = {}
        self._rest: dict[V, None] = {}

    def add(self, needs: Needs, view: V) -> None:
        """File ``view`` under what it needs."""
        if not needs.columns:
            self._rest[view] = None
        elif needs.values is None:
            self._ranges.setdefault(needs.columns[0], Ranges()).add(view, needs.low, needs.high)
        else:
            for values in needs.values:
                self._equal.setdefault(needs.columns, {}).setdefault(values, {})[view] = None

    def remove(self, needs: Needs, view: V) -> None:
        """Take ``view`` out of every place where :meth:`add` has put it."""
        if not needs.columns:
            del self._rest[view]
        elif needs.values is None:
            ranges = self._ranges[needs.columns[0]]
            ranges.remove(view)
            if not ranges:
                del self._ranges[needs.columns[0]]
        elif needs.values:  # a list may be empty, and nothing is found by it
            self._take_out(needs.columns, needs.values, view)

    def _take_out(self, columns: Names, combinations: Sequence[tuple[Any, ...]], view: V) -> None:
        filed = self._equal[columns]
        for values in dict.fromkeys(combinations):
            views = filed[values]
            del views[view]
            if not views:
                del filed[values]
        if not filed:
            del self._equal[columns]

    def find(self, row: StoredRow, found: dict[V, None]) -> None:
        """Add to ``found`` every view that ``row`` may concern."""
        for columns, filed in self._equal.items():
            views = filed.get(tuple([row.column(name) for name in columns]))
            if views:
                found.update(views)
        for column, ranges in self._ranges.items():
            value = row.column(column)
            if value is not None:
                ranges.find(value, found)
        if self._rest:
            found.update(self._rest)
