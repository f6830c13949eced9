"""One look at a client for everybody who watches it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

LOOK_EVERY_S = 1.0
COALESCE_S = 0.12


class SharedLook:
    """The newest text about something that moves, made once however many read it.

    Nothing is done while nobody reads. Of those who do, one looks again and the others wait for what it sees; when it
    leaves, another goes on.

    Args:
        look: Makes the text.
        moved: Waits until something has happened; without news the text is made anew every second.
    """

    def __init__(self, look: Callable[[], Awaitable[str]], moved: Callable[[], Awaitable[None]]) -> None:
        self._look = look
        self._moved = moved
        self._text = ""
        self._readers = 0
        self._looking = False
        self._news = trio.lowlevel.ParkingLot()

    async def read(self, take: Callable[[str], Awaitable[None]]) -> None:
        """Give ``take`` the text, and again whenever it is another one; ends with what ``look`` raises."""
        if not self._readers:
            self._text = ""  # of when somebody read last
        self._readers += 1
        seen = ""
        try:
            while True:
                seen = await self._other_than(seen)
                await take(seen)
        finally:
            self._readers -= 1

    async def _other_than(self, seen: str) -> str:
        while self._text == seen:
            if self._looking:
                await self._news.park()
                continue
            self._looking = True
            try:
                while self._text == seen:
                    self._text = await self._next()
            finally:
                self._looking = False
                self._news.unpark_all()
        return self._text

    async def _next(self) -> str:
        if self._text:
            with trio.move_on_after(LOOK_EVERY_S):
                await self._moved()
            await trio.sleep(COALESCE_S)
        return await self._look()
