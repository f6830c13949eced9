"""Pools of connections, and scripts that are run over them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar, cast

import trio

from atoma.concurrency.backoff import Backoff, Retries
from atoma.errors import StoreBusy
from atoma.ports.environment import Environment
from atoma_stores.postgres.codes import UNIQUE, ConnectionLost, ServerError, translate
from atoma_stores.postgres.connection import Connection
from atoma_stores.postgres.fence import NotAlone
from atoma_stores.sql.scripts import Batch, Execute, Row, RowRefused, Script

T = TypeVar("T")

BEGIN: Final = Execute("BEGIN")
BEGIN_READING: Final = Execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
COMMIT: Final = Execute("COMMIT")
ROLLBACK: Final = Execute("ROLLBACK")
FIRST_ROWS = 32
"""The number of rows that are first fetched of a bounded result; then as many as should fill a portion."""
AGAIN = Backoff(initial_s=0.005, max_s=0.5, jitter=0.5)
"""The pauses between attempts after a lost race or connection."""
RACES = frozenset({"42P06", "42P07", "42701", "42710", UNIQUE})
"""The codes that mean that somebody else has made the same schema, table, column, index or row meanwhile."""
PORTION_BYTES = 1 << 20
ROWS_MAX = 5_000


class Pool:
    """A bounded number of connections.

    Args:
        connect: Opens a connection that is ready for use.
        limit: Maximum number of connections.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], limit: int) -> None:
        self._connect = connect
        self._places = trio.Semaphore(limit)
        self._free: list[Connection] = []
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Take a connection for the block; it is kept afterwards unless the block fails or leaves a transaction open.

        Raises:
            ConnectionLost: None could be opened.
        """
        async with self._places:
            connection = self._free.pop() if self._free else await self._connect()
            kept = False
            try:
                yield connection
                kept = not (connection.in_transaction or self._closed)
            finally:
                if kept:
                    self._free.append(connection)
                else:
                    connection.close()

    def drop_idle(self) -> None:
        """Close the unused connections: after one was lost, the others may be, too."""
        while self._free:
            self._free.pop().close()

    def close(self) -> None:
        """Close the unused connections; the others are closed by their users."""
        self._closed = True
        self.drop_idle()


@dataclass(frozen=True, slots=True)
class Pools:
    """The connections of one hub process, in pools, so that writes never wait for reads.

    Attributes:
        where: The database, for messages.
        environment: Clock and chance.
        listen: Opens a connection that only listens.
        writing: The connections for write groups and maintenance.
        reading: The connections for everything that reads.
        heads: The connections for announcing heads and looking for them.
    """

    where: str
    environment: Environment
    listen: Callable[[], Awaitable[Connection]]
    writing: Pool
    reading: Pool
    heads: Pool

    def close(self) -> None:
        """Close every connection that is not in use."""
        for pool in (self.writing, self.reading, self.heads):
            pool.close()

    async def persist(self, attempt: Callable[[], Awaitable[T]], pool: Pool, seconds: float) -> T:
        """Return the result of ``attempt``; for ``seconds`` it is repeated after a lost race or connection, or if not alone.

        Raises:
            StoreError: It has not succeeded in time, or the database refuses.
        """
        began, retries = self.environment.clock(), Retries(AGAIN, self.environment.random)
        while True:
            try:
                return await attempt()
            except (ServerError, ConnectionLost, NotAlone) as error:
                if isinstance(error, ConnectionLost):
                    pool.drop_idle()
                elif isinstance(error, ServerError) and error.meaning != "again" and error.state not in RACES:
                    raise translate(error, self.where) from error
                pause = retries.fail()
                if self.environment.clock() - began + pause > seconds:
                    if isinstance(error, NotAlone):
                        raise error.told(self.where) from None
                    raise StoreBusy(f"{self.where}: no turn within {seconds:.0f} s ({error})") from error
            await trio.sleep(pause)


async def write(
    connection: Connection,
    script: Script[T],
    *,
    commit_with: int = 0,
    ending: Execute = COMMIT,
    aside: trio.CapacityLimiter | None = None,
) -> T:
    """Run ``script`` in a transaction.

    Args:
        connection: The connection; after a failure it is left in a transaction, so it has to be closed.
        script: The script.
        commit_with: The number of the last batch, from 1 on, which is sent together with the commit.
        ending: The statement that ends the transaction otherwise.
        aside: The limiter of the thread in which the script runs between batches; None for the loop.

    Raises:
        ServerError: The server refuses a statement that is not about a row of a store.
        ConnectionLost: The connection was lost.
    """
    number, sent_commit = 0, False
    advance: Callable[[], Batch] = partial(next, script)
    try:
        while True:
            turn = _turn(advance) if aside is None else await trio.to_thread.run_sync(_turn, advance, limiter=aside)
            if isinstance(turn, _Ended):
                break
            connection.in_transaction = True
            number += 1
            before: Batch = [BEGIN] if number == 1 else []
            sent_commit = number == commit_with
            sent = [*before, *turn, *([COMMIT] if sent_commit else ())]
            try:
                results = await connection.trip(sent)
            except ServerError as error:
                refused = _refusal(error, sent)
                if refused is None:
                    raise
                sent_commit = False
                advance = partial(script.throw, refused)
            else:
                advance = partial(script.send, results[len(before) : len(before) + len(turn)])
    finally:
        script.close()
    if not sent_commit:
        await connection.trip([ending])
    connection.in_transaction = False
    return cast("T", turn.result)


@dataclass(frozen=True, slots=True)
class _Ended:
    """The end of a script."""

    result: object


def _turn(advance: Callable[[], Batch]) -> Batch | _Ended:
    """Return the next batch of a script, or its end as a value, since a thread cannot pass on a ``StopIteration``."""
    try:
        return advance()
    except StopIteration as end:
        return _Ended(end.value)


async def take_back(connection: Connection) -> None:
    """Roll back a transaction that a script has given up."""
    await connection.trip([ROLLBACK])
    connection.in_transaction = False


def _refusal(error: ServerError, sent: Batch) -> RowRefused | None:
    """Return the error for a script about a row that the server refuses."""
    store = sent[error.at].store if error.at < len(sent) else ""
    return RowRefused(store, unique=error.state == UNIQUE) if store and error.meaning == "value" else None


async def read(connection: Connection, script: Script[T], *, limit_ms: int = 0) -> T:
    """Run ``script``, which only reads, in one snapshot.

    Args:
        connection: The connection.
        script: The script.
        limit_ms: Time limit of each statement in milliseconds; 0 for that of the session.
    """
    begin: list[Execute] = [BEGIN_READING]
    if limit_ms:
        begin.append(Execute("SELECT set_config('statement_timeout', $1, true)", (str(limit_ms),)))
    numbers = itertools.count()
    result: T
    try:
        batch = next(script)
        connection.in_transaction = True
        while True:
            batch, begin = script.send(await _ask(connection, begin, batch, numbers)), []
    except StopIteration as end:
        result = end.value
    finally:
        script.close()
    await connection.forget([COMMIT])
    connection.in_transaction = False
    return result


async def _ask(
    connection: Connection, begin: Sequence[Execute], batch: Batch, numbers: Iterator[int]
) -> list[Sequence[Row]]:
    """Send a batch, and fetch more of bounded results that go on; their cursors are closed with the transaction."""
    sent: list[Execute] = [*begin]
    places: list[int] = []
    names: dict[int, str] = {}
    for at, statement in enumerate(batch):
        assert isinstance(statement, Execute)
        if statement.enough is None:
            sent.append(statement)
        else:
            name = names[at] = f"c{next(numbers)}"
            sent += [
                Execute(f"DECLARE {name} NO SCROLL CURSOR FOR {statement.sql}", statement.values),
                _fetch(name, FIRST_ROWS),
            ]
        places.append(len(sent) - 1)
    answered = await connection.trip(sent)
    results = [answered[place] for place in places]
    for at, statement in enumerate(batch):
        if isinstance(statement, Execute) and statement.enough is not None:
            results[at] = await _until_enough(connection, names[at], results[at], statement.enough)
    return results


def _fetch(name: str, count: int) -> Execute:
    return Execute(f"FETCH {count} FROM {name}")


async def _until_enough(
    connection: Connection, name: str, rows: Sequence[Row], enough: Callable[[Row], bool]
) -> Sequence[Row]:
    found: list[Row] = []
    asked = FIRST_ROWS
    while True:
        for row in rows:
            if enough(row):
                return found
            found.append(row)
        if len(rows) < asked:
            return found
        asked = _next_portion(rows)
        (rows,) = await connection.trip([_fetch(name, asked)])


def _next_portion(rows: Sequence[Row]) -> int:
    """Return how many rows like these are a portion, as a power of two, so that the prepared statement can be reused."""
    size = sum(len(value) if isinstance(value, str | bytes) else 9 for row in rows for value in row)
    wanted = max(1, min(ROWS_MAX, PORTION_BYTES * len(rows) // max(size, 1)))
    return 1 << (wanted.bit_length() - 1)
