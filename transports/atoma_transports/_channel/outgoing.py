"""The queue of frames that wait for their turn on the wire, bounded in bytes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import trio

from atoma_transports._channel.pipe import MessagePipe

SLOW_BYTES_S = 16 * 1024  # a peer that takes a large frame at this rate or better is slow, not gone


@dataclass(slots=True, eq=False)
class Ticket:
    """A frame in the queue; ``taken`` once it may have reached the wire."""

    data: bytes
    taken: bool = False


class Outgoing:
    """Frames in the order in which they were put, sent by one task.

    A task that calls is never cancelled in the middle of a frame: it only puts, and :meth:`run` sends.
    """

    def __init__(self, bytes_max: int, slow_s: float) -> None:
        self._bytes_max = bytes_max
        self._slow_s = slow_s
        self._queue: deque[Ticket] = deque()
        self._bytes = 0
        self._sending = False
        self._closed = False
        self._space = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()
        self._quiet = trio.lowlevel.ParkingLot()

    async def put(self, ticket: Ticket) -> None:
        """Queue ``ticket``, waiting while the queue is full; when cancelled, it was not queued.

        Raises:
            trio.BrokenResourceError: The connection is gone.
        """
        while self._queue and self._bytes + len(ticket.data) > self._bytes_max and not self._closed:
            await self._space.park()
        self.put_now(ticket)

    def put_now(self, ticket: Ticket) -> None:
        """Queue a small frame without waiting; for what is bounded otherwise (one cancel per call, one ping …).

        Raises:
            trio.BrokenResourceError: The connection is gone.
        """
        if self._closed:
            raise trio.BrokenResourceError("the connection is gone")
        self._queue.append(ticket)
        self._bytes += len(ticket.data)
        self._work.unpark()

    def withdraw(self, ticket: Ticket) -> bool:
        """Take ``ticket`` back; False when it may have been sent."""
        if ticket.taken or ticket not in self._queue:
            return not ticket.taken
        self._queue.remove(ticket)
        self._bytes -= len(ticket.data)
        self._space.unpark_all()
        return True

    def close(self) -> None:
        """Refuse further frames and wake those who wait for space."""
        self._closed = True
        self._space.unpark_all()
        self._quiet.unpark_all()

    async def flushed(self) -> None:
        """Wait until nothing is left to send, or nothing can be sent any more."""
        while (self._queue or self._sending) and not self._closed:
            await self._quiet.park()

    async def run(self, pipe: MessagePipe) -> None:
        """Send until cancelled.

        Raises:
            trio.BrokenResourceError: The connection is lost.
            trio.TooSlowError: The peer took nothing for too long.
        """
        while True:
            while not self._queue:
                self._sending = False
                self._quiet.unpark_all()
                await self._work.park()
            ticket = self._queue.popleft()
            ticket.taken = self._sending = True
            self._bytes -= len(ticket.data)
            self._space.unpark_all()
            with trio.fail_after(self._slow_s + len(ticket.data) / SLOW_BYTES_S):
                await pipe.send(ticket.data)
