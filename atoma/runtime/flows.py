"""The flows: from what a caller passes in to operations and requests, each through its port, and what its answer means here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

import trio
from msgspec import structs
from msgspec.structs import replace

from atoma.contracts.checks import check_word, is_a
from atoma.contracts.execution import (
    Confirm,
    Durability,
    ExecutionMeta,
    Matches,
    OperationContext,
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteOptions,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.history import UndoMark
from atoma.contracts.mutations import Edit, Op
from atoma.contracts.query import BoundQuery
from atoma.contracts.receipts import await_verdicts
from atoma.contracts.values import RowImage, StoredRow
from atoma.errors import (
    ConfigurationError,
    NotResolvable,
    PluginError,
    PolicyNotAllowed,
    QueryError,
    ValidationError,
    WriteUnknown,
)
from atoma.mutations import edited, in_edits
from atoma.ports.execution import QueryPort, ResolvePort, WritePort
from atoma.ports.live import LiveQueries
from atoma.ports.loops import LoopGuard
from atoma.ports.scopes import BringsScopes
from atoma.query.builder import Query
from atoma.query.compiled import order_rows
from atoma.runtime.drawn import check_strict, named, policy_of
from atoma.runtime.groups import OPEN_GROUP, open_mark
from atoma.runtime.hooks import StoreHooks
from atoma.runtime.optimism import LayeredWrites
from atoma.runtime.registry import PolicyNames
from atoma.runtime.results import aligned
from atoma.runtime.writeback import WriteBack
from atoma.schema.hiding import softly
from atoma.schema.merging import split_edits
from atoma.schema.schema import Schema
from atoma.schema.shapes import Bring, ScopePart
from atoma.schema.spec import CONFIRMS, DURABILITIES, StoreSpec

T = TypeVar("T")

UpsertConflict: TypeAlias = Literal["lww", "cas"]
UpsertApply: TypeAlias = Literal["merge", "replace"]
MergeMode: TypeAlias = Literal["replace", "upsert-only", "preserve-missing"]
"""What a complete remote answer does to cached rows that it does not contain.

