"""The hub's operations, for one principal."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from atoma.contracts.events import CallServed, ClientAhead, HubEvent
from atoma.contracts.execution import (
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.limits import ROWS_MAX
from atoma.contracts.presence import AppearReply, AppearRequest, PresenceChange, PresenceRequest
from atoma.contracts.query import BoundQuery
from atoma.contracts.sync import (
    ASKED_MAX,
    PROTOCOL_OLDEST,
    PROTOCOL_VERSION,
    TRAIL_MAX,
    Cursor,
    EpochWord,
    Hint,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    Outcome,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    ScopeStatus,
    ShapeRefusal,
    SnapshotReply,
    SnapshotRequest,
    Verdict,
)
from atoma.contracts.values import ErrorInfo, RowImage, RowKey
from atoma.errors import ClosedError, Overloaded, QueryError, RemoteError
from atoma.hub.admission import check_scope
from atoma.hub.direct import rows_without_scope, write_decisions, write_result
from atoma.hub.failures import at_the_border
from atoma.hub.hints import HintListener, Hints
from atoma.hub.keys import check_key
from atoma.hub.lineage import fork
from atoma.hub.presence import Rooms
from atoma.hub.pulling import SnapshotTokens, check_cursor, check_snapshot, pull_reply, seen_of, snapshot_reply
from atoma.hub.pushing import DecisionContext, OpenDecision, push_decisions
from atoma.hub.querying import check_query, query_result
from atoma.hub.reading import Readers, is_lookup
from atoma.hub.recovery import witness_of
from atoma.hub.resolving import ResolveDecision, resolution
from atoma.hub.rules import EveryScope, why_not_replicated
from atoma.hub.shaping import ShapedViews
from atoma.hub.versions import check_version, shown_to
from atoma.ports.environment import Environment
from atoma.ports.hub import Greeting, HubDatabase, WritePlan
from atoma.ports.hub_queries import Fence, Fences
from atoma.ports.hub_sql import NOTES, SqlNotes
from atoma.ports.loops import LoopGuard
from atoma.ports.service import Principal
from atoma.query.pinned import pinned_scopes
from atoma.query.shapes import Shapes
from atoma.schema.kinds import INT64_MAX

_log = logging.getLogger("atoma.hub")
CALLS_MAX = 1_024
CLIENT_ID_BYTES = (8, 64)


@dataclass(slots=True)
class HubCore:
    """The parts that all services of a hub share.

    Attributes:
        database: Where everything is.
        context: Schema, rules and limits.
        environment: Clock and ids.
        readers: Whose turn it is to read.
        rooms: Who is present where.
        shapes: The parts of scopes that are given out.
        hints: Who listens for commits.
        calls: Calls under way.
        closed: Whether new calls are refused.
        listener: Notified of every call once it has ended, and of clients that know more; None for nobody.
        guard: The loop in which it was opened.
    """

    database: HubDatabase
    context: DecisionContext
    environment: Environment
    readers: Readers
    rooms: Rooms
    shapes: Shapes
    hints: Hints = field(default_factory=Hints)
    calls: int = 0
    closed: bool = False
    listener: Callable[[HubEvent], None] | None = None
    guard: LoopGuard = field(default_factory=lambda: LoopGuard("the hub"))

    @contextmanager
    def call(self, name: str, trace_id: str = "") -> Generator[None]:
        """What surrounds every call: bounded in number, errors in the protocol's words, reported to the listener."""
        self.guard.check()
        if self.listener is None:
            with self._admitted(name):
                yield
            return
        notes, error = SqlNotes(self.environment.clock), "CANCELLED"
        outer = NOTES.set(notes)
        try:
            with self._admitted(name):
                yield
            error = ""
        except RemoteError as failure:
            error = failure.remote_code
            raise
        finally:
            NOTES.reset(outer)
            seconds, ended_ms = self.environment.clock() - notes.began, self.environment.wall_ms()
            self.tell(CallServed(trace_id, name, seconds, error, ended_ms, notes.batches, notes.left_out))

    def tell(self, event: HubEvent) -> None:
        """Notify the listener, whose failure is nobody else's."""
        try:
            if self.listener is not None:
                self.listener(event)
        except Exception:
            _log.exception("a listener failed on %s", type(event).__name__)

    @contextmanager
    def _admitted(self, name: str) -> Generator[None]:
        with at_the_border(name):
            if self.closed:
                raise ClosedError("the hub is closed")
            if self.calls >= CALLS_MAX:
                raise Overloaded("the hub", CALLS_MAX)
            self.calls += 1
            try:
                yield
            finally:
                self.calls -= 1

    def committed(self, plans: Sequence[WritePlan]) -> None:
        """Notify listeners of what has become durable."""
        heads = {plan.transaction.scope: plan.transaction.seq for plan in plans if plan.transaction is not None}
        self.hints.tell(heads.items())

    def follow(self, heads: Mapping[str, int]) -> None:
        """Notify listeners of what another process has committed."""
        self.hints.tell(heads.items())


