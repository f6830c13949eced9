"""Hosts for checks: a hub small enough to read, and doors into any other one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

import trio

from atoma.contracts.execution import (
    ExecutionMeta,
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.presence import AppearReply, AppearRequest, PresenceChange, PresenceRequest, Present
from atoma.contracts.sync import (
    Cursor,
    Hint,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    Outcome,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotReply,
    SnapshotRequest,
    StoreChanges,
)
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.errors import AuthenticationError
from atoma.ports import Peer, Principal, ServiceHost, SyncService
from atoma.query.plans import ids_of, is_count
from atoma_transports.adapters import PassingService
from atoma_transports.calls.methods import UnaryMethod

TOKEN = "a-secret"
"""A token that :class:`TinyHub` knows."""

SUBJECT = "alice"
"""Whose it is."""

OTHER_TOKEN = "another-secret"
OTHER_SUBJECT = "bob"

Hook: TypeAlias = Callable[[], Awaitable[object]]
Moment: TypeAlias = Literal["before", "after"]
Q = TypeVar("Q")
R = TypeVar("R")


async def pass_by() -> None:
    """The hook that lets everything pass."""


@dataclass
class TinyHub:
    """A host with one service: rows in a dict, one answer per idempotency key, and doors for checks.

    Attributes:
        rows: What was written, by id.
        answers: The answer of each write, by key; None for a key that is fenced.
        applied: Ids and mutation numbers, in the order they were applied.
        pulled: Scopes that were asked for.
        traces: Trace ids of queries, writes and questions about a key.
        sent_hints: Hints that left the service.
        active: Handlers that run now.
        cancelled: Handlers that were cancelled.
        budgets: Seconds each handler had left when it began.
        before_apply: Awaited by ``push`` and ``write`` before they change anything.
        after_apply: Awaited by them when everything is changed and the answer is not yet under way.
        on_pull: Awaited by ``pull``.
        unsayable: Scope whose ``pull`` is answered with what no message can hold.
        failure: What ``pull`` raises, and ``notify`` after its last hint.
        on_hint: Awaited by ``notify`` before each hint.
        hints: How many hints ``notify`` gives.
        hint_letters: How many letters the scope of each hint is padded to.
        peers: Who asked to come in.
    """

    rows: dict[str, StoredRow] = field(default_factory=dict[str, StoredRow])
    answers: dict[str, WriteResult | None] = field(default_factory=dict[str, "WriteResult | None"])
    applied: list[str] = field(default_factory=list[str])
    pulled: list[str] = field(default_factory=list[str])
    traces: list[str] = field(default_factory=list[str])
    sent_hints: int = 0
    active: int = 0
    cancelled: int = 0
    budgets: list[float] = field(default_factory=list[float])
    before_apply: Hook = pass_by
    after_apply: Hook = pass_by
    on_pull: Hook = pass_by
    unsayable: str = ""
    failure: Exception | None = None
    on_hint: Hook = pass_by
    hints: int = 0
    hint_letters: int = 0
    peers: list[Peer] = field(default_factory=list[Peer])

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        """See :class:`atoma.ports.ServiceHost`."""
        self.peers.append(peer)
        subject = {TOKEN: SUBJECT, OTHER_TOKEN: OTHER_SUBJECT}.get(token)
        if subject is None:
            raise AuthenticationError("the token is not known here")
        return Principal(subject)

    def service(self, principal: Principal) -> SyncService:
        """See :class:`atoma.ports.ServiceHost`."""
        return TinyService(self, principal)

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Count a handler in and out."""
        self.active += 1
        self.budgets.append(trio.current_effective_deadline() - trio.current_time())
        try:
            yield
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.active -= 1