``replace`` deletes them, ``upsert-only`` keeps them and leaves them out of the answer, ``preserve-missing`` keeps them
and adds them to the answer. None of them touches a row with pending writes, and ``replace`` answers with those too.
"""


def insert_entry(spec: StoreSpec[T], item: T) -> Op:
    """An insert of ``item``; raises :class:`ValidationError`, also of one with an id where the hub draws them."""
    id, image = spec.encode(item)
    if id and spec.sets.ids:
        message = f'store {spec.name!r}: the hub draws the ids of new rows; insert it with the id left empty, id=""'
        raise ValidationError(message, store=spec.name, field="id", value=id)
    return Op("create", spec.name, id, image, scope=spec.scope_of(image))


def insert_entries(spec: StoreSpec[T], items: Sequence[T]) -> list[Op]:
    """An insert of each of ``items``; raises :class:`ValidationError` when one of them cannot be stored."""
    if spec.sets.ids:
        return [insert_entry(spec, item) for item in items]
    name, (ids, images) = spec.name, spec.encode_many(items)
    rows = zip(ids, images, spec.scopes_of(images), strict=False)  # the scopes may have no end
    return [Op("create", name, id, image, scope=scope) for id, image, scope in rows]


def update_entry(spec: StoreSpec[T], id: str, changes: Mapping[str, object], base_version: int | None) -> Op:
    """A patch of the row ``id``; raises :class:`ValidationError`."""
    values, edits = spec.encode_update(changes)
    return Op("patch", spec.name, checked_id(spec, id), values, base_version=base_version, edits=edits)


def written_over(spec: StoreSpec[Any], row: StoredRow, patch: RowImage) -> Op:
    """A patch of ``row``, which was read; it names the version, unless all that it does merges with whatever comes between."""
    op = Op("patch", spec.name, row.id, patch, base_version=row.version)
    if not spec.merging.edited:
        return op
    merged = in_edits(op, spec, row.image)
    return merged if merged.values else replace(merged, base_version=None)


def delete_entry(spec: StoreSpec[T], id: str, base_version: int | None) -> Op:
    """A delete of the row ``id``, which hides it where the store says so; raises :class:`ValidationError`."""
    purge = purge_entry(spec, id, base_version)
    return softly(purge) if spec.soft_delete else purge


def restore_entry(spec: StoreSpec[T], id: str, base_version: int | None) -> Op:
    """What brings the row ``id`` back; raises :class:`ValidationError`, also of a store that deletes for good."""
    if not spec.soft_delete:
        message = (
            f"store {spec.name!r} deletes for good: there is nothing to restore; declare StoreSpec(…, soft_delete=True)"
        )
        raise ValidationError(message, store=spec.name)
    return Op("patch", spec.name, checked_id(spec, id), spec.unhidden({}), base_version=base_version)


def purge_entry(spec: StoreSpec[T], id: str, base_version: int | None) -> Op:
    """What removes the row ``id`` for good; raises :class:`ValidationError`."""
    return Op("delete", spec.name, checked_id(spec, id), base_version=base_version)


def checked_id(spec: StoreSpec[T], id: object) -> str:
    """``id`` if a row can have it.

    Raises:
        ValidationError: It cannot; of a row or a query, what takes one instead.
    """
    if type(id) is str:  # quick: every write comes this way
        return spec.check_id(id)
    if is_a(id, Query):
        raise ValidationError(
            f"store {spec.name!r}: this takes the id of one row; for the rows of a query there are "
            "client.update_where(query, …) and client.delete_where(query)",
            store=spec.name,
        )
    if is_a(id, spec.model):
        raise ValidationError(
            f"store {spec.name!r}: this takes the id of a row and not the row: {spec.model.__name__}(…).id; "
            "a whole row is written by upsert(row)",
            store=spec.name,
        )
    return spec.check_id(id)


def upsert_entry(
    spec: StoreSpec[T],
    item: T | Mapping[str, object],
    conflict: UpsertConflict,
    apply: UpsertApply,
    base_version: int | None,
) -> Op:
    """An upsert of a whole item or, by name, of some of its fields (the id among them).

    Raises:
        ValidationError: A wrong field, type, value or word; ``cas`` without ``base_version``.
    """
    check_word("conflict", conflict, get_args(UpsertConflict))
    check_word("apply", apply, get_args(UpsertApply))
    if (conflict == "cas") != (base_version is not None):
        message = 'upsert(conflict="cas") needs base_version=, the version you saw (0: the row must not exist yet)'
        raise ValidationError(message, store=spec.name, field="base_version", value=base_version)
    edits: tuple[Edit, ...] = ()
    if isinstance(item, Mapping):
        given = cast("Mapping[str, object]", item)
        if spec.merging.edited:
            given, edits = split_edits(spec.name, spec.fields, spec.merging, given)
        full = _with_defaults(spec, given)
        id, image = spec.encode(full)
        values: RowImage = spec.unhidden({name: image[name] for name in image if name in given})
        image = edited(image, edits) if edits else image
    else:
        id, image = spec.encode(item)
        values = image
    if not id:
        message = (
            f"store {spec.name!r}: an upsert names its row; a new one, whose id the hub draws, is made by insert()"
        )
        raise ValidationError(message, store=spec.name, field="id", value=id)
    scope = spec.scope_of(image)
    if apply == "replace":
        if edits:
            message = f'{spec.name}: apply="replace" takes the values of a whole row, and {edits[0].field} only says how to change one'
            raise ValidationError(message, store=spec.name, field=edits[0].field)
        return Op("replace", spec.name, id, image, scope=scope, base_version=base_version)
    defaults = {name: value for name, value in image.items() if name not in values}
    return Op("upsert", spec.name, id, values, scope=scope, base_version=base_version, defaults=defaults, edits=edits)


def _with_defaults(spec: StoreSpec[T], given: Mapping[str, object]) -> T:
    unknown = [name for name in given if name not in spec.columns]
    if unknown or "id" not in given:
        what = f"unknown field {unknown[0]!r}" if unknown else "an upsert by name needs the id"
        field = unknown[0] if unknown else "id"
        raise ValidationError(f"store {spec.name!r}: {what}", store=spec.name, field=field, value=dict(given))
    try:
        return cast("T", cast("Any", spec.model)(**given))
    except TypeError as error:
        message = f"store {spec.name!r}: the row may have to be created, but {error}"
        raise ValidationError(message, store=spec.name, value=dict(given)) from None


class ReadFlow:
    """The path of a read: from the store to a request, and from the answer to rows.

    Args:
        port: Carries queries out.
        names: Chooses the policy.
        traces: Draws trace ids.
        writeback: Keeps remote answers of unsynced stores.
    """

    def __init__(self, port: QueryPort, names: PolicyNames, traces: Callable[[], str], writeback: WriteBack) -> None:
        self._port = port
        self._names = names
        self._traces = traces
        self._writeback = writeback

    async def query(self, query: BoundQuery, policy: str | None, *, unread: bool = False) -> QueryResult:
        """Answer ``query``; errors of the port are the caller's. Of one that is ``unread`` only the rows count.

        Rows of a remote answer are kept in the local cache, unless the store is synced.
        """
        store, names = query.plan.store, self._names
        name = None if policy else names.own.get(store)
        context = OperationContext(self._traces(), name or names.resolve(store, policy), unread=unread)
        request = QueryRequest(query, context)
        writeback = self._writeback
        began = writeback.freshness.now
        result = await self._port.execute_query(request)
        meta = result.meta
        if len(meta.path) > 1:  # a step that goes on behind the answer is never the only one
            self._answered(result, began)
        if meta.source == "local":
            return result
        if meta.source == "remote" and query.plan.whole_rows and writeback.caches(store):
            kept = await writeback.keep_rows(store, result.rows, began=began)
            return structs.replace(result, rows=_with_versions(result.rows, kept.versions))
        return await self._compared(store, result)

    async def get_all(self, query: BoundQuery, policy: str | None, merge: MergeMode) -> QueryResult:
        """Answer ``query`` whole, and merge a remote answer into the cache as ``merge`` says.

        The rows are in the order of ``query``, whichever side they are from. Where rows of this device stand among the
        authority's, ``meta.source`` is ``mixed`` and ``meta.path`` has the steps of both reads.

        Raises:
            QueryError: ``query`` asks for a part only.
            ValidationError: There is no such ``merge``.
        """
        plan, store = query.plan, query.store
        if (plan.limit, plan.offset, plan.seek) != (None, 0, None):
            raise QueryError("get_all() answers with every row; limit, offset and after are for query()")
        check_word("merge", merge, get_args(MergeMode))
        trace_id = self._traces()
        request = QueryRequest(query, OperationContext(trace_id, self._names.resolve(store, policy)))
        began = self._writeback.freshness.now
        result = await self._port.execute_query(request)
        self._answered(result, began)
        if result.meta.source != "remote" or not self._writeback.caches(store):
            return await self._compared(store, result)
        local = await self._port.execute_query(QueryRequest(query, OperationContext(trace_id, "direct-local")))
        answered = {row.id for row in result.rows}
        missing = [row for row in local.rows if row.id not in answered]
        gone = missing if merge == "replace" else ()
        kept = await self._writeback.keep_rows(store, result.rows, gone, began=began)
        own = missing if merge == "preserve-missing" else [row for row in missing if row.id in kept.protected]
        meta = result.meta
        if own:
            meta = structs.replace(meta, source="mixed", path=(*meta.path, *local.meta.path))
        rows = order_rows(query, (*_with_versions(result.rows, kept.versions), *own))
        return QueryResult(tuple(rows), (), meta)

    async def _compared(self, store: str, result: QueryResult) -> QueryResult:
        """``result`` with this device's versions where rows of another machine are in it."""
        if result.meta.source == "local" or not result.rows or self._writeback.apply is None:
            return result
        versions = await self._writeback.versions_of(store, result.rows)
        return structs.replace(result, rows=_with_versions(result.rows, versions))

    def _answered(self, result: QueryResult, began: int) -> None:
        """Remember when the read began for as long as a part of it goes on behind the answer."""
        if any(step.outcome == "detached" for step in result.meta.path):
            self._writeback.freshness.goes_on(result.meta.trace_id, began)


