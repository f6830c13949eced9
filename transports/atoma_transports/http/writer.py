"""The body of an answer that comes in parts."""

from __future__ import annotations

from collections import deque

import trio

from atoma_transports._channel.limits import ChannelLimits
from atoma_transports.http.wire import Gone, ServerWire


class BodyWriter:
    """Sends parts in order, in a task of its own, so that whoever makes them is never cancelled in the middle of one.

    Bounded in parts and bytes; what has gathered while the client was taking the last goes out together.
    """

    def __init__(self, wire: ServerWire, limits: ChannelLimits) -> None:
        self._wire = wire
        self._limits = limits
        self._parts: deque[bytes] = deque()
        self._bytes = 0
        self._sending = False
        self._work = trio.lowlevel.ParkingLot()
        self._space = trio.lowlevel.ParkingLot()

    async def put(self, part: bytes) -> bool:
        """Queue ``part``; false when there was no room for ``limits.slow_s``, since the client takes nothing."""
        if self._full(len(part)):
            with trio.move_on_after(self._limits.slow_s) as patience:
                while self._full(len(part)):
                    await self._space.park()
            if patience.cancelled_caught:
                return False
        self.put_now(part)
        return True

    def put_now(self, part: bytes) -> None:
        """Queue ``part`` without waiting: for the first and the last one, and signs of life."""
        if not part:
            return
        self._parts.append(part)
        self._bytes += len(part)
        self._work.unpark()

    @property
    def busy(self) -> bool:
        """Whether something waits to be sent."""
        return self._sending or bool(self._parts)

    async def flushed(self) -> None:
        """Wait until everything is sent."""
        while self.busy:
            await self._space.park()

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            Gone: The client has left, or takes nothing for twice as long as it may.
        """
        while True:
            while not self._parts:
                await self._work.park()
            data = b"".join(self._parts)
            self._parts.clear()
            self._bytes = 0
            self._sending = True
            self._space.unpark_all()
            with trio.move_on_after(2 * self._limits.slow_s) as patience:
                await self._wire.write(self._wire.part(data))
            if patience.cancelled_caught:
                raise Gone
            self._sending = False
            self._space.unpark_all()

    def _full(self, size: int) -> bool:
        return bool(self._parts) and (
            len(self._parts) >= self._limits.window or self._bytes + size > self._limits.queue_bytes
        )
