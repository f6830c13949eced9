"""The token that goes with every request, asked for again when it is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from atoma.errors import ChannelBroken, RemoteError
from atoma_transports._channel.subjects import check_subject
from atoma_transports.adapters.channel import Token, ask_for

Whose: TypeAlias = Callable[[str], Awaitable[str]]
"""Asks the server whose a token is; empty when it does not say."""


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
            AuthenticationError: The function failed, or what it gave is no token.
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
