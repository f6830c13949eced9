"""The queue of frames that wait to be sent, bounded in bytes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import trio

from atoma_transports.calls.fairness import Share
from atoma_transports.frames.pipe import LOST, EagerPipe, MessagePipe

CONTROL_BYTES = 64 * 1024  # for pings and the like beside a full queue
FRAMES_MAX = 8 * 1024  # that may wait, however small: each takes a few hundred bytes of memory
SLOW_BYTES_S = 16 * 1024  # a peer that takes a large frame at this rate or better is slow, not gone


@dataclass(slots=True, eq=False)
class Ticket:
    """A frame in the queue; ``taken`` is true once it may have reached the wire."""

    data: bytes
    taken: bool = False


class Outgoing:
    """The frames of a connection, in the order in which they were put.

    A frame is sent at once, in the task that puts it, if no other frame is waiting and ``pipe`` can take it without
    blocking; everything else is sent by the single task in :meth:`run`. So a caller is never cancelled in the middle
    of a frame, and a quiet connection costs no switch between tasks.
    """

    def __init__(self, pipe: MessagePipe, bytes_max: int, slow_s: float, share: Share | None = None) -> None:
        self._pipe = pipe
        self._eager = pipe if isinstance(pipe, EagerPipe) else None
        self._bytes_max = bytes_max
        self._slow_s = slow_s
        self._share = share
        self._queue: deque[Ticket] = deque()
        self._bytes = 0
        self._sending = False
        self._closed = False
        self._space = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()
        self._quiet = trio.lowlevel.ParkingLot()

    async def put(self, ticket: Ticket) -> None:
        """Send ``ticket`` or queue it, waiting while the queue is full; if this is cancelled, it was not queued.

        This is not a checkpoint when there is room.

        Raises:
            trio.BrokenResourceError: The connection is gone.
        """
        await self.space(len(ticket.data))
        self.put_now(ticket)

    async def space(self, size: int) -> None:
        """Wait until a frame of ``size`` bytes may be queued, before it is made. No checkpoint when there is room."""
        while self._queue and self._is_full(size) and not self._closed:
            await self._space.park()

    def _is_full(self, size: int) -> bool:
        """Whether ``size`` more bytes do not fit; an empty queue takes a frame of any size."""
        if self._bytes + size > self._bytes_max:
            return True
        return self._share is not None and not self._share.fits(size)

    def put_now(self, ticket: Ticket) -> None:
        """Send or queue without waiting; for small frames whose number has another bound (one cancel per call, one ping …).

        A reader that answers with it must wait in :meth:`room` before it reads on.

        Raises:
            trio.BrokenResourceError: The connection is gone.
        """
        if self._closed:
            raise trio.BrokenResourceError("the connection is gone")
        if self._eager is not None and not self._sending and not self._queue and self._sent_now(self._eager, ticket):
            return
        self._queue.append(ticket)
        self._bytes += len(ticket.data)
        self._hold(len(ticket.data))
        self._work.unpark()

    def _sent_now(self, pipe: EagerPipe, ticket: Ticket) -> bool:
        try:
            ticket.taken = pipe.send_now(ticket.data)
        except LOST:
            raise trio.BrokenResourceError("the connection is gone") from None
        if ticket.taken and pipe.unsent:
            self._sending = True
            self._work.unpark()
        return ticket.taken

    def withdraw(self, ticket: Ticket) -> bool:
        """Remove ``ticket`` from the queue; False if it may have been sent."""
        if ticket.taken or ticket not in self._queue:
            return not ticket.taken
        self._queue.remove(ticket)
        self._bytes -= len(ticket.data)
        self._hold(-len(ticket.data))
        self._space.unpark_all()
        return True

    def close(self) -> None:
        """Refuse further frames and wake the tasks that wait for room."""
        self._closed = True
        self._space.unpark_all()
        self._quiet.unpark_all()

    async def room(self) -> None:
        """Wait while the queue is longer than its bound, which only :meth:`put_now` can cause."""
        while len(self._queue) > 1 and not self._closed:
            if self._bytes <= self._bytes_max + CONTROL_BYTES and len(self._queue) <= FRAMES_MAX:
                return
            await self._space.park()

    async def flushed(self) -> None:
        """Wait until everything has been sent, or nothing can be sent any more."""
        while (self._queue or self._sending) and not self._closed:
            await self._quiet.park()

    async def run(self) -> None:
        """Send the frames that could not be sent at once, until cancelled.

        Raises:
            trio.BrokenResourceError: The connection is lost.
            trio.TooSlowError: The peer has read nothing for too long.
        """
        while True:
            if self._eager is not None and self._eager.unsent:
                self._sending = True
                with trio.fail_after(self._slow_s):
                    await self._eager.flush()
            elif self._queue:
                self._sending = True
                await self._send(self._queue.popleft())
            else:
                self._sending = False
                self._quiet.unpark_all()
                await self._work.park()

    async def _send(self, ticket: Ticket) -> None:
        ticket.taken = True
        self._bytes -= len(ticket.data)
        self._space.unpark_all()
        with trio.fail_after(self._slow_s + len(ticket.data) / SLOW_BYTES_S):
            await self._pipe.send(ticket.data)
        self._hold(-len(ticket.data))

    def _hold(self, size: int) -> None:
        if self._share is not None:
            self._share.hold(answers=size)
