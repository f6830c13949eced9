"""Building a query: ``select(CARDS).where(CARDS.col(lambda card: card.lane) != "done").order_by("-priority")``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from msgspec import structs

from atoma.contracts.checks import is_a
from atoma.contracts.query import BoundQuery, Col, Expr, Order, Plan, Store
from atoma.errors import QueryError
from atoma.query.describe import describe_whole
from atoma.query.normal import bind as bind_plan
from atoma.query.seek import decode_cursor, seek
from atoma.schema.expressions import (
    Condition,
    Expression,
    SortKey,
    Term,
    case,
    checked_condition,
    checked_text,
    col,
    joined,
)
from atoma.schema.spec import Schema, StoreSpec

T = TypeVar("T")


def _count(of: str, given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise QueryError(f"{of} takes a whole number, not {given!r}")
    return given


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Generic[T]):
    """Rows of one store: which, in which order, how many. Immutable; each method gives a new one.

    The order is total: the id is added as the last sort key. Without ``order_by`` rows come by id.

    Attributes:
        spec: The store.
        plan: What is asked so far, before it is checked.
        cursor: The row to go on at; ``""`` for none.
        forward: Whether to go on behind that row, or before it.
        total: Whether a page also says how many rows there are on all pages.
    """

    spec: StoreSpec[T]
    plan: Plan
    cursor: str = ""
    forward: bool = True
    total: bool = False
    _bound: dict[int, tuple[Schema, BoundQuery]] = field(
        default_factory=dict[int, tuple[Schema, BoundQuery]], repr=False, init=False
    )

    def where(self, *conditions: Condition) -> Rows[T]:
        """Keep the rows for which every condition, old and new, is true.

        Raises:
            QueryError: Something is no condition, or one on another store.
        """
        where = self.plan.where
        for condition in map(checked_condition, conditions):
            self._own(condition)
            where = condition.node if where is None else joined("and", Expression(where), condition).node
        return self._with(where=where)

    def order_by(self, *keys: str | SortKey | Term) -> Rows[T]:
        """Sort by fields: by name, ``-name`` for descending, or ``column.asc()`` and ``column.desc()``.

        NULL comes first ascending. It replaces the order there was.

        Raises:
            QueryError: Something is no sort key, or one of another store.
        """
        return self._with(order=tuple([self._order(key) for key in keys]))

    def limit(self, count: int) -> Rows[T]:
        """At most ``count`` rows."""
        return self._with(limit=_count("limit()", count))

    def offset(self, count: int) -> Rows[T]:
        """Skip ``count`` rows."""
        return self._with(offset=_count("offset()", count))

    def after(self, cursor: str) -> Rows[T]:
        """The page behind the row that ``cursor`` (``page.end``) stands for; ``""`` begins with the first row."""
        return replace(self, cursor=checked_text("after()", cursor), forward=True)

    def before(self, cursor: str) -> Rows[T]:
        """The page before the row that ``cursor`` (``page.start``) stands for; ``""`` ends with the last row.

        Its rows come in the order of the query, as those of every page; with a limit they are the nearest ones.
        """
        return replace(self, cursor=checked_text("before()", cursor), forward=False)

    def with_total(self) -> Rows[T]:
        """Pages say how many rows there are on all pages, in ``page.total``: they are counted right after the page was read."""
        return replace(self, total=True)

    def text(self) -> str:
        """The query in SQL's words, for people: ``FROM cards WHERE lane = 'todo' ORDER BY priority DESC LIMIT 20``."""
        return describe_whole(BoundQuery(self.plan))

    def kept(self, schema: Schema) -> BoundQuery | None:
        """This query as it was bound to ``schema`` before; None when it has not been."""
        found = self._bound.get(id(schema))
        return found[1] if found is not None and found[0] is schema else None

    def keep(self, schema: Schema, bound: BoundQuery) -> None:
        """Remember what this query is, bound to ``schema``: a query that is kept as a constant is checked once."""
        self._bound[id(schema)] = (schema, bound)

    def _with(self, **changes: Any) -> Rows[T]:
        return replace(self, plan=structs.replace(self.plan, **changes))

    def _own(self, expression: Term) -> Expr:
        if expression.store not in ("", self.spec.name):
            raise QueryError(f"this query reads {self.spec.name!r}, and that is a column of {expression.store!r}")
        return expression.node

    def _order(self, key: object) -> Order:
        if isinstance(key, str):
            return Order(Col(0, key.removeprefix("-")), key.startswith("-"))
        if isinstance(key, SortKey):
            return Order(self._own(key.expression), key.descending)
        if isinstance(key, Term):
            return Order(self._own(key))
        raise QueryError(f"order_by() takes text or col(…).desc(), not {key!r}")


def select(spec: StoreSpec[T]) -> Rows[T]:
    """Every row of a store, to be narrowed: ``select(CARDS).where(…).order_by(…).limit(20)``.

    Raises:
        QueryError: That is no store.
    """
    if not is_a(spec, StoreSpec):
        raise QueryError(f"select() takes a store, select(CARDS); {spec!r} is none")
    return Rows(spec, Plan(Store(spec.name)))


def bind(query: Rows[T], schema: Schema) -> BoundQuery:
    """Check ``query`` against ``schema`` and turn it into plain data, in normal form.

    Raises:
        QueryError: No query, unknown field, a value of the wrong type, a negative limit, a cursor of another query.
        UnknownStore: The schema does not declare the store.
    """
    if not is_a(query, Rows):
        raise QueryError(f"a query is made with select(STORE), for example select(CARDS).limit(20); {query!r} is none")
    kept = query.kept(schema)
    if kept is None:
        kept = bind_plan(query.plan, schema.store)
        if query.cursor or not query.forward:
            place = _place(query, kept) if query.cursor else ()
            kept = bind_plan(seek(query.plan, place, forward=query.forward), schema.store)
        query.keep(schema, kept)
    return kept


def _place(query: Rows[T], bound: BoundQuery) -> tuple[object, ...]:
    try:
        return decode_cursor(query.cursor, bound)
    except QueryError as error:
        error.within("after" if query.forward else "before")
        raise


__all__ = ["Condition", "Expression", "Rows", "SortKey", "bind", "case", "col", "select"]
