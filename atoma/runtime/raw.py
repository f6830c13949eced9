"""SQL that a program wrote itself: its values, and its rows as objects of the program's types."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast, get_origin

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.raw import SqlAnswer
from atoma.contracts.values import Scalar
from atoma.errors import ConfigurationError, QueryError, ValidationError
from atoma.ports.engine import AnswersSql
from atoma.schema.fields import SIMPLE

T = TypeVar("T")


async def read_sql(database: object, into: type[T], text: str, params: Mapping[str, object]) -> tuple[T, ...]:
    """The rows of ``text`` as objects of type ``into``; see ``Client.sql``."""
    if not isinstance(database, AnswersSql):
        raise ConfigurationError("sql() asks this device's SQLite database, and there is none: add LocalExecution(…)")
    if not is_a(text, str):
        raise QueryError(f"sql() takes a type and the text of a statement, not {text!r}")
    answer = await database.sql(text, {name: _bound(name, value) for name, value in params.items()})
    return tuple(_converted(answer, into))


def _bound(name: str, value: object) -> Scalar:
    make = None if value is None else SIMPLE.get(type(value))
    if make is None:
        if value is None:
            return None
        raise QueryError(f"sql(): :{name} is a {type(value).__name__}, which no column stores as it is")
    try:
        return make("sql()", f":{name}").literal(value)
    except ValidationError as error:
        raise QueryError(str(error)) from None


def _converted(answer: SqlAnswer, into: type[T]) -> list[T]:
    shape = _shape_of(into, answer.columns)
    rows = [shape(row) for row in answer.rows]
    try:
        return cast("list[T]", msgspec.convert(rows, list[into], strict=False))  # type: ignore[valid-type]  # built at run time
    except (msgspec.ValidationError, TypeError) as error:
        raise QueryError(f"sql(): the columns {', '.join(answer.columns)} are no {into.__name__}: {error}") from None


def _shape_of(into: type[Any], columns: tuple[str, ...]) -> Callable[[tuple[Scalar, ...]], object]:
    """What msgspec converts from: a map by the names of columns, a tuple, or the only value."""
    bare = get_origin(into) or into
    by_name = dataclasses.is_dataclass(bare) or hasattr(bare, "__attrs_attrs__")
    if by_name or (isinstance(bare, type) and issubclass(bare, (dict, msgspec.Struct))):
        if len(set(columns)) < len(columns):
            raise QueryError(f"sql(): two columns have one name: {', '.join(columns)}; name them with AS")
        return lambda row: dict(zip(columns, row, strict=True))
    if isinstance(bare, type) and issubclass(bare, tuple):
        return lambda row: row
    if len(columns) != 1:
        raise QueryError(f"sql(): a row has {len(columns)} columns, and {into.__name__} takes one")
    return lambda row: row[0]
