"""The pipe for whole messages that a transport has to supply, and the check whether the peer is still there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import trio

from atoma.contracts.values import ErrorInfo
from atoma_transports.calls.limits import ChannelLimits


@runtime_checkable
class MessagePipe(Protocol):
    """An ordered, reliable and bounded channel for whole messages, in both directions.

    One task sends and one task receives at a time. A cancelled :meth:`receive` loses nothing; after a cancelled
    :meth:`send` the pipe can only be closed.
    """

    async def send(self, message: bytes) -> None:
        """Send ``message``, waiting while the peer is behind.

        Raises:
            trio.BrokenResourceError: The connection is lost.
            trio.ClosedResourceError: This end is closed.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            trio.EndOfChannel: The peer closed the connection.
            trio.BrokenResourceError: The connection is lost.
            trio.ClosedResourceError: This end is closed.
            ProtocolError: The peer sent something that is not a message, or is too large.
            AtomaError: The peer gave a reason when it closed the connection.
        """
        ...

    async def aclose(self) -> None:
        """Close properly, or at once when cancelled. Closing twice is harmless."""
        ...


@runtime_checkable
class EagerPipe(Protocol):
    """A pipe that can take a message without blocking if it is idle, which saves a switch between tasks for each message."""

    @property
    def unsent(self) -> bool:
        """Whether a part of a message that was taken at once still has to be sent by :meth:`flush`."""
        ...

    def send_now(self, message: bytes) -> bool:
        """Take ``message`` without waiting; False if the pipe is busy and has taken nothing of it.

        It must not be called during :meth:`MessagePipe.send` or :meth:`flush`, nor while something is unsent.

        Raises:
            trio.BrokenResourceError: The connection is lost.
            trio.ClosedResourceError: This end is closed.
        """
        ...

    async def flush(self) -> None:
        """Send the rest of the message; raises as :meth:`MessagePipe.send` does."""
        ...


@runtime_checkable
class WatchedPipe(Protocol):
    """A pipe that sees the bytes of a message move before the message is whole."""

    @property
    def moved_at(self) -> float:
        """The time, on Trio's clock, at which bytes last moved: a large message in transit is a sign of life."""
        ...

    def watch(self, on_part: Callable[[], None]) -> None:
        """Call ``on_part`` whenever a part of a message has arrived that is not yet complete."""
        ...


@runtime_checkable
class GuardedPipe(Protocol):
    """A pipe that refuses a message while it arrives, before it has been buffered."""

    def allow(self, message_bytes: int) -> None:
        """Accept messages of up to this size from now on; until the first call, only those that a stranger may send."""
        ...


@runtime_checkable
class ExplainingPipe(Protocol):
    """A pipe that can tell the peer why it is closed."""

    def explain(self, reason: ErrorInfo) -> None:
        """Give ``reason`` when closing; if there are several, the first one."""
        ...


LOST = (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)
"""The errors that a pipe raises when the connection is gone."""


def allow(pipe: MessagePipe, message_bytes: int) -> None:
    """Accept messages of up to this size, on a pipe that guards against larger ones."""
    if isinstance(pipe, GuardedPipe):
        pipe.allow(message_bytes)


def explain_close(pipe: MessagePipe, reason: ErrorInfo) -> None:
    """Tell the peer ``reason`` when closing, on a pipe that can."""
    if isinstance(pipe, ExplainingPipe):
        pipe.explain(reason)


async def close_pipe(pipe: MessagePipe, seconds: float) -> None:
    """Close ``pipe`` properly within ``seconds``, even while the caller is being cancelled."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
        try:
            await pipe.aclose()
        except LOST:
            pass


GRACE_S = 0.05  # after this process was stopped for a while, whatever has arrived meanwhile is read first


class Pulse:
    """The time of the last sign of life from the peer: a complete frame, or a part of one if the pipe reports parts.

    While a large frame arrives slowly, ``reply`` sends the peer a sign of life, since its pings and their answers
    are stuck behind the frame.
    """

    def __init__(self, pipe: MessagePipe, reply: Callable[[], None], limits: ChannelLimits) -> None:
        self._watched = pipe if isinstance(pipe, WatchedPipe) else None
        self._reply = reply
        self._period_s = limits.pong_s / 2
        self.frame_at = self._told_at = trio.current_time()
        """The time at which the last frame was complete; set by the reader."""
        if self._watched is not None:
            self._watched.watch(self._part_came)

    def last_sign(self) -> float:
        """The time of the last sign of life, on Trio's clock."""
        return self.frame_at if self._watched is None else max(self.frame_at, self._watched.moved_at)

    def _part_came(self) -> None:
        now = trio.current_time()
        if now - self._told_at >= self._period_s:
            self._told_at = now
            self._reply()


async def until_mute(pulse: Pulse, ping: Callable[[], None], limits: ChannelLimits) -> None:
    """Return once the peer has left a ping unanswered and no other byte has moved either."""
    while True:
        quiet_until = pulse.last_sign() + limits.ping_s
        if trio.current_time() < quiet_until:
            await trio.sleep_until(quiet_until)
            continue
        asked = trio.current_time()
        ping()
        await trio.sleep(limits.pong_s)
        await trio.sleep(GRACE_S)
        if pulse.last_sign() < asked:
            return