def _with_versions(rows: Sequence[StoredRow], versions: Mapping[str, int]) -> tuple[StoredRow, ...]:
    """``rows`` with this device's versions; the authority's own, below 0, of a row that is not here as it was answered."""
    return tuple(structs.replace(row, version=versions.get(row.id, -row.seq)) for row in rows)


class WriteFlow:
    """The path of a unit: its key is drawn before anything runs, then the commit flow gets it.

    Args:
        commit: Carries units out.
        names: Chooses the policy.
        ids: Draws keys.
        traces: Draws trace ids.
        schema: Default ``confirm`` of the stores, and which of them have ids that the hub draws.
        is_remote: Whether other machines alone write under a policy.
    """

    def __init__(
        self,
        commit: WriteCommitFlow,
        names: PolicyNames,
        ids: Callable[[], str],
        traces: Callable[[], str],
        schema: Schema,
        is_remote: Callable[[str], bool],
    ) -> None:
        self._commit = commit
        self._names = names
        self._ids = ids
        self._traces = traces
        self._strict = frozenset(name for name, store in schema.stores.items() if store.confirm == "strict")
        self._drawn = frozenset(name for name, store in schema.stores.items() if store.sets.ids)
        self._is_remote = is_remote
        self.schema = schema

    async def write(
        self,
        entries: Sequence[Op],
        *,
        policy: str | None = None,
        confirm: Confirm | None = None,
        atomic: bool = False,
        durability: Durability | None = None,
        reads: tuple[tuple[str, str, int | None], ...] = (),
        matches: Matches | None = None,
        parts: tuple[int, ...] = (),
        mark: UndoMark | None = None,
    ) -> WriteResult:
        """Write one unit; refused items are in the result.

        Raises:
            UnknownPolicy: No such policy.
            PolicyNotAllowed: The stores of an atomic unit have different policies, or the hub draws an id, and the policy also
                writes here.
            ValidationError: No such ``confirm`` or ``durability``, or the hub draws an id, and nobody waits for it.
        """
        if confirm is not None:
            check_word("confirm", confirm, CONFIRMS)
        if durability is not None:
            check_word("durability", durability, DURABILITIES)
        stores = {entry.store for entry in entries}
        confirm = confirm or self._confirm(stores)
        if self._drawn.isdisjoint(stores) or not any(entry.awaits_id for entry in entries):
            policies = {self._names.resolve(store, policy) for store in stores}
        else:
            check_strict(entries, confirm)
            policies = {policy_of(self._names, store, policy, self._is_remote) for store in stores}
        if len(policies) > 1:
            named = ", ".join(sorted(stores))
            raise PolicyNotAllowed("/".join(sorted(policies)), named, "one unit runs under one policy")
        context = OperationContext(self._traces(), policies.pop())
        options = WriteOptions(confirm, atomic, durability, reads)
        if mark is None and OPEN_GROUP.get() is not None:  # hardly ever, so every other write enters nothing
            mark = open_mark(self)
        return await self._commit.commit(
            WriteRequest(tuple(entries), options, context, self._ids(), matches, parts, mark)
        )

    def _confirm(self, stores: set[str]) -> Confirm:
        """The stores' own; one strict store makes the unit strict."""
        return "optimistic" if self._strict.isdisjoint(stores) else "strict"


