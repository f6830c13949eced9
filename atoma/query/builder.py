"""Building a query: ``select(CARDS).where(CARDS.col(lambda card: card.lane) != "done").order_by("-priority")``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, TypeVar, cast, overload

from atoma.contracts.checks import is_a
from atoma.contracts.query import BoundQuery, Plan
from atoma.errors import QueryError
from atoma.query.describe import describe_whole
from atoma.query.parts import From, Parts
from atoma.schema.expressions import (
    Condition,
    Expression,
    SortKey,
    Term,
    case,
    checked_condition,
    checked_text,
    col,
)
from atoma.schema.spec import StoreSpec

R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
T = TypeVar("T")
V1 = TypeVar("V1")
V2 = TypeVar("V2")
V3 = TypeVar("V3")
V4 = TypeVar("V4")
V5 = TypeVar("V5")
V6 = TypeVar("V6")
V7 = TypeVar("V7")
V8 = TypeVar("V8")


def _count(of: str, given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise QueryError(f"{of} takes a whole number, not {given!r}")
    return given


@dataclass(frozen=True, slots=True, eq=False)
class Query(Generic[R_co]):
    """What is asked, with rows of one type for an answer. Immutable; each method gives a new one.

    The order is total: what tells rows apart is added as the last sort keys, the id of each store, or the columns of groups
    and of distinct rows. So every query has pages.

    Attributes:
        parts: What is asked so far, before it is checked.
        cursor: The row to go on at; ``""`` for none.
        forward: Whether to go on behind that row, or before it.
        total: Whether a page also says how many rows there are on all pages.
    """

    parts: Parts
    cursor: str = ""
    forward: bool = True
    total: bool = False
    kept: dict[int, object] = field(default_factory=dict[int, object], repr=False, init=False)

    @property
    def plan(self) -> Plan:
        """It as data, before it is checked, without its cursor.

        Raises:
            QueryError: It reads a column of a store that is none of its sources.
        """
        return self.parts.plan()

    def where(self, *conditions: Condition) -> Self:
        """Keep the rows for which every condition, old and new, is true.

        A column of a store that the query does not read is a ``QueryError`` when it is asked.

        Raises:
            QueryError: Something is no condition.
        """
        return self._with(where=(*self.parts.where, *map(checked_condition, conditions)))

    def order_by(self, *keys: str | SortKey | Term) -> Self:
        """Sort by columns: by name, ``-name`` for descending, or ``column.asc()`` and ``column.desc()``.

        A name is one of the store that is read first. NULL comes first ascending. It replaces the order there was.

        Raises:
            QueryError: Something is no sort key.
        """
        for key in keys:
            if not is_a(key, str) and not is_a(key, SortKey) and not is_a(key, Term):
                raise QueryError(f"order_by() takes text or col(…).desc(), not {key!r}")
        return self._with(order=keys)

    def limit(self, count: int) -> Self:
        """At most ``count`` rows."""
        return self._with(limit=_count("limit()", count))

    def offset(self, count: int) -> Self:
        """Skip ``count`` rows."""
        return self._with(offset=_count("offset()", count))

    def after(self, cursor: str) -> Self:
        """The page behind the row that ``cursor`` (``page.end``) stands for; ``""`` begins with the first row."""
        return replace(self, cursor=checked_text("after()", cursor), forward=True)

    def before(self, cursor: str) -> Self:
        """The page before the row that ``cursor`` (``page.start``) stands for; ``""`` ends with the last row.

        Its rows come in the order of the query, as those of every page; with a limit they are the nearest ones.
        """
        return replace(self, cursor=checked_text("before()", cursor), forward=False)

    def with_total(self) -> Self:
        """Pages say how many rows there are on all pages, in ``page.total``: they are counted right after the page was read."""
        return replace(self, total=True)

    def group_by(self, *keys: str | Term) -> Self:
        """Rows with equal values here become one row of the answer, and columns may aggregate; NULL equals NULL.

        Raises:
            QueryError: Something is no column.
        """
        for key in keys:
            if not is_a(key, str) and not is_a(key, Term):
                raise QueryError(f"group_by() takes columns, not {key!r}")
        return self._with(group=(*self.parts.group, *keys))

    def having(self, *conditions: Condition) -> Self:
        """Keep the groups for which every condition is true: ``having(count() > 5)``.

        Raises:
            QueryError: Something is no condition.
        """
        return self._with(having=(*self.parts.having, *map(checked_condition, conditions)))

    def distinct(self) -> Self:
        """Equal rows of the answer become one; for queries with columns."""
        return self._with(distinct=True)

    def text(self) -> str:
        """The query in SQL's words, for people: ``FROM cards WHERE lane = 'todo' ORDER BY priority DESC LIMIT 20``.

        Raises:
            QueryError: It reads a column of a store that is none of its sources.
        """
        return describe_whole(BoundQuery(self.plan))

    @overload
    def columns(self, a: Expression[V1], /) -> Query[V1]: ...
    @overload
    def columns(self, a: Expression[V1], b: Expression[V2], /) -> Query[tuple[V1, V2]]: ...
    @overload
    def columns(self, a: Expression[V1], b: Expression[V2], c: Expression[V3], /) -> Query[tuple[V1, V2, V3]]: ...
    @overload
    def columns(
        self, a: Expression[V1], b: Expression[V2], c: Expression[V3], d: Expression[V4], /
    ) -> Query[tuple[V1, V2, V3, V4]]: ...
    @overload
    def columns(
        self, a: Expression[V1], b: Expression[V2], c: Expression[V3], d: Expression[V4], e: Expression[V5], /
    ) -> Query[tuple[V1, V2, V3, V4, V5]]: ...
    @overload
    def columns(
        self,
        a: Expression[V1],
        b: Expression[V2],
        c: Expression[V3],
        d: Expression[V4],
        e: Expression[V5],
        f: Expression[V6],
        /,
    ) -> Query[tuple[V1, V2, V3, V4, V5, V6]]: ...
    @overload
    def columns(
        self,
        a: Expression[V1],
        b: Expression[V2],
        c: Expression[V3],
        d: Expression[V4],
        e: Expression[V5],
        f: Expression[V6],
        g: Expression[V7],
        /,
    ) -> Query[tuple[V1, V2, V3, V4, V5, V6, V7]]: ...
    @overload
    def columns(
        self,
        a: Expression[V1],
        b: Expression[V2],
        c: Expression[V3],
        d: Expression[V4],
        e: Expression[V5],
        f: Expression[V6],
        g: Expression[V7],
        h: Expression[V8],
        /,
    ) -> Query[tuple[V1, V2, V3, V4, V5, V6, V7, V8]]: ...
    def columns(self, *columns: Term) -> Query[object]:
        """Take these columns and no whole rows: one column gives its values, more give tuples.

        Values come as the model has them: a ``Decimal``, a ``datetime``, a member of an enumeration. Eight columns have types;
        :meth:`into` gives them names.

        Raises:
            QueryError: Something is no column.
        """
        return Query(replace(self.parts, columns=_columns("columns()", columns), make=None))

    @overload
    def into(self, make: Callable[[V1], S], a: Expression[V1], /) -> Query[S]: ...
    @overload
    def into(self, make: Callable[[V1, V2], S], a: Expression[V1], b: Expression[V2], /) -> Query[S]: ...
    @overload
    def into(
        self, make: Callable[[V1, V2, V3], S], a: Expression[V1], b: Expression[V2], c: Expression[V3], /
    ) -> Query[S]: ...
    @overload
    def into(
        self,
        make: Callable[[V1, V2, V3, V4], S],
        a: Expression[V1],
        b: Expression[V2],
        c: Expression[V3],
        d: Expression[V4],
        /,
    ) -> Query[S]: ...
    @overload
    def into(
        self,
        make: Callable[[V1, V2, V3, V4, V5], S],
        a: Expression[V1],
        b: Expression[V2],
        c: Expression[V3],
        d: Expression[V4],
        e: Expression[V5],
        /,
    ) -> Query[S]: ...
    @overload
    def into(
        self,
        make: Callable[[V1, V2, V3, V4, V5, V6], S],
        a: Expression[V1],
        b: Expression[V2],
        c: Expression[V3],
        d: Expression[V4],
        e: Expression[V5],
        f: Expression[V6],
        /,
    ) -> Query[S]: ...
    @overload
    def into(
        self,
        make: Callable[[V1, V2, V3, V4, V5, V6, V7], S],
        a: Expression[V1],
        b: Expression[V2],
        c: Expression[V3],
        d: Expression[V4],
        e: Expression[V5],
        f: Expression[V6],
        g: Expression[V7],
        /,
    ) -> Query[S]: ...
    @overload
    def into(
        self,
        make: Callable[[V1, V2, V3, V4, V5, V6, V7, V8], S],
        a: Expression[V1],
        b: Expression[V2],
        c: Expression[V3],
        d: Expression[V4],
        e: Expression[V5],
        f: Expression[V6],
        g: Expression[V7],
        h: Expression[V8],
        /,
    ) -> Query[S]: ...
    def into(self, make: Callable[..., object], *columns: Term) -> Query[object]:
        """Take these columns, and give them to ``make`` in this order: a named tuple, a dataclass, any function.

        Raises:
            QueryError: Something is no column, or ``make`` does not take so many.
        """
        found = _columns("into()", columns)
        _check_arity(make, len(found))
        return Query(replace(self.parts, columns=found, make=make))

    def _with(self, **changes: Any) -> Self:
        return replace(self, parts=replace(self.parts, **changes))


def _columns(of: str, given: tuple[object, ...]) -> tuple[Term, ...]:
    if not given:
        raise QueryError(f"{of} takes at least one column")
    for each in given:
        if not isinstance(each, Term):
            raise QueryError(f"{of} takes columns, as STORE.col(lambda row: row.id), not {each!r}")
    return cast("tuple[Term, ...]", given)


def _check_arity(make: object, count: int) -> None:
    if not callable(make):
        raise QueryError(f"into() takes a class or a function first, not {make!r}")
    try:
        signature = inspect.signature(make)
    except ValueError:
        return  # one of C's does not tell
    try:
        signature.bind(*range(count))
    except TypeError as error:
        name = getattr(make, "__name__", "it")
        raise QueryError(f"into() gives {name} {count} values by their places: {error}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Query[T]):
    """Whole rows of one store: which, in which order, how many."""

    @property
    def spec(self) -> StoreSpec[T]:
        """The store."""
        return cast("StoreSpec[T]", self.parts.sources[0].spec)


def select(spec: StoreSpec[T]) -> Rows[T]:
    """Every row of a store, to be narrowed: ``select(CARDS).where(…).order_by(…).limit(20)``.

    Raises:
        QueryError: That is no store.
    """
    if not is_a(spec, StoreSpec):
        raise QueryError(f"select() takes a store, select(CARDS); {spec!r} is none")
    return Rows(Parts((From(spec.name, spec),)))


__all__ = ["Condition", "Expression", "Query", "Rows", "SortKey", "case", "col", "select"]
