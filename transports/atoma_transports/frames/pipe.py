"""What a transport has to supply, a way for whole messages to go to and fro; and whether anybody is at its other end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import trio

from atoma.contracts.values import ErrorInfo
from atoma_transports.calls.limits import ChannelLimits


@runtime_checkable
class MessagePipe(Protocol):
    """An ordered, reliable and bounded way for whole messages, in both directions.

    One task sends and one task receives at a time. A cancelled :meth:`receive` loses nothing; after a cancelled
    :meth:`send` the pipe is only closed.
    """

    async def send(self, message: bytes) -> None:
        """Hand ``message`` over, waiting while the peer is behind.

        Raises:
            trio.BrokenResourceError: The connection is lost.
            trio.ClosedResourceError: This end is closed.
        """
        ...

    async def receive(self) -> bytes:
        """The next message.

        Raises:
            trio.EndOfChannel: The peer closed the connection.
            trio.BrokenResourceError: The connection is lost.
            trio.ClosedResourceError: This end is closed.
            ProtocolError: The peer sent something that is not a message, or is too large.
            AtomaError: The peer said why it closed the connection.
        """
        ...

    async def aclose(self) -> None:
        """Close politely; when cancelled, close at once. Closing twice is harmless."""
        ...


@runtime_checkable
class EagerPipe(Protocol):
    """A pipe that can take a message at once when nothing is in its way, which spares a change of tasks for each message."""

    @property
    def unsent(self) -> bool:
        """Whether a part of a message that was taken at once still waits for :meth:`flush`."""
        ...

    def send_now(self, message: bytes) -> bool:
        """Take ``message`` without waiting; false when nothing of it was taken, as something is in its way.

        Never called while :meth:`MessagePipe.send` or :meth:`flush` is under way, nor while something is unsent.

        Raises:
            trio.BrokenResourceError: The connection is lost.
            trio.ClosedResourceError: This end is closed.
        """
        ...

    async def flush(self) -> None:
        """Send what is unsent. Raises as :meth:`MessagePipe.send` does."""
        ...


@runtime_checkable
class WatchedPipe(Protocol):
    """A pipe that sees the bytes of a message move before the message is whole."""

    @property
    def moved_at(self) -> float:
        """When, on Trio's clock, bytes moved last: a large message that is under way is a sign of life."""
        ...

    def watch(self, on_part: Callable[[], None]) -> None:
        """Call ``on_part`` whenever bytes have come of a message that is not whole yet."""
        ...


@runtime_checkable
class GuardedPipe(Protocol):
    """A pipe that refuses a message while it arrives, before it has been buffered."""

    def allow(self, message_bytes: int) -> None:
        """Take messages of this size from now on; before the first call only those of a stranger."""
        ...


@runtime_checkable
class ExplainingPipe(Protocol):
    """A pipe whose goodbye can say why."""

    def explain(self, reason: ErrorInfo) -> None:
        """Give ``reason`` when closing; of several, the first one."""
        ...


LOST = (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)
"""What a pipe raises when there is no connection any more."""


def allow(pipe: MessagePipe, message_bytes: int) -> None:
    """Let messages of this size pass, on a pipe that guards against larger ones."""
    if isinstance(pipe, GuardedPipe):
        pipe.allow(message_bytes)


def explain_close(pipe: MessagePipe, reason: ErrorInfo) -> None:
    """Say ``reason`` in the goodbye, on a pipe that has one."""
    if isinstance(pipe, ExplainingPipe):
        pipe.explain(reason)


async def close_pipe(pipe: MessagePipe, seconds: float) -> None:
    """Close ``pipe`` politely within ``seconds``, also while the caller is being cancelled."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
        try:
            await pipe.aclose()
        except LOST:
            pass


GRACE_S = 0.05  # after a long pause of this process, what has arrived meanwhile is read first


class Pulse:
    """The time of the last sign of life from the peer: a whole frame, or a part of one where the pipe sees parts.

    While a large frame arrives slowly, ``reply`` sends the peer a sign of life: its pings and their answers wait behind
    the frame.
    """

    def __init__(self, pipe: MessagePipe, reply: Callable[[], None], limits: ChannelLimits) -> None:
        self._watched = pipe if isinstance(pipe, WatchedPipe) else None
        self._reply = reply
        self._period_s = limits.pong_s / 2
        self.frame_at = self._told_at = trio.current_time()
        """When the last frame was whole; kept by the reader."""
        if self._watched is not None:
            self._watched.watch(self._part_came)

    def last_sign(self) -> float:
        """When the last sign of life came, on Trio's clock."""
        return self.frame_at if self._watched is None else max(self.frame_at, self._watched.moved_at)

    def _part_came(self) -> None:
        now = trio.current_time()
        if now - self._told_at >= self._period_s:
            self._told_at = now
            self._reply()


async def until_mute(pulse: Pulse, ping: Callable[[], None], limits: ChannelLimits) -> None:
    """Return once the peer has left a ping unanswered and no byte of anything else has moved either."""
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
