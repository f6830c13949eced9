"""``atoma.write()``: other programs leave writes for the hub, in their own transactions and with no other privilege.

A program calls the function, which returns a key. The row that the call leaves becomes visible together with the program's own
rows, or is rolled back with them. Any hub process may take it; a lease saves the others the same work, but nothing goes wrong
if two processes do it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar, cast

import trio

from atoma.ports.intake import LeftAnswer, LeftWrite
from atoma_stores.postgres.chores import NOW_MS, leave, take
from atoma_stores.postgres.intake_ddl import TABLE
from atoma_stores.sql.scripts import Execute, Script

T = TypeVar("T")

CHORE_NAME = "intake"
LEASE_MS = 3_000
LOOK_S = 1.0
LOOKED_AT = 10_000
"""How many of the waiting writes, the oldest ones, take turns by their scopes."""
_LEFT = f"""SELECT n, subject, key, scope, store, op, id, vals::text FROM {TABLE} JOIN (
    SELECT n, row_number() OVER (PARTITION BY scope ORDER BY n) AS place FROM (
        SELECT n, scope FROM {TABLE} WHERE answer IS NULL ORDER BY n LIMIT {LOOKED_AT}) AS oldest
    ORDER BY place, n LIMIT $1::bigint) AS due USING (n) ORDER BY place, n"""
_WAITS = f"SELECT 1 FROM {TABLE} WHERE answer IS NULL LIMIT 1"
_ANSWER = f"UPDATE {TABLE} SET answer=$2::jsonb, answered_ms={NOW_MS} WHERE n=$1::bigint AND answer IS NULL"
_FORGET = f"DELETE FROM {TABLE} WHERE answer IS NOT NULL AND answered_ms<$1::bigint"


class Drives(Protocol):
    """A driver of scripts over connections of a hub."""

    async def __call__(self, script: Callable[[], Script[T]]) -> T:
        """Run a script and return its result."""
        ...


class PostgresIntakeTurn:
    """The turn of this process; see :class:`atoma.ports.intake.IntakeTurn`.

    Args:
        read: Drives scripts that read.
        write: Drives scripts that write.
        owner: The name of this process on the lease.
        waited: Waits until a notification reports that a write was left.
    """

    def __init__(self, read: Drives, write: Drives, owner: str, waited: Callable[[], Awaitable[None]]) -> None:
        self._read, self._write = read, write
        self._owner, self._waited = owner, waited

    async def left(self, limit: int) -> Sequence[LeftWrite]:
        """See :class:`atoma.ports.intake.IntakeTurn`."""
        if not await self._read(_waits):
            return ()
        return await self._write(partial(_left, self._owner, limit))

    async def answer(self, answers: Sequence[LeftAnswer]) -> None:
        """See :class:`atoma.ports.intake.IntakeTurn`."""
        await self._write(partial(_answer, answers))

    async def wait(self) -> None:
        """See :class:`atoma.ports.intake.IntakeTurn`."""
        with trio.move_on_after(LOOK_S):
            await self._waited()

    async def end(self) -> None:
        """Give the lease back."""
        await self._write(partial(leave, CHORE_NAME, self._owner))


def forget(before_ms: int) -> Script[None]:
    """Delete answers that were given before that time."""
    yield [Execute(_FORGET, (before_ms,))]


def _waits() -> Script[bool]:
    (rows,) = yield [Execute(_WAITS)]
    return bool(rows)


def _left(owner: str, limit: int) -> Script[list[LeftWrite]]:
    if not (yield from take(CHORE_NAME, owner, LEASE_MS)):
        return []
    (rows,) = yield [Execute(_LEFT, (limit,))]
    return [LeftWrite(*row) for row in cast("Sequence[tuple[int, str, str, str, str, str, str, str]]", rows)]


def _answer(answers: Sequence[LeftAnswer]) -> Script[None]:
    yield [Execute(_ANSWER, (each.number, each.answer)) for each in answers]
