"""Noticing that a peer is not there any more although nothing said so."""

from __future__ import annotations

from collections.abc import Callable

import trio

from atoma_transports._channel.limits import ChannelLimits

GRACE_S = 0.05  # after a long pause of this process, what has arrived meanwhile is read first


async def until_mute(heard: Callable[[], float], ping: Callable[[], None], limits: ChannelLimits) -> None:
    """Return once the peer has left a ping unanswered; ``heard`` tells when its last frame came."""
    while True:
        quiet_until = heard() + limits.ping_s
        if trio.current_time() < quiet_until:
            await trio.sleep_until(quiet_until)
            continue
        asked = trio.current_time()
        ping()
        await trio.sleep(limits.pong_s)
        await trio.sleep(GRACE_S)
        if heard() < asked:
            return
