"""Building a query: ``select(CARDS).where(CARDS.col(lambda card: card.lane) != "done").order_by("-priority")``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, Self, TypeVar, TypeVarTuple, cast, overload

import msgspec
from msgspec import structs

from atoma.contracts.checks import is_a
from atoma.contracts.query import BoundQuery, Branch, Col, Include, Plan
from atoma.errors import QueryError
from atoma.query.arguments import check_arity, check_soft, checked_columns, whole_number
from atoma.query.describe import describe_whole
from atoma.query.parts import Children, From, MakeRow, Parts
from atoma.query.tables import Table, joined_to
from atoma.query.within import one_of
from atoma.schema.expressions import (
    Condition,
    Expression,
    SortKey,
    Subquery,
    case,
    checked_condition,
    checked_text,
    col,
)
from atoma.schema.relations import Many, One, Relation, Variants
from atoma.schema.spec import Alias, StoreSpec
from atoma.schema.terms import Term

R_co = TypeVar("R_co", covariant=True)
N = TypeVar("N")
P = TypeVar("P")
S = TypeVar("S")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
V = TypeVar("V")
V1 = TypeVar("V1")
V2 = TypeVar("V2")
V3 = TypeVar("V3")
V4 = TypeVar("V4")
V5 = TypeVar("V5")
V6 = TypeVar("V6")
V7 = TypeVar("V7")
V8 = TypeVar("V8")


class Query(Subquery[R_co], msgspec.Struct, frozen=True, eq=False):
    """An immutable query whose answer is rows of one type; each method returns a new query.

    The order is total: the ids of the stores, or the columns of groups and distinct rows, are added as the last sort
    keys. Every query therefore has pages.

    Attributes:
        parts: The query so far, before it is checked.
        cursor: The row to continue at; ``""`` for none.
        forward: Whether to continue behind that row or before it.
        total: Whether a page also says how many rows there are on all pages.
    """

    parts: Parts
    cursor: str = ""
    forward: bool = True
    total: bool = False
    kept: dict[int, object] = {}

    @property
    def plan(self) -> Plan:
        """The query as data, before it is checked, without its cursor.

        Raises:
            QueryError: It reads a column of a store that is not one of its sources.
        """
        return self.parts.plan()

    def where(self, *conditions: Condition) -> Self:
        """Keep the rows for which every condition, old and new, is true.

        A column of a store that the query does not read raises ``QueryError`` when the query runs.

        Raises:
            QueryError: Something is not a condition.
        """
        return self._with(where=(*self.parts.where, *map(checked_condition, conditions)))

    def order_by(self, *keys: str | SortKey | Term) -> Self:
        """Sort by columns: by name, ``-name`` for descending, or ``column.asc()`` and ``column.desc()``.

        Names refer to the store that is read first. NULL comes first in ascending order. Any earlier order is replaced.

        Raises:
            QueryError: Something is not a sort key.
        """
        for key in keys:
            if not isinstance(key, str):
                if not is_a(key, SortKey) and not is_a(key, Term):
                    raise QueryError(f"order_by() takes text or col(…).desc(), not {key!r}")
                continue
            name, _, way = key.rpartition(" ") if " " in key else ("", "", "")
            if name and way.lower() in ("asc", "desc"):
                meant = name if way.lower() == "asc" else f"-{name}"
                raise QueryError(f"order_by({key!r}): the name of a field is enough here: order_by({meant!r})")
        return self._with(order=keys)

    def limit(self, count: int) -> Self:
        """At most ``count`` rows."""
        return self._with(limit=whole_number("limit()", count))

    def offset(self, count: int) -> Self:
        """Skip ``count`` rows."""
        return self._with(offset=whole_number("offset()", count))

    def after(self, cursor: str) -> Self:
        """Take the page behind the row of ``cursor`` (``page.end``); ``""`` begins with the first row."""
        return self._at(checked_text("after()", cursor), forward=True)

    def before(self, cursor: str) -> Self:
        """Take the page before the row of ``cursor`` (``page.start``); ``""`` ends with the last row.

        Its rows are in the order of the query, like those of every page; with a limit they are the nearest ones.
        """
        return self._at(checked_text("before()", cursor), forward=False)

    def with_total(self) -> Self:
        """Make pages say in ``page.total`` how many rows all pages have; they are counted right after the page was read."""
        return type(self)(self.parts, self.cursor, self.forward, True)

    def group_by(self, *keys: str | Term) -> Self:
        """Make one row of the answer from rows with equal values in these columns; other columns may aggregate. NULL equals NULL.

        Raises:
            QueryError: Something is not a column.
        """
        for key in keys:
            if not is_a(key, str) and not is_a(key, Term):
                raise QueryError(f"group_by() takes columns, not {key!r}")
        return self._with(group=(*self.parts.group, *keys))

    def having(self, *conditions: Condition) -> Self:
        """Keep the groups for which every condition is true: ``having(count() > 5)``.

        Raises:
            QueryError: Something is not a condition.
        """
        return self._with(having=(*self.parts.having, *map(checked_condition, conditions)))

    def distinct(self) -> Self:
        """Make equal rows of the answer one; for queries with columns."""
        return self._with(distinct=True)

    def text(self) -> str:
        """Return the query in SQL's words, for people: ``FROM cards WHERE lane = 'todo' ORDER BY priority DESC LIMIT 20``.

        Raises:
            QueryError: It reads a column of a store that is not one of its sources.
        """
        return describe_whole(BoundQuery(self.plan))

    @overload
    def columns(self, a: Expression[V1], /) -> Projection[V1]: ...
    @overload
    def columns(self, a: Expression[V1], b: Expression[V2], /) -> Projection[tuple[V1, V2]]: ...
    @overload
    def columns(self, a: Expression[V1], b: Expression[V2], c: Expression[V3], /) -> Projection[tuple[V1, V2, V3]]: ...
    @overload
    def columns(
        self, a: Expression[V1], b: Expression[V2], c: Expression[V3], d: Expression[V4], /
    ) -> Projection[tuple[V1, V2, V3, V4]]: ...
    @overload
    def columns(
        self, a: Expression[V1], b: Expression[V2], c: Expression[V3], d: Expression[V4], e: Expression[V5], /
    ) -> Projection[tuple[V1, V2, V3, V4, V5]]: ...
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
    ) -> Projection[tuple[V1, V2, V3, V4, V5, V6]]: ...
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
    ) -> Projection[tuple[V1, V2, V3, V4, V5, V6, V7]]: ...
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
    ) -> Projection[tuple[V1, V2, V3, V4, V5, V6, V7, V8]]: ...
    def columns(self, *columns: Term) -> Projection[object]:
        """Take these columns instead of whole rows: one column gives its values, several give tuples.

        Values have the types of the model: a ``Decimal``, a ``datetime``, a member of an enumeration. Type checkers
        know up to eight columns; :meth:`into` gives them names.

        Raises:
            QueryError: Something is not a column, or children are included already.
        """
        return _projection(self.parts, checked_columns("columns()", columns), None)

    @overload
    def into(self, make: Callable[[V1], S], a: Expression[V1], /) -> Projection[S]: ...
    @overload
    def into(self, make: Callable[[V1, V2], S], a: Expression[V1], b: Expression[V2], /) -> Projection[S]: ...
    @overload
    def into(
        self, make: Callable[[V1, V2, V3], S], a: Expression[V1], b: Expression[V2], c: Expression[V3], /
    ) -> Projection[S]: ...
    @overload
    def into(
        self,
        make: Callable[[V1, V2, V3, V4], S],
        a: Expression[V1],
        b: Expression[V2],
        c: Expression[V3],
        d: Expression[V4],
        /,
    ) -> Projection[S]: ...
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
    ) -> Projection[S]: ...
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
    ) -> Projection[S]: ...
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
    ) -> Projection[S]: ...
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
    ) -> Projection[S]: ...
    def into(self, make: Callable[..., object], *columns: Term) -> Projection[object]:
        """Take these columns, and pass them to ``make`` in this order: a named tuple, a dataclass, any function.

        Raises:
            QueryError: Something is not a column, ``make`` does not take that many, or children are included already.
        """
        found = checked_columns("into()", columns)
        check_arity(make, len(found))
        return _projection(self.parts, found, make)

    def among(self, value: Term) -> Condition:
        """Return whether ``value`` is one of its values: ``lane.in_(select(LANES).columns(lane_id))``."""
        return one_of(plain(self, "in_()"), value)

    def named(self, name: str) -> Table[R_co]:
        """Make a derived table, to be joined or read by another query; the query must have columns.

        Raises:
            QueryError: It has no columns, or the name is not a valid name.
        """
        if not is_a(name, str) or not name.isidentifier():
            raise QueryError(f"a derived table is called by a word, named('top'), not {name!r}")
        parts = plain(self, "named()")
        if parts.columns is None:
            raise QueryError("a derived table has columns: name them with columns(…) or into(…)")
        return Table(parts, name)

    def _at(self, cursor: str, *, forward: bool) -> Self:
        return type(self)(self.parts, cursor, forward, self.total)

    def _with(self, **changes: Any) -> Self:
        return type(self)(structs.replace(self.parts, **changes), self.cursor, self.forward, self.total)


class Rows(Query[T], frozen=True, eq=False):
    """Whole rows of one store: which, in which order, how many."""

    @property
    def spec(self) -> StoreSpec[T]:
        """The store."""
        return cast("StoreSpec[T]", self.parts.sources[0].spec)

    def join(
        self,
        source: StoreSpec[N] | Alias[N] | Table[N],
        on: Condition,
        *,
        cross_scope: bool = False,
        include_deleted: bool = False,
    ) -> Joined[T, N]:
        """Combine each row with each row of ``source`` for which ``on`` is true; see :meth:`Joined.join`."""
        return Joined(joined_to(self.parts, source, on, "inner", cross_scope, include_deleted))

    @overload
    def left_join(
        self, source: StoreSpec[N] | Alias[N], on: Condition, *, cross_scope: bool = ..., include_deleted: bool = ...
    ) -> Joined[T, N | None]: ...
    @overload
    def left_join(self, source: Table[N], on: Condition, *, cross_scope: bool = ...) -> Joined[T, N | None]: ...
    def left_join(
        self,
        source: StoreSpec[N] | Alias[N] | Table[N],
        on: Condition,
        *,
        cross_scope: bool = False,
        include_deleted: bool = False,
    ) -> Joined[T, N | None]:
        """Join as :meth:`join` does, with None beside a row that has no partner."""
        return Joined(joined_to(self.parts, source, on, "left", cross_scope, include_deleted))

    @overload
    def include(self, relation: Variants[T, N]) -> Included[T, N | None]: ...
    @overload
    def include(self, relation: One[T, N]) -> Included[T, N | None]: ...
    @overload
    def include(self, relation: Many[T, N]) -> Included[T, tuple[N, ...]]: ...
    @overload
    def include(self, relation: One[T, N], child: Callable[[Rows[N]], Query[S]]) -> Included[T, S | None]: ...
    @overload
    def include(self, relation: Many[T, N], child: Callable[[Rows[N]], Query[S]]) -> Included[T, tuple[S, ...]]: ...
    def include(
        self, relation: Relation[T, N], child: Callable[[Rows[N]], Query[object]] | None = None
    ) -> Query[object]:
        """Read each row with its children, using one query for the children of all rows: ``(card, (remark, …))``.

        Args:
            relation: The relation to the children.
            child: Filters, sorts and limits the children, **for each parent**, and may include their children in turn:
                ``lambda remarks: remarks.order_by("-made").limit(3).include(AUTHOR)``; or takes columns instead of
                the rows: ``lambda remarks: remarks.into(Said, text, count_of(LIKES_OF))``; or makes groups of them:
                ``lambda remarks: remarks.columns(author, count()).group_by(author)``.

        Raises:
            QueryError: The relation belongs to another store, or ``child`` returns anything but rows of its store.
        """
        made: Included[T, object] = Included(_include(self.parts, relation, child))
        return made


class Joined(Query[tuple[*Ts]], frozen=True, eq=False):
    """Rows of several stores side by side."""

    def join(
        self,
        source: StoreSpec[N] | Alias[N] | Table[N],
        on: Condition,
        *,
        cross_scope: bool = False,
        include_deleted: bool = False,
    ) -> Joined[*Ts, N]:
        """Combine each row with each row of ``source`` for which ``on`` is true.

        Args:
            source: A store, a store under another name, or a derived table.
            on: The condition; it may also read what was joined before.
            cross_scope: Join rows of stores that take their scope from a field across scopes, not only within one.
            include_deleted: Whether to include softly deleted rows of ``source``.

        Raises:
            QueryError: ``source`` is not a source, or ``on`` is not a condition.
        """
        return Joined(joined_to(self.parts, source, on, "inner", cross_scope, include_deleted))

    @overload
    def left_join(
        self, source: StoreSpec[N] | Alias[N], on: Condition, *, cross_scope: bool = ..., include_deleted: bool = ...
    ) -> Joined[*Ts, N | None]: ...
    @overload
    def left_join(self, source: Table[N], on: Condition, *, cross_scope: bool = ...) -> Joined[*Ts, N | None]: ...
    def left_join(
        self,
        source: StoreSpec[N] | Alias[N] | Table[N],
        on: Condition,
        *,
        cross_scope: bool = False,
        include_deleted: bool = False,
    ) -> Joined[*Ts, N | None]:
        """Join as :meth:`join` does, with None beside a row that has no partner."""
        return Joined(joined_to(self.parts, source, on, "left", cross_scope, include_deleted))


class Included(Query[tuple[T, *Ts]], Generic[T, *Ts], frozen=True, eq=False):
    """Rows of one store, each with its children by every relation that is included."""

    @overload
    def include(self, relation: Variants[T, N]) -> Included[T, *Ts, N | None]: ...
    @overload
    def include(self, relation: One[T, N]) -> Included[T, *Ts, N | None]: ...
    @overload
    def include(self, relation: Many[T, N]) -> Included[T, *Ts, tuple[N, ...]]: ...
    @overload
    def include(self, relation: One[T, N], child: Callable[[Rows[N]], Query[S]]) -> Included[T, *Ts, S | None]: ...
    @overload
    def include(
        self, relation: Many[T, N], child: Callable[[Rows[N]], Query[S]]
    ) -> Included[T, *Ts, tuple[S, ...]]: ...
    def include(
        self, relation: Relation[T, N], child: Callable[[Rows[N]], Query[object]] | None = None
    ) -> Query[object]:
        """Read the children of one more relation; see :meth:`Rows.include`."""
        made: Included[T, object] = Included(_include(self.parts, relation, child))
        return made


class Projection(Query[R_co], frozen=True, eq=False):
    """A query whose rows are made of columns: values, tuples, or whatever ``into`` makes of them."""

    @overload
    def include(self, relation: Variants[P, N]) -> IncludedProjection[R_co, N | None]: ...
    @overload
    def include(self, relation: One[P, N]) -> IncludedProjection[R_co, N | None]: ...
    @overload
    def include(self, relation: Many[P, N]) -> IncludedProjection[R_co, tuple[N, ...]]: ...
    @overload
    def include(
        self, relation: One[P, N], child: Callable[[Rows[N]], Query[S]]
    ) -> IncludedProjection[R_co, S | None]: ...
    @overload
    def include(
        self, relation: Many[P, N], child: Callable[[Rows[N]], Query[S]]
    ) -> IncludedProjection[R_co, tuple[S, ...]]: ...
    def include(
        self, relation: Relation[P, N], child: Callable[[Rows[N]], Query[object]] | None = None
    ) -> Query[object]:
        """Read the columns of each row beside its children: ``(title, (remark, …))``; see :meth:`Rows.include`."""
        made: IncludedProjection[R_co, object] = IncludedProjection(_include(self.parts, relation, child))
        return made


class IncludedProjection(Query[tuple[R_co, *Ts]], Generic[R_co, *Ts], frozen=True, eq=False):
    """Columns of the rows of one store, beside the children of each row by every relation that is included."""

    @overload
    def include(self, relation: Variants[P, N]) -> IncludedProjection[R_co, *Ts, N | None]: ...
    @overload
    def include(self, relation: One[P, N]) -> IncludedProjection[R_co, *Ts, N | None]: ...
    @overload
    def include(self, relation: Many[P, N]) -> IncludedProjection[R_co, *Ts, tuple[N, ...]]: ...
    @overload
    def include(
        self, relation: One[P, N], child: Callable[[Rows[N]], Query[S]]
    ) -> IncludedProjection[R_co, *Ts, S | None]: ...
    @overload
    def include(
        self, relation: Many[P, N], child: Callable[[Rows[N]], Query[S]]
    ) -> IncludedProjection[R_co, *Ts, tuple[S, ...]]: ...
    def include(
        self, relation: Relation[P, N], child: Callable[[Rows[N]], Query[object]] | None = None
    ) -> Query[object]:
        """Read the children of one more relation; see :meth:`Projection.include`."""
        made: IncludedProjection[R_co, object] = IncludedProjection(_include(self.parts, relation, child))
        return made


def _projection(parts: Parts, columns: tuple[Term, ...], make: MakeRow | None) -> Projection[object]:
    if parts.include:
        raise QueryError("columns() and into() come before include()")
    return Projection(structs.replace(parts, columns=columns, make=make))


def plain(query: Query[object], of: str) -> Parts:
    """What ``query``, which stands within another one, is made of.

    Raises:
        QueryError: It is none, or one that goes on at a cursor.
    """
    if not is_a(query, Query):
        raise QueryError(f"{of} takes a query, select(STORE)…, not {query!r}")
    if query.cursor or not query.forward or query.total:
        raise QueryError(f"a query in {of} has no after(), no before() and no with_total()")
    return query.parts


def _include(parts: Parts, relation: Relation[T, N], child: Callable[[Rows[N]], Query[object]] | None) -> Parts:
    if not is_a(relation, Relation):
        raise QueryError(f"include() takes a relation, has_many(…), belongs_to(…) …, not {relation!r}")
    spec = parts.sources[0].spec
    if spec is None or relation.parent.name != spec.name:
        read = "something else" if spec is None else repr(spec.name)
        raise QueryError(f"relation {relation.name!r} is one of {relation.parent.name!r}, and this query reads {read}")
    if relation.kind and child is not None:
        raise QueryError(f"the children by {relation.name!r} are in several stores and are read as they are")
    below: list[Parts] = []
    for _, store in relation.children:
        rows: Rows[N] = select(store)
        below.append(plain(rows if child is None else child(rows), f"include({relation.name!r})"))
    branches = [Branch(kind, each.plan()) for (kind, _), each in zip(relation.children, below, strict=True)]
    names = [each.include.name for each in parts.include]
    name, number = relation.name, 2
    while name in names:
        name, number = f"{relation.name} {number}", number + 1
    include = Include(
        name, relation.one, relation.keys, tuple(branches), relation.kind, relation.through, relation.cross_scope
    )
    return structs.replace(parts, include=(*parts.include, Children(include, tuple(below))))


@lru_cache(maxsize=256)
def _whole(spec: StoreSpec[Any]) -> Parts:
    return Parts((From(spec.name, spec),))


@overload
def select(source: StoreSpec[T] | Alias[T], *, include_deleted: bool = ...) -> Rows[T]: ...
@overload
def select(source: Table[T]) -> Query[T]: ...
def select(source: StoreSpec[T] | Alias[T] | Table[T], *, include_deleted: bool = False) -> Query[T]:
    """Start a query for every row of a store: ``select(CARDS).where(…).order_by(…).limit(20)``; or of a derived table.

    Args:
        source: The store, or the derived table.
        include_deleted: Whether to include softly deleted rows; a hub decides who may see them.

    Raises:
        QueryError: ``source`` is not a store, or a store without soft deletion is asked for deleted rows.
    """
    if type(source) is StoreSpec and not include_deleted:  # the first is quick: most queries begin this way
        return Rows(_whole(source))
    if isinstance(source, Table):
        shown = range(len(source.parts.columns or ()))
        columns = tuple([Expression[object](Col(0, f"c{at}"), source.name) for at in shown])
        return Query(Parts((From(source.name, None, source.parts),), columns=columns, make=source.parts.make))
    if not is_a(source, StoreSpec) and not is_a(source, Alias):
        raise QueryError(f"select() takes a store, select(CARDS); {source!r} is none")
    spec = source.spec if isinstance(source, Alias) else source
    if include_deleted:
        check_soft(spec)
    return Rows(Parts((From(source.name, spec, include_deleted=include_deleted),)))


__all__ = [
    "Condition",
    "Expression",
    "Included",
    "IncludedProjection",
    "Joined",
    "Projection",
    "Query",
    "Rows",
    "SortKey",
    "Table",
    "case",
    "col",
    "select",
]
