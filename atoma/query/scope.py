"""What the expressions of a plan can see while it is checked: its sources and those around it, with their types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from atoma.contracts.query import NULL, Col, Expr
from atoma.errors import QueryError
from atoma.query.literals import known_field
from atoma.schema.fields import Field
from atoma.schema.spec import AnyStore

Stores: TypeAlias = Callable[[str], AnyStore]
"""The store of a name; raises ``UnknownStore``."""


class Typed(msgspec.Struct, frozen=True, gc=False):
    """A checked expression.

    Attributes:
        expr: The expression.
        type: Its type, with ``?`` behind it when it may be NULL.
        field: The field whose values it has, where they are one's; it says how literals beside it are encoded.
        store: The store of ``field``.
    """

    expr: Expr
    type: str
    field: Field | None = None
    store: AnyStore | None = None

    @property
    def kind(self) -> str:
        """The type, whether NULL or not."""
        return self.type.removesuffix("?")

    @property
    def nullable(self) -> bool:
        """Whether it may be NULL."""
        return self.type[-1] == "?" or self.type == NULL


class Readable(msgspec.Struct, frozen=True, gc=False):
    """A source, and what can be read of it.

    Attributes:
        store: The store; None for a derived table.
        types: Types of the columns of a derived table.
        optional: Whether it may be missing from a row, because it is joined from the left.
    """

    store: AnyStore | None
    types: Mapping[str, Typed]
    optional: bool = False

    def column(self, expr: Col) -> Typed:
        """The column ``expr`` of this source.

        Raises:
            QueryError: There is none.
        """
        if self.store is None:
            found = self.types.get(expr.name)
            if found is None:
                raise QueryError(f"a derived table has no column {expr.name[:80]!r}; it has: {', '.join(self.types)}")
            return Typed(expr, found.kind + "?" if self.optional else found.type, found.field, found.store)
        field = known_field(expr.name, self.store)
        return Typed(expr, field.type + ("?" if field.nullable or self.optional else ""), field, self.store)


ReadableSources: TypeAlias = tuple[Readable, ...]
TypedColumns: TypeAlias = dict[str, Typed]
"""The columns of a result by their names, in order."""
