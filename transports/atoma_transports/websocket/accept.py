"""The WebSocket transport, server side: an upgraded stream as a message pipe."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from trio_websocket import HandshakeError
from wsproto.connection import ConnectionType

from atoma.errors import ProtocolError
from atoma_transports._channel.streams import PrefixedStream
from atoma_transports.adapters import ChannelLimits, MessagePipe
from atoma_transports.websocket.handshake import answer_upgrade
from atoma_transports.websocket.pipe import WebSocketPipe


@asynccontextmanager
async def accept_pipe(stream: PrefixedStream, limits: ChannelLimits) -> AsyncGenerator[MessagePipe]:
    """Answer the upgrade request that ``stream`` begins with; frames go over the pipe inside the block.

    Raises:
        ProtocolError: The request is no proper WebSocket upgrade.
    """
    try:
        with trio.fail_after(limits.handshake_s):
            rest = await answer_upgrade(stream)
    except (trio.TooSlowError, HandshakeError):
        raise ProtocolError("not a WebSocket upgrade") from None
    after, below = stream.take_apart()
    yield WebSocketPipe(below, ConnectionType.SERVER, rest + after, message_bytes=limits.first_frame_bytes)
