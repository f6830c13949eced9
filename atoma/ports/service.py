"""The hub's services, as seen from either end of a wire."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from atoma.contracts.checks import is_a
from atoma.contracts.execution import (
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.presence import AppearReply, AppearRequest, PresenceChange, PresenceRequest
from atoma.contracts.sync import (
    Hint,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotReply,
    SnapshotRequest,
)
from atoma.contracts.understood import UNDERSTOOD, Understood
from atoma.errors import ConfigurationError
from atoma.schema.schema import Schema

SUBJECT_LENGTH_MAX = 255


@runtime_checkable
class SyncService(Protocol):
    """The service of a hub for one authenticated principal.

    The hub implements it, proxies over a channel implement it on the client; ``serving`` exposes it in every language.
    Errors are ``RemoteError`` with a code of the protocol's table on both sides, and ``TransportError`` from proxies.
    Cancelling a call cancels the work at the far end.
    """

    async def open(self, request: OpenRequest) -> OpenReply:
        """Begin a sync session: identity, versions, heads."""
        ...

    async def push(self, request: PushRequest) -> PushReply:
        """Decide mutations strictly in ``mid`` order."""
        ...

    async def pull(self, request: PullRequest) -> PullReply:
        """One page of a scope's log."""
        ...

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        """One page of a scope's rows."""
        ...

    def notify(self, request: NotifyRequest) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """Hints about new heads, coalesced; the first ones tell the heads now."""
        ...

    def presence(self, request: PresenceRequest) -> AbstractAsyncContextManager[AsyncIterator[PresenceChange]]:
        """Be in a scope, and be told who else is: everybody at first, then what changes, coalesced."""
        ...

    async def appear(self, request: AppearRequest) -> AppearReply:
        """Say something else in a scope, or leave it."""
        ...

    async def query(self, request: QueryRequest) -> QueryResult:
        """A direct query against the hub's rows."""
        ...

    async def write(self, request: WriteRequest) -> WriteResult:
        """A direct write, applied at most once per idempotency key; the same key gets the same answer again."""
        ...

    async def resolve(self, request: ResolveRequest) -> Resolution:
        """What became of this principal's write with the key: its answer, or the promise that it is never applied."""
        ...


@runtime_checkable
class SyncLink(Protocol):
    """A way to reach a hub."""

    def connect(self) -> AbstractAsyncContextManager[SyncService]:
        """Connect and authenticate; leaving the block closes the connection.

        Raises:
            ConnectFailed: No connection could be made.
            AuthenticationError: The hub does not accept the token.
        """
        ...


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a connection.

    Attributes:
        subject: Stable name.
        claims: Verified facts for row rules.
        expires_in_s: Seconds from the check until the token stops being good; None for never. A span, not a time of
            day: the clocks of the two machines need not agree. One that is not positive is over already.

    Raises:
        ConfigurationError: The subject is not a name, a claim is not text, or the span is not a finite number.
    """

    subject: str
    claims: dict[str, str] = field(default_factory=dict[str, str])
    expires_in_s: float | None = None

    def __post_init__(self) -> None:
        named = is_a(self.subject, str) and 0 < len(self.subject) <= SUBJECT_LENGTH_MAX and self.subject.isprintable()
        if not named:
            text = f"a principal's subject is a stable name of 1 to {SUBJECT_LENGTH_MAX} printable characters"
            raise ConfigurationError(f"{text}, not {self.subject!r}")
        if not is_a(self.claims, dict) or not all(is_a(word, str) for fact in self.claims.items() for word in fact):
            raise ConfigurationError(f"a principal's claims are texts by name, not {self.claims!r}")
        span = self.expires_in_s
        if span is not None and not ((is_a(span, float) or is_a(span, int)) and math.isfinite(span)):
            raise ConfigurationError(f"expires_in_s is a finite number of seconds, or None for never, not {span!r}")


@dataclass(frozen=True, slots=True)
class Peer:
    """The place where a connection comes from.

    Attributes:
        address: Host as text, ``"memory"`` for the in-memory transport.
        loopback: Whether it comes from this machine, and from nobody behind a proxy on it.
        transport: Name of the transport.
    """

    address: str
    loopback: bool
    transport: str


@runtime_checkable
class TokenVerifier(Protocol):
    """A judge of who a token belongs to."""

    async def verify(self, token: str, peer: Peer) -> Principal:
        """The token's principal; ``""`` means that no token was sent.

        Raises:
            AuthenticationError: The token is missing, wrong or expired.
        """
        ...


@runtime_checkable
class AdmitsLoopback(Protocol):
    """A verifier that may let a peer in for being on this machine, whatever its token; or a host that has one.

    A port where this machine can be somebody else, since a proxy passes on what others ask, does not serve it.
    """

    @property
    def admits_loopback(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class TellsUnderstood(Protocol):
    """A host that understands less of queries than this code; without it, it is taken to understand the same."""

    @property
    def understood(self) -> Understood:
        """What it understands; sent to everybody who connects."""
        ...


def understood_by(host: object) -> Understood:
    """What ``host`` understands of queries."""
    return host.understood if isinstance(host, TellsUnderstood) else UNDERSTOOD


@runtime_checkable
class DeclaresStores(Protocol):
    """A host that says what its stores hold; without it, nobody on the way knows a boolean from a number."""

    @property
    def schema(self) -> Schema:
        """The declared stores."""
        ...


@runtime_checkable
class ServiceHost(Protocol):
    """A host that hands out services to authenticated connections; the hub is one."""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        """Who ``token`` belongs to.

        Raises:
            AuthenticationError: The token is missing, wrong or expired.
        """
        ...

    def service(self, principal: Principal) -> SyncService:
        """The service as ``principal`` may use it."""
        ...
