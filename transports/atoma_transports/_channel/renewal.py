"""A connection that outlives its token: the client brings a new one before the old one expires."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from atoma.errors import AtomaError
from atoma_transports._channel.frames import Welcome
from atoma_transports._channel.limits import ChannelLimits

logger = logging.getLogger("atoma.transports")

EARLY = 0.25  # of the time a token is good, the last part in which a new one is asked for …
EARLY_S_MAX = 60.0  # … but no longer than this
PAUSE_S_MIN = 0.25  # between two attempts, whatever the server says
PAUSE_S_MAX = 30.0

Ask = Callable[[], Awaitable[str]]


class Renewing(Protocol):
    """The channel, as far as this room sees it."""

    @property
    def is_open(self) -> bool:
        """Whether the connection stands."""
        ...

    async def renew(self, token: str) -> Welcome:
        """Bring a new token."""
        ...


def early_s(expires_in: float) -> float:
    """Seconds before its end at which a token that is good for ``expires_in`` is replaced."""
    return min(expires_in * EARLY, EARLY_S_MAX)


async def keep_token(channel: Renewing, ask: Ask, expires_in: float | None, limits: ChannelLimits) -> None:
    """Ask for a new token whenever the old one is about to expire; never raises, ends with the connection.

    A failure is tried again with growing pauses, also for a while after the end: the server waits a little before it
    closes the connection.
    """
    while expires_in is not None:
        await trio.sleep(max(PAUSE_S_MIN, expires_in - early_s(expires_in)))
        pause_s = PAUSE_S_MIN
        while True:
            if not channel.is_open:
                return
            try:
                with trio.fail_after(limits.handshake_s):
                    expires_in = (await channel.renew(await ask())).expires_in
                break
            except (AtomaError, trio.TooSlowError) as error:
                logger.warning("a new token could not be brought, the next attempt is in %g s: %s", pause_s, error)
            await trio.sleep(pause_s)
            pause_s = min(PAUSE_S_MAX, pause_s * 2)