class WriteCommitFlow:
    """The path of units over the write port.

    Args:
        port: Carries writes out.
        writeback: Keeps remote answers of unsynced stores.
        hooks: The hooks of the stores.
        elsewhere: Whether another machine decides a write, which is not the outbox's.
        layered: Shows what another machine decides; None when there is no local database to show it in.
    """

    def __init__(
        self,
        port: WritePort,
        writeback: WriteBack,
        hooks: StoreHooks,
        elsewhere: Callable[[WriteRequest], bool],
        layered: LayeredWrites | None = None,
    ) -> None:
        self._port = port
        self._writeback = writeback
        self._hooks = hooks
        self._elsewhere = elsewhere
        self._layered = layered

    async def commit(self, request: WriteRequest) -> WriteResult:
        """Carry ``request`` out and return one result per entry, in entry order.

        With ``confirm="strict"`` it returns after the authority's verdict on every written item; items that the
        authority refused are refused in the result.

        Raises:
            ResultMismatch: The port broke its contract.
            ValidationError: ``before_save`` refuses what another machine would have to decide.
        """
        elsewhere = self._elsewhere(request)
        if elsewhere:
            if self._layered is not None and self._writeback.caches(request.entries[0].store):
                return await self._layered.write(request)
            request = self._hooks.leaving(request)
        result = aligned(request, await self._port.execute_write(request))
        if elsewhere:
            request = named(request, result.items)
            self._hooks.answered(request, result)
        if result.meta.source == "remote":
            await self._writeback.keep_results(request, result)
        if request.options.confirm != "strict" or not result.receipts:
            return result
        items = await await_verdicts(result.items, result.receipts)
        return replace(result, status=status_of(items), items=items)


