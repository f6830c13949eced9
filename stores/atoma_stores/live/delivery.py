"""The delivery of batches: in bounded buffers, and visible to all readers of a database at the same moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from atoma.contracts.completeness import Completeness
from atoma.errors import ClosedError
from atoma.ports.live import LiveBatch, Reset, ResultRow

CHECKPOINT_EVERY_BATCHES = 32


@dataclass(slots=True)
class LivePosition:
    """The point that the live queries of a database have reached.

    Attributes:
        heard: The latest commit that they know of; -1 until something was read or reported.
        shown: The latest commit whose batches may be read; those of a later one are still being put into the buffers.
        unseen: The latest commit that has not been examined for what it concerns; -1 if there is none.
        waiting: The tasks that wait for that examination.
        read: Number of batches that were ready when a reader asked for one.
    """

    heard: int = -1
    shown: int = -1
    unseen: int = -1
    waiting: dict[Subscription, None] = field(default_factory=dict["Subscription", None])
    read: int = 0


class Followed(Protocol):
    """The result that a subscription follows."""

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """The result."""
        ...

    @property
    def position(self) -> int:
        """The latest known commit at which the rows are the result."""
        ...

    @property
    def completeness(self) -> Completeness:
        """The completeness of the rows, as it was last reported."""
        ...

    def is_at(self, commit: int) -> bool:
        """Whether the rows may be read and contain every change up to ``commit``."""
        ...


class Subscription:
    """One reader of a result: an asynchronous iterator of batches with a bounded buffer.

    Args:
        followed: The result that it reads.
        position: The point that the live queries of the database have reached.
        buffer: Number of batches that it holds for its reader; one more, and all are dropped and the next is a ``Reset``.
        since: The first ``Reset`` waits until the result has reached this commit.
        advance: Runs a round that is due, if it is short.
    """

    def __init__(
        self, followed: Followed, position: LivePosition, buffer: int, since: int, advance: Callable[[], None]
    ) -> None:
        self._followed = followed
        self._position = position
        self._size = buffer
        self._since = since
        self._advance = advance
        self._batches: deque[LiveBatch[ResultRow]] = deque()
        self._behind = True  # the reader's rows and the buffer do not add up to the result: it needs a Reset
        self._error: Callable[[], Exception] | None = None
        self._readers = trio.lowlevel.ParkingLot()

    def __aiter__(self) -> Subscription:
        """Return the subscription itself."""
        return self

    async def __anext__(self) -> LiveBatch[ResultRow]:
        """Wait for the next batch and return it; a cancelled wait loses nothing.

        Raises:
            ClosedError: The database or this subscription was closed.
            StoreError: The query could not be run; the subscription is over.
        """
        if not self._is_ready():
            self._advance()
        if self._is_ready():
            await self._breathe()
        while True:
            if self._behind and self._followed.is_at(self._since):
                self._behind = False
                followed = self._followed
                return LiveBatch(followed.position, (Reset(followed.rows),), followed.completeness)
            if self._batches and self._batches[0].commit <= self._position.shown:
                return self._batches.popleft()
            if self._error is not None:
                raise self._error()
            if self._behind and self._position.unseen >= 0:
                self._position.waiting[self] = None
            await self._readers.park()

    async def _breathe(self) -> None:
        """Run a full checkpoint now and then, so that a tight loop of readers cannot starve the other tasks."""
        self._position.read += 1
        if self._position.read % CHECKPOINT_EVERY_BATCHES:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    def _is_ready(self) -> bool:
        return self._error is not None or bool(self._batches) or (self._behind and self._followed.is_at(self._since))

    def push(self, batch: LiveBatch[ResultRow]) -> None:
        """Add a batch; the reader sees it once its commit is shown, and is woken by :meth:`wake`."""
        if self._behind:
            return
        if len(self._batches) >= self._size:
            self._batches.clear()
            self._behind = True
        else:
            self._batches.append(batch)

    def wake(self) -> None:
        """Wake the reader so that it looks for a batch."""
        if self._readers:  # most readers take a round themselves, and nobody waits
            self._readers.unpark()

    def end(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` for the reader once it has read the remaining batches; only the first call counts."""
        self._error = self._error or error
        self._position.waiting.pop(self, None)
        self._readers.unpark_all()


def closed() -> ClosedError:
    """Return the error that ends every subscription of a database."""
    return ClosedError("the database is closed; its live queries ended with it")


def left() -> ClosedError:
    """Return the error for a subscription that is read after the block in which it was open."""
    return ClosedError("this live query was left; open it again")
