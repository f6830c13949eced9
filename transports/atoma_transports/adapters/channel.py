"""Channels that speak the protocol, for transports to open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

from atoma.contracts.checks import is_a
from atoma.errors import AtomaError, AuthenticationError, ConfigurationError
from atoma.ports import Channel
from atoma_transports._channel import opening
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.pipe import MessagePipe
from atoma_transports.protocol import METHODS

Token: TypeAlias = str | Callable[[], Awaitable[str]]
"""A bearer token, or a function that is asked for one at every connection and before it expires on a connection."""


def check_token(token: Token) -> Token:
    """``token``, if it can be one.

    Raises:
        ConfigurationError: It is neither text nor a function; what the environment does not set is None, for example.
    """
    if not is_a(token, str) and not callable(token):
        kind = type(token).__name__  # the value may be a secret
        raise ConfigurationError(f"a token is text, or an async function that gives one, not an object of {kind}")
    return token


TOKEN_LENGTH_MAX = 16 * 1024
"""Characters of a token: what a header of any transport has room for."""


async def ask_for(token: Token) -> str:
    """The token to send; the same are possible on every transport.

    Raises:
        AuthenticationError: The function failed, or what it gave is no token.
    """
    if isinstance(token, str):
        secret = token
    else:
        try:
            secret = await token()
        except AtomaError:
            raise
        except Exception as error:  # the function is the application's
            raise AuthenticationError(f"the token function failed: {type(error).__name__}") from error
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise AuthenticationError("the token is not one line of printable ASCII characters")
    if len(secret) > TOKEN_LENGTH_MAX:
        raise AuthenticationError(f"the token has {len(secret)} characters; at most {TOKEN_LENGTH_MAX} are sent")
    return secret


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
        pipe, METHODS, ask=partial(ask_for, token), renews=not isinstance(token, str), limits=limits or ChannelLimits()
    ) as channel:
        yield channel
