"""What a query is made of before it is asked: sources by name, and terms that do not know yet where they will stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from atoma.contracts.query import Call, Col, Derived, Expr, Include, Join, JoinKind, Named, Order, Plan, Source, Store
from atoma.errors import QueryError
from atoma.query.relating import found_by
from atoma.schema.expressions import Condition, SortKey, every
from atoma.schema.spec import StoreSpec
from atoma.schema.terms import Places, Term

OrderKey: TypeAlias = "str | SortKey | Term"
MakeRow: TypeAlias = Callable[..., Any]


class From(msgspec.Struct, frozen=True, eq=False):
    """One source of a query.

    Attributes:
        name: What its columns are called by: the store's name, or another one that was given to it.
        spec: The store; None for a derived table.
        derived: The query whose rows it has; None for a store.
        kind: How it is joined; of no meaning for the first one.
        on: The condition of the join.
        cross_scope: See :class:`atoma.contracts.query.Join`.
        store: The name of the store, where there is no ``spec``.
        include_deleted: Whether its rows that were deleted softly are read as well.
    """

    name: str
    spec: StoreSpec[Any] | None
    derived: Parts | None = None
    kind: JoinKind = "inner"
    on: Condition | None = None
    cross_scope: bool = False
    store: str = ""
    include_deleted: bool = False

    def source(self) -> Source:
        """It as data."""
        if self.derived is not None:
            return Derived(self.derived.plan())
        return Store(self.store if self.spec is None else self.spec.name, self.include_deleted)


@dataclass(frozen=True, slots=True, eq=False)
class Children:
    """Children that are read with the rows.

    Attributes:
        include: They as data.
        parts: What is asked of each branch, as it was written.
    """

    include: Include
    parts: tuple[Parts, ...]


class Names:
    """The sources of a query by their names, and those of the queries around it.

    Args:
        own: Its own, in order.
        outer: Those around it, the nearest first.
    """

    __slots__ = ("_outer", "_own")

    def __init__(self, own: tuple[str, ...], outer: tuple[str, ...] = ()) -> None:
        self._own = own
        self._outer = outer

    @property
    def all(self) -> tuple[str, ...]:
        """What a query within this one can read beside its own sources."""
        return (*self._own, *self._outer)

    @property
    def within(self) -> Names:
        """These sources as a query within this one numbers them, whatever its own are called."""
        return Names((), self.all)

    @property
    def outside(self) -> Names:
        """The sources around, as this query numbers them."""
        return Names((), self._outer)

    def number(self, source: str) -> int:
        """The number of a source; see :class:`atoma.schema.terms.Places`."""
        own = self._own
        if not source or (own and source == own[0]):
            return 0 if own else -1
        if source in own:
            return own.index(source)
        if source in self._outer:
            return -1 - self._outer.index(source)
        read = " and ".join(repr(name) for name in own or self._outer)
        raise QueryError(f"this query reads {read or 'nothing'}, and that is a column of {source!r}")


class Parts(msgspec.Struct, frozen=True, eq=False):
    """A query as it was written.

    Attributes:
        sources: What it reads; all but the first one are joined.
        where: Conditions that are all true.
        group: What rows are grouped by.
        having: Conditions on groups.
        columns: What a row of the result holds; None takes the whole row of every source.
        make: What the columns of a row are given to; None makes a tuple of them, or the value itself where there is one.
        distinct: Whether equal rows are one.
        order: Sort keys.
        limit: At most so many rows.
        offset: Rows that are left out first.
        include: Children that are read with the rows.
    """

    sources: tuple[From, ...]
    where: tuple[Condition, ...] = ()
    group: tuple[OrderKey, ...] = ()
    having: tuple[Condition, ...] = ()
    columns: tuple[Term, ...] | None = None
    make: MakeRow | None = None
    distinct: bool = False
    order: tuple[OrderKey, ...] = ()
    limit: int | None = None
    offset: int = 0
    include: tuple[Children, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its sources."""
        return tuple([source.name for source in self.sources])

    def plan(self, around: Places | None = None, also: Callable[[Names], Expr] | None = None) -> Plan:
        """It as data, to be checked.

        Args:
            around: The sources that it can read beside its own, for a query within another one.
            also: One more condition on its rows.

        Raises:
            QueryError: It reads a source that is not there, or two of its sources have one name.
        """
        outer = names_of(around).all if around is not None else ()
        own = self.names
        if len(set(own)) < len(own):
            twice = next(name for name in own if own.count(name) > 1)
            raise QueryError(f"{twice!r} is read twice: give one a name, {twice.upper()}.named('other')")
        names = Names(own, outer)
        where = every(self.where, names)
        if also is not None:
            where = also(names) if where is None else Call("and", (where, also(names)))
        return Plan(
            self.sources[0].source(),
            tuple([self._join(number, outer) for number in range(1, len(own))]) if len(own) > 1 else (),
            where,
            tuple([_term(key).at(names) if not isinstance(key, str) else Col(0, key) for key in self.group]),
            every(self.having, names),
            None if self.columns is None else self._columns(names),
            self.distinct,
            tuple([_order(key, names) for key in self.order]),
            self.limit,
            self.offset,
            include=tuple([each.include for each in self.include]),
        )

    def _join(self, number: int, outer: tuple[str, ...]) -> Join:
        source = self.sources[number]
        assert source.on is not None
        try:
            on = source.on.at(Names(self.names[: number + 1], outer), kept=True)
        except QueryError as error:
            error.within(f"join[{number - 1}]")
            raise
        return Join(source.kind, source.source(), on, source.cross_scope)

    def _columns(self, names: Names) -> tuple[Named, ...]:
        assert self.columns is not None
        named: dict[str, Named] = {}
        for number, each in enumerate(self.columns):
            expr = each.at(names)
            name = expr.name if isinstance(expr, Col) and expr.name not in named else f"c{number}"
            while name in named:
                name += "_"
            named[name] = Named(name, expr)
        spec, shown = self.sources[0].spec, {each.expr for each in named.values()}
        for children in self.include:
            for key in found_by(children.include, None if spec is None else spec.scope_field):
                expr, name = Col(0, key), key
                while name in named and expr not in shown:
                    name += "_"
                if expr not in shown:  # not asked for, but children are found by it
                    named[name] = Named(name, expr)
                    shown.add(expr)
        return tuple(named.values())


def names_of(places: Places) -> Names:
    """``places``, of which queries know more than expressions do.

    Raises:
        QueryError: They are those of one row, outside of any query.
    """
    if not isinstance(places, Names):
        raise QueryError("a condition about one row stands there, without queries within it")
    return places


def _term(key: OrderKey) -> Term:
    if not isinstance(key, Term):
        raise QueryError(f"group_by() takes columns, not {key!r}")
    return key


def _order(key: OrderKey, names: Names) -> Order:
    if isinstance(key, str):
        return Order(Col(0, key.removeprefix("-")), key.startswith("-"))
    if isinstance(key, SortKey):
        return Order(key.expression.at(names), key.descending)
    return Order(key.at(names))
