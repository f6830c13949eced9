"""What a service manager and Prometheus ask a hub's port: whether it lives, whether it can answer, and its figures."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from atoma.contracts.events import HubEvent
from atoma.errors import AtomaError, AuthenticationError, ClosedError, ConfigurationError, StoreBusy
from atoma.hub import Hub, StaticTokenVerifier
from atoma.hub.auth import TOKEN_LETTERS_MIN, is_guessable
from atoma.telemetry.prometheus import CONTENT_TYPE, HubMetrics
from atoma_transports.http import HttpError, HttpHandler, HttpRequest, HttpResponse
from atoma_transports.serving.admission import bearer_token

READY_S = 2.0
"""A database that has not answered after so long is not ready."""
LOOK_AGAIN_S = 1.0
"""The database is asked at most so often, whoever asks here."""


class Operations:
    """The pages ``/healthz``, ``/readyz`` and, with a token, ``/metrics``, for the handler that a hub's port is given.

    ``/healthz`` says that the program answers, ``/readyz`` that its database does, or the code of what keeps it from that; both say nothing
    else, and need no token. They
    answer 503 until :meth:`serve` has a hub.

    Args:
        handler: Where to put them.
        token: What ``/metrics`` asks for, as ``Authorization: Bearer …``, or its :func:`atoma.hub.token_digest`; None leaves that
            page out. It is no token of a user's: those are for devices.

    Raises:
        ConfigurationError: The token can be guessed.
    """

    def __init__(self, handler: HttpHandler, token: str | None = None) -> None:
        if token is not None and is_guessable(token):
            raise ConfigurationError(
                f"the token for /metrics has fewer than {TOKEN_LETTERS_MIN} letters and can be guessed"
            )
        self._metrics = HubMetrics()
        self._verifier = None if token is None else StaticTokenVerifier({token: "figures"})
        self._hub: Hub | None = None
        self._turn = trio.Lock()
        self._looked = -math.inf
        self._trouble = ClosedError.code
        handler.get("/healthz", self._alive)
        handler.get("/readyz", self._readiness)
        if token is not None:
            handler.get("/metrics", self._figures)

    @property
    def listener(self) -> Callable[[HubEvent], None] | None:
        """What ``open_hub(listener=…)`` takes, so that there are figures; None where nobody may read them."""
        return None if self._verifier is None else self._metrics.hear

    def serve(self, hub: Hub) -> None:
        """Answer for ``hub``, whose listener is :attr:`listener`."""
        self._hub = hub
        self._looked = -math.inf  # what was found without it says nothing of it

    async def _alive(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(b"ok\n")

    async def _readiness(self, request: HttpRequest) -> HttpResponse:
        async with self._turn:
            if trio.current_time() - self._looked >= LOOK_AGAIN_S:
                self._trouble = await self.trouble()
                self._looked = trio.current_time()
        if self._trouble:
            raise HttpError(503, f"the database does not answer: {self._trouble}")
        return HttpResponse(b"ready\n")

    async def trouble(self) -> str:
        """The code of what keeps the hub's database from answering, one of those of :mod:`atoma.codes`; ``""`` when it answers."""
        if self._hub is None:
            return ClosedError.code
        with trio.move_on_after(READY_S):
            try:
                await self._hub.epochs()
            except AtomaError as error:
                return error.code
            return ""
        return StoreBusy.code

    async def _figures(self, request: HttpRequest) -> HttpResponse:
        try:
            assert self._verifier is not None
            await self._verifier.verify(bearer_token(request.headers.get("authorization", "")), request.peer)
        except AuthenticationError:
            told = "figures are for whoever has the token of this page: Authorization: Bearer …"
            raise HttpError(401, told) from None
        sessions = () if self._hub is None else self._hub.sessions()
        return HttpResponse(self._metrics.text(sessions).encode(), content_type=CONTENT_TYPE)
