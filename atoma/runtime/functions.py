"""Live functions: any function of reads, carried out again when what it has read changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Generic, TypeAlias, TypeVar, cast

from msgspec.structs import replace

from atoma.contracts.execution import QueryResult
from atoma.contracts.raw import SqlAnswer
from atoma.errors import ConfigurationError
from atoma.ports.live import Ask, LiveBatch, LiveFunctions, Reset, ResultRow, Update
from atoma.ports.loops import LoopGuard, lifetime
from atoma.query.binding import asked
from atoma.query.builder import Query
from atoma.query.plans import by_ids, counted, number_of
from atoma.runtime.flows import Core
from atoma.runtime.raw import converted, statement
from atoma.runtime.reading import readable
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec

T = TypeVar("T")
V = TypeVar("V")


class Reads:
    """The reader that a live function reads with; all of its reads see one state of the database.

    Args:
        ask: Asks for the answer to a query.
        schema: The declared stores.
    """

    def __init__(self, ask: Ask, schema: Schema) -> None:
        self._ask = ask
        self._schema = schema

    async def query(self, query: Query[T]) -> tuple[T, ...]:
        """The rows of ``query``.

        Raises:
            QueryError: The query does not fit the schema.
        """
        found = asked(query, self._schema)
        result = await self._ask(found.query)
        return tuple(map(found.read, result.rows or result.tuples))

    async def first(self, query: Query[T]) -> T | None:
        """The first row of ``query``, or None."""
        found = asked(query, self._schema)
        result = await self._ask(replace(found.query, plan=replace(found.query.plan, limit=1)))
        rows = result.rows or result.tuples
        return cast("T", found.read(rows[0])) if rows else None

    async def count(self, query: Query[T]) -> int:
        """How many rows match (limit, offset and cursor do not apply)."""
        return number_of(await self._ask(counted(asked(query, self._schema).query)))

    async def exists(self, query: Query[T]) -> bool:
        """Whether a row matches."""
        return await self.first(query) is not None

    async def sql(self, into: type[T], text: str, /, **params: object) -> tuple[T, ...]:
        """The rows of a statement in SQLite's SQL, as ``Client.sql`` gives them.

        Raises:
            QueryError: It is not one, it has too many rows or takes too long to be followed, or they do not make an ``into``.
        """
        answer = await self._ask(statement(text, params))
        assert isinstance(answer, SqlAnswer), "a statement is answered with what it reads"
        return tuple(converted(answer, into))

    async def get(self, store: StoreSpec[T], id: str) -> T | None:
        """The row of ``store`` with this id, or None."""
        result: QueryResult = await self._ask(by_ids(store.name, readable(store.name, (id,)), soft=store.soft_delete))
        return store.decode(result.rows[0].id, result.rows[0].image) if result.rows else None


LiveFunction: TypeAlias = Callable[[Reads], Coroutine[object, object, V]]
"""``async def`` of one argument, which awaits nothing but its reads."""


@lifetime
async def live_value(core: Core, schema: Schema, function: LiveFunction[V]) -> AsyncGenerator[AsyncIterator[V]]:
    """The value of ``function``, and again each time it becomes another one."""
    engine = core.live
    if not isinstance(engine, LiveFunctions):
        raise ConfigurationError(
            "live() follows a function over this device's database, and there is none: add LocalExecution(…)"
        )

    def body(ask: Ask) -> Coroutine[object, object, object]:
        return function(Reads(ask, schema))

    async with engine.open_function(function, body) as batches:
        yield _Values(batches, core.guard)


class _Values(Generic[V]):
    """An iterator over the values that batches of one row lead to."""

    def __init__(self, batches: AsyncIterator[LiveBatch[ResultRow]], guard: LoopGuard) -> None:
        self._batches = batches
        self._guard = guard

    def __aiter__(self) -> _Values[V]:
        return self

    async def __anext__(self) -> V:
        self._guard.check_loop()
        batch = await anext(self._batches)
        match batch.changes[-1]:
            case Reset(rows=((value,),)) | Update(row=(value,)):
                return cast("V", value)
            case change:
                raise AssertionError(f"a function has one value, not {change!r}")
