"""Channels that speak the protocol, for transports to open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from atoma.ports import Channel
from atoma_transports._channel import client
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.pipe import MessagePipe
from atoma_transports.protocol import METHODS

Token: TypeAlias = str | Callable[[], Awaitable[str]]
"""A bearer token, or a function that is asked for one at every connection."""


@asynccontextmanager
async def open_channel(
    pipe: MessagePipe, *, token: Token = "", limits: ChannelLimits | None = None
) -> AsyncGenerator[Channel]:
    """Authenticate over ``pipe`` and carry calls over it inside the block; takes the pipe over and closes it.

    This is all that a transport which moves whole messages has to call.

    Args:
        pipe: The road to the server.
        token: Sent in the first frame, never in an address.
        limits: Bounds of the connection.

    Raises:
        AuthenticationError: The other side refused the token.
        ConnectFailed: The other side did not answer, or hung up.
        ProtocolError: The other side speaks something else.
    """
    secret = token if isinstance(token, str) else await token()
    async with client.open_channel(pipe, METHODS, token=secret, limits=limits or ChannelLimits()) as channel:
        yield channel
