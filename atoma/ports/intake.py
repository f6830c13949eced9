"""Writes of other programs that lie in a hub's database: who brings them to the hub, and who is told what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec


class LeftWrite(msgspec.Struct, frozen=True):
    """A write that another program has left for the hub, in a transaction of its own that is committed.

    Attributes:
        number: Where it stands among those left; grows within a session of the database.
        subject: Whose write it is, as the hub's rules know them.
        key: Its idempotency key, the subject's own.
        scope: The scope of the row.
        store: The store of the row.
        op: ``insert``, ``update``, ``upsert`` or ``delete``.
        id: The row.
        values: JSON: an object of values by field, as the columns of the store have them.
    """

    number: int
    subject: str
    key: str
    scope: str
    store: str
    op: str
    id: str
    values: str


class LeftAnswer(msgspec.Struct, frozen=True):
    """The hub's answer to a write that was left.

    Attributes:
        number: Which one.
        answer: JSON, for the program that left it.
    """

    number: int
    answer: str


class IntakeTurn(Protocol):
    """The turn of one process at what was left; another one may take over when it does not come back within seconds."""

    async def left(self, limit: int) -> Sequence[LeftWrite]:
        """The oldest writes that have no answer; none while another process is at them.

        Raises:
            StoreError: The database failed.
        """
        ...

    async def answer(self, answers: Sequence[LeftAnswer]) -> None:
        """Keep answers for those who ask for them.

        Raises:
            StoreError: The database failed, and none was kept.
        """
        ...

    async def wait(self) -> None:
        """Wait until something may have been left, a second at most."""
        ...


@runtime_checkable
class TakesLeftWrites(Protocol):
    """A hub's database in which other programs may leave writes."""

    def open_intake(self) -> AbstractAsyncContextManager[IntakeTurn]:
        """Take turns with other processes inside the block."""
        ...
