r"""A query as plain data: what ``atoma.query`` builds and engines, hubs and transports carry out.

Semantics are SQLite's: three-valued logic, BINARY order of text, NULL first in ascending order. ``like`` is SQLite's
LIKE: ``%`` and ``_``, ASCII letters compare without case, ``\\`` escapes. Every order ends with the id, so it is total.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, Union

import msgspec

from atoma.contracts.values import Scalar

CompareOp: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge"]


class Compare(msgspec.Struct, frozen=True, tag="cmp"):
    """``field op value``; with a NULL on either side the answer is NULL, as in SQL."""

    op: CompareOp
    field: str
    value: object  # a Scalar; msgspec cannot tell str from bytes in a union


class In(msgspec.Struct, frozen=True, tag="in"):
    """``field IN (values)``, SQL's rule for NULLs included."""

    field: str
    values: tuple[object, ...]


class IsNull(msgspec.Struct, frozen=True, tag="null"):
    """``field IS NULL``: true or false, never NULL."""

    field: str


class Like(msgspec.Struct, frozen=True, tag="like"):
    """SQLite's ``field LIKE pattern`` with the backslash as escape, on a text column."""

    field: str
    pattern: str


class And(msgspec.Struct, frozen=True, tag="and"):
    """All of ``items`` (true when there are none)."""

    items: tuple[Predicate, ...]


class Or(msgspec.Struct, frozen=True, tag="or"):
    """Any of ``items`` (false when there are none)."""

    items: tuple[Predicate, ...]


class Not(msgspec.Struct, frozen=True, tag="not"):
    """The negation of ``item``; NULL stays NULL."""

    item: Predicate


Predicate: TypeAlias = Union[Compare, In, IsNull, Like, And, Or, Not]  # noqa: UP007 - msgspec resolves the forward names


class Sort(msgspec.Struct, frozen=True, array_like=True):
    """One sort key."""

    field: str
    descending: bool = False


class QuerySpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bound query: names checked, values encoded, order total.

    Attributes:
        where: Filter; None keeps every row.
        order: Sort keys; a query that was bound to a store always ends with the id.
        limit: At most this many rows; None for all.
        offset: Rows to skip after the cursor.
        after: Values of the sort keys of the last row already seen (keyset cursor), or None.
        ids: Only these ids, answered in this order, missing ones left out; ``where`` and the rest do not apply.
        count: Answer only how many rows match (``limit``, ``offset`` and ``after`` do not apply).
    """

    where: Predicate | None = None
    order: tuple[Sort, ...] = ()
    limit: int | None = None
    offset: int = 0
    after: tuple[object, ...] | None = None
    ids: tuple[str, ...] | None = None
    count: bool = False


__all__ = [
    "And",
    "Compare",
    "CompareOp",
    "In",
    "IsNull",
    "Like",
    "Not",
    "Or",
    "Predicate",
    "QuerySpec",
    "Scalar",
    "Sort",
]
