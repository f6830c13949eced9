"""Rows of one store, filtered, ordered, cut: kept up from the changed rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

from msgspec.structs import replace

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.ports.live import Change, ResultRow, RowKey
from atoma.query.compiled import compiled, condition
from atoma.query.normal import with_values
from atoma.query.scope import AnyStore
from atoma_stores.changes import RowChange, StoreDelta
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.operators.page import Page
from atoma_stores.live.rows import key_of_rows


class Listing:
    """The operator of rows of one store, or of columns of them, whose conditions look at one row at a time.

    Args:
        query: The query, checked and in normal form; its columns, if it has some, tell its rows apart and their places.
        store: The store that it reads.
    """

    def __init__(self, query: BoundQuery, store: AnyStore) -> None:
        plan, params = query.plan, query.params
        self._store = store.name
        self._fits = condition(plan.where, params)
        self._made: Callable[[StoredRow], ResultRow] | None = None
        self._tuples = plan.columns is not None
        if plan.columns is None:
            getters = [compiled(each.expr, params) for each in plan.order]
        else:
            made = [compiled(named.expr, params) for named in plan.columns]
            self._made = lambda row: tuple([get(row) for get in made])
            told = with_values(query)  # so that equal expressions are equal, wherever their values stand
            places = {named.expr: at for at, named in enumerate(told.columns or ())}
            getters = [itemgetter(places[each.expr]) for each in told.order]
        self._page: Page[ResultRow] = Page(plan, params, getters, (store,), key_of_rows(plan))
        self._whole = BoundQuery(replace(plan, limit=self._page.capacity, offset=0), params)
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
        found: dict[str, RowChange] = {}
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

    def _key(self, id: str) -> RowKey:
        return (id,) if self._tuples else id

    def _taken(self, row: StoredRow | None) -> ResultRow | None:
        """What the page has of ``row``; None when it is none of its rows."""
        if row is None or not self._fits(row):
            return None
        made = row if self._made is None else self._made(row)
        return made if self._page.takes(made) else None
