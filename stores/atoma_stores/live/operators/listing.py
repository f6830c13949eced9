"""Rows of one store, filtered, sorted and limited, which are kept up to date from the changed rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

from msgspec.structs import replace

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.ports.live import Change, ResultKey, ResultRow
from atoma.query.compiled import compiled, condition
from atoma.query.normal import with_values
from atoma.schema.spec import AnyStore
from atoma_stores.changes import BeforeAfter, StoreDelta
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.operators.page import PageOperator, sorting_of
from atoma_stores.live.operators.window import capacity_of
from atoma_stores.live.rows import KeyOf, key_of_rows


class ListingShape:
    """The common part of listings whose queries differ only in the values of their conditions.

    Attributes:
        store: The store that they read.
        plan: Their plan.
        made: Makes their rows from those of the store; None if they are the same.
        sorting: The order of their rows.
        key_of: Makes the keys of their rows.
        whole: The plan by which they are read.

    Args:
        query: One of the queries, checked and in normal form; its columns, if it has any, identify and order its rows.
        store: The store.
    """

    def __init__(self, query: BoundQuery, store: AnyStore) -> None:
        plan, params = query.plan, query.params
        self.store = store.name
        self.plan = plan
        self.made: Callable[[StoredRow], ResultRow] | None = None
        if plan.columns is None:
            getters = [compiled(each.expr, params) for each in plan.order]
        else:
            made = [compiled(named.expr, params) for named in plan.columns]
            self.made = lambda row: tuple([get(row) for get in made])
            told = with_values(query)  # equal expressions compare equal, whatever their numbers
            places = {named.expr: at for at, named in enumerate(told.columns or ())}
            getters = [itemgetter(places[each.expr]) for each in told.order]
        self.sorting = sorting_of(plan, getters, (store,))
        self.key_of: KeyOf[ResultRow] = key_of_rows(plan)
        self.whole = replace(plan, limit=capacity_of(plan.limit, plan.offset), offset=0)


class Listing:
    """The operator of rows, or columns of rows, of one store, with conditions on one row at a time.

    Attributes:
        shape: The part that it has in common with others.

    Args:
        shape: The part that it has in common with others.
        params: The values of its query.
    """

    def __init__(self, shape: ListingShape, params: tuple[object, ...]) -> None:
        self.shape = shape
        self._store, self._made = shape.store, shape.made
        self._fits = condition(shape.plan.where, params)
        self._tuples = shape.made is not None
        self._page: PageOperator[ResultRow] = PageOperator(shape.plan, params, shape.sorting, shape.key_of)
        self._whole = BoundQuery(shape.whole, params)
        self._stale = True

    @property
    def stale(self) -> bool:
        """See ``Operator``."""
        return self._stale

    @property
    def lacks(self) -> bool:
        """See ``Operator``."""
        return self._stale or self._page.window.lacks

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """See ``Operator``."""
        window, taken, key = self._page.window, self._taken, self._key
        found: dict[str, BeforeAfter] = {}
        for id, change in delta.items():
            old, new = change
            if self._made is not None:
                before, after = taken(old), taken(new)
                if before != after and (
                    not settled or window.holds(key(id)) or (after is not None and window.admits(after))
                ):
                    found[id] = change
            elif (
                window.holds(id)
                or ((row := taken(new)) is not None and (not settled or window.admits(row)))
                or (not settled and taken(old) is not None)
            ):
                found[id] = change
        return found

    def apply(self, deltas: Deltas) -> None:
        """See ``Operator``."""
        for id, (_, new) in deltas.get(self._store, {}).items():
            self._page.window.put(self._key(id), self._taken(new))

    def forget(self) -> None:
        """See ``Operator``."""
        self._stale = True

    def reads(self) -> Sequence[BoundQuery]:
        """See ``Operator``."""
        return (self._whole,)

    def load(self, results: Sequence[QueryResult]) -> None:
        """See ``Operator``."""
        (result,) = results
        self._page.load(result.tuples if self._tuples else result.rows)
        self._stale = False

    def collect(self) -> tuple[Change[ResultRow], ...]:
        """See ``Operator``."""
        return self._page.collect()

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

    def _key(self, id: str) -> ResultKey:
        return (id,) if self._tuples else id

    def _taken(self, row: StoredRow | None) -> ResultRow | None:
        """Return the row that the page has for ``row``; None if it has none."""
        if row is None or not self._fits(row):
            return None
        made = row if self._made is None else self._made(row)
        return made if self._page.takes(made) else None
