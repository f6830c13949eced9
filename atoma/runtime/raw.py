"""SQL that a program wrote itself: its values, and its rows as objects of the program's types."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, TypeVar, get_origin

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.explanation import Explanation
from atoma.contracts.raw import SqlAnswer, SqlQuery
from atoma.contracts.values import Scalar
from atoma.errors import ConfigurationError, QueryError, ValidationError
from atoma.ports.engine import AnswersSql
from atoma.ports.live import LiveBatch, LiveInspection, LiveStatements
from atoma.ports.loops import lifetime
from atoma.query.decoding import Reader
from atoma.runtime.flows import Core
from atoma.runtime.live import RowView, TypedLiveBatches
from atoma.schema.fields import SIMPLE

T = TypeVar("T")


async def read_sql(database: object, into: type[T], text: str, params: Mapping[str, object]) -> tuple[T, ...]:
    """The rows of ``text`` as objects of type ``into``; see ``Client.sql``."""
    answer = await _answering(database).sql(statement(text, params))
    return tuple(converted(answer, into))


@lifetime
async def live_sql(
    core: Core, database: object, into: type[T], text: str, params: Mapping[str, object]
) -> AsyncGenerator[AsyncIterator[LiveBatch[T]]]:
    """The rows of ``text``, followed; see ``Client.live_sql``."""
    found = await _answering(database).outline(statement(text, params))
    make = _maker(into, found.columns)
    engine = core.live
    if not isinstance(engine, LiveStatements):
        raise ConfigurationError(
            "live_sql() follows a statement over this device's database, which does not tell its commits"
        )
    async with engine.open_statement(found) as batches:
        view: RowView[T] = RowView(make)
        yield TypedLiveBatches(batches, view, core.guard)


async def explain_sql(core: Core, database: object, text: str, params: Mapping[str, object]) -> Explanation:
    """What becomes of ``text``; see ``Client.explain_sql``."""
    found = await _answering(database).outline(statement(text, params))
    live = core.live
    told = live.explain(found) if isinstance(live, LiveInspection) else "this database does not tell"
    return Explanation(text, found.sources, None, told, "never: such SQL is answered on this device alone")


def _answering(database: object) -> AnswersSql:
    if not isinstance(database, AnswersSql):
        raise ConfigurationError("sql() asks this device's SQLite database, and there is none: add LocalExecution(…)")
    return database


def statement(text: str, params: Mapping[str, object]) -> SqlQuery:
    """The statement ``text`` with its values as columns store them.

    Raises:
        QueryError: It is no text, or a value is none that a column stores.
    """
    if not is_a(text, str):
        raise QueryError(f"sql() takes a type and the text of a statement, not {text!r}")
    return SqlQuery.of(text, {name: _bound(name, value) for name, value in params.items()})


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


def converted(answer: SqlAnswer, into: type[T]) -> list[T]:
    """The rows of ``answer`` as objects of type ``into``.

    Raises:
        QueryError: They do not make such objects.
    """
    shape = _shape_of(into, answer.columns)
    rows = [shape(row) for row in answer.tuples]
    made: list[T] = _made(rows, list[into], into, answer.columns)  # type: ignore[valid-type]  # built at run time
    return made


def _maker(into: type[Any], columns: tuple[str, ...]) -> Reader:
    """What makes an object of type ``into`` of one row."""
    shape = _shape_of(into, columns)
    return lambda row: _made(shape(row), into, into, columns)


def _made(plain: object, form: object, into: type[Any], columns: tuple[str, ...]) -> Any:
    try:
        return msgspec.convert(plain, form, strict=False)
    except (msgspec.ValidationError, TypeError) as error:
        raise QueryError(f"sql(): the columns {', '.join(columns)} do not make a {into.__name__}: {error}") from None


def _shape_of(into: type[Any], columns: tuple[str, ...]) -> Callable[[Any], object]:
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