class HubService:
    """A ``SyncService`` for ``principal``; made by :meth:`Hub.service`."""

    __slots__ = ("_core", "_principal", "_shaped", "_view")

    def __init__(self, core: HubCore, principal: Principal) -> None:
        self._core = core
        self._principal = principal
        self._view = core.context.row_rules.view(principal)
        self._shaped = ShapedViews(core.context.schema, core.shapes, self._view)

    async def open(self, request: OpenRequest) -> OpenReply:
        """Begin a sync session: identity, versions, heads.

        Raises:
            RemoteError: ``PROTO_UNSUPPORTED``, ``SCHEMA_TOO_NEW``, ``SCHEMA_TOO_OLD``, ``HUB_MISMATCH``, ``WRONG_HUB``,
                ``TOO_LARGE``, ``MALFORMED`` or a transient code.
        """
        core = self._core
        with core.call("open"):
            self._check_client(request.client_id)
            _check_numbers(request.incarnation, request.confirmed_mid, request.tail_mid)
            self._check_versions(request)
            self._check_count(request.scopes)
            _check_places(request)
            refused = self._shaped.refused(request)
            (plan,) = await core.database.run([OpenDecision(request, self._principal)])
            greeting = plan.reply
            assert isinstance(greeting, Greeting)
            client, schema = greeting.client, core.context.schema
            self._compare(request, greeting)
            return OpenReply(
                hub_id=core.database.identity.hub_id,
                epoch=greeting.epoch,
                principal=self._principal.subject,
                last_mid=0 if client is None else client.last_mid,
                last_digest=b"" if client is None else client.last_digest,
                scopes=await self._statuses(request, refused),
                limits=core.context.limits,
                hub_time_ms=core.environment.wall_ms(),
                proto=_spoken_with(request),
                known=greeting.known,
                verdicts=tuple(
                    Verdict(stored.digest, *self._shown([stored.outcome], request.schema_version))
                    for stored in greeting.verdicts
                ),
                words=tuple(
                    EpochWord(ended.epoch, ended.devices, ended.deletes, ended.unproven)
                    for ended in greeting.ended[-ASKED_MAX:]
                ),
                forms={} if request.schema_hash == schema.hash else schema.forms_at(request.schema_version),
                schema_version=schema.version if schema.version > request.schema_version else 0,
            )

    def _compare(self, request: OpenRequest, greeting: Greeting) -> None:
        """Report to the operator when a client has received verdicts that this hub has not given."""
        last = 0 if greeting.client is None else greeting.client.last_mid
        if not greeting.known or request.confirmed_mid <= last:
            return
        subject, client, confirmed = self._principal.subject, request.client_id, request.confirmed_mid
        message = "client %s of %r knows %d decided mutations, this hub has decided %d: was it restored from a backup?"
        _log.warning(message, client.hex(), subject, confirmed, last)
        self._core.tell(ClientAhead(subject, client, last, confirmed, self._core.environment.wall_ms()))

    async def _statuses(
        self, request: OpenRequest, shapes: Mapping[str, tuple[ShapeRefusal, ...]]
    ) -> tuple[ScopeStatus, ...]:
        """Every requested scope, those of its shapes in ``shapes`` that are not given out, and where the client's history of it leaves the hub's."""
        database = self._core.database
        schema = self._core.context.schema
        allowed = [scope for scope in request.scopes if self._may_read(scope) and not why_not_replicated(schema, scope)]
        known = {state.scope: state for state in await database.scopes(allowed)} if allowed else {}
        places = [place for place in request.places if place.scope in known]
        lineages = await database.lineages(places) if places else ()
        compared = {place.scope: (place, lineage) for place, lineage in zip(places, lineages, strict=True)}
        refused = ErrorInfo("PERMISSION_DENIED", "you may not read this scope")
        statuses: list[ScopeStatus] = []
        for scope in request.scopes:
            if scope not in known:
                why = why_not_replicated(schema, scope) if self._may_read(scope) else ""
                statuses.append(ScopeStatus(scope, error=ErrorInfo(refused.code, why) if why else refused))
                continue
            writable = self._core.context.rules.scope_access(self._principal, scope) == "write"
            status = ScopeStatus(
                scope, known[scope].head, known[scope].floor, writable=writable, refused=shapes.get(scope, ())
            )
            if scope in compared:
                place, lineage = compared[scope]
                status = replace(
                    status,
                    fork=fork(place, lineage, witness_of(place, database.identity.key)),
                    devices=lineage.devices,
                    deletes=lineage.deletes,
                    unproven=lineage.unproven,
                )
            statuses.append(status)
        return tuple(statuses)

    async def push(self, request: PushRequest) -> PushReply:
        """Decide mutations strictly in ``mid`` order; every outcome in the reply is durable.

        Raises:
            RemoteError: ``CLIENT_FORKED``, ``PERMISSION_DENIED``, ``TOO_LARGE``, ``MALFORMED`` or a transient code:
                then nothing of the request was decided.
        """
        core = self._core
        with core.call("push"):
            self._check_client(request.client_id)
            _check_numbers(request.incarnation, request.confirmed_mid, request.schema_version)
            decisions, error = await push_decisions(core.context, self._principal, request, core.database.identity.key)
            plans = await core.database.run(decisions, core.committed)
            outcomes = tuple(plan.reply for plan in plans if isinstance(plan.reply, Outcome))
            stops = [plan.reply for plan in plans if isinstance(plan.reply, ErrorInfo)]
            client = plans[-1].client
            outcomes = self._shown(outcomes, request.schema_version)
            return PushReply(outcomes, 0 if client is None else client.last_mid, stops[0] if stops else error)

    async def pull(self, request: PullRequest) -> PullReply:
        """One page of a scope's log.

        Raises:
            RemoteError: ``PERMISSION_DENIED``, ``EPOCH_CHANGED``, ``CURSOR_AHEAD``, ``CURSOR_TOO_OLD``,
                ``LINEAGE_MISMATCH``, ``VIEW_CHANGED``, ``SHAPE_UNKNOWN`` or a transient code.
        """
        core, limits = self._core, self._core.context.limits
        with core.call("pull"):
            self._check_client(request.client_id)
            _check_numbers(request.cursor.seq, request.outcomes_after_mid, request.schema_version)
            check_version(core.context.schema, request.schema_version)
            self._check_pulled(request.scope)
            view = self._shaped.of(request.scope, request.shapes)
            page = await core.database.page(
                request.scope,
                request.cursor.seq,
                max_bytes=max(1, min(request.max_bytes, limits.page_bytes)),
                max_changes=max(1, min(request.max_changes, limits.page_changes)),
                client_id=request.client_id,
                principal=self._principal.subject,
                outcomes_after=request.outcomes_after_mid,
                before=view.pages.keys(),
            )
            check_cursor(request.cursor, page.epoch, page, view)
            outcomes = self._shown(page.outcomes, request.schema_version)
            return pull_reply(request, core.database.identity, core.context.schema, page, view, outcomes)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        """One page of a scope's rows; nothing is kept between pages, the token carries the position.

        Raises:
            RemoteError: ``PERMISSION_DENIED``, ``SNAPSHOT_EXPIRED``, ``VIEW_CHANGED``, ``SHAPE_UNKNOWN``, ``MALFORMED``, or a transient code:
                ``OVERLOADED``, ``RATE_LIMITED`` or ``TIMEOUT`` beyond the budget of reads.
        """
        core, limits = self._core, self._core.context.limits
        with core.call("snapshot"):
            _check_numbers(request.schema_version)
            check_version(core.context.schema, request.schema_version)
            self._check_pulled(request.scope)
            view = self._shaped.of(request.scope, request.shapes)
            tokens = SnapshotTokens(core.database.identity)
            start: Cursor | None = None
            last: RowKey | None = None
            if request.token:
                start, last = tokens.read(request.token, request.scope, self._principal.subject)
            async with core.readers.turn(self._principal.subject) as allowance:
                scan = partial(
                    core.database.scan,
                    request.scope,
                    last,
                    max_bytes=max(1, min(request.max_bytes, limits.page_bytes)),
                    max_rows=max(1, min(request.max_rows, limits.page_changes)),
                    allowance=allowance,
                )
                try:
                    page = await scan(conditions=view.pages)
                except QueryError:  # a condition has no value for one of the rows, which is not seen then
                    page = seen_of(await scan(), view)
            if start is None:
                start = Cursor(page.epoch, page.scope.head, page.scope.head_hash, view.digest)
            check_snapshot(start, page.epoch, page.scope, view)
            token = tokens.make(request.scope, self._principal.subject, start, page.last or last)
            return snapshot_reply(request, core.context.schema, start, page, token)

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        """Hints about new heads; the first ones carry the heads of now, and only the latest head of a scope is kept.

        Raises:
            RemoteError: ``PERMISSION_DENIED``, ``TOO_LARGE``, ``OVERLOADED`` or a transient code.
        """
        core = self._core
        listener = HintListener(request.scopes)
        with core.call("notify"):
            self._check_count(request.scopes)
            for scope in request.scopes:
                self._check_pulled(scope)
            core.hints.add(listener)  # before the heads are read: a commit in between is noticed
        try:
            with core.call("notify"):
                for state in await core.database.scopes(listener.scopes):
                    listener.offer(state.scope, state.head)
            yield listener
        finally:
            core.hints.remove(listener)

    @asynccontextmanager
    async def presence(self, request: PresenceRequest) -> AsyncGenerator[AsyncIterator[PresenceChange]]:
        """Be in a scope that the caller may read, and be told who else is; the first item is everybody.

        Whoever loses the right is gone from there, and is told nothing more.

        Raises:
            RemoteError: ``PERMISSION_DENIED``, ``MALFORMED``, ``TOO_LARGE``, or ``OVERLOADED`` where there is no room.
        """
        core = self._core
        with core.call("presence"):
            self._check_readable(request.scope)
            seat = core.rooms.enter(self._principal.subject, request, partial(self._check_readable, request.scope))
        try:
            yield seat
        finally:
            core.rooms.leave(seat)

    async def appear(self, request: AppearRequest) -> AppearReply:
        """Say something else where the caller is present, or leave.

        Raises:
            RemoteError: ``PERMISSION_DENIED``, ``MALFORMED``, ``TOO_LARGE``, or ``RATE_LIMITED``.
        """
        core = self._core
        with core.call("appear"):
            self._check_readable(request.scope)
            return AppearReply(core.rooms.appear(self._principal.subject, request))

    async def query(self, request: QueryRequest) -> QueryResult:
        """A direct query; rows carry the hub sequence as their version.

        Raises:
            RemoteError: ``QUERY``, ``PERMISSION_DENIED``, ``TOO_LARGE``, ``UNKNOWN_STORE``, or a transient code:
                ``OVERLOADED``, ``RATE_LIMITED`` or ``TIMEOUT`` beyond the budget of reads.
        """
        core = self._core
        with core.call("query", request.context.trace_id):
            began = core.environment.clock()
            asked = core.context.deleted_rows
            may = None if asked is None else partial(asked, self._principal)
            query = check_query(request.query, core.context.schema, core.readers.budget.bounds, deleted_rows=may)
            fences = await self._fences(query)
            max_bytes = core.context.limits.page_bytes
            page = None
            if is_lookup(query, core.context.schema.store, fences):
                page = await core.database.lookup(query, fences, max_bytes=max_bytes, max_rows=ROWS_MAX)
            if page is None:
                async with core.readers.turn(self._principal.subject) as allowance:
                    page = await core.database.query(
                        query, fences, max_bytes=max_bytes, max_rows=ROWS_MAX, allowance=allowance
                    )
            return query_result(request, query, page, core.environment.clock() - began)

    async def write(self, request: WriteRequest) -> WriteResult:
        """A direct write, applied at most once per key; it reaches syncing clients like any other.

        Raises:
            RemoteError: ``TOO_LARGE``, ``MALFORMED`` or a transient code: then nothing was written.
        """
        core = self._core
        with core.call("write", request.context.trace_id):
            began = core.environment.clock()
            located: dict[RowKey, Sequence[str]] = {}
            for name, ids in rows_without_scope(core.context, request).items():
                found = await core.database.locate(name, ids)
                located.update({(name, id): scopes for id, scopes in found.items()})
            decisions = write_decisions(core.context, self._principal, request, located)
            plans = await core.database.run(decisions, core.committed)
            answers = [plan.reply for plan in plans if isinstance(plan.reply, bytes)]
            return write_result(
                answers, request, core.context.schema, core.environment.clock() - began, self._rows_bytes, self._sees
            )

    async def resolve(self, request: ResolveRequest) -> Resolution:
        """What became of a direct write of this principal; an unknown key is fenced, so that the answer stays true.

        Raises:
            RemoteError: ``KEY_EXPIRED``, ``MALFORMED`` or a transient code: then nothing was fenced.
        """
        core = self._core
        with core.call("resolve", request.context.trace_id):
            began = core.environment.clock()
            check_key(request.idem)
            (plan,) = await core.database.run([ResolveDecision(self._principal, request.idem)], core.committed)
            assert isinstance(plan.reply, bytes)
            return resolution(
                plan.reply, request, core.context.schema, core.environment.clock() - began, self._rows_bytes, self._sees
            )

    @property
    def _rows_bytes(self) -> int:
        """Bytes of rows that the answer to a direct write brings along: half a page, as JSON takes more than MessagePack."""
        return self._core.context.limits.page_bytes // 2

    def _shown(self, outcomes: Iterable[Outcome], version: int) -> tuple[Outcome, ...]:
        """``outcomes`` as the caller, a client of ``version``, may see them now."""
        return shown_to(outcomes, self._core.context.schema, version, self._sees)

    def _sees(self, scope: str, store: str, id: str, image: RowImage) -> bool:
        """Whether the caller sees a row now; of one that an older version has kept nobody knows whose it is."""
        if not store:
            return not self._core.context.row_rules.stores
        return self._may_read(scope) and self._view.sees(store, id, image)

    # checks

    def _check_client(self, client_id: bytes) -> None:
        shortest, longest = CLIENT_ID_BYTES
        if not shortest <= len(client_id) <= longest:
            message = f"a client id must have {shortest} to {longest} bytes, not {len(client_id)}"
            raise RemoteError(message, remote_code="MALFORMED")

    def _check_versions(self, request: OpenRequest) -> None:
        if not max(request.proto_min, PROTOCOL_OLDEST) <= _spoken_with(request):
            message = (
                f"the hub speaks protocol {PROTOCOL_OLDEST} to {PROTOCOL_VERSION}, the client {request.proto_min} to "
                f"{request.proto_max}"
            )
            info = {"proto_min": str(PROTOCOL_OLDEST), "proto_max": str(PROTOCOL_VERSION)}
            raise RemoteError(message, remote_code="PROTO_UNSUPPORTED", info=info)
        identity, schema = self._core.database.identity, self._core.context.schema
        if request.hub_id and request.hub_id != identity.hub_id:
            message = "this file belongs to another hub; connect to that one, or begin with a new file"
            raise RemoteError(message, remote_code="HUB_MISMATCH", info={"hub_id": identity.hub_id.hex()})
        if request.schema_version > schema.version:
            message = (
                f"the client has schema version {request.schema_version}, the hub {schema.version}; upgrade the hub"
            )
            raise RemoteError(message, remote_code="SCHEMA_TOO_NEW", info={"hub_version": str(schema.version)})
        check_version(schema, request.schema_version)

    def _check_count(self, scopes: Sequence[str]) -> None:
        limit = self._core.context.limits.scopes
        if len(scopes) > limit:
            raise RemoteError(f"{len(scopes)} scopes, the limit is {limit}", remote_code="TOO_LARGE")

    def _may_read(self, scope: str) -> bool:
        check_scope(scope)
        return self._core.context.rules.scope_access(self._principal, scope) in ("read", "write")

    def _check_readable(self, scope: str) -> None:
        if not self._may_read(scope):
            raise RemoteError("you may not read this scope", remote_code="PERMISSION_DENIED", info={"scope": scope})

    def _check_pulled(self, scope: str) -> None:
        self._check_readable(scope)
        why = why_not_replicated(self._core.context.schema, scope)
        if why:
            raise RemoteError(why, remote_code="PERMISSION_DENIED", info={"scope": scope})

    async def _fences(self, query: BoundQuery) -> Fences:
        """What the caller may see of each store that ``query`` reads.

        Raises:
            RemoteError: ``PERMISSION_DENIED``: it can find rows only in a scope that the caller may not read.
        """
        found: dict[str, Fence] = {}
        readable: tuple[str, ...] | None = None
        everything = isinstance(self._core.context.rules, EveryScope)
        for store, pinned in pinned_scopes(query, self._core.context.schema.store).items():
            scopes = None if pinned is None else tuple(sorted(pinned))
            for scope in scopes or ():
                self._check_readable(scope)
            if scopes is None and not everything:
                if readable is None:
                    states = await self._core.database.scopes()
                    readable = tuple([state.scope for state in states if self._may_read(state.scope)])
                scopes = readable
            found[store] = Fence(scopes, self._view.condition(store))
        return found


def _spoken_with(request: OpenRequest) -> int:
    """The latest version of the protocol that both sides speak, if they have one in common."""
    return min(PROTOCOL_VERSION, request.proto_max)


def _check_places(request: OpenRequest) -> None:
    """Refuse more than a client of ours ever sends or asks."""
    if len(request.asked) > ASKED_MAX or any(len(place.trail) > TRAIL_MAX for place in request.places):
        message = f"at most {ASKED_MAX} verdicts are asked for at once, at most {TRAIL_MAX} marks told per scope"
        raise RemoteError(message, remote_code="TOO_LARGE")
    if len({place.scope for place in request.places}) < len(request.places):
        raise RemoteError("a scope has one place", remote_code="MALFORMED")
    _check_numbers(*request.asked, *(mark.seq for place in request.places for mark in place.marks))


def _check_numbers(*numbers: int) -> None:
    """Refuse numbers that no counter of ours can have."""
    if not all(0 <= number <= INT64_MAX for number in numbers):
        raise RemoteError("a sequence or mutation number is out of range", remote_code="MALFORMED")
