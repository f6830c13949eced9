"""The token that goes with every request, asked for again when it is refused."""

from __future__ import annotations

import trio

from atoma_transports.adapters.channel import Token, ask_for


class Credentials:
    """The token of one connection.

    Args:
        token: The token, or the function that is asked for it.

    Attributes:
        current: The token as it is now; empty for none.
        generation: How often it was asked for; a request that was refused knows by it whether that is news.
    """

    def __init__(self, token: Token) -> None:
        self.current = ""
        self.generation = 0
        self._token = token
        self._asking = trio.Lock()

    async def ask(self) -> None:
        """Get the token.

        Raises:
            AuthenticationError: The function failed, or what it gave is no token.
        """
        self.current = await ask_for(self._token)
        self.generation += 1

    async def renew(self, generation: int) -> bool:
        """Whether there is another token than that of ``generation``, which was refused; asks the function once.

        Raises:
            AuthenticationError: The function failed.
        """
        if isinstance(self._token, str):
            return False
        async with self._asking:
            if self.generation == generation:
                await self.ask()
        return True
