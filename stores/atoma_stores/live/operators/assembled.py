"""Results whose rows are made of several rows: the parts whose rows have changed are read again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from msgspec.structs import replace

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery, Call, Col, Expr, Plan, Store
from atoma.ports.live import Change, ResultKey, ResultRow
from atoma.query.compiled import Getter, compiled, condition, of_stored_row
from atoma.query.normal import with_values
from atoma.query.walk import conjuncts, has_subquery
from atoma.schema import Schema
from atoma_stores.changes import BeforeAfter, StoreDelta
from atoma_stores.live.links import Links, StoreLink, Unlinked, beside_of, is_of_source, reaches, values_of
from atoma_stores.live.operators.affected import Affected
from atoma_stores.live.operators.keeping import Keeping
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.operators.page import PageOperator, sorting_of
from atoma_stores.live.rows import by_id, keep_unchanged, key_of_rows


class Assembled:
    """The operator of joins, of rows with children, and of rows with subqueries in their conditions or columns.

    Args:
        query: The query, checked and in normal form; its rows contain what they are made of and sorted by.
        links: The places where it reads rows.
        schema: The declared stores.
        keep: Whether parts are updated from the changes alone where that is possible.

    Attributes:
        keeping: The parts that are updated from the changes alone.
    """

    def __init__(self, query: BoundQuery, links: Links, schema: Schema, *, keep: bool) -> None:
        plan = with_values(query)
        kinds = ("inner", *[join.kind for join in plan.joins])
        names = [source.name if isinstance(source, Store) else "" for source in plan.sources]
        stores = [schema.store(name) if kind == "inner" else None for name, kind in zip(names, kinds, strict=True)]
        self._key_of = key_of_rows(query.plan)
        self._id_of = id_of_rows(plan)
        self._page: PageOperator[ResultRow] = PageOperator(
            plan, (), sorting_of(plan, _sort_getters(plan), stores), self._key_of
        )
        self._whole = BoundQuery(replace(query.plan, limit=self._page.capacity, offset=0), query.params)
        self.keeping = Keeping(plan, links, schema, keep=keep)
        left = () if self.keeping.is_whole else self.keeping.left
        self._affected = Affected(self.keeping.plan, left, self._page.capacity, schema)
        self._store = query.store
        self._links: dict[str, list[StoreLink]] = {}
        for link in links:
            self._links.setdefault(link.store, []).append(link)
        self._parts: dict[str, dict[ResultKey, None]] = {}  # its rows of the result, by the id of the first row
        self._moved: dict[str, None] | None = {} if beside_of(links) else None  # rows whose parts were added or removed
        self._fits = source_condition(plan)
        self._place = None
        if plan.order and all(is_of_source(each.expr) for each in plan.order):
            getters = [compiled(each.expr, ()) for each in plan.order]
            self._place = sorting_of(plan, getters, stores).of
        self._stale = True

    @property
    def stale(self) -> bool:
        """See ``Operator``."""
        return self._stale

    @property
    def lacks(self) -> bool:
        """See ``Operator``."""
        return self._stale or bool(self._affected) or self._page.window.lacks

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """See ``Operator``."""
        links = self._links.get(store, ())
        found: dict[str, BeforeAfter] = {}
        for id, change in delta.items():
            for link in links:
                if self._concerns(link, id, change, settled=settled):
                    found[id] = change
                    break
        return found

    def _concerns(self, link: StoreLink, id: str, change: BeforeAfter, *, settled: bool) -> bool:
        if link.parent is not None:
            if not reaches(change, link.columns):
                return False
            if not settled:
                return True
            if link in self.keeping:
                return self.keeping.concerns(link, change, self._parts)
            if not (link.beside and link.is_direct):
                return True
            return any(value in self._parts for value in values_of(link, change))
        old, new = change
        if id in self._parts:
            return reaches(change, link.columns)
        if not settled and old is not None and self._fits(old):
            return True
        if new is None or not self._fits(new):
            return False
        return not settled or self._place is None or self._page.window.keeps(self._place(new))

    def apply(self, deltas: Deltas) -> None:
        """See ``Operator``."""
        if self.keeping.is_whole:
            for id, change in deltas.get(self._store, {}).items():
                self._change(id, change)
        for part, id, value, change in self.keeping.changes(deltas):
            for key in self._parts.get(id, ()):
                row = self._page.window.find(key)
                if row is not None and id not in self._affected.ids:
                    self._put(id, key, part.after(id, value, row, change))
        self._affected.note(deltas)
        if self._affected.overflown:
            self.forget()

    def _change(self, id: str, change: BeforeAfter) -> None:
        """Take a change to a row of the first source that shows by itself whether it belongs to the result."""
        old, new = change
        key = next(iter(self._parts.get(id, ())), None)
        row = None if key is None else self._page.window.find(key)
        if new is None or not self._fits(new):
            self._affected.ids.pop(id, None)
            if key is not None:
                self._page.put(key, None)
                self._leave(id)
        elif key is not None and row is not None:
            self._put(id, key, self.keeping.changed(row, old, new))
        elif self._place is None or self._page.window.keeps(self._place(new)):
            made = None if id in self._affected.ids else self.keeping.made(new, self._row_of)
            if made is None:
                self._affected.ids[id] = None
            else:
                self._insert(id, made)

    def _row_of(self, id: str) -> ResultRow | None:
        """Return the row of the result with that id, unless it has to be read."""
        keys = () if id in self._affected.ids else self._parts.get(id, ())
        return next((row for key in keys if (row := self._page.window.find(key)) is not None), None)

    def _insert(self, id: str, made: ResultRow) -> None:
        key = self._key_of(made)
        known = self._page.window.known(key)
        row = keep_unchanged(known, (made,), self._key_of)[0] if known else made
        self._page.put(key, row)
        if self._page.window.holds(key):
            self._parts[id] = {key: None}
            self.keeping.remove(id)
            self.keeping.put(id, row)
            self._move((id,))

    def _put(self, id: str, key: ResultKey, row: ResultRow | None) -> None:
        """Replace a row of the result by ``row``; None if it has to be read."""
        if row is None:
            self._affected.ids[id] = None
            return
        if self.keeping.is_shared:
            (row,) = keep_unchanged(self._page.window.known(key), (row,), self._key_of)
        self._page.put(key, row)
        if not self._page.window.holds(key):
            self._leave(id)

    def _leave(self, id: str) -> None:
        self._parts.pop(id, None)
        self.keeping.remove(id)
        self._move((id,))

    def forget(self) -> None:
        """See ``Operator``."""
        self._stale = True
        self._affected.forget()

    def reads(self) -> Sequence[BoundQuery]:
        """See ``Operator``."""
        if self._stale or not self._affected:
            return (self._whole,)
        return self._affected.reads()

    def load(self, results: Sequence[QueryResult]) -> None:
        """See ``Operator``."""
        if self._stale or not self._affected:
            rows: Sequence[ResultRow] = results[0].rows or results[0].tuples
            self._page.load(rows)
            self._move(self._parts)
            self._parts = {}
            self.keeping.clear()
            for row in self._page.window.held():
                id = self._id_of(row)
                self._parts.setdefault(id, {})[self._key_of(row)] = None
                self.keeping.put(id, row)
            self._move(self._parts)
            self._stale = False
            self._affected.forget()
            return
        found = self._affected.load(results)
        if found is not None:
            ids, result = found
            self._replace(tuple(ids), result.rows or result.tuples)
        if self._affected.overflown:
            self.forget()

    def _replace(self, ids: Sequence[str], rows: Sequence[ResultRow]) -> None:
        """Replace the part of the result that is made of the rows ``ids`` of the first source by ``rows``."""
        window = self._page.window
        if self._page.capacity is not None and len(rows) >= self._page.capacity:
            self.forget()  # there may be more
            return
        keys = [key for id in ids for key in self._parts.pop(id, ())]
        for id in ids:
            self.keeping.remove(id)
        shown = list(map(self.keeping.shown, rows))
        before = [row for key in dict.fromkeys((*keys, *map(self._key_of, shown))) for row in window.known(key)]
        kept = keep_unchanged(before, shown, self._key_of)
        new = dict(zip(map(self._key_of, kept), zip(kept, rows, strict=True), strict=True))
        for key in keys:
            if key not in new:
                self._page.put(key, None)
        for key, (row, read) in new.items():
            self._page.put(key, row)
            if window.holds(key):
                id = self._id_of(row)
                self._parts.setdefault(id, {})[key] = None
                self.keeping.load(id, row, read)
        self._move(ids)

    def _move(self, ids: Iterable[str]) -> None:
        if self._moved is not None:
            self._moved.update(dict.fromkeys(ids))

    def moved(self) -> Mapping[str, bool]:
        """See ``Surrounded``."""
        moved, self._moved = self._moved, {}
        return {id: id in self._parts for id in moved or ()}

    def collect(self) -> tuple[Change[ResultRow], ...]:
        """See ``Operator``."""
        changes = self._page.collect()
        if len(self._parts) > 2 * len(self._page.window) + 64:  # drops those of rows that have left the page
            held = {self._id_of(row) for row in self._page.window.held()}
            gone = self._parts.keys() - held
            self._move(gone)
            for id in gone:
                self.keeping.remove(id)
            self._parts = {id: keys for id, keys in self._parts.items() if id in held}
        return changes

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """See ``Operator``."""
        return self._page.window.rows

    @property
    def shown(self) -> int:
        """See ``Operator``."""
        return self._page.window.shown

    @property
    def held(self) -> int:
        """See ``Operator``."""
        return len(self._page.window)

    @property
    def beside(self) -> int:
        """See ``Surrounded``."""
        return self.keeping.held


def id_of_rows(plan: Plan) -> Callable[[Any], str]:
    """Return the function that takes the id of the first source's row from a row of the result of ``plan``."""
    if plan.whole_rows:
        return by_id
    if plan.columns is None:
        return lambda row: row[0].id
    id_of: Callable[[Any], str] = of_column(plan, Col(0, "id"))
    return id_of


def of_column(plan: Plan, expr: Expr) -> Getter:
    """Return the function that takes a column's value from a row of the result of ``plan``, which has columns."""
    at = [named.expr for named in plan.columns or ()].index(expr)
    return (lambda row: row[0][at]) if plan.include else itemgetter(at)


def source_condition(plan: Plan) -> Getter:
    """Return the condition that ``plan`` sets for a row of its first source alone."""
    return condition(Call("and", tuple([part for part in conjuncts(plan.where) if is_of_source(part)])), ())


def _sort_getters(plan: Plan) -> list[Getter]:
    """Return the functions that take the sort keys from a row of the result.

    Raises:
        Unlinked: A row does not contain one of them.
    """
    if plan.columns is not None:
        return [of_column(plan, each.expr) for each in plan.order]
    if any(has_subquery(each.expr) for each in plan.order):
        raise Unlinked("its rows do not hold what they are sorted by")
    columns = of_stored_row if plan.whole_rows else _of_cells
    return [compiled(each.expr, (), columns) for each in plan.order]


def _of_cells(col: Col) -> Getter:
    number, of = col.source, of_stored_row(Col(0, col.name))
    return lambda row: None if row[number] is None else of(row[number])
