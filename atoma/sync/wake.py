"""Events that can occur again: one that a single task waits for and cannot miss, and one that wakes everybody."""

from __future__ import annotations

import trio


class Wake:
    """A level-triggered bell for one waiting task: many pokes while it works are one more round."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def poke(self) -> None:
        """Let the waiting task go on, or its next wait return at once."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a poke, at most ``seconds``; whether one came.

        The poke is taken when this returns, so that work begun afterwards sees everything it announced.
        """
        with trio.move_on_after(seconds):
            await self._event.wait()
        poked = self._event.is_set()
        if poked:
            self._event = trio.Event()
        return poked


class Bell:
    """Rung when something moved; everybody who waits wakes.

    Take :attr:`next` before looking at what may have moved, then wait for it: nothing is missed in between.
    """

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = trio.Event()

    def ring(self) -> None:
        """Wake everybody who waits."""
        self.next.set()
        self.next = trio.Event()
