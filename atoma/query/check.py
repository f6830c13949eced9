"""Whether a query fits a schema: the one place that decides, for the builder, the hub, live queries and engines.

A checked plan has its literals as columns store them, its order is total, and nothing in it can fail for its shape. It passes over
the rows that were deleted softly, in every source that does not say otherwise: whoever carries out a plan has checked it.
What is refused says where it stands: ``where › and[1] › gt: …``.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from atoma.contracts.limits import BOUNDS, Bounds
from atoma.contracts.query import Call, Col, Derived, Expr, Join, Lit, Named, Order, Plan, Seek, Source, Store
from atoma.contracts.values import HIDDEN
from atoma.errors import QueryError
from atoma.query import grouping, relating
from atoma.query.bounds import check_bounds
from atoma.query.ordering import total_order, unique_keys
from atoma.query.scope import Readable, ReadableSources, Stores, TypedColumns
from atoma.query.spelling import in_order
from atoma.query.typed import Expressions, needs
from atoma.schema.spec import AnyStore


def check(plan: Plan, stores: Stores, bounds: Bounds = BOUNDS) -> Plan:
    """``plan``, which holds no parameters, once it is clear that it fits the stores and keeps to the bounds.

    Raises:
        QueryError: It does not.
        UnknownStore: It reads a store that is not declared.
    """
    check_bounds(plan, bounds)
    return check_bounded(plan, stores)


def check_bounded(plan: Plan, stores: Stores) -> Plan:
    """:func:`check` of a plan that is known to keep to the bounds."""
    return Checker(stores).plan(plan, ())[0]


class Checker:
    """A checker of plans against declared stores.

    Args:
        stores: Finds a store by its name.
    """

    __slots__ = ("stores",)

    def __init__(self, stores: Stores) -> None:
        self.stores = stores

    def plan(self, plan: Plan, outer: ReadableSources) -> tuple[Plan, TypedColumns]:
        """``plan`` checked, and its columns by name (none when it takes whole rows)."""
        sources, scope = self._sources(plan)
        within = Expressions(self.plan, scope, outer)
        joins = self._joins(plan, sources, scope, outer) if plan.joins else ()
        where = None if plan.where is None else within.condition("where", plan.where, alone="where")
        where = _unhidden(where, 0, plan.source, scope[0].store)
        group = tuple([within.at(f"group_by[{n}]", each, alone="group_by()").expr for n, each in enumerate(plan.group)])
        columns, types = (None, {}) if plan.columns is None else self._columns(plan.columns, within)
        order = tuple([self._order(number, each, within) for number, each in enumerate(plan.order)])
        grouped = bool(group) or plan.having is not None or within.aggregated
        having = None if plan.having is None else within.condition("having", plan.having)
        unique: Sequence[Expr] = group if grouped else ()
        if not grouped:
            unique = [named.expr for named in columns or ()] if plan.distinct else unique_keys(scope)
        plan = replace(
            plan,
            source=sources[0],
            joins=joins,
            where=where,
            group=group,
            columns=columns,
            having=having,
            order=total_order(order, unique),
        )
        _check_shape(plan, grouped=grouped)
        if plan.seek is not None:
            plan = replace(plan, seek=self._seek(plan, plan.seek, within))
        if plan.include:
            plan = replace(plan, include=relating.check_includes(plan, scope[0].store, self.stores, self.plan))
        return plan, types

    def _sources(self, plan: Plan) -> tuple[list[Source], ReadableSources]:
        if not plan.joins and isinstance(plan.source, Store):
            return [plan.source], (Readable(self.stores(plan.source.name), {}),)
        sources: list[Source] = []
        scope: list[Readable] = []
        optional = (False, *(join.kind == "left" for join in plan.joins))
        for number, (source, may_miss) in enumerate(zip(plan.sources, optional, strict=True)):
            if isinstance(source, Store):
                sources.append(source)
                scope.append(Readable(self.stores(source.name), {}, may_miss))
                continue
            inner, types = self._derived(source, f"join[{number - 1}]" if number else "source")
            sources.append(Derived(inner))
            named = {f"c{at}": types[column.name] for at, column in enumerate(inner.columns or ())}
            scope.append(Readable(None, named, may_miss))
        return sources, tuple(scope)

    def _derived(self, source: Derived, place: str) -> tuple[Plan, TypedColumns]:
        try:
            inner, types = self.plan(source.query, ())
            if inner.columns is None or inner.include:
                raise QueryError("a derived table has columns: name them with columns(…)")
        except QueryError as error:
            error.within(place)
            raise
        return inner, types

    def _joins(
        self, plan: Plan, sources: Sequence[Source], scope: ReadableSources, outer: ReadableSources
    ) -> tuple[Join, ...]:
        made: list[Join] = []
        for number, join in enumerate(plan.joins, start=1):
            if join.kind not in ("inner", "left"):
                raise QueryError(f"a join is inner or left, not {join.kind!r}", path=f"join[{number - 1}]")
            seen = Expressions(self.plan, scope[: number + 1], outer)
            on = seen.condition(f"join[{number - 1}]", join.on, alone="the condition of a join")
            on = _unhidden(on, number, join.source, scope[number].store) or on
            made.append(replace(join, source=sources[number], on=on))
        return tuple(made)

    def _columns(
        self, columns: tuple[Named, ...], within: Expressions
    ) -> tuple[tuple[Named, ...] | None, TypedColumns]:
        if not columns:
            raise QueryError("a query has at least one column")
        typed = [(named, within.at(f"columns.{named.name[:80]}", named.expr)) for named in columns]
        types = {named.name: found for named, found in typed}
        if len(types) < len(columns):
            raise QueryError("two columns of a result have one name")
        return tuple([replace(named, expr=found.expr) for named, found in typed]), types

    def _order(self, number: int, order: Order, within: Expressions) -> Order:
        try:
            found = within.typed(order.expr)
            needs(found, "order", "order_by")
        except QueryError as error:
            error.within(f"order_by[{number}]")
            raise
        return order if found.expr is order.expr else replace(order, expr=found.expr)

    def _seek(self, plan: Plan, seek: Seek, within: Expressions) -> Seek:
        if not plan.order:
            raise QueryError("a query with one row has no pages")
        if not seek.values and not seek.forward:
            return seek
        if len(seek.values) != len(plan.order):
            raise QueryError(f"the cursor has {len(seek.values)} values for {len(plan.order)} sort keys")
        values: list[Lit] = []
        for number, (value, order) in enumerate(zip(seek.values, plan.order, strict=True)):
            try:
                values.append(within.literal(value, within.typed(order.expr)))
            except QueryError as error:
                error.within(f"{'after' if seek.forward else 'before'}[{number}]")
                raise
        return replace(seek, values=tuple(values))


def _unhidden(condition: Expr | None, number: int, source: Source, store: AnyStore | None) -> Expr | None:
    """``condition`` on source ``number`` and those before it, with what keeps its rows out that were deleted softly."""
    if store is None or not store.soft_delete or not isinstance(source, Store) or source.hidden:
        return condition
    visible = is_visible(number)
    return visible if condition is None else in_order("and", (condition, visible))


def is_visible(number: int = 0) -> Expr:
    """That the row of source ``number`` was not deleted softly."""
    return Call("is_null", (Col(number, HIDDEN),))


def _check_shape(plan: Plan, *, grouped: bool) -> None:
    """See that rows, groups and distinct rows are each asked for what they have.

    Raises:
        QueryError: They are not.
    """
    if plan.columns is None and (plan.distinct or grouped):
        raise QueryError("say which columns: whole rows are distinct by themselves, and groups have none")
    if plan.include and (plan.distinct or grouped):
        raise QueryError("include() goes with rows, not with groups or distinct rows")
    if grouped:
        grouping.check_grouped(plan)
    if plan.distinct and not {each.expr for each in plan.order} <= {named.expr for named in plan.columns or ()}:
        raise QueryError("distinct rows are sorted by their columns: add what they are sorted by to columns()")
