"""Plans of groups, or of distinct rows, in two halves: from a row to its parts, and from a group to its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

from msgspec.structs import replace

from atoma.contracts.query import NULL, Agg, BoundQuery, Call, Col, Derived, Expr, Lit, Named, Order, Plan
from atoma.query.compiled import Getter, compiled
from atoma.query.normal import bind_columns, lifted, with_values
from atoma.query.scope import TypedColumns
from atoma.query.walk import conjuncts, expressions, is_grouped, outputs
from atoma.schema import Schema
from atoma_stores.live.operators.aggregates import EXTREMES, MAKE, Distinct, RunningAggregate

GroupParts: TypeAlias = tuple[Any, ...]
"""The parts of a row that groups need: the values of the group's keys, then one value for each aggregate."""
GroupKey: TypeAlias = tuple[Any, ...]

_EXTREMES = frozenset({"min", "max"})
_ONE = Lit("int", 1)
_NOTHING = Lit(NULL, None)


class Grouping:
    """The groups of a plan.

    Attributes:
        plan: The plan with its values in their places.
        keys: The expressions in which the rows of a group are equal.
        places: The position of each expression among the columns of the result.
        aggregates: The aggregates, each once.
        is_one: Whether all rows are one group, which exists even without rows.
        parts: The expressions of :data:`GroupParts`.

    Args:
        query: The query, checked and in normal form.
        schema: The declared stores.

    Raises:
        QueryError: It is so large that a query for its parts would exceed the limits.
    """

    def __init__(self, query: BoundQuery, schema: Schema) -> None:
        self.plan = plan = with_values(query)
        grouped = is_grouped(plan)
        self.places: Mapping[Expr, int] = {named.expr: at for at, named in enumerate(plan.columns or ())}
        self.keys: tuple[Expr, ...] = tuple(dict.fromkeys(plan.group)) if grouped else tuple(self.places)
        tops = (*outputs(plan), *(() if plan.having is None else (plan.having,)))
        found = [expr for top in tops for expr in expressions(top) if isinstance(expr, Agg)]
        self.aggregates: tuple[Agg, ...] = tuple(dict.fromkeys(found))
        self.is_one = grouped and not self.keys
        self.parts: tuple[Expr, ...] = (*self.keys, *map(_taken, self.aggregates))
        self._cells: Mapping[Expr, int] = {expr: at for at, expr in enumerate((*self.keys, *self.aggregates))}
        self._schema = schema
        self._base = replace(
            plan,
            group=(),
            having=None,
            distinct=False,
            order=(),
            limit=None,
            offset=0,
            seek=None,
            columns=_named(self.parts),
        )
        self._types = self._checked(self._base)[1]

    def _checked(self, plan: Plan) -> tuple[Plan, TypedColumns]:
        return bind_columns(plan, self._schema.store)

    @property
    def rows(self) -> BoundQuery:
        """The query for the parts of the rows that are found, each with its count."""
        if any(self._is_wide(agg) for agg in self.aggregates):  # hardly any two rows are equal then
            return lifted(self._checked(replace(self._base, columns=(*_named(self.parts), Named("n", _ONE))))[0])
        columns = (*_named(self.parts), Named("n", Agg("count")))
        groups = self._checked(replace(self._base, group=tuple(dict.fromkeys(self.parts)), columns=columns))[0]
        whole = tuple([Named(f"c{at}", Col(0, f"c{at}")) for at in range(len(columns))])
        return lifted(self._checked(Plan(Derived(groups), columns=whole))[0])  # a derived table has no limit

    def _is_wide(self, agg: Agg) -> bool:
        return agg.distinct or agg.fn != "count"

    @property
    def bindings(self) -> Plan:
        """The plan, with its values in their places, for the parts of every row and the ids of the rows it is made of."""
        ids = [Col(number, "id") for number in range(len(self.plan.sources))]
        return self._checked(replace(self._base, columns=_named((*self.parts, *ids))))[0]

    @property
    def bound(self) -> BoundQuery:
        """The query for :attr:`bindings`."""
        return lifted(self.bindings)

    def extreme(self, key: GroupKey, number: int) -> BoundQuery:
        """Return the query for the best values of an aggregate of one group, each with its count."""
        value = self.parts[len(self.keys) + number]
        types = [found.kind for found in self._types.values()]
        same = [
            Call("is_null", (expr,)) if own is None else Call("eq", (expr, Lit(kind, own)))
            for expr, own, kind in zip(self.parts, key, types, strict=False)
        ]
        where = (*conjuncts(self.plan.where), *same, Call("not", (Call("is_null", (value,)),)))
        order = (Order(value, self.aggregates[number].fn == "max"),)
        columns = (Named("value", value), Named("n", Agg("count")))
        plan = replace(
            self._base, where=Call("and", where), group=(value,), columns=columns, order=order, limit=EXTREMES
        )
        return lifted(self._checked(plan)[0])

    def is_extreme(self, number: int) -> bool:
        """Whether an aggregate is the least or the greatest value."""
        return self.aggregates[number].fn in _EXTREMES

    def make(self) -> list[RunningAggregate]:
        """Make the aggregates of a group that has no rows yet."""
        return [
            Distinct(MAKE[agg.fn]()) if agg.distinct and agg.fn not in _EXTREMES else MAKE[agg.fn]()
            for agg in self.aggregates
        ]

    def getter(self, expr: Expr) -> Getter:
        """Return an expression of a column, a sort key or ``having`` as a function of a group's keys and aggregates."""
        return compiled(self._of_group(expr), (), _of_cells)

    def _of_group(self, expr: Expr) -> Expr:
        place = self._cells.get(expr)
        if place is not None:
            return Col(0, f"c{place}")
        return Call(expr.fn, tuple(map(self._of_group, expr.args))) if isinstance(expr, Call) else expr


def _named(exprs: Sequence[Expr]) -> tuple[Named, ...]:
    return tuple([Named(f"c{at}", expr) for at, expr in enumerate(exprs)])


def _taken(agg: Agg) -> Expr:
    """Return the expression of a row's value for an aggregate; it is NULL if the row has none."""
    if agg.arg is None:
        value: Expr = _ONE
    elif agg.fn == "count" and not agg.distinct:
        value = Call("if", (Call("is_null", (agg.arg,)), _NOTHING, _ONE))
    else:
        value = agg.arg
    return value if agg.where is None else Call("if", (agg.where, value, _NOTHING))


def _of_cells(col: Col) -> Callable[[Any], Any]:
    return itemgetter(int(col.name[1:]))
