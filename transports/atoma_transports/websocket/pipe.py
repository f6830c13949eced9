"""A WebSocket connection as a message pipe."""

from __future__ import annotations

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from atoma.errors import ProtocolError

TOO_BIG = 1009
POLITE = frozenset({1000, 1001, 1005})
RECEIVE_BYTES = 64 * 1024  # the library's default of 4 KiB doubles the cost of 16 KiB messages
QUEUED_MESSAGES = 1


class WebSocketPipe:
    """Binary messages over ``connection``; text messages are refused."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._closed = False

    async def send(self, message: bytes) -> None:
        """See :class:`atoma_transports.adapters.MessagePipe`."""
        try:
            await self._connection.send_message(message)
        except ConnectionClosed:
            raise self._lost() from None

    async def receive(self) -> bytes:
        """See :class:`atoma_transports.adapters.MessagePipe`."""
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as error:
            reason = error.reason
            if not self._closed and reason is not None and reason.code == TOO_BIG:
                raise ProtocolError("a message is larger than the limit") from None
            if not self._closed and reason is not None and reason.code in POLITE:
                raise trio.EndOfChannel from None
            raise self._lost() from None
        if isinstance(message, str):
            raise ProtocolError("text message where frames are binary")
        return message

    async def aclose(self) -> None:
        """See :class:`atoma_transports.adapters.MessagePipe`."""
        self._closed = True
        await self._connection.aclose()

    def _lost(self) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if self._closed:
            return trio.ClosedResourceError("this end is closed")
        return trio.BrokenResourceError("the connection was lost")
