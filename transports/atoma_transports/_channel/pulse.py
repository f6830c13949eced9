"""Noticing that a peer is not there any more although nothing said so."""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.pipe import MessagePipe, WatchedPipe

GRACE_S = 0.05  # after a long pause of this process, what has arrived meanwhile is read first


class Pulse:
    """When the peer was heard last: a whole frame, or a part of one where the pipe can tell.

    While a large frame comes in slowly, ``tell`` lets the peer know that somebody is there: its pings and their
    answers wait behind the frame.
    """

    def __init__(self, pipe: MessagePipe, tell: Callable[[], None], limits: ChannelLimits) -> None:
        self._watched = pipe if isinstance(pipe, WatchedPipe) else None
        self._tell = tell
        self._period_s = limits.pong_s / 2
        self.frame_at = self._told_at = trio.current_time()
        """When the last frame was whole; kept by the reader."""
        if self._watched is not None:
            self._watched.watch(self._part_came)

    def heard(self) -> float:
        """When the last sign of life came, on Trio's clock."""
        return self.frame_at if self._watched is None else max(self.frame_at, self._watched.moved_at)

    def _part_came(self) -> None:
        now = trio.current_time()
        if now - self._told_at >= self._period_s:
            self._told_at = now
            self._tell()


async def until_mute(pulse: Pulse, ping: Callable[[], None], limits: ChannelLimits) -> None:
    """Return once the peer has left a ping unanswered and no byte of anything else has moved either."""
    while True:
        quiet_until = pulse.heard() + limits.ping_s
        if trio.current_time() < quiet_until:
            await trio.sleep_until(quiet_until)
            continue
        asked = trio.current_time()
        ping()
        await trio.sleep(limits.pong_s)
        await trio.sleep(GRACE_S)
        if pulse.heard() < asked:
            return


def keep_alive(stream: trio.SocketStream, limits: ChannelLimits) -> None:
    """Have the system find out when the other end of an open connection is gone, where the protocol cannot ask.

    Without ``TCP_USER_TIMEOUT``: with it Linux no longer counts what went unanswered, and ends slow readers as well.
    """
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    settings = {"TCP_KEEPIDLE": limits.ping_s, "TCP_KEEPINTVL": limits.pong_s / 2, "TCP_KEEPCNT": 2}
    for name, value in settings.items():
        option = getattr(socket, name, None)  # not every system has them all
        if isinstance(option, int):
            stream.setsockopt(socket.IPPROTO_TCP, option, max(1, round(value)))
