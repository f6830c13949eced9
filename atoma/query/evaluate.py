"""The meaning of a query in plain Python, without SQLite: the reference that every engine is held against.

It is written to be read, not to be fast: sources are joined by looking at every pair of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from atoma.contracts.query import (
    Agg,
    BoundQuery,
    Call,
    Col,
    Exists,
    Expr,
    Include,
    Lit,
    Order,
    Param,
    Plan,
    Scalar,
    Source,
    Store,
)
from atoma.contracts.values import StoredRow, is_hidden
from atoma.errors import QueryError
from atoma.query.functions import AGGREGATED, MEANINGS, Value
from atoma.query.walk import is_grouped

Cell: TypeAlias = "StoredRow | tuple[Value, ...] | None"
"""A row of one source: of a store, of a derived table, or missing (the right side of a left join)."""
Binding: TypeAlias = tuple[Cell, ...]
"""One row of each source."""
RowsByStore: TypeAlias = Mapping[str, Iterable[StoredRow]]
Predicate: TypeAlias = Callable[[Binding], bool]
ScopedStores: TypeAlias = frozenset[str]

SortValue: TypeAlias = tuple[bool, Value]


def sort_key(value: Value) -> SortValue:
    """Where ``value`` stands among values of its type: NULL first; text by code point, which is the order of UTF-8."""
    return (value is not None, 0 if value is None else value)


def evaluate(query: BoundQuery, tables: RowsByStore, *, scoped: ScopedStores = frozenset()) -> list[Any]:
    """What ``query``, which was bound, answers.

    Args:
        query: The query.
        tables: The rows of every store that it reads.
        scoped: Stores that take their rows' scope from a field: joins keep such rows within one scope.

    Returns:
        Rows of the store for a plan of whole rows; else tuples: of the columns, or of the rows of every source, or of a
        row and its children by the includes in order.

    Raises:
        QueryError: A sum does not fit into 64 bits.
    """
    return Evaluation(tables, query.params, scoped).answer(query.plan, ())


class Evaluation:
    """One evaluation of a query.

    Args:
        tables: The rows of every store.
        params: The values of the query.
        scoped: See :func:`evaluate`.
    """

    def __init__(self, tables: RowsByStore, params: Sequence[Value] = (), scoped: ScopedStores = frozenset()) -> None:
        self._tables = tables
        self._params = params
        self._scoped = scoped

    def answer(self, plan: Plan, outer: Binding, first: Sequence[Cell] | None = None) -> list[Any]:
        """The rows of the result of ``plan``.

        Args:
            plan: The plan.
            outer: What the sources around it are bound to.
            first: The rows of its first source; None takes all of them.
        """
        groups = self._groups(plan, outer, self._cells(plan.source) if first is None else first)
        keyed = [(self._keys(plan.order, group, outer), group) for group in groups]
        if plan.seek is not None and plan.seek.values:
            seen = [sort_key(self.value(each, (), outer)) for each in plan.seek.values]
            keyed = [pair for pair in keyed if is_beyond(pair[0], seen, plan.order, forward=plan.seek.forward)]
        if self._scoped and not plan.distinct and not is_grouped(plan):
            # one id may be in several scopes of a hub: what is equal in all sort keys comes by scope
            keyed.sort(key=lambda pair: self._scopes(plan, pair[1][0]), reverse=plan.backward)
        for number in reversed(range(len(plan.order))):
            descending = plan.order[number].descending is not plan.backward
            keyed.sort(key=lambda pair, at=number: pair[0][at], reverse=descending)  # type: ignore[misc]
        end = None if plan.limit is None else plan.offset + plan.limit
        kept = [group for _, group in keyed][plan.offset : end]
        if plan.backward:
            kept.reverse()
        if plan.include:
            return [self._with_children(plan, group[0][0], self._row(plan, group, outer)) for group in kept]
        return [self._row(plan, group, outer) for group in kept]

    def _groups(self, plan: Plan, outer: Binding, first: Sequence[Cell]) -> list[list[Binding]]:
        """The rows of the result as the bindings that each is made of: one, or those of a group."""
        bindings = self._bindings(plan, outer, first)
        found = [each for each in bindings if plan.where is None or self._true(plan.where, each, outer)]
        if not is_grouped(plan):
            groups = [[binding] for binding in found]
        elif plan.group:
            by_key: dict[tuple[Value, ...], list[Binding]] = {}
            for binding in found:
                by_key.setdefault(tuple([self.value(each, (binding,), outer) for each in plan.group]), []).append(
                    binding
                )
            groups = list(by_key.values())
        else:
            groups = [found]
        if plan.having is not None:
            groups = [group for group in groups if self.value(plan.having, group, outer)]
        if plan.distinct:
            groups = list({self._row(plan, group, outer): group for group in reversed(groups)}.values())
        return groups

    def _bindings(self, plan: Plan, outer: Binding, first: Sequence[Cell]) -> Iterator[Binding]:
        rows: list[Binding] = [(cell,) for cell in first]
        stores = [plan.source.name if isinstance(plan.source, Store) else ""]
        for join in plan.joins:
            cells = self._cells(join.source)
            name = join.source.name if isinstance(join.source, Store) else ""
            meets = self._meets(stores, name) if not join.cross_scope else _always
            joined: list[Binding] = []
            for binding in rows:
                partners = [
                    (*binding, cell)
                    for cell in cells
                    if meets((*binding, cell)) and self._true(join.on, (*binding, cell), outer)
                ]
                joined += partners or ([(*binding, None)] if join.kind == "left" else [])
            rows, stores = joined, [*stores, name]
        yield from rows

    def _meets(self, before: Sequence[str], name: str) -> Predicate:
        """Whether the last row of a binding is in the scope of the rows before it that take theirs from a field."""
        beside = [number for number, store in enumerate(before) if store in self._scoped]
        if name not in self._scoped or not beside:
            return _always

        def meets(binding: Binding) -> bool:
            last = binding[-1]
            cells = [binding[number] for number in beside]
            assert isinstance(last, StoredRow)
            return all(cell is None or (isinstance(cell, StoredRow) and cell.scope == last.scope) for cell in cells)

        return meets

    def _cells(self, source: Source) -> list[Cell]:
        if isinstance(source, Store):
            return list(self._tables[source.name])
        return self.answer(source.query, ())

    def _scopes(self, plan: Plan, binding: Binding) -> list[SortValue]:
        return [
            sort_key(cell.scope if isinstance(cell, StoredRow) else None)
            for source, cell in zip(plan.sources, binding, strict=True)
            if isinstance(source, Store) and source.name in self._scoped
        ]

    def _keys(self, order: Sequence[Order], group: Sequence[Binding], outer: Binding) -> list[SortValue]:
        return [sort_key(self.value(each.expr, group, outer)) for each in order]

    def _row(self, plan: Plan, group: Sequence[Binding], outer: Binding) -> Any:
        if plan.columns is not None:
            return tuple([self.value(named.expr, group, outer) for named in plan.columns])
        return group[0] if plan.joins else group[0][0]

    def _true(self, expr: Expr, binding: Binding, outer: Binding) -> bool:
        return bool(self.value(expr, (binding,), outer))

    def value(self, expr: Expr, group: Sequence[Binding], outer: Binding) -> Value:
        """The value of ``expr`` for a group of bindings, whose first one stands for all where nothing aggregates."""
        match expr:
            case Lit(value=value):
                return value
            case Param(index=index):
                return self._params[index]
            case Col(source=source, name=name):
                if source < 0:
                    return _cell_value(outer[-1 - source], name)
                return _cell_value(group[0][source], name) if group else None
            case Call(fn="if", args=(when, then, otherwise)):  # what is not chosen may be an error
                return self.value(then if self.value(when, group, outer) else otherwise, group, outer)
            case Call(fn=fn, args=args):
                return MEANINGS[fn]([self.value(arg, group, outer) for arg in args])
            case Agg():
                return self._aggregate(expr, group, outer)
            case Exists(query=query, negated=negated):
                return bool(self.answer(query, self._around(group, outer))) is not negated
            case Scalar(query=query):
                rows = self.answer(query, self._around(group, outer))
                return rows[0][0] if rows else None

    def _around(self, group: Sequence[Binding], outer: Binding) -> Binding:
        return (*(group[0] if group else ()), *outer)

    def _aggregate(self, agg: Agg, group: Sequence[Binding], outer: Binding) -> Value:
        taking = [each for each in group if agg.where is None or self._true(agg.where, each, outer)]
        if agg.arg is None:
            return len(taking)
        values = [self.value(agg.arg, (each,), outer) for each in taking]
        present = [value for value in values if value is not None]
        return AGGREGATED[agg.fn](list(dict.fromkeys(present)) if agg.distinct else present)

    def _with_children(self, plan: Plan, parent: Cell, shown: Any) -> tuple[Any, ...]:
        assert isinstance(parent, StoredRow)
        assert isinstance(plan.source, Store)
        store = plan.source.name
        return (shown, *(self._children(each, parent, store) for each in plan.include))

    def _children(self, include: Include, parent: StoredRow, store: str) -> Any:
        for branch in include.branches:
            if include.kind and _cell_value(parent, include.kind) != branch.kind:
                continue
            plan = branch.query
            assert isinstance(plan.source, Store)
            child = plan.source.name
            scoped = not include.cross_scope and {store, child} <= self._scoped
            cells = [
                row
                for row in self._tables[child]
                if self._belongs(include, (store, parent), (child, row)) and not (scoped and row.scope != parent.scope)
            ]
            rows = self.answer(plan, (), cells)
            return (rows[0] if rows else None) if include.one else tuple(rows)
        return None if include.one else ()

    def _belongs(self, include: Include, above: tuple[str, StoredRow], below: tuple[str, StoredRow]) -> bool:
        (store, parent), (other, child), through = above, below, include.through
        if through is None:
            return all(_same(parent, key, child, own) for key, own in include.keys)
        ((key, own),) = include.keys
        scopes = [
            row.scope
            for name, row in ((store, parent), (other, child))
            if not include.cross_scope and {name, through.store} <= self._scoped
        ]
        return any(
            _same(parent, key, link, through.parent)
            and _same(link, through.child, child, own)
            and all(scope == link.scope for scope in scopes)
            for link in self._tables[through.store]
            if not is_hidden(link.image)
        )


def _same(left: StoredRow, name: str, right: StoredRow, other: str) -> bool:
    value = _cell_value(left, name)
    return value is not None and value == _cell_value(right, other)


def _always(_: Binding) -> bool:
    return True


def _cell_value(cell: Cell, name: str) -> Value:
    if cell is None:
        return None
    if isinstance(cell, tuple):
        return cell[int(name[1:])]
    try:
        return cell.column(name)
    except KeyError:
        raise QueryError(f"a row has no field {name!r}; it has: {', '.join(('id', *cell.image))}") from None


def is_beyond(own: Sequence[SortValue], seen: Sequence[SortValue], order: Sequence[Order], *, forward: bool) -> bool:
    """Whether a row comes behind (or before) the row whose sort keys were ``seen``."""
    for key, other, each in zip(own, seen, order, strict=True):
        if key != other:
            return (key < other) == (each.descending is forward)
    return False
