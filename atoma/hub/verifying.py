"""Asking the verifier again about the tokens that are in use, so that one that was revoked does not work for long."""

from __future__ import annotations

import logging

import trio

from atoma.errors import AtomaError, AuthenticationError
from atoma.ports.service import ServiceHost
from atoma.ports.sessions import Session, Sessions, verified

_log = logging.getLogger("atoma.hub")
AT_ONCE = 32
"""Tokens that are verified again at the same time."""
VERIFY_S = 10.0
"""How long the verifier may take about one of them."""
UNVERIFIED_PERIODS = 2
"""After so many periods without an answer the session ends: a verifier that is away does not make every token good."""
TRIES_PER_PERIOD = 10


class Reverification:
    """A task that verifies the token of every session again once it has been used for ``every_s``.

    A verifier that refuses a token ends its sessions. One that hangs, or fails, is asked again some moments later; after
    twice ``every_s`` without an answer the session ends.

    Args:
        host: Verifies.
        sessions: The sessions of the host.
        every_s: Seconds between two questions about a session.
    """

    def __init__(self, host: ServiceHost, sessions: Sessions, every_s: float) -> None:
        self._host = host
        self._sessions = sessions
        self._every_s = every_s
        self._places = trio.CapacityLimiter(AT_ONCE)
        self._asking: set[Session] = set()

    async def run(self) -> None:
        """Verify until cancelled; no verifier ends it."""
        async with trio.open_nursery() as nursery:
            while True:
                self._look(nursery)
                await trio.sleep(self._every_s / TRIES_PER_PERIOD)

    def _look(self, nursery: trio.Nursery) -> None:
        """Begin whatever is due."""
        now = trio.current_time()
        for session in self._sessions:
            if now >= session.verified + UNVERIFIED_PERIODS * self._every_s:
                session.end("your token could not be verified again in time: connect again")
            elif session not in self._asking and now >= self._due_at(session):
                self._asking.add(session)
                nursery.start_soon(self._ask, session)

    def _due_at(self, session: Session) -> float:
        return max(session.verified + self._every_s, session.due_at)

    async def _ask(self, session: Session) -> None:
        try:
            async with self._places:
                await self._verify(session)
        finally:
            self._asking.discard(session)

    async def _verify(self, session: Session) -> None:
        """Ask the verifier; a token that is refused, or belongs to somebody else by now, ends the session."""
        began = trio.current_time()
        try:
            with trio.fail_after(VERIFY_S):
                principal = await verified(session.token, self._host, session.peer)
            if (principal.subject, principal.claims) != (session.principal.subject, session.principal.claims):
                session.end("the rights of this token have changed: connect again")
            else:
                session.verify(principal, began)
        except AuthenticationError as error:
            session.end(f"the token is no longer valid: {error}")
        except trio.TooSlowError:
            _log.warning("verifying a session of %r again took too long", session.principal.subject)
        except AtomaError as error:
            _log.warning("a session of %r could not be verified again: %s", session.principal.subject, error)
        finally:
            session.due_at = trio.current_time() + self._every_s / TRIES_PER_PERIOD
