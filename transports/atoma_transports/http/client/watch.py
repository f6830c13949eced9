"""Noticing that the server is not there any more although no connection says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.frames.pipe import GRACE_S

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Wait:
    """A caller that waits for the server."""

    since: float
    scope: trio.CancelScope


class Mute(Exception):
    """The server has left a question unanswered for too long."""


class Watch:
    """A watch that asks the server for a sign of life while somebody has waited for it without a word.

    HTTP/1.1 has no ping: a cheap request over a connection of its own takes its place. Only a question that stays
    without an answer counts; a connection that is refused shows that somebody is there to refuse it.

    Args:
        limits: ``ping_s`` of silence, then ``pong_s`` for an answer.
        ask: Returns once the server has answered, whatever it said.
    """

    def __init__(self, limits: ChannelLimits, ask: Callable[[], Awaitable[None]]) -> None:
        self._limits = limits
        self._ask = ask
        self._waits: set[_Wait] = set()
        self._work = trio.lowlevel.ParkingLot()

    async def wait(self, something: Callable[[], Awaitable[T]]) -> T:
        """What ``something`` returns, which the server makes wait.

        Raises:
            Mute: The server does not answer any more.
        """
        wait = _Wait(trio.current_time(), trio.CancelScope())
        self._waits.add(wait)
        self._work.unpark()
        try:
            with wait.scope:
                return await something()
        finally:
            self._waits.discard(wait)
        raise Mute

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if not self._waits:
                await self._work.park()
                continue
            due = min(wait.since for wait in self._waits) + self._limits.ping_s
            if trio.current_time() < due:
                await trio.sleep_until(due)
                continue
            await self._check()

    async def _check(self) -> None:
        asked = trio.current_time()
        with trio.move_on_after(self._limits.pong_s) as patience:
            await self._ask()
        if patience.cancelled_caught:
            await trio.sleep(GRACE_S)
        for wait in [wait for wait in self._waits if wait.since <= asked]:
            if patience.cancelled_caught:
                wait.scope.cancel()
            else:
                wait.since = trio.current_time()
