"""Relations between stores, as constants of an application: which columns of one equal which columns of another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeAlias, TypeVar, overload

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.query import Call, Col, Expr, Link
from atoma.errors import SchemaError
from atoma.schema.expressions import Condition, Expression
from atoma.schema.spec import StoreSpec
from atoma.schema.terms import Term

M = TypeVar("M")
N = TypeVar("N")
N_co = TypeVar("N_co", covariant=True)
L = TypeVar("L")
V = TypeVar("V")
V1 = TypeVar("V1")
V2 = TypeVar("V2")
V3 = TypeVar("V3")
V4 = TypeVar("V4")


class Relation(msgspec.Struct, Generic[M, N_co], frozen=True, eq=False):
    """A relation from the rows of one store, the parents, to those of others, the children.

    Attributes:
        name: Its name in plans and explanations.
        parent: The store of the parents.
        children: The store of the children for each value of ``kind``; a single store, under None, without a ``kind``.
        keys: Pairs of a parent's column and the equal column of the child; with ``through``, the two ends.
        one: At most one child for each parent.
        kind: The parent's column that says in which store its child is; ``""`` if there is only one store.
        through: The store in between, for a many-to-many relation.
        cross_scope: Whether parent and child may be in different scopes.
    """

    name: str
    parent: StoreSpec[M]
    children: tuple[tuple[object, StoreSpec[Any]], ...]
    keys: tuple[tuple[str, str], ...]
    one: bool = False
    kind: str = ""
    through: Link | None = None
    cross_scope: bool = False


AnyRelation: TypeAlias = Relation[Any, Any]


class One(Relation[M, N_co], frozen=True, eq=False):
    """A relation to at most one child; reading it gives a child or None."""


class Many(Relation[M, N_co], frozen=True, eq=False):
    """A relation to any number of children; reading it gives a tuple of them."""


class Variants(Relation[M, N_co], frozen=True, eq=False):
    """A relation to at most one child, in the store that a column of the parent names."""


def belongs_to(
    parent: StoreSpec[M],
    child: StoreSpec[N],
    on: Expression[V] | Condition,
    *,
    name: str = "",
    cross_scope: bool = False,
) -> One[M, N]:
    """Declare that each row of ``parent`` names a row of ``child``: ``belongs_to(REMARKS, USERS, on=remark_author)``.

    Args:
        parent: The store whose rows are read.
        child: The store of the rows that they name.
        on: The column of ``parent`` that is the child's id; or columns of both that are equal,
            ``on=(plane == plane_id) & (day == plane_day)``.
        name: Its name in explanations; None takes the column's name.
        cross_scope: Whether the two may be in different scopes.

    Raises:
        SchemaError: ``on`` is something else.
    """
    keys = _keys(parent, child, on, near=True)
    return One(name or keys[0][0], parent, ((None, child),), keys, one=True, cross_scope=cross_scope)


def has_one(
    parent: StoreSpec[M],
    child: StoreSpec[N],
    on: Expression[V] | Condition,
    *,
    name: str = "",
    cross_scope: bool = False,
) -> One[M, N]:
    """Declare that at most one row of ``child`` names each row of ``parent``; the arguments are those of :func:`has_many`.

    If there are more, the first one in the order of the include is taken.
    """
    keys = _keys(parent, child, on, near=False)
    return One(name or f"{child.name}.{keys[0][1]}", parent, ((None, child),), keys, one=True, cross_scope=cross_scope)


def has_many(
    parent: StoreSpec[M],
    child: StoreSpec[N],
    on: Expression[V] | Condition | None = None,
    *,
    through: tuple[StoreSpec[L], Expression[V1], Expression[V2]] | None = None,
    name: str = "",
    cross_scope: bool = False,
) -> Many[M, N]:
    """Declare that any number of rows of ``child`` name each row of ``parent``: ``has_many(CARDS, REMARKS, on=remark_card)``.

    Args:
        parent: The store whose rows are read.
        child: The store of the rows that name them.
        on: The column of ``child`` that is the parent's id; or columns of both that are equal.
        through: For many to many, the store in between and its columns with the ids of the two:
            ``through=(TAGGED, tagged_card, tagged_label)``.
        name: Its name in explanations; None makes one from the child's store and column.
        cross_scope: Whether the two may be in different scopes.

    Raises:
        SchemaError: ``on`` is something else, or there is not exactly one of ``on`` and ``through``.
    """
    if (on is None) is (through is None):
        raise SchemaError(f"has_many({parent.name}, {child.name}): say on= or through=")
    if through is None:
        assert on is not None
        keys = _keys(parent, child, on, near=False)
        return Many(name or f"{child.name}.{keys[0][1]}", parent, ((None, child),), keys, cross_scope=cross_scope)
    link, above, below = through
    ends = Link(link.name, _column(above, link), _column(below, link))
    return Many(name or child.name, parent, ((None, child),), (("id", "id"),), through=ends, cross_scope=cross_scope)


@overload
def variants(
    parent: StoreSpec[M],
    a: tuple[object, StoreSpec[V1]],
    b: tuple[object, StoreSpec[V2]],
    /,
    *,
    on: Expression[V],
    kind: Expression[L],
    name: str = ...,
    cross_scope: bool = ...,
) -> Variants[M, V1 | V2]: ...
@overload
def variants(
    parent: StoreSpec[M],
    a: tuple[object, StoreSpec[V1]],
    b: tuple[object, StoreSpec[V2]],
    c: tuple[object, StoreSpec[V3]],
    /,
    *,
    on: Expression[V],
    kind: Expression[L],
    name: str = ...,
    cross_scope: bool = ...,
) -> Variants[M, V1 | V2 | V3]: ...
@overload
def variants(
    parent: StoreSpec[M],
    a: tuple[object, StoreSpec[V1]],
    b: tuple[object, StoreSpec[V2]],
    c: tuple[object, StoreSpec[V3]],
    d: tuple[object, StoreSpec[V4]],
    /,
    *,
    on: Expression[V],
    kind: Expression[L],
    name: str = ...,
    cross_scope: bool = ...,
) -> Variants[M, V1 | V2 | V3 | V4]: ...
def variants(
    parent: StoreSpec[M],
    /,
    *among: tuple[object, StoreSpec[Any]],
    on: Term,
    kind: Term,
    name: str = "",
    cross_scope: bool = False,
) -> Variants[M, object]:
    """Declare that each row of ``parent`` names a row of one of several stores, and one of its columns says of which.

    ``variants(EVENTS, ("video", VIDEOS), ("image", IMAGES), on=event_about, kind=event_kind)``

    Args:
        parent: The store whose rows are read.
        among: The store for each value of ``kind``.
        on: The column of ``parent`` that is the child's id.
        kind: The column of ``parent`` that chooses.
        name: Its name in explanations; None takes the name of ``on``.
        cross_scope: Whether the two may be in different scopes.

    Raises:
        SchemaError: ``on`` or ``kind`` is not a column of ``parent``.
    """
    key = _column(on, parent)
    keys = ((key, "id"),)
    return Variants(name or key, parent, among, keys, one=True, kind=_column(kind, parent), cross_scope=cross_scope)


def _column(term: Term, store: StoreSpec[Any]) -> str:
    node = None if not is_a(term, Term) or term.late else term.node
    if not isinstance(node, Col) or term.store not in ("", store.name) or node.name not in store.fields:
        raise SchemaError(f"a relation names a column of {store.name!r}, {store.name.upper()}.col(lambda row: row.id)")
    return node.name


class _TwoStores:
    """A numbering of the columns of the two ends of a relation."""

    def __init__(self, parent: StoreSpec[Any], child: StoreSpec[Any]) -> None:
        self._names = [parent.name, child.name]

    def number(self, source: str) -> int:
        """0 for the parent, 1 for the child."""
        if source not in self._names:
            raise SchemaError(f"a relation of {' and '.join(self._names)} has no columns of {source or 'no store'!r}")
        return self._names.index(source)


def _keys(parent: StoreSpec[Any], child: StoreSpec[Any], on: Term, *, near: bool) -> tuple[tuple[str, str], ...]:
    """The pairs of equal columns that ``on`` says: of the parent, then of the child."""
    if is_a(on, Term) and not on.late and isinstance(on.node, Col):
        return ((_column(on, parent), "id"),) if near else (("id", _column(on, child)),)
    if not is_a(on, Term) or parent.name == child.name:
        raise SchemaError(
            f"a relation of {parent.name!r} and {child.name!r} is on a column, or on columns that are equal"
        )
    return tuple(_pairs(on.at(_TwoStores(parent, child)), parent, child))


def _pairs(on: Expr, parent: StoreSpec[Any], child: StoreSpec[Any]) -> Iterator[tuple[str, str]]:
    if isinstance(on, Call) and on.fn == "and":
        for each in on.args:
            yield from _pairs(each, parent, child)
        return
    if isinstance(on, Call) and on.fn == "eq":
        left, right = on.args
        if isinstance(left, Col) and isinstance(right, Col) and left.source != right.source:
            yield (left.name, right.name) if left.source == 0 else (right.name, left.name)
            return
    raise SchemaError(f"a relation of {parent.name!r} and {child.name!r} is on columns that are equal, joined by &")


__all__ = ["Many", "One", "Relation", "Variants", "belongs_to", "has_many", "has_one", "variants"]
