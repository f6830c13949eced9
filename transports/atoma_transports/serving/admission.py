"""Who speaks on a connection where every request brings its token."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from atoma.errors import TokenExpired
from atoma.ports import Peer, Principal, ServiceHost, SyncService

TOKENS_MAX = 16


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody who may come in.

    Attributes:
        principal: Who it is.
        service: The service as they may use it.
        expires_at: When, on Trio's clock, the token stops being good; ``math.inf`` for never.
    """

    principal: Principal
    service: SyncService
    expires_at: float


class Admission:
    """Verifies each token of one connection once, and again when it has expired.

    Remembers a bounded number of tokens; works as long as the connection, like the first frame of a WebSocket.
    """

    def __init__(self, host: ServiceHost, peer: Peer) -> None:
        self._host = host
        self._peer = peer
        self._known: dict[str, Admitted] = {}

    async def admit(self, token: str) -> Admitted:
        """Who ``token`` belongs to.

        Raises:
            AuthenticationError: It is missing, wrong or expired.
        """
        known = self._known.get(token)
        if known is not None and trio.current_time() < known.expires_at:
            return known
        self._known.pop(token, None)
        principal = await self._host.authenticate(token, self._peer)
        span = float("inf") if principal.expires_in_s is None else principal.expires_in_s
        if span <= 0:
            raise TokenExpired("the token has expired")
        admitted = Admitted(principal, self._host.service(principal), trio.current_time() + span)
        if len(self._known) >= TOKENS_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[token] = admitted
        return admitted
