"""Queries for the rows of a result that have one of some values, made once for each number of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from atoma.contracts.query import NULL, PATH, BoundQuery, Call, Col, Exists, Expr, Lit, Named, Param, Plan, Store
from atoma.query.ordering import BY_ID, ID
from atoma.query.spelling import in_order
from atoma.query.walk import changed, conjuncts, value_of
from atoma_stores.live.links import StoreLink, is_of_source

VALUES = 256
"""The maximum number of values of one query; more are never asked for."""
_COUNTS = (1, 8, 64, VALUES)

MakePlan: TypeAlias = Callable[[tuple[Expr, ...]], Plan]


class Restricted:
    """A query with a place for values.

    Args:
        make: Makes the plan from expressions for the values; it is checked except for these.
        kind: The type of the values.
    """

    def __init__(self, make: MakePlan, kind: str) -> None:
        self._make = make
        self._kind = kind
        self._made: dict[int, tuple[Plan, list[object], list[int]]] = {}

    def of(self, values: Sequence[object]) -> BoundQuery:
        """Return the query for ``values``: at least one, and at most :data:`VALUES`."""
        count = next(count for count in _COUNTS if count >= len(values))
        if count not in self._made:
            self._made[count] = _lifted(self._make(tuple([Param(at, self._kind) for at in range(count)])))
        plan, params, places = self._made[count]
        given = list(params)
        for number, place in enumerate(places):
            given[place] = values[min(number, len(values) - 1)]
        return BoundQuery(plan, tuple(given))


def _lifted(plan: Plan) -> tuple[Plan, list[object], list[int]]:
    """Return ``plan`` in normal form, its values, and the places that have no value yet."""
    values: list[object] = []
    places: dict[int, int] = {}

    def lift(leaf: Lit | Param) -> Expr:
        if leaf.type in (NULL, PATH) and isinstance(leaf, Lit):
            return leaf
        if isinstance(leaf, Param):
            places[leaf.index] = len(values)
        values.append(value_of(leaf, ()))
        return Param(len(values) - 1, leaf.type)

    lifted = changed(plan, lift)
    return lifted, values, [places[number] for number in sorted(places)]


def rows_of(plan: Plan, capacity: int | None) -> Restricted:
    """Return the query for those rows of the result of ``plan`` that are made of some rows of its source."""
    pinned = any(isinstance(part, Call) and part.fn == "eq" and part.args[0] == ID[0] for part in conjuncts(plan.where))

    def make(values: tuple[Expr, ...]) -> Plan:
        if pinned:  # the source has one row, so this is everything
            return replace(plan, limit=capacity, offset=0)
        among = _among(ID[0], values)
        return replace(plan, where=in_order("and", (*conjuncts(plan.where), among)), limit=capacity, offset=0)

    return Restricted(make, "text")


def ids_above(plan: Plan, link: StoreLink, kind: str) -> Restricted:
    """Return the query for the ids of the source's rows that refer through ``link`` to rows with some values."""
    own = [part for part in conjuncts(plan.where) if is_of_source(part)]

    def make(values: tuple[Expr, ...]) -> Plan:
        condition: Expr = _among(Col(0, link.above), values)
        place = link.parent
        while place is not None and place.parent is not None:
            same = Call("eq", (Col(0, place.own), Col(-1, place.above)))
            condition = Exists(Plan(Store(place.store), where=in_order("and", (same, condition)), order=BY_ID))
            place = place.parent
        assert isinstance(plan.source, Store)
        where = in_order("and", (*own, condition))
        return Plan(plan.source, where=where, columns=(Named("id", ID[0]),), order=BY_ID, limit=VALUES + 1)

    return Restricted(make, kind)


def _among(column: Col, values: tuple[Expr, ...]) -> Call:
    return Call("eq" if len(values) == 1 else "in", (column, *values))
