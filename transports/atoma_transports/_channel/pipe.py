"""What a transport has to supply: a way for whole messages to go to and fro."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import trio


@runtime_checkable
class MessagePipe(Protocol):
    """An ordered, reliable, bounded two-way road for whole messages.

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
            ProtocolError: The peer sent what is no message, or one that is too large.
        """
        ...

    async def aclose(self) -> None:
        """Close politely; when cancelled, close at once. Closing twice is harmless."""
        ...


LOST = (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)
"""What a pipe raises when there is no connection any more."""


async def close_pipe(pipe: MessagePipe, seconds: float) -> None:
    """Close ``pipe`` politely within ``seconds``, also while the caller is being cancelled."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
        try:
            await pipe.aclose()
        except LOST:
            pass
