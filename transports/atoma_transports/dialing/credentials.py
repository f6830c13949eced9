"""Tokens: what a token is, where it comes from, and which one is sent with every request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from atoma.contracts.checks import is_a
from atoma.errors import AtomaError, AuthenticationError, ChannelBroken, ConfigurationError, RemoteError
from atoma_transports.calls.call import check_subject

Token: TypeAlias = str | Callable[[], Awaitable[str]]
"""A bearer token, or an async function that returns one; it is called at every connection, and before the token of a connection expires."""
Whose: TypeAlias = Callable[[str], Awaitable[str]]
"""A function that asks the server whose a token is; the answer is empty if it does not say."""
TOKEN_LENGTH_MAX = 16 * 1024
"""Maximum number of characters of a token: as many as fit into a header of any transport."""


def check_token(token: Token) -> Token:
    """Return ``token`` if it can be a token.

    Raises:
        ConfigurationError: It is neither text nor a function, such as None from an unset environment variable.
    """
    if not is_a(token, str) and not callable(token):
        kind = type(token).__name__  # the value may be a secret
        raise ConfigurationError(f"a token must be text, or an async function that returns it, not an object of {kind}")
    return token


async def ask_for(token: Token) -> str:
    """Return the token to send; every transport accepts the same tokens.

    Raises:
        AuthenticationError: The function failed, or did not return a token.
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
        raise AuthenticationError(f"the token has {len(secret)} characters; the limit is {TOKEN_LENGTH_MAX}")
    return secret


class Credentials:
    """The token of one connection, and its subject.

    Args:
        token: The token, or the function that returns it.

    Attributes:
        current: The present token; empty for none.
        generation: How often the token was asked for; a refused request finds out by it whether there is a newer one.
        subject: The subject to whom it belongs, as the server says; empty if it does not say.
        lost: Why the connection cannot continue: its new token is somebody else's. Empty while it can.
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
            AuthenticationError: The function failed, or did not return a token.
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
