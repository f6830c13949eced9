"""The links between the rows of a result: from a row of any store to the rows of the first store that use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atoma.contracts.query import Call, Col, Exists, Expr, Include, Plan, Scalar, Store
from atoma.contracts.values import StoredRow
from atoma.query.walk import conjuncts, every_expression, expressions, top_expressions
from atoma_stores.changes import BeforeAfter


class Unlinked(Exception):
    """A refusal: nothing leads from some store to the rows of the first one; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class StoreLink:
    """One place in a plan that reads rows of a store.

    Attributes:
        store: The store.
        parent: The place whose rows refer to these; None for the first source of the plan.
        above: The column of the parent's row that is equal to ``own``.
        own: The column of this store's row.
        beside: Whether the rows are only shown beside those of the first source, and do not decide which of these there are.
        columns: The columns that are read; None for all.
        shown: The only column or include of the plan for which they are read, as ``columns.n`` or ``include.n``; else ``""``.
    """

    store: str
    parent: StoreLink | None
    above: str = ""
    own: str = ""
    beside: bool = False
    columns: frozenset[str] | None = None
    shown: str = ""

    @property
    def is_direct(self) -> bool:
        """Whether :attr:`own` is the id of a row of the first source."""
        return self.parent is not None and self.parent.parent is None and self.above == "id"


Links: TypeAlias = tuple[StoreLink, ...]


def links_of(plan: Plan) -> Links:
    """Return every place where ``plan``, which was checked, reads rows; that of its first source comes first.

    Raises:
        Unlinked: From one of them nothing leads to the first source.
    """
    if not isinstance(plan.source, Store):
        raise Unlinked("it reads another plan")
    tracer = _Tracer(plan)
    root = StoreLink(plan.source.name, None, columns=columns_of(plan))
    tracer.found.append(root)
    tracer.plan(plan, (), root)
    return tuple(tracer.found)


def beside_of(links: Links) -> dict[str, str]:
    """Return the stores whose rows are only shown beside those of the first source, with the column that holds its id."""
    columns: dict[str, set[str]] = {}
    for link in links:
        columns.setdefault(link.store, set()).add(link.own if link.beside and link.is_direct else "")
    return {store: own for store, (own, *others) in columns.items() if own and not others}


def is_of_source(expr: Expr) -> bool:
    """Whether an expression reads only the row of the first source."""
    return not any(map(looks_elsewhere, expressions(expr)))


def looks_elsewhere(expr: Expr) -> bool:
    """Whether ``expr`` itself, regardless of its parts, reads another row than that of the first source."""
    return isinstance(expr, (Exists, Scalar)) or (isinstance(expr, Col) and expr.source != 0)


def columns_of(plan: Plan) -> frozenset[str] | None:
    """Return the columns that ``plan`` reads, in any store; None if its rows are whole rows, so that it reads all."""
    return None if plan.columns is None else _column_names(plan)


def _column_names(plan: Plan) -> frozenset[str]:
    return frozenset([expr.name for expr in every_expression(plan) if isinstance(expr, Col)])


def reaches(change: BeforeAfter, columns: frozenset[str] | None) -> bool:
    """Whether a change reaches one of ``columns``; None stands for all."""
    old, new = change
    if columns is None or old is None or new is None:
        return True
    return any(old.image.get(name) != new.image.get(name) for name in columns)


def values_of(link: StoreLink, change: BeforeAfter) -> dict[object, None]:
    """Return the old and the new value by which other rows refer to the row; nothing refers to NULL."""
    rows: list[StoredRow] = [row for row in change if row is not None]
    return dict.fromkeys([value for row in rows if (value := row.column(link.own)) is not None])


_Places: TypeAlias = tuple[StoreLink, ...]


class _Tracer:
    def __init__(self, plan: Plan) -> None:
        self.found: list[StoreLink] = []
        self._whole = plan.columns is None
        self._columns = _column_names(plan)

    def plan(self, plan: Plan, outer: _Places, first: StoreLink, *, beside: bool = False) -> None:
        """Find what ``plan`` reads besides its first source."""
        own = self._sources(plan, outer, first, beside=beside)
        self._subqueries(plan, (*own, *outer), beside=beside)
        for include in plan.include:
            self._include(include, first)

    def _subqueries(self, plan: Plan, around: _Places, *, beside: bool) -> None:
        for place, top in top_expressions(plan):
            only_shown = beside or place.startswith("columns.")
            shown = {order.expr for order in plan.order}
            for expr in expressions(top):
                if isinstance(expr, (Exists, Scalar)):
                    alone = expr is top and around == (self.found[0],)
                    stands = only_shown and top not in shown
                    self._subquery(expr.query, around, beside=stands, shown=place if alone and stands else "")

    def _subquery(self, plan: Plan, outer: _Places, *, beside: bool, shown: str) -> None:
        own = self._sources(plan, outer, None, beside=beside, shown=shown)
        self._subqueries(plan, (*own, *outer), beside=beside)

    def _sources(
        self, plan: Plan, outer: _Places, first: StoreLink | None, *, beside: bool, shown: str = ""
    ) -> _Places:
        """Return the places of the sources of ``plan``, each linked to one that is known already."""
        known: dict[int, StoreLink] = {-1 - at: place for at, place in enumerate(outer)}
        if first is not None:
            known[0] = first
        columns = None if self._whole and first is not None else self._columns
        waiting = [number for number in range(len(plan.sources)) if number not in known]
        while waiting:
            number, above, name, own = self._next(plan, known, waiting)
            source = plan.sources[number]
            if not isinstance(source, Store):
                raise Unlinked("it reads another plan")
            known[number] = StoreLink(source.name, known[above], name, own, beside, columns, shown)
            self.found.append(known[number])
            waiting.remove(number)
        return tuple([known[number] for number in range(len(plan.sources))])

    def _next(self, plan: Plan, known: dict[int, StoreLink], waiting: Sequence[int]) -> tuple[int, int, str, str]:
        """Return ``(source, source above it, column there, own column)`` of one that can be linked."""
        found = [
            (own.source, above.source, above.name, own.name)
            for only, left, right in _equalities(plan)
            for own, above in ((left, right), (right, left))
            if own.source in waiting and above.source in known and only in (None, own.source)
        ]
        if not found:
            raise Unlinked("it looks at rows that no equality of columns leads to")
        return next((each for each in found if each[2] == "id"), found[0])  # an id leads to one row

    def _include(self, include: Include, parent: StoreLink) -> None:
        above, own = include.keys[0]
        shown = f"include.{include.name}" if parent is self.found[0] and include.through is None else ""
        if include.through is not None:
            parent = StoreLink(include.through.store, parent, above, include.through.parent, beside=True)
            self.found.append(parent)
            above = include.through.child
        for branch in include.branches:
            assert isinstance(branch.query.source, Store)
            child = StoreLink(branch.query.source.name, parent, above, own, beside=True, shown=shown)
            self.found.append(child)
            self.plan(branch.query, (), child, beside=True)


def _equalities(plan: Plan) -> Iterator[tuple[int | None, Col, Col]]:
    """Return the equalities of columns that have to hold, each with the only source that it filters, if there is one."""
    conditions = [(None, part) for part in conjuncts(plan.where)]
    for number, join in enumerate(plan.joins, 1):
        only = number if join.kind == "left" else None
        conditions += [(only, part) for part in conjuncts(join.on)]  # type: ignore[misc]
    for only, part in conditions:
        match part:
            case Call(fn="eq", args=(Col() as left, Col() as right)):
                yield only, left, right
            case _:
                pass
