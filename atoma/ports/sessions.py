"""Who is connected to a host, over whatever transport: the one place that knows, and that can end it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import trio

from atoma.contracts.checks import is_a
from atoma.errors import AtomaError, ConfigurationError, RemoteError, TokenExpired
from atoma.ports.service import Peer, Principal, ServiceHost, SyncService
from atoma.ports.tasks import leaves, single_error

_log = logging.getLogger("atoma.sessions")
END_S = 2.0
"""How long whoever ends sessions waits for goodbyes; a peer that takes nothing does not hold anybody up for longer."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session: a token that is in use on a connection.

    Attributes:
        subject: Who the token belongs to.
        peer: Where the connection comes from, and over which transport.
        since_ms: When the session began; milliseconds since 1970, as the others.
        verified_ms: When the verifier was last asked about the token.
        expires_ms: When the token stops being good; None for never.
    """

    subject: str
    peer: Peer
    since_ms: int
    verified_ms: int
    expires_ms: int | None


class Session:
    """The rights that a good token brings, for as long as a connection uses it; made by :func:`begin_session`.

    Times are those of Trio's clock; those that end in ``_ms`` are those of the wall, for people.

    Attributes:
        principal: Who it is.
        service: The service as they may use it.
        peer: Where the connection comes from.
        since_ms: When it began.
        verified: When the verifier was last asked.
        verified_ms: The same.
        expires_at: When the token stops being good; ``math.inf`` for never.
        due_at: When the verifier is to be asked again.
        ended: Why somebody has ended it; empty while nobody has.
        on_end: Told when somebody ends it; sees to it that the connection does not go on with it.
        on_change: Told when :attr:`expires_at` has changed.
    """

    def __init__(self, registry: Sessions, token: str, peer: Peer, principal: Principal, service: SyncService) -> None:
        self._registry = registry
        self._token = token
        self.peer = peer
        self.principal = principal
        self.service = service
        self.verified = self.due_at = trio.current_time()
        self.since_ms = self.verified_ms = registry.wall_ms()
        self.expires_at = math.inf
        self.ended = ""
        self.on_end: Callable[[RemoteError], None] = lambda reason: None
        self.on_change: Callable[[], None] = lambda: None
        self._calls: set[trio.CancelScope] = set()
        self._streams: set[trio.CancelScope] = set()
        self._closed = False
        self._gone = trio.Event()

    def __repr__(self) -> str:
        return f"Session({self.principal.subject!r}, {self.peer})"  # and never the token

    @property
    def token(self) -> str:
        """The token, for whoever verifies it again."""
        return self._token

    @property
    def expired(self) -> bool:
        """Whether the token is not good any more."""
        return trio.current_time() >= self.expires_at

    @property
    def is_good(self) -> bool:
        """Whether it may be gone on with: nobody has ended it, and the token has not expired."""
        return not self.ended and not self.expired

    def verify(self, principal: Principal, began: float) -> None:
        """Note what the verifier says, who was asked at ``began``.

        Raises:
            TokenExpired: The token is not good any more.
        """
        span = math.inf if principal.expires_in_s is None else principal.expires_in_s
        if span <= 0:
            raise TokenExpired("the token has expired")
        self.verified, self.expires_at = began, began + span
        self.verified_ms = self._registry.wall_ms() - round((trio.current_time() - began) * 1000)
        for scope in self._streams:
            scope.deadline = self.expires_at
        self.on_change()

    def call(self) -> AbstractContextManager[None]:
        """Do something for the session; it is cancelled when somebody ends the session.

        Raises:
            RemoteError: Somebody has; its code is ``SESSION_ENDED``.
        """
        return self._carry_out(self._calls, math.inf)

    def stream(self) -> AbstractContextManager[None]:
        """As :meth:`call`, for what must not outlive the token.

        Raises:
            RemoteError: See there.
            TokenExpired: The token has expired meanwhile.
        """
        return self._carry_out(self._streams, self.expires_at)

    @contextmanager
    def _carry_out(self, scopes: set[trio.CancelScope], deadline: float) -> Generator[None]:
        self.check()
        scope = trio.CancelScope(deadline=deadline)
        scopes.add(scope)
        try:
            with scope:
                yield
        finally:
            scopes.discard(scope)
            self._check_gone()
        if scope.cancelled_caught:
            self.check()
            raise TokenExpired("the token has expired")

    def check(self) -> None:
        """See that nobody has ended it.

        Raises:
            RemoteError: ``SESSION_ENDED``.
        """
        if self.ended:
            raise session_ended(self.ended)

    @property
    def info(self) -> SessionInfo:
        """What is shown of it."""
        span = self.expires_at - self.verified
        expires_ms = None if math.isinf(span) else self.verified_ms + round(span * 1000)
        return SessionInfo(self.principal.subject, self.peer, self.since_ms, self.verified_ms, expires_ms)

    def end(self, reason: str) -> None:
        """End it now: what is being done for it is cancelled, and the connection does not go on with it."""
        if self.ended:
            return
        self.ended = reason
        for scope in (*self._calls, *self._streams):
            scope.cancel()
        self.on_end(session_ended(reason))

    def close(self) -> None:
        """Note that the connection does not begin anything with it any more."""
        self._closed = True
        self._check_gone()

    def _check_gone(self) -> None:
        if self._closed and not self._calls and not self._streams and not self._gone.is_set():
            self._registry.remove(self)
            self._gone.set()

    async def gone(self) -> None:
        """Wait until nothing is done for it any more."""
        await self._gone.wait()


@dataclass(slots=True, eq=False)
class _Attempt:
    """A token that is being verified, and whose sessions were ended meanwhile: it may be one of theirs."""

    ended: set[str] = field(default_factory=set[str])


class Sessions:
    """The sessions of one host, over all its ports and networks.

    Args:
        wall_ms: The wall clock, by which people are told about times.
    """

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self.wall_ms = wall_ms
        self._of: dict[str, dict[Session, None]] = {}
        self._attempts: set[_Attempt] = set()

    def __iter__(self) -> Generator[Session]:
        for sessions in list(self._of.values()):
            yield from list(sessions)

    def add(self, session: Session) -> None:
        """Note that ``session`` has begun."""
        self._of.setdefault(session.principal.subject, {})[session] = None

    def remove(self, session: Session) -> None:
        """Note that ``session`` is over."""
        subject = session.principal.subject
        sessions = self._of.get(subject, {})
        sessions.pop(session, None)
        if not sessions:
            self._of.pop(subject, None)

    @contextmanager
    def attempt(self) -> Generator[_Attempt]:
        """A token is being verified inside the block."""
        attempt = _Attempt()
        self._attempts.add(attempt)
        try:
            yield attempt
        finally:
            self._attempts.discard(attempt)

    async def end(self, subject: str, reason: str) -> int:
        """End every session of ``subject``; how many there were.

        Returns once nothing is done for them any more and their connections are told, after two seconds at the latest.
        """
        sessions = list(self._of.get(subject, ()))
        for attempt in self._attempts:
            attempt.ended.add(subject)
        for session in sessions:
            session.end(reason)
        with trio.move_on_after(END_S):
            for session in sessions:
                await session.gone()
        await trio.lowlevel.checkpoint()
        return len(sessions)

    def show(self) -> tuple[SessionInfo, ...]:
        """Every session, oldest first."""
        return tuple(sorted((session.info for session in self), key=lambda info: info.since_ms))


@runtime_checkable
class TracksSessions(Protocol):
    """A host that knows who is connected; the hub is one."""

    @property
    def registry(self) -> Sessions:
        """Its sessions, which transports note."""
        ...


def session_ended(reason: str) -> RemoteError:
    """What whoever uses an ended session is told: connect again, and the verifier says whether that is still good."""
    return RemoteError(reason, remote_code="SESSION_ENDED")


async def begin_session(token: str, host: ServiceHost, peer: Peer) -> Session:
    """What ``token`` brings; whoever gets it closes it.

    Raises:
        AuthenticationError: It is missing, wrong or expired.
        RemoteError: The verifier failed, which is logged and ends nothing but this attempt; or the sessions of its
            subject were ended while it was verified.
    """
    registry = host.registry if isinstance(host, TracksSessions) else Sessions(lambda: 0)
    began = trio.current_time()
    with registry.attempt() as attempt:
        principal = await verified(token, host, peer)
    if principal.subject in attempt.ended:
        raise session_ended("the sessions of this subject were ended while the token was verified: connect again")
    session = Session(registry, token, peer, principal, host.service(principal))
    session.verify(principal, began)
    registry.add(session)
    return session


@trio.lowlevel.enable_ki_protection  # so that an interrupt from the keyboard is not raised in here, and lost
async def verified(token: str, host: ServiceHost, peer: Peer) -> Principal:
    """Who the verifier says it is; whatever else it raises is a fault of its own, and no end of the server.

    Raises:
        AuthenticationError: The token is missing, wrong or expired.
        RemoteError: The verifier failed, which is logged.
    """
    try:
        principal = await host.authenticate(token, peer)
        if not is_a(principal, Principal):
            raise ConfigurationError(f"a verifier returns a Principal, not {principal!r}")
        return principal
    except (trio.Cancelled, GeneratorExit):
        raise
    except BaseException as error:
        cancelled = [leaf for leaf in leaves(error) if isinstance(leaf, trio.Cancelled)]
        if cancelled:
            raise cancelled[0] from None
        cause = single_error(error)
        if isinstance(cause, AtomaError) and not isinstance(cause, ConfigurationError):
            raise cause from None
        _log.error("the verifier failed for a connection from %s", peer.address, exc_info=cause)
    raise RemoteError("the server failed to authenticate; its log says why", remote_code="INTERNAL")
