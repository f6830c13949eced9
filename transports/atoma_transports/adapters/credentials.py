"""The token that goes with every request, asked for again when it is refused."""

from __future__ import annotations

import trio

from atoma.errors import AtomaError, AuthenticationError
from atoma_transports.adapters.channel import Token


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
        secret = self._token if isinstance(self._token, str) else await self._asked(self._token)
        if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
            raise AuthenticationError("the token is not one line of printable ASCII characters")
        self.current = secret
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

    async def _asked(self, token: Token) -> str:
        assert not isinstance(token, str)
        try:
            return await token()
        except AtomaError:
            raise
        except Exception as error:  # the function is the application's
            raise AuthenticationError(f"the token function failed: {type(error).__name__}") from error