@dataclass
class TinyService:
    """The service of :class:`TinyHub` for one principal."""

    hub: TinyHub
    principal: Principal

    async def open(self, request: OpenRequest) -> OpenReply:
        """Tell who is asking, and repeat ``tail_mid`` as ``last_mid``."""
        return OpenReply(b"hub", b"epoch", self.principal.subject, request.tail_mid, b"", ())

    async def push(self, request: PushRequest) -> PushReply:
        """Apply every mutation under its own number."""
        async with self.hub.working():
            await self.hub.before_apply()
            done = tuple(Outcome(m.mid, "applied", "main", seq=m.mid) for m in request.mutations)
            self.hub.applied.extend(str(m.mid) for m in request.mutations)
            await self.hub.after_apply()
            return PushReply(done, done[-1].mid if done else 0)

    async def pull(self, request: PullRequest) -> PullReply:
        """One row with a text of ``max_bytes`` bytes, and one value of each kind."""
        async with self.hub.working():
            self.hub.pulled.append(request.scope)
            await self.hub.on_pull()
            if self.hub.failure is not None:
                raise self.hub.failure
            row = (1, "id", "ü" * (request.max_bytes // 2), b"\x00\xff", 1.5, None, -(2**63))
            page = StoreChanges("notes", 1, ("id", "text", "blob", "real", "null", "int"), (row,), ((2, "gone"),))
            scope = "\ud800" if request.scope == self.hub.unsayable else request.scope
            return PullReply(scope, request.cursor, Cursor(b"e", 2, b"h"), (page,), head=2)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        """An empty page whose token has grown by ``+``."""
        return SnapshotReply(request.scope, Cursor(), (), request.token + b"+", done=True)

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        """As many hints as the hub is told to give, numbered from 0."""

        async def heads() -> AsyncGenerator[Hint]:
            for number in range(self.hub.hints):
                await self.hub.on_hint()
                self.hub.sent_hints += 1
                yield Hint(request.scopes[0].ljust(self.hub.hint_letters, "."), number)
                await trio.lowlevel.checkpoint()
            if self.hub.failure is not None:
                raise self.hub.failure

        async with self.hub.working():
            yield heads()

    @asynccontextmanager
    async def presence(self, request: PresenceRequest) -> AsyncGenerator[AsyncIterator[PresenceChange]]:
        """Whoever asks, as the only one who is there."""

        async def changes() -> AsyncGenerator[PresenceChange]:
            yield PresenceChange((Present(request.session.hex(), self.principal.subject, request.state),), whole=True)

        yield changes()

    async def appear(self, request: AppearRequest) -> AppearReply:
        """Nobody is known."""
        return AppearReply(known=False)

    async def query(self, request: QueryRequest) -> QueryResult:
        """Every row, or those with the ids that are asked for."""
        self.hub.traces.append(request.context.trace_id)
        wanted = ids_of(request.query)
        rows = tuple(row for row in self.hub.rows.values() if wanted is None or row.id in wanted)
        if is_count(request.query.plan):
            return QueryResult((), ((len(rows),),))
        return QueryResult(rows, (), ExecutionMeta(cursor="next"))

    async def write(self, request: WriteRequest) -> WriteResult:
        """Keep every entry as a row, once per key."""
        self.hub.traces.append(request.context.trace_id)
        async with self.hub.working():
            await self.hub.before_apply()
            if request.idem not in self.hub.answers:
                items: list[WriteItemResult] = []
                for entry in request.entries:
                    self.hub.applied.append(entry.id)
                    self.hub.rows[entry.id] = StoredRow(entry.id, 1, 1, entry.scope, entry.values)
                    items.append(WriteItemResult(entry.id, True, True, 1, entry.values))
                self.hub.answers[request.idem] = WriteResult(status_of(tuple(items)), tuple(items))
            answer = self.hub.answers[request.idem]
            if answer is None:
                late = ErrorInfo("ABANDONED", "the key was asked after before the write came; it stays undone")
                refused = tuple(WriteItemResult(entry.id, False, error=late) for entry in request.entries)
                answer = WriteResult("rejected", refused)
            await self.hub.after_apply()
            return answer

    async def resolve(self, request: ResolveRequest) -> Resolution:
        """The answer of the key; a key that nobody wrote under is fenced."""
        self.hub.traces.append(request.context.trace_id)
        answer = self.hub.answers.setdefault(request.idem, None)
        return Resolution(request.idem, answer)


class HookedHost:
    """Any host, with a door before and after each call: where a test cuts the wire at exactly that moment.

    Works over every transport, because it stands between the transport and the service.

    Args:
        host: The host behind it.
        on_call: Awaited with ``"before"`` and the method's name when a call has arrived, and with ``"after"`` when the
            service has answered and the reply is not yet under way.
        token: What the host behind is told in place of the caller's token; None passes the caller's on.
    """

    def __init__(
        self, host: ServiceHost, on_call: Callable[[Moment, str], Awaitable[object]], *, token: str | None = None
    ) -> None:
        self._host = host
        self._on_call = on_call
        self._token = token

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        """See :class:`atoma.ports.ServiceHost`."""
        return await self._host.authenticate(token if self._token is None else self._token, peer)

    def service(self, principal: Principal) -> SyncService:
        """See :class:`atoma.ports.ServiceHost`."""
        return _HookedService(self._host.service(principal), self._on_call)


class _HookedService(PassingService):
    """A service with a door at every call."""

    def __init__(self, service: SyncService, on_call: Callable[[Moment, str], Awaitable[object]]) -> None:
        super().__init__(service)
        self._on_call = on_call

    async def _ask(self, method: UnaryMethod[Q, R], request: Q) -> R:
        await self._on_call("before", method.name)
        result = await super()._ask(method, request)
        await self._on_call("after", method.name)
        return result
