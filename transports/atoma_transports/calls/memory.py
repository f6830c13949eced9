"""The memory that the requests and answers of one principal take, over all its connections."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

PATIENCE_S = 5.0
"""Seconds without progress after which a connection gives way when another one waits for room."""


@dataclass(slots=True, eq=False)
class Holding:
    """The bytes that one connection holds.

    Attributes:
        most: Maximum number that all connections of its principal may hold.
        parts: Those of requests that have arrived in part.
        unread: Those that have arrived and have not been read.
        requests: Those of requests that are being answered.
        answers: Those of answers that have not been sent.
        came_at: When a part last arrived, or could have arrived; infinite while this side is not reading.
        sent_at: When an answer was added, or a piece of one was sent.
        end: Ends the connection; None if that is not possible or has been done.
    """

    most: int
    parts: int = 0
    unread: int = 0
    requests: int = 0
    answers: int = 0
    came_at: float = 0.0
    sent_at: float = 0.0
    end: Callable[[], None] | None = None

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each kind, by the names of the arguments of :meth:`Memory.count`."""
        return {"parts": self.parts, "unread": self.unread, "requests": self.requests, "answers": self.answers}


class Memory:
    """The memory account of one principal.

    A task that finds no room waits: to read more of a request, or to make an answer. Three rules ensure that one of them can
    always continue: of the requests that have arrived in part, the first is read on; if there are no answers, one is
    made; and if there is neither a request nor an answer, one request is accepted. If nothing moves nevertheless, the
    connection whose peer has been idle for the longest time gives way: the first of those that are read, or one with
    answers. So a peer that reads nothing cannot block the others.
    """

    def __init__(self) -> None:
        self.held = 0
        """The number of bytes that are held."""
        self._requests = self._answers = 0
        self._reading: dict[Holding, None] = {}  # the connections that hold parts, in the order of their arrival
        self._unsent: dict[Holding, None] = {}
        self._taking, self._making = trio.Lock(), trio.Lock()  # two, as an answer releases its request
        self._freed = trio.lowlevel.ParkingLot()

    def count(self, of: Holding, *, parts: int = 0, unread: int = 0, requests: int = 0, answers: int = 0) -> None:
        """Note that ``of`` holds so many bytes more, or less; bytes that were released already are not released twice."""
        before = self.held
        if parts:
            parts = max(parts, -of.parts)
            of.parts += parts
            self.held += parts
            of.came_at = trio.current_time()
            _keep(self._reading, of, there=of.parts > 0)
        if unread:
            unread = max(unread, -of.unread)
            of.unread += unread
            self.held += unread
        if requests:
            requests = max(requests, -of.requests)
            of.requests += requests
            self._requests += requests
            self.held += requests
        if answers:
            answers = max(answers, -of.answers)
            of.answers += answers
            self._answers += answers
            self.held += answers
            of.sent_at = trio.current_time()
            _keep(self._unsent, of, there=of.answers > 0)
        if self._freed and (self.held < before or parts < 0):
            self._freed.unpark_all()

    def drop(self, of: Holding) -> None:
        """Note that ``of`` no longer holds anything."""
        self.count(of, **{kind: -size for kind, size in of.sizes().items()})

    def fits(self, of: Holding, size: int) -> bool:
        """Whether ``of`` may hold an answer of ``size`` bytes."""
        return not self._answers or self.held + size <= of.most

    async def read_on(self, of: Holding) -> float:
        """Wait until ``of`` may be read on, and return how many seconds that took; no checkpoint when there is room."""
        if self.held < of.most:
            return 0.0
        began = trio.current_time()
        of.came_at = math.inf
        try:
            while self.held >= of.most and next(iter(self._reading), None) is not of:
                await self._until_freed()
        finally:
            of.came_at = trio.current_time()
        return of.came_at - began

    async def take_request(self, of: Holding) -> None:
        """Wait until ``of`` may accept an unread request, one after the other; no checkpoint when there is room."""
        if self.held >= of.most:
            async with self._taking:
                while self.held >= of.most and (self._requests or self._answers):
                    await self._until_freed()

    @asynccontextmanager
    async def make_answer(self, of: Holding, size: int) -> AsyncGenerator[None]:
        """Wait until an answer of ``size`` bytes may be made; no other waiting task makes one during the block."""
        async with self._making:
            while not self.fits(of, size):
                await self._until_freed()
            yield

    async def _until_freed(self) -> None:
        """Wait until memory is released; if none is for too long, the slowest connection gives way."""
        with trio.move_on_after(PATIENCE_S) as patience:
            await self._freed.park()
        if patience.cancelled_caught:
            self._dismiss_slowest()

    def _dismiss_slowest(self) -> None:
        moved = {of: of.sent_at for of in self._unsent if of.end is not None}
        first = next(iter(self._reading), None)
        if first is not None and first.end is not None and first not in moved:
            moved[first] = first.came_at
        slowest = min(moved, key=moved.__getitem__, default=None)
        if slowest is not None and trio.current_time() - moved[slowest] >= PATIENCE_S:
            end, slowest.end = slowest.end, None
            assert end is not None
            end()


def _keep(table: dict[Holding, None], of: Holding, *, there: bool) -> None:
    if there:
        table[of] = None
    else:
        table.pop(of, None)
