"""Tokens: what may be one, who is asked for it, and the one that goes with every request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from atoma.contracts.checks import is_a
from atoma.errors import AtomaError, AuthenticationError, ChannelBroken, ConfigurationError, RemoteError
from atoma_transports.calls.call import check_subject

Token: TypeAlias = str | Callable[[], Awaitable[str]]
"""A bearer token, or a function that is asked for one at every connection and before it expires on a connection."""
Whose: TypeAlias = Callable[[str], Awaitable[str]]
"""Asks the server whose a token is; empty when it does not say."""
TOKEN_LENGTH_MAX = 16 * 1024
"""Characters of a token: what a header of any transport has room for."""


def check_token(token: Token) -> Token:
    """``token``, if it can be one.

    Raises:
        ConfigurationError: It is neither text nor a function; what the environment does not set is None, for example.
    """
    if not is_a(token, str) and not callable(token):
        kind = type(token).__name__  # the value may be a secret
        raise ConfigurationError(f"a token is text, or an async function that gives one, not an object of {kind}")
    return token


async def ask_for(token: Token) -> str:
    """The token to send; the same are possible on every transport.

    Raises:
        AuthenticationError: The function failed, or did not give a token.
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


class Credentials:
    """The token of one connection, and who it belongs to.

    Args:
        token: The token, or the function that is asked for it.

    Attributes:
        current: The token as it is now; empty for none.
        generation: How often it was asked for; a request that was refused knows by it whether that is news.
        subject: Who the server says it belongs to; empty when it does not say.
        lost: Why the connection cannot go on: another token is somebody else's. Empty while it can.
    """

    def __init__(self, token: Token) -> None:
        self.current = ""
        self.generation = 0
        self.subject = ""
        self.lost = ""
        self._token = token
        self._asking = trio.Lock()

    async def ask(self) -> None:
        """Get the token.

        Raises:
            AuthenticationError: The function failed, or did not give a token.
        """
        self.current = await ask_for(self._token)
        self.generation += 1

    async def renew(self, generation: int, whose: Whose) -> bool:
        """Whether there is another token than that of ``generation``, which was refused; asks the function once.

        No call goes out with the new one before the server has said that it is the same subject's.

        Raises:
            AuthenticationError: The function failed, or the server refuses what it gave.
            RemoteError: It is somebody else's: the connection is of no more use.
            ChannelBroken: The connection was lost; the call that was refused was not carried out.
        """
        if isinstance(self._token, str):
            return False
        async with self._asking:
            self.check()
            if self.generation == generation:
                token = await ask_for(self._token)
                try:
                    subject = await whose(token)
                except ChannelBroken as error:
                    raise ChannelBroken(str(error), maybe_sent=False) from None
                try:
                    check_subject(self.subject, subject)
                except RemoteError as error:
                    self.lost = str(error)
                    raise
                self.current, self.subject = token, subject or self.subject
                self.generation += 1
        return True

    def check(self) -> None:
        """See that the connection can go on.

        Raises:
            ChannelBroken: Its token is somebody else's by now; nothing was sent.
        """
        if self.lost:
            raise ChannelBroken(f"{self.lost}; the call was not sent", maybe_sent=False)
