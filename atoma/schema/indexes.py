"""Declaring indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoma.contracts.checks import is_a
from atoma.contracts.query import Col, Expr, Order
from atoma.errors import SchemaError
from atoma.schema.expressions import Condition, Expression
from atoma.schema.fields import Field
from atoma.schema.terms import Term


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index of a store.

    Args:
        fields: The sort keys: fields by name, ``-name`` for descending order, or expressions such as
            ``col("title").lower()``.
        unique: Whether no two rows of a scope may have the same values; rows with a NULL among them may.
        where: Restricts the index to rows for which this is true; ``unique`` then applies among them.

    Attributes:
        keys: The sort keys, in the form of plans.
        where: The condition, in the form of plans.

    Raises:
        SchemaError: It has no field, or something is not a field.
    """

    keys: tuple[Order, ...]
    unique: bool
    where: Expr | None

    def __init__(self, *fields: str | Term, unique: bool = False, where: Condition | None = None) -> None:
        if not fields or not all(is_a(field, str) or is_a(field, Term) for field in fields):
            raise SchemaError("Index() needs at least one field, each by its name or as an expression")
        if where is not None and not is_a(where, Expression):
            raise SchemaError(f"Index(where=…) takes a condition, as in col('done') == False, not {where!r}")
        object.__setattr__(self, "keys", tuple(map(_key, fields)))
        object.__setattr__(self, "unique", unique)
        object.__setattr__(self, "where", None if where is None else where.node)

    @classmethod
    def of(cls, keys: tuple[Order, ...], unique: bool = False, where: Expr | None = None) -> Index:
        """The index that plans say so."""
        made = object.__new__(cls)
        for name, value in (("keys", keys), ("unique", unique), ("where", where)):
            object.__setattr__(made, name, value)
        return made

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields among its keys."""
        return tuple([key.expr.name for key in self.keys if isinstance(key.expr, Col)])


def _key(field: str | Term) -> Order:
    if isinstance(field, Term):
        return Order(field.node)
    return Order(Col(0, field.removeprefix("-")), field.startswith("-"))


def checked_indexes(store: str, fields: Mapping[str, Field], indexes: Sequence[Index]) -> tuple[Index, ...]:
    """``indexes`` of a store with these fields.

    Raises:
        SchemaError: Something is not an index, or an index on these fields finds nothing.
    """
    if not (is_a(indexes, tuple) or is_a(indexes, list)) or not all(is_a(index, Index) for index in indexes):
        raise SchemaError(f"store {store!r}: indexes is a list of Index(…)")
    for index in indexes:
        for name in index.fields:
            if name not in fields:
                raise SchemaError(f"store {store!r}: index on unknown field {name!r}")
            if why := fields[name].comparisons.equality:
                raise SchemaError(f"store {store!r}: an index on {name!r} finds nothing: {why}")
    return tuple(indexes)
