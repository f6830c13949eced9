"""How batches get to their readers: in bounded buffers, and seen by all readers of a database in the same moment."""

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
    """The point that the live queries of a database have come to.

    Attributes:
        heard: The latest commit that they know of; -1 while nothing was read or heard.
        shown: The latest commit whose batches may be read; those of a later one are on their way into the buffers.
        unseen: The latest commit of which nobody has looked yet what it concerns; -1 while there is none.
        waiting: Those who wait until somebody has looked.
        read: Batches that were there when a reader asked.
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
        """The latest commit heard of at which the rows are the result."""
        ...

    @property
    def completeness(self) -> Completeness:
        """How complete they are, as was told last."""
        ...

    def is_at(self, commit: int) -> bool:
        """Whether the rows may be read, and hold every change up to ``commit``."""
        ...


class Subscription:
    """One reader of a result: an asynchronous iterator of batches with a bounded buffer.

    Args:
        followed: What it reads.
        position: How far the database's live queries have come.
        buffer: Batches it holds for its reader; when one more comes, all are dropped and the next is a ``Reset``.
        since: The first ``Reset`` waits until the result is at this commit at least.
        advance: Takes a round that is due, if it is short.
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
        self._behind = True  # what the reader has is not the result minus the buffer: it needs a Reset
        self._error: Callable[[], Exception] | None = None
        self._readers = trio.lowlevel.ParkingLot()

    def __aiter__(self) -> Subscription:
        """The iterator is its own."""
        return self

    async def __anext__(self) -> LiveBatch[ResultRow]:
        """The next batch; waits for one. A cancelled wait loses nothing.

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
        """A full checkpoint now and then: a tight loop of readers must not starve the other tasks."""
        self._position.read += 1
        if self._position.read % CHECKPOINT_EVERY_BATCHES:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    def _is_ready(self) -> bool:
        return self._error is not None or bool(self._batches) or (self._behind and self._followed.is_at(self._since))

    def push(self, batch: LiveBatch[ResultRow]) -> None:
        """Take a batch; the reader sees it once its commit is shown, and is woken by :meth:`wake`."""
        if self._behind:
            return
        if len(self._batches) >= self._size:
            self._batches.clear()
            self._behind = True
        else:
            self._batches.append(batch)

    def wake(self) -> None:
        """Let the reader look whether there is something for it."""
        self._readers.unpark()

    def end(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` for the reader once it has read what is there; the first call counts."""
        self._error = self._error or error
        self._position.waiting.pop(self, None)
        self._readers.unpark_all()


def closed() -> ClosedError:
    """What ends every subscription of a database."""
    return ClosedError("the database is closed; its live queries ended with it")


def left() -> ClosedError:
    """What ends a subscription that somebody reads behind the block in which it was open."""
    return ClosedError("this live query was left; open it again")