Recall: TypeAlias = Callable[[str], Awaitable[WriteResult | None]]
"""What became here of the unit with a key; see :meth:`atoma.ports.engine.LocalDatabase.recall`."""


class ResolveFlow:
    """The path of questions about the keys of writes.

    Args:
        port: Asks who decides.
        recall: Tells of the writes that lie or lay in this device's outbox; None without a local database.
        layered: Shows writes that are not decided; None without a local database.
        traces: Draws trace ids.
    """

    def __init__(
        self, port: ResolvePort, recall: Recall | None, layered: LayeredWrites | None, traces: Callable[[], str]
    ) -> None:
        self._port = port
        self._recall = recall
        self._layered = layered
        self._traces = traces

    async def resolve(self, write: WriteUnknown | str, policy: str | None = None) -> Resolution:
        """Ask what became of ``write``; see :meth:`atoma.Client.resolve`."""
        if not is_a(write, str) and not is_a(write, WriteUnknown):
            raise ConfigurationError(f"resolve() takes a WriteUnknown error or its key idem, not {write!r}")
        idem, nodes = (write, None) if isinstance(write, str) else (write.idem, write.nodes)
        queued = None if self._recall is None else await self._recall(idem)
        if queued is not None:  # it will be sent, or was: the hub knows it by its number, and nobody may abandon it
            return await self._judged(idem, queued)
        if nodes == ():
            raise NotResolvable(idem, "no node that it went to can tell; what this device decides, its handle tells")
        context = OperationContext(self._traces(), policy or "")
        found = await self._port.execute_resolve(ResolveRequest(idem, context, nodes or ()))
        if self._layered is not None:
            await self._layered.resolved(found)
        return found

    async def _judged(self, idem: str, queued: WriteResult) -> Resolution:
        """The hub's verdict on a write of the outbox, once it is there."""
        items = await await_verdicts(queued.items, queued.receipts)
        meta = ExecutionMeta(trace_id=self._traces())
        result = WriteResult(status_of(items), items, meta, (None,) * len(items))
        return Resolution(idem, result, meta)


@dataclass(frozen=True, slots=True)
class Core:
    """The flows, the names and the nursery behind the stores of one client.

    Attributes:
        guard: Refuses calls from other loops; whoever takes a flow has asked it.
        read_flow: Carries reads out.
        write_flow: Carries writes out.
        names: Chooses policies.
        synced: Stores that replicate.
        nursery: Where Observables run.
        live_queries: Live queries, None when there is no local database.
        scopes: Brings scopes along, None where nothing replicates.
    """

    guard: LoopGuard
    read_flow: ReadFlow
    write_flow: WriteFlow
    names: PolicyNames
    synced: frozenset[str]
    nursery: trio.Nursery
    live_queries: LiveQueries | None
    scopes: BringsScopes | None = None

    @property
    def reads(self) -> ReadFlow:
        """Carries reads out.

        Raises:
            WrongLoop: The call comes from another loop than the client's.
            ClosedError: The client is closed.
        """
        self.guard.check()
        return self.read_flow

    @property
    def writes(self) -> WriteFlow:
        """Carries writes out; the same errors."""
        self.guard.check()
        return self.write_flow

    @property
    def live(self) -> LiveQueries:
        """Live queries.

        Raises:
            PluginError: There is no local database to follow.
            WrongLoop: The call comes from another loop than the client's.
            ClosedError: The client is closed.
        """
        self.guard.check()
        if self.live_queries is None:
            raise PluginError("live queries need a local database: add LocalExecution(SQLiteEngine(…)) to plugins")
        return self.live_queries

    def brought(self, query: BoundQuery, bring: Bring) -> AbstractAsyncContextManager[None]:
        """Have what ``bring`` says of ``query`` replicate for as long as the block lasts.

        Raises:
            ConfigurationError: Nothing replicates here.
            WrongLoop: The call comes from another loop than the client's.
            ClosedError: The client is closed.
        """
        if not bring:
            return nullcontext()
        self.guard.check()
        if self.scopes is None:
            raise ConfigurationError(
                "bring=… has the scopes of a query replicate: add Sync(stores=…) and Remote(…) to plugins"
            )
        if bring is True:
            return self.scopes.hold_for(query)
        return self.scopes.hold_for(query, [bring] if isinstance(bring, ScopePart) else list(bring))
