"""The notify lane: hints that a scope has moved. They ring a bell and never move a cursor."""

from __future__ import annotations

import trio

from atoma.concurrency.backoff import Retries
from atoma.contracts.sync import Hint, NotifyRequest
from atoma.errors import Overloaded, RemoteError, what_helps
from atoma.sync.failures import Course, course
from atoma.sync.replica import BACKOFF, Replica
from atoma.sync.session import SyncSession


class NotifyLane:
    """The lane that listens for hints; while it cannot, the pull lanes poll faster."""

    def __init__(self, replica: Replica, session: SyncSession) -> None:
        self._replica = replica
        self._session = session
        self._retries = Retries(BACKOFF, replica.environment.random)

    async def run(self) -> None:
        """Listen until cancelled; a stream that ends or is refused is asked for again.

        Raises:
            TransportError: The connection broke.
        """
        while True:
            asked = 0.0
            try:
                await self._listen()
            except Overloaded:
                pass  # on its own connection, of which the calls end
            except RemoteError as error:
                if course("notify", error) is not Course.WITHOUT:
                    raise
                asked = error.retry_after_s
                if what_helps(error) == "rights":
                    self._ask_anew(error.info.get("scope", ""))
            finally:
                self._session.streaming = False
            await trio.sleep(self._retries.fail(asked))

    def _ask_anew(self, refused: str) -> None:
        """Have the hub say, as at the opening, which scopes it gives out: those that it does not are left out from then on."""
        scopes = self._session.given(self._replica.scopes)
        self._replica.replicated.ask_anew([refused] if refused in scopes else scopes)

    async def _listen(self) -> None:
        scopes = self._session.given(self._replica.scopes)
        self._session.listened = frozenset(scopes)
        async with self._session.service.notify(NotifyRequest(scopes)) as hints:
            self._session.streaming = True
            async for hint in hints:
                self._retries.reset()
                await self.heed(hint)

    async def heed(self, hint: Hint) -> None:
        """Pull if ``hint`` tells of more than the cursor; a repeated or late one does nothing."""
        self._replica.show_head(hint.scope, hint.head)
        if hint.head > self._replica.progress(hint.scope).cursor:
            self._replica.poke_pull([hint.scope])
