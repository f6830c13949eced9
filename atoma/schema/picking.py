"""Fields picked by a function of a row, so that they have its types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from atoma.contracts.query import Col
from atoma.errors import QueryError
from atoma.schema.expressions import Expression, unknown_field

T = TypeVar("T")
V = TypeVar("V")


def picked(store: str, columns: Sequence[str], source: str, pick: Callable[[T], V]) -> Expression[V]:
    """The field of ``store``, read under the name ``source``, that ``pick`` takes from a row.

    Raises:
        QueryError: What is picked is not a field of the model.
    """
    found: object = pick(cast("T", _Fields(store, columns, source)))
    if not isinstance(found, Expression):
        raise QueryError(f"pick a field of {store!r}, as in col(lambda row: row.id), not {found!r}")
    return cast("Expression[V]", found)


class _Fields:
    """A stand-in for a row while a field is picked."""

    def __init__(self, store: str, columns: Sequence[str], source: str) -> None:
        self._store = store
        self._columns = columns
        self._source = source

    def __getattr__(self, name: str) -> Expression[object]:
        if name not in self._columns:
            raise unknown_field(self._store, name, self._columns)
        return Expression(Col(0, name), self._source)
