"""The WebSocket transport, server side: an upgraded stream as a message pipe."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from trio_websocket import HandshakeError, wrap_server_stream

from atoma.errors import ProtocolError
from atoma.ports.tasks import open_tasks
from atoma_transports._channel.streams import PrefixedStream
from atoma_transports.adapters import ChannelLimits, MessagePipe
from atoma_transports.websocket.pipe import QUEUED_MESSAGES, RECEIVE_BYTES, WebSocketPipe


@asynccontextmanager
async def accept_pipe(stream: PrefixedStream, limits: ChannelLimits) -> AsyncGenerator[MessagePipe]:
    """Answer the upgrade request that ``stream`` begins with; frames go over the pipe inside the block.

    Raises:
        ProtocolError: The request is no proper WebSocket upgrade.
    """
    async with open_tasks() as nursery:
        try:
            with trio.fail_after(limits.handshake_s):
                request = await wrap_server_stream(
                    nursery,
                    stream,
                    message_queue_size=QUEUED_MESSAGES,
                    max_message_size=limits.frame_bytes,
                    receive_buffer_size=RECEIVE_BYTES,
                )
                connection = await request.accept()
        except (trio.TooSlowError, HandshakeError):
            raise ProtocolError("not a WebSocket upgrade") from None
        yield WebSocketPipe(connection)
        nursery.cancel_scope.cancel()
