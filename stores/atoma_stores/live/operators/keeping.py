"""Which parts of a result's rows are updated from the changes alone, and how a change updates a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from msgspec.structs import replace

from atoma.contracts.query import Agg, Call, Col, Expr, Include, Named, Plan, Scalar, Store
from atoma.contracts.values import StoredRow
from atoma.query.compiled import Getter, compiled, condition
from atoma.query.relating import of_parent
from atoma.query.walk import conjuncts
from atoma.schema import Schema
from atoma_stores.changes import BeforeAfter
from atoma_stores.live.links import Links, StoreLink, is_of_source, values_of
from atoma_stores.live.operators.kept import KeptChildren, KeptCount, KeptPart, Made
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.operators.window import capacity_of

PartChange: TypeAlias = tuple[KeptPart, str, object, BeforeAfter]


class Keeping:
    """The parts of a result's rows that are updated from the changes alone.

    Attributes:
        plan: The plan by which rows are read.
        left: The places that are not kept: after a change there, rows are read again.
        is_whole: Whether everything is kept, and each row of the first source shows by itself whether it belongs to the result.
        is_shared: Whether a row of the result may contain one row of a store more than once.

    Args:
        plan: The plan, with its values in their places.
        links: The places where it reads rows.
        schema: The declared stores.
        keep: Whether anything is to be kept.
    """

    def __init__(self, plan: Plan, links: Links, schema: Schema, *, keep: bool) -> None:
        self._parts: dict[StoreLink, KeptPart] = {}
        self._rows: dict[StoreLink, _RowsByValue] = {}
        self._made: list[Getter | None] | None = None
        if keep:
            for link in links:
                part = _part_of(plan, link, schema) if _is_found(plan, link) else None
                if part is not None:
                    self._parts[link] = part
                    if not link.is_direct:
                        self._rows[link] = _RowsByValue(of_parent(plan, link.above), within=bool(plan.include))
        self.left = tuple([link for link in links if link not in self._parts])
        self.is_whole = self.left == links[:1] and _is_seen_by_itself(plan)
        if self.is_whole and plan.columns is not None:
            self._made = [compiled(each.expr, ()) if is_of_source(each.expr) else None for each in plan.columns]
        shown = [link.store for link in links if link.parent is not None and not link.shown.startswith("columns.")]
        shown += [plan.store] if plan.columns is None else []
        self.is_shared = len(set(shown)) < len(shown)
        self._within = bool(plan.include)
        self._above = dict.fromkeys([link.above for link in self._parts])
        self.plan = replace(
            plan, include=tuple([_with_more(each) if self._keeps(each) else each for each in plan.include])
        )

    def _keeps(self, include: Include) -> bool:
        return any(link.shown == f"include.{include.name}" for link in self._parts)

    def __contains__(self, link: StoreLink) -> bool:
        return link in self._parts

    @property
    def held(self) -> int:
        """The number of rows that are kept sorted."""
        return sum([part.held for part in self._parts.values()])

    def put(self, id: str, row: Made) -> None:
        """Note that the result has ``row``, whose first row has that id."""
        for rows in self._rows.values():
            rows.put(id, row)

    def remove(self, id: str) -> None:
        """Forget the row of that id, which has left the result or is read again."""
        for rows in self._rows.values():
            rows.remove(id)
        for part in self._parts.values():
            part.forget(id)

    def clear(self) -> None:
        """Forget every row."""
        for rows in self._rows.values():
            rows.clear()
        for part in self._parts.values():
            part.clear()

    def finds(self, link: StoreLink, change: BeforeAfter) -> Iterator[tuple[object, Iterable[object]]]:
        """Yield the values by which rows refer to what has changed at ``link``, each with the ids of the rows that may do so."""
        rows = self._rows.get(link)
        for value in values_of(link, change):
            yield value, (value,) if rows is None else rows.find(value)

    def changes(self, deltas: Deltas) -> Iterator[PartChange]:
        """Yield what has changed beside rows: the part, the id of the row, the value by which it refers to the change, and that."""
        for link, part in self._parts.items():
            for change in deltas.get(link.store, {}).values():
                for value, ids in self.finds(link, change):
                    for id in ids:
                        if isinstance(id, str):
                            yield part, id, value, change

    def changed(self, row: Made, old: StoredRow | None, new: StoredRow) -> Made | None:
        """Return ``row`` with ``new`` in the place of ``old``; None if it has to be read."""
        if old is None or any(old.column(name) != new.column(name) for name in self._above):
            return None
        if self._made is None:
            return (new, *row[1:])
        before = row[0] if self._within else row
        columns = tuple([had if get is None else get(new) for get, had in zip(self._made, before, strict=True)])
        return (columns, *row[1:]) if self._within else columns

    def shown(self, row: Made) -> Made:
        """Return what is shown of a row that was read by :attr:`plan`."""
        for part in self._parts.values():
            row = part.shown(row)
        return row

    def load(self, id: str, row: Made, read: Made) -> None:
        """Note that the result has ``row``, which shows what was ``read`` by :attr:`plan`."""
        self.put(id, row)
        for part in self._parts.values():
            part.load(id, row, read)


class _RowsByValue:
    """The rows of a result by the value by which each refers to others.

    Args:
        value_of: Takes it from the row of the first source, or from the columns.
        within: Whether these are the first part of a row.
    """

    def __init__(self, value_of: Callable[[Any], Any], *, within: bool) -> None:
        self._value_of = value_of
        self._within = within
        self._ids: dict[object, dict[str, None]] = {}
        self._values: dict[str, object] = {}

    def put(self, id: str, row: Made) -> None:
        self.remove(id)
        value = self._values[id] = self._value_of(row[0] if self._within else row)
        self._ids.setdefault(value, {})[id] = None

    def remove(self, id: str) -> None:
        if id in self._values:
            value = self._values.pop(id)
            ids = self._ids[value]
            del ids[id]
            if not ids:
                del self._ids[value]

    def clear(self) -> None:
        self._ids, self._values = {}, {}

    def find(self, value: object) -> tuple[str, ...]:
        return tuple(self._ids.get(value, ()))


def _is_seen_by_itself(plan: Plan) -> bool:
    exprs = [*conjuncts(plan.where), *[each.expr for each in plan.order]]
    return not plan.joins and all(map(is_of_source, exprs))


def _with_more(include: Include) -> Include:
    """Return ``include`` with a few more children than are shown."""
    (branch,) = include.branches
    if include.one or branch.query.limit is None:
        return include
    query = replace(branch.query, limit=capacity_of(branch.query.limit, 0))
    return replace(include, branches=(replace(branch, query=query),))


def _is_found(plan: Plan, link: StoreLink) -> bool:
    """Return whether a row of the result contains the value by which it refers to others at ``link``."""
    return link.is_direct or plan.columns is None or Col(0, link.above) in [each.expr for each in plan.columns]


def _part_of(plan: Plan, link: StoreLink, schema: Schema) -> KeptPart | None:
    """Return the keeper of what is shown at ``link``; None if that is read again."""
    kind, _, name = link.shown.partition(".")
    assert isinstance(plan.source, Store) or not kind
    if kind == "include":
        at, include = next((at, each) for at, each in enumerate(plan.include, 1) if each.name == name)
        return KeptChildren(link, include, at, schema) if _is_kept(include, plan.store, schema) else None
    if kind == "columns":
        at, column = next((at, each) for at, each in enumerate(plan.columns or ()) if each.name == name)
        counts = _counts(column, link)
        return None if counts is None else KeptCount(link, counts, at, within=bool(plan.include))
    return None


def _is_kept(include: Include, parent: str, schema: Schema) -> bool:
    """Return whether the children are whole rows of one store that one pair of columns alone leads to."""
    if include.kind or len(include.keys) > 1:
        return False
    query = include.branches[0].query
    scoped = not include.cross_scope and None not in (
        schema.store(parent).scope_field,
        schema.store(query.store).scope_field,
    )
    return query.whole_rows and query.limit != 0 and not scoped and _is_seen_by_itself(query)


def _counts(column: Named, link: StoreLink) -> Getter | None:
    """Return whether a row that ``link`` leads to counts; None if the column is no such number."""
    expr = column.expr
    if not isinstance(expr, Scalar) or not isinstance(expr.query.source, Store):
        return None
    query = expr.query
    match query.columns:
        case (Named(expr=Agg(fn="count", distinct=False) as agg),) if not (query.group or query.having or query.joins):
            pass
        case _:
            return None
    if query.limit == 0 or query.offset or query.seek is not None:
        return None
    same = [Call("eq", pair) for pair in _pairs(link)]
    conditions = list(conjuncts(query.where))
    leading = [each for each in conditions if each in same]
    others = [each for each in conditions if each not in same]
    if len(leading) != 1:
        return None
    if agg.where is not None:
        others.append(agg.where)
    if agg.arg is not None:
        others.append(Call("not", (Call("is_null", (agg.arg,)),)))
    return condition(Call("and", tuple(others)), ()) if all(map(is_of_source, others)) else None


def _pairs(link: StoreLink) -> tuple[tuple[Expr, Expr], ...]:
    own, above = Col(0, link.own), Col(-1, link.above)
    return (own, above), (above, own)
