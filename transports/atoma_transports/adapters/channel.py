"""Channels that speak the protocol, for transports to open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

from atoma.errors import AtomaError, AuthenticationError
from atoma.ports import Channel
from atoma_transports._channel import opening
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.pipe import MessagePipe
from atoma_transports.protocol import METHODS

Token: TypeAlias = str | Callable[[], Awaitable[str]]
"""A bearer token, or a function that is asked for one at every connection and before it expires on a connection."""


async def _ask(token: Token) -> str:
    if isinstance(token, str):
        return token
    try:
        return await token()
    except AtomaError:
        raise
    except Exception as error:  # the function is the application's
        raise AuthenticationError(f"the token function failed: {type(error).__name__}") from error


@asynccontextmanager
async def open_channel(
    pipe: MessagePipe, *, token: Token = "", limits: ChannelLimits | None = None
) -> AsyncGenerator[Channel]:
    """Authenticate over ``pipe`` and carry calls over it inside the block; takes the pipe over and closes it.

    This is all that a transport which moves whole messages has to call.

    Args:
        pipe: The road to the server.
        token: Sent in the first frame, never in an address. A function is asked again before the token expires, and
            the connection goes on with the new one.
        limits: Bounds of the connection.

    Raises:
        AuthenticationError: The other side refused the token.
        ConnectFailed: The other side did not answer, or hung up.
        ProtocolError: The other side speaks something else.
    """
    async with opening.open_channel(
        pipe, METHODS, ask=partial(_ask, token), renews=not isinstance(token, str), limits=limits or ChannelLimits()
    ) as channel:
        yield channel
