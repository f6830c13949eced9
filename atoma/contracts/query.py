"""Queries as plain data, which ``atoma.query`` builds and checks, and engines, hubs and transports carry out.

A :class:`Plan` is the shape of a question, and a :class:`BoundQuery` is that shape with the values it is asked with. A
query in normal form has all of its values there, so that two queries of one shape are one plan: it is the key of the
statement cache, of live views and of requests that are answered together.

Sources are numbered: 0 is what the plan reads first, then come its joins in order. Within a subquery the numbers below
zero are the sources of the plans around it: -1 is the first source of the next plan outward, and so on through its
joins, then through the plan around that one. Names can therefore never clash.

The meaning is the same everywhere: SQL's three-valued logic, no conversions, text by code point, NULL first in
ascending order. The functions that a query may call are in :mod:`atoma.contracts.functions`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, TypeAlias, Union

import msgspec

PLAN_VERSION = 1
"""The version of this form in messages."""

AS_WRITTEN = ""
"""The type of a literal that is not encoded yet: it takes the form of the value beside it."""
NULL = "null"
"""The type of a literal NULL."""
PATH = "path"
"""The type of a literal that says where in a document: a part of the shape, as NULL is, so that an index can be found by it."""

SEARCH = "search"
"""The type of a literal that says what to search texts for."""
REGEX = "regex"
"""The type of a literal that is a regular expression."""

JoinKind: TypeAlias = Literal["inner", "left"]


class Lit(msgspec.Struct, frozen=True, array_like=True, tag_field="node", tag="lit", gc=False):
    """A value within the query.

    Attributes:
        type: Its type; :data:`AS_WRITTEN` before the query is checked.
        value: The value as a column stores it.
    """

    type: str
    value: object


class Param(msgspec.Struct, frozen=True, array_like=True, tag_field="node", tag="param", gc=False):
    """A value beside the query, by its index in :attr:`BoundQuery.params`."""

    index: int
    type: str


class Col(msgspec.Struct, frozen=True, array_like=True, tag_field="node", tag="col", gc=False):
    """A column of a source; the columns of a :class:`Derived` are called ``c0``, ``c1`` and so on."""

    source: int
    name: str


class Call(msgspec.Struct, frozen=True, array_like=True, tag_field="node", tag="call"):
    """A function of the table, called with ``args``."""

    fn: str
    args: tuple[Expr, ...]


class Agg(msgspec.Struct, frozen=True, array_like=True, tag_field="node", tag="agg"):
    """An aggregate over the rows of a group.

    Attributes:
        fn: ``count``, ``sum``, ``avg``, ``min`` or ``max``.
        arg: What is aggregated; None counts rows.
        where: Only rows for which this is true take part.
        distinct: Equal values count once.
    """

    fn: str
    arg: Expr | None = None
    where: Expr | None = None
    distinct: bool = False


class Exists(msgspec.Struct, frozen=True, array_like=True, tag_field="node", tag="exists"):
    """A test of whether ``query`` finds a row; never NULL."""

    query: Plan
    negated: bool = False


class Scalar(msgspec.Struct, frozen=True, array_like=True, tag_field="node", tag="scalar"):
    """The only column of the first row of ``query``; NULL when it finds none."""

    query: Plan


Expr: TypeAlias = Union[Lit, Param, Col, Call, Agg, Exists, Scalar]  # noqa: UP007 - msgspec resolves the forward names


class Store(msgspec.Struct, frozen=True, array_like=True, tag_field="node", tag="store"):
    """The rows of a store.

    Attributes:
        name: Its name.
        hidden: Whether rows that were deleted softly are among them.
    """

    name: str
    hidden: bool = False


class Derived(msgspec.Struct, frozen=True, array_like=True, tag_field="node", tag="derived"):
    """The rows of another plan, which has columns."""

    query: Plan


Source: TypeAlias = Union[Store, Derived]  # noqa: UP007 - as above


class Join(msgspec.Struct, frozen=True, array_like=True):
    """One more source, joined to those before it.

    Attributes:
        kind: ``inner``, or ``left``, which keeps rows that find no partner.
        source: What is joined.
        on: The condition.
        cross_scope: Whether rows of different scopes may meet; otherwise the scopes of two stores that both take theirs
            from a field are equated.
    """

    kind: JoinKind
    source: Source
    on: Expr
    cross_scope: bool = False


class Order(msgspec.Struct, frozen=True, array_like=True):
    """One sort key: NULL comes first ascending, last descending."""

    expr: Expr
    descending: bool = False


class Named(msgspec.Struct, frozen=True, array_like=True):
    """A column of the result."""

    name: str
    expr: Expr


class Link(msgspec.Struct, frozen=True, array_like=True):
    """The store between the two ends of a relation of many to many.

    Attributes:
        store: Its name.
        parent: Its column that equals the parent's key.
        child: Its column that equals the child's key.
    """

    store: str
    parent: str
    child: str


class Branch(msgspec.Struct, frozen=True, array_like=True):
    """A source of the children of an include.

    Attributes:
        kind: The value of :attr:`Include.kind` for which this branch is read; None reads it for every parent.
        query: The children, whole, by columns, or as groups of them, with order, limit **per parent**, and includes of their own.
    """

    kind: object
    query: Plan


class Include(msgspec.Struct, frozen=True, array_like=True):
    """A relation whose children are read with the rows.

    Attributes:
        name: How the result calls it.
        one: At most one child, and not a tuple of them.
        keys: Pairs of a parent's column and the child's column (or, with ``through``, the pair of ends) that are equal.
        branches: Where to look; more than one when ``kind`` chooses.
        kind: The parent's column that chooses the branch; ``""`` when there is one.
        through: The store between, for a relation of many to many.
        cross_scope: See :class:`Join`.
    """

    name: str
    one: bool
    keys: tuple[tuple[str, str], ...]
    branches: tuple[Branch, ...]
    kind: str = ""
    through: Link | None = None
    cross_scope: bool = False


class Seek(msgspec.Struct, frozen=True, array_like=True):
    """A position behind a row that was seen, at which reading goes on.

    Attributes:
        values: What the sort keys are on that row; none, when it goes backward, for a row behind all others.
        forward: Behind it; otherwise the rows before it, the nearest ones when there is a limit.
    """

    values: tuple[Expr, ...]
    forward: bool = True


class Plan(msgspec.Struct, frozen=True, omit_defaults=True, cache_hash=True, forbid_unknown_fields=True, dict=True):
    """The shape of a query; what every read asks of it is found once and kept with it.

    Attributes:
        source: What is read first.
        joins: Further sources.
        where: Rows for which this is not true are left out.
        group: Rows with equal values here are one row of the result, and columns may aggregate.
        having: Groups for which this is not true are left out.
        columns: What a row of the result holds; None takes the whole row of every source.
        distinct: Equal rows of the result are one.
        order: Sort keys. In a checked plan they are total: no two rows are equal in them.
        limit: At most so many rows.
        offset: Rows that are left out first.
        seek: Where to go on.
        include: Relations read with the rows. Where there are columns, what children are found by is among them.
    """

    source: Source
    joins: tuple[Join, ...] = ()
    where: Expr | None = None
    group: tuple[Expr, ...] = ()
    having: Expr | None = None
    columns: tuple[Named, ...] | None = None
    distinct: bool = False
    order: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    seek: Seek | None = None
    include: tuple[Include, ...] = ()

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, by their numbers."""
        return (self.source, *(join.source for join in self.joins))

    @cached_property
    def store(self) -> str:
        """The store that is read first, however deep within."""
        source = self.source
        while isinstance(source, Derived):
            source = source.query.source
        return source.name

    @cached_property
    def whole_rows(self) -> bool:
        """Whether a row of the result is a row of the one store that is read."""
        return self.columns is None and not self.joins and not self.include and isinstance(self.source, Store)

    @cached_property
    def backward(self) -> bool:
        """Whether it asks for the rows before a cursor."""
        return self.seek is not None and not self.seek.forward


class BoundQuery(msgspec.Struct, frozen=True, array_like=True):
    """A plan with the values it is asked with.

    Attributes:
        plan: The shape.
        params: Values as columns store them; those of plans inside the plan, too.
    """

    plan: Plan
    params: tuple[object, ...] = ()

    @property
    def store(self) -> str:
        """The store that is read first, however deep within."""
        return self.plan.store


__all__ = [
    "AS_WRITTEN",
    "NULL",
    "PATH",
    "PLAN_VERSION",
    "REGEX",
    "SEARCH",
    "Agg",
    "BoundQuery",
    "Branch",
    "Call",
    "Col",
    "Derived",
    "Exists",
    "Expr",
    "Include",
    "Join",
    "JoinKind",
    "Link",
    "Lit",
    "Named",
    "Order",
    "Param",
    "Plan",
    "Scalar",
    "Seek",
    "Source",
    "Store",
]
