"""Who speaks on a connection where every request brings its token."""

from __future__ import annotations

import trio

from atoma.errors import AuthenticationError, RemoteError
from atoma.ports import Peer, ServiceHost
from atoma.ports.sessions import Session, begin_session
from atoma_transports.calls.call import check_subject
from atoma_transports.calls.errors import UNVERIFIED, error_of
from atoma_transports.calls.fairness import Share
from atoma_transports.serving.places import ConnectionSlot

TOKENS_MAX = 16
BEARER = "bearer "


def bearer_token(field: str) -> str:
    """The token in the field ``authorization``; empty when there is none.

    Raises:
        AuthenticationError: There is something else where it should be.
    """
    if field and field[: len(BEARER)].lower() != BEARER:
        raise AuthenticationError("send the token as authorization: Bearer <token>")
    return field[len(BEARER) :].strip()


class Admission:
    """A verifier of a connection's tokens: once for each peer, and again after expiry or the end of the session.

    Remembers a bounded number of tokens; works as long as the connection, like the first frame of a WebSocket.

    Args:
        host: Who verifies.
        place: The connection's place, which it may keep from the first good token on.
        share: What the connection may take, which is its principal's.
        within_s: Seconds that the verifier has.
    """

    def __init__(self, host: ServiceHost, place: ConnectionSlot, share: Share, within_s: float) -> None:
        self._host = host
        self._within_s = within_s
        self._place = place
        self._share = share
        self._known: dict[tuple[str, Peer], Session] = {}

    async def admit(self, token: str, peer: Peer) -> Session:
        """Who the ``token`` that ``peer`` sent belongs to, the service as they may use it, and until when.

        Raises:
            AuthenticationError: It is missing, wrong or expired.
            RemoteError: ``OVERLOADED``: it is good, and there is no place, or its principal has enough connections;
                ``RATE_LIMITED``: it is good, and too much is sent; ``TIMEOUT``: the verifier did not answer in time.
        """
        key = (token, peer)
        known = self._known.get(key)
        if known is not None and known.is_good:
            self.enter(known)
            return known
        session = await self._begin(token, peer)
        meanwhile = self._known.get(key)
        if meanwhile is not known and meanwhile is not None and meanwhile.is_good:
            session.close()  # another call of the connection was faster
            self.enter(meanwhile)
            return meanwhile
        try:
            if known is not None:
                check_subject(known.principal.subject, session.principal.subject)
            self.enter(session)
        except RemoteError:
            session.close()
            raise
        self._forget(key)
        if len(self._known) >= TOKENS_MAX:
            self._forget(next(iter(self._known)))
        self._known[key] = session
        session.on_end = lambda reason: session.close()
        return session

    async def _begin(self, token: str, peer: Peer) -> Session:
        with trio.move_on_after(self._within_s):
            return await begin_session(token, self._host, peer)
        raise error_of(UNVERIFIED)

    def enter(self, session: Session) -> None:
        """See that whoever ``session`` belongs to may ask for something on this connection now.

        Raises:
            RemoteError: As :meth:`admit` does.
        """
        self._share.admit(session.principal.subject)
        self._place.accept()
        self._share.check_rate()

    def _forget(self, key: tuple[str, Peer]) -> None:
        forgotten = self._known.pop(key, None)
        if forgotten is not None:
            forgotten.close()

    def close(self) -> None:
        """The connection is over, and so is whatever it was used for."""
        for session in self._known.values():
            session.close()
        self._known.clear()
