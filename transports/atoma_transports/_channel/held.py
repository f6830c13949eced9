"""Answers that wait until their caller takes them, bounded in bytes over all calls of a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Held:
    """Room for answers that are made and not sent yet.

    A call takes a few bytes and its answer may have megabytes: a caller who asks for much and reads nothing would
    have all of it kept here. The answer of a *read* that finds no room is dropped, and made again once there is.
    Other answers are counted and never dropped; they are about as small as their requests.

    Args:
        bytes_max: Bytes that may wait; a single answer may have more.
    """

    def __init__(self, bytes_max: int) -> None:
        self._max = bytes_max
        self._bytes = 0
        self._room = trio.lowlevel.ParkingLot()

    async def take(self, make: Callable[[], Awaitable[bytes]], *, reads: bool) -> bytes:
        """What ``make`` returns, counted until :meth:`give`; ``reads`` says that it may be called more than once."""
        while True:
            if not reads or self._bytes < self._max:
                data = await self._made(make)
                if not reads or not self._bytes or self._bytes + len(data) <= self._max:
                    self._bytes += len(data)
                    self._tell()
                    return data
                del data
            await self._room.park()

    def give(self, size: int) -> None:
        """An answer of ``size`` bytes was sent, or will not be."""
        self._bytes -= size
        self._tell()

    async def _made(self, make: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            return await make()
        except BaseException:
            self._tell()  # the room that was found is somebody else's now
            raise

    def _tell(self) -> None:
        if self._bytes < self._max:
            self._room.unpark()
