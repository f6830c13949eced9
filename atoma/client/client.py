"""``open_client``: puts schema, plugins, kernel and runtime together, checks them, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar, cast, overload

import trio

from atoma.client.context import Planes
from atoma.client.inbox import ConflictInbox
from atoma.client.ordering import check_plugins, in_order
from atoma.client.replicating import check_set_by_hub, replication_part, stores_that_replicate
from atoma.contracts.checks import is_a
from atoma.contracts.execution import Resolution
from atoma.contracts.explanation import Explanation
from atoma.contracts.policy import Policy
from atoma.errors import ConfigurationError, PluginError, TopologyError, WriteUnknown
from atoma.kernel import FORMS, EventDispatch, ExecutionKernel, Form, Topology
from atoma.plugins import Listener, Plugin, Undo
from atoma.ports import (
    APPLY,
    COMPLETENESS,
    LIVE_QUERIES,
    LOCAL_DATABASE,
    SCOPES,
    Commit,
    CommitFeed,
    Environment,
    PortKey,
)
from atoma.ports.history import LocalHistory, history_of
from atoma.ports.live import LiveBatch
from atoma.ports.loops import Lifetime, LoopGuard, lifetime
from atoma.ports.tasks import open_tasks
from atoma.query import Query
from atoma.query.related import check_relations
from atoma.runtime import Page, Runtime, Store, Transaction
from atoma.runtime.applying import ApplyFlow
from atoma.runtime.functions import LiveFunction, live_value
from atoma.runtime.history import CommitHistory
from atoma.runtime.observed import declare_observable
from atoma.runtime.raw import explain_sql, live_sql, read_sql
from atoma.runtime.registry import PolicyNames
from atoma.runtime.results import WriteHandle
from atoma.runtime.undo import UndoStack
from atoma.runtime.writeback import WriteBack
from atoma.schema import Bring, Schema, StoreSpec

if TYPE_CHECKING:
    from reactivex import Observable

    from atoma.runtime.quarantine import Quarantine
    from atoma.sync import Presence, SyncControl

T = TypeVar("T")


class Client:
    """An open client. Get one with :func:`open_client`.

    Attributes:
        schema: The declared stores.
    """

    def __init__(self, schema: Schema, runtime: Runtime, kernel: ExecutionKernel, planes: Planes) -> None:
        self.schema = schema
        self._runtime = runtime
        self._kernel = kernel
        self._planes = planes

    @property
    def _guard(self) -> LoopGuard:
        return self._runtime.core.guard

    def store(self, spec: StoreSpec[T]) -> Store[T]:
        """The store of ``spec``.

        Raises:
            UnknownStore: The schema does not declare it.
        """
        return self._runtime.store(spec)

    async def query(self, query: Query[T], *, policy: str | None = None, bring: Bring = False) -> Page[T]:
        """Read the rows of ``query``, a ``select(STORE)…``; ``query.after(page.end)`` is the next page.

        Args:
            query: What to read.
            policy: How to carry it out; None is the policy of the store.
            bring: Replicate the scopes that the query looks at from now on, until they age out; or parts of them,
                ``bring=RECENT.of("team:7", since=…)``, for each store that it reads. With the policy ``network-only``
                the answer has their rows; with any other it has the rows on this device, and :attr:`~Page.meta` says
                whether they are complete.

        Raises:
            QueryError: The query does not fit the schema, or has ``bring`` and does not name its scopes
                (``SCOPES_NOT_NAMED``).
            ConfigurationError: The query has ``bring``, and this client does not replicate.
            UnknownStore: It reads a store that is not declared.

        The caller's cancel scope is the only time limit; a cancelled read has changed nothing.
        """
        return await self._runtime.reading.query(query, policy, bring=bring)

    async def first(self, query: Query[T], *, policy: str | None = None) -> T | None:
        """Read the first row of ``query``, or None; see :meth:`query`."""
        return await self._runtime.reading.first(query, policy)

    async def count(self, query: Query[T], *, policy: str | None = None) -> int:
        """Count the rows that match ``query`` (limit, offset and cursor do not apply); see :meth:`query`."""
        return await self._runtime.reading.count(query, policy)

    async def exists(self, query: Query[T], *, policy: str | None = None) -> bool:
        """Return whether a row matches ``query``; see :meth:`query`."""
        return await self._runtime.reading.exists(query, policy)

    @overload
    def live(
        self, what: Query[T], *, policy: str | None = None, bring: Bring = False
    ) -> Lifetime[AsyncIterator[LiveBatch[T]]]: ...

    @overload
    def live(self, what: LiveFunction[T]) -> Lifetime[AsyncIterator[T]]: ...

    @overload
    def live(
        self, what: Query[T] | LiveFunction[T], *, policy: str | None = None, bring: Bring = False
    ) -> Lifetime[AsyncIterator[object]]: ...

    def live(
        self, what: Query[T] | LiveFunction[T], *, policy: str | None = None, bring: Bring = False
    ) -> Lifetime[AsyncIterator[object]]:
        """Follow a query, or the value of a function of reads.

        The first batch of a query is a ``Reset``; after that, each commit that changes the result sends one batch. A
        slow reader gets everything that it missed as one ``Reset``. Leaving the block ends the subscription.

        Args:
            what: A query. Or a function, ``async def overview(reads): …``, that awaits only ``reads.query(…)``,
                ``first``, ``count``, ``exists``, ``get`` and ``sql``: all of its reads see one state of the database,
                and it runs again when a change concerns rows and columns that it has read. An equal value is not
                delivered again; subscriptions to the same function share its runs.
            policy: How to fetch the result when the query is opened: ``network-only`` gives nothing before the hub's
                rows have arrived; ``cache-and-network`` gives this device's rows and fetches the hub's meanwhile.
                None fetches nothing and relies on the sync lanes.
            bring: Replicate the scopes that the query looks at for as long as it is followed, and afterwards until
                they age out; or parts of them, as in :meth:`query`. With parts the query is complete if its
                conditions are no wider than those of their shapes. The batches are ``partial`` until the rows have
                arrived.

        Raises:
            QueryError: The query does not fit the schema, or has ``bring`` and does not name its scopes
                (``SCOPES_NOT_NAMED``); from the iterator, a read of a function does not fit, or the function awaits
                something else.
            ConfigurationError: ``policy`` or ``bring`` was given for a function, which reads only this device's rows;
                or this client does not replicate.
            AtomaError: The error with which the policy ended.
        """
        if is_a(what, Query) or not callable(what):
            return self._runtime.reading.live(cast("Query[T]", what), policy, bring=bring)
        if policy is not None or bring:
            raise ConfigurationError(
                "a function is followed over what is on this device; fetch the queries that it reads"
            )
        return live_value(self._runtime.core, self.schema, what)

    def observe(self, query: Query[T], *, policy: str | None = None, bring: Bring = False) -> Observable[tuple[T, ...]]:
        """Return a cold reactivex Observable, which emits the whole result after each commit that changes it.

        Disposing the subscription ends it; closing the client completes it. ``policy`` and ``bring`` are as in
        :meth:`live`, for each subscription.
        """
        return self._runtime.reading.observe(query, policy, bring=bring)

    async def update_where(
        self,
        query: Query[T],
        changes: Mapping[str, object] | None = None,
        /,
        *,
        policy: str | None = None,
        **fields: object,
    ) -> tuple[str, ...]:
        """Change fields of every row that ``query`` finds, as one write; returns the ids of the rows.

        The write changes the rows that match at the moment of the write, and holds their ids: when it is replayed or
        decided, the query does not run again.

        Args:
            query: The rows to change: whole rows of one store, ``select(CARDS).where(…)``; with ``limit`` at most
                that many.
            changes: Fields by name, for names that cannot be arguments.
            policy: How to carry it out; None is the policy of the store. It has to write on this device or in its
                outbox.
            fields: Fields by name.

        Raises:
            QueryError: The query does not fit the schema, or finds more rows than one write may change.
            ValidationError: Unknown field, wrong type or value; nothing was written.
            PolicyNotAllowed: The rows belong to several scopes, or the policy writes elsewhere.
            ConflictError: A unique index refuses a row, or other rows matched at each attempt; nothing was written.
        """
        return await self._runtime.by_query.update(query, {**(changes or {}), **fields}, policy)

    async def delete_where(self, query: Query[T], *, policy: str | None = None) -> tuple[str, ...]:
        """Remove every row that ``query`` finds, as one write; returns their ids. See :meth:`update_where`."""
        return await self._runtime.by_query.delete(query, policy)

    def transaction(self, *, policy: str | None = None) -> Transaction:
        """Write several stores atomically: ``async with client.transaction() as tx: await tx.store(A).insert(…)``."""
        return self._runtime.transaction(policy)

    async def resolve(self, write: WriteUnknown | str, *, policy: str | None = None) -> Resolution:
        """Find out what became of a write whose answer was lost.

        The authority either repeats the answer, or makes sure for ever that the write is not applied: a copy of it
        that is still under way is refused with ``ABANDONED``. You may ask as often as you like; the answer stays the
        same. If this device shows the write meanwhile, the answer settles it. Only the user who wrote can ask.

        A write to a store that replicates is in this device's outbox, where it cannot be lost: it is followed until
        the hub has decided it, and is never abandoned. A strict write that took longer than its policy allows can
        therefore be followed here, even after a restart.

        Args:
            write: The error that was raised, or its key ``idem`` if nothing else is left, for example after a restart.
            policy: For a bare key, a policy that writes to the same place as the write; None is the client's default.

        Returns:
            ``resolution.result`` is the lost answer, refused items included; when ``resolution.abandoned``, nothing was
            applied and the same may be written again.

        Raises:
            WriteUnknown: The authority could not be reached or its answer was lost: nothing has changed, ask again.
            NotResolvable: Nobody who could be asked decides about the write.
            ClosedError: The client was closed while it waited for the hub's verdict on a write in the outbox.
            RemoteError: The authority cannot tell; with ``KEY_EXPIRED``, because it has forgotten answers that old.
            AuthenticationError: The authority does not accept the token.

        The caller's cancel scope is the only time limit. After a cancellation the write is unknown or resolved: ask
        again.
        """
        return await self._runtime.resolve(write, policy)

    async def handle(self, key: str) -> WriteHandle[object]:
        """Return the handle of a write by its ``handle.key``, even after a restart; it continues to follow the write.

        Its ``value`` is None; read the row instead. The last 10,000 calls that put something into the outbox are known.

        Raises:
            NotResolvable: No write with this key was put into this device's outbox, or it has been forgotten.
        """
        return await self._runtime.handle(key)

    @property
    def history(self) -> CommitHistory:
        """The history of this device: its commits, what they changed, and its rows as they were.

        Raises:
            ConfigurationError: This device keeps no history.
        """
        return self._runtime.history(self._past())

    @property
    def undo(self) -> UndoStack:
        """Undo and redo: ``with client.undo.group("Move card"):`` and ``await client.undo.undo()``.

        Raises:
            ConfigurationError: This device keeps no history.
        """
        return self._runtime.undo(self._past())

    def _past(self) -> LocalHistory:
        database = self._planes.find(LOCAL_DATABASE)
        past = history_of(database)
        if past is None:
            raise ConfigurationError(
                "this device remembers nothing of its past: open its file with SQLiteEngine(path, history=History(days=30, mib=64))"
            )
        return past

    @property
    def sync(self) -> SyncControl:
        """The sync lanes: status, outbox, inbox, pause and resume.

        Raises:
            PluginError: This client does not sync.
        """
        from atoma.sync import SYNC_CONTROL

        return self._offered(SYNC_CONTROL)

    def _offered(self, key: PortKey[T]) -> T:
        """What ``Sync`` offers.

        Raises:
            PluginError: This client does not sync.
        """
        if (found := self._planes.find(key)) is None:
            raise PluginError("this client does not sync: add Sync(stores=…) and Remote(…) to plugins")
        return found

    def presence(self, scope: str, state: T) -> Lifetime[Presence[T]]:
        """Be present in ``scope`` while the block runs, with ``state`` for others to see; ``here.others`` lists them.

        Nothing is stored. Whoever may read the scope sees who is present. A state is a dataclass, or anything else
        that JSON can express, of at most a kilobyte.

        Raises:
            ConfigurationError: No scope can have this name; as ``PluginError``, this client does not sync.
            ValidationError: The state cannot be written as JSON, cannot be read back as its type, or is too large.
        """
        from atoma.sync.presence_lane import PRESENCE

        return self._offered(PRESENCE).enter(scope, state)

    @property
    def inbox(self) -> ConflictInbox:
        """The conflict inbox: changes of this device that the hub refused or dropped.

        Raises:
            PluginError: This client does not sync.
        """
        return ConflictInbox(self.sync.inbox, self._runtime)

    @property
    def quarantine(self) -> Quarantine:
        """Values that migrations of this file could not convert, to be corrected and brought back, or discarded.

        Raises:
            PluginError: There is no local database.
        """
        from atoma.runtime.quarantine import Quarantine

        database = self._planes.find(LOCAL_DATABASE)
        if database is None:
            raise PluginError("this client has no file: add LocalExecution(SQLiteEngine(…)) to plugins")
        return Quarantine(database, self._runtime)

    def topology(self) -> Topology:
        """Describe the parts of this client, each with its owner, and the state of breakers and queues.

        Listed are nodes, policies (available or not, and why), transports and ports, and the policy and the durability
        of each store.
        """
        return self._kernel.topology()

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Return every policy as data, available or not."""
        return tuple(self._kernel.policies)

    async def sql(self, into: type[T], text: str, /, **params: object) -> tuple[T, ...]:
        """Run a reading statement in SQLite's SQL on this device's file, and never elsewhere; returns its rows.

        Stores are tables with their declared fields, as they are stored: a decimal with a scale is an integer, for
        example. The statement sees all rows on this device, whatever scopes they belong to.

        Args:
            into: The type of a row: a dataclass, struct or attrs class by the names of the columns, ``dict``, a named
                or a plain tuple, or the type of the only column.
            text: One statement, with ``:name`` in place of each value.
            params: The values by their names.

        Raises:
            QueryError: SQLite does not understand the statement, it does anything but read stores, a value is missing
                or superfluous, or a row cannot become an ``into``.
            ConfigurationError: There is no local database.
            StoreError: The engine failed.

        Cancelling the caller interrupts the statement.
        """
        self._runtime.core.guard.check()
        database = self._planes.find(LOCAL_DATABASE)
        return await read_sql(database, into, text, params)

    def live_sql(self, into: type[T], text: str, /, **params: object) -> Lifetime[AsyncIterator[LiveBatch[T]]]:
        """Follow the rows of a statement in SQLite's SQL; its arguments are those of :meth:`sql`, its batches those of :meth:`live`.

        SQLite reports which fields of which stores the statement reads. It runs again when a change reaches one of
        them, whoever made the change; if the rows are equal, nothing is delivered. ``date('now')`` and the like have
        the time of the last run. Every other live result of the client waits for the statement.

        Raises:
            QueryError: As for :meth:`sql`; from the iterator, the statement took more than 10 seconds, returned more
                than 100,000 rows, or a row cannot become an ``into``.
            ConfigurationError: There is no local database.
            StoreError: The engine failed.

        Leaving the block ends the subscription, and interrupts the statement if it runs for this subscription alone.
        """
        database = self._planes.find(LOCAL_DATABASE)
        return live_sql(self._runtime.core, database, into, text, params)

    async def explain_sql(self, text: str, /, **params: object) -> Explanation:
        """Say how SQLite will read each source of a statement, and which changes run it again in :meth:`live_sql`.

        Raises:
            QueryError: As for :meth:`sql`.
            ConfigurationError: There is no local database.
            StoreError: The engine failed.
        """
        self._runtime.core.guard.check()
        database = self._planes.find(LOCAL_DATABASE)
        return await explain_sql(self._runtime.core, database, text, params)

    @overload
    def explain(self, what: Query[T]) -> Awaitable[Explanation]: ...

    @overload
    def explain(self, what: str | None = None, *, format: Form = "text") -> str: ...

    def explain(self, what: Query[T] | str | None = None, *, format: Form = "text") -> Awaitable[Explanation] | str:
        """Say what a query or a policy will do, before anything runs.

        Args:
            what: A query, ``print(await client.explain(select(CARDS).where(…)))``: how this device's database will
                read each store, how the query is followed, whether a hub answers it, and which index is missing. Or
                the name of a policy, which is drawn; None draws all of them as text, and says of each that cannot be
                used why.
            format: How a policy is drawn: ``text`` is an indented tree, ``mermaid`` a flowchart for Markdown, ``svg`` a
                complete SVG document.

        Raises:
            QueryError: The query does not fit the schema.
            UnknownPolicy: There is no such policy.
            ConfigurationError: There is no such format; or the format draws one policy, and none is named.
        """
        if isinstance(what, Query):
            database = self._planes.find(LOCAL_DATABASE)
            return self._runtime.reading.explain(what, database)
        if format not in FORMS:
            raise ConfigurationError(f"explain() draws as {', '.join(FORMS)}, not {format!r}")
        if what is None and format != "text":
            raise ConfigurationError(f"{format} shows one policy: name it, explain('local-first', format={format!r})")
        return self._kernel.explain(what, format)

    def listen(self, listener: Listener) -> Undo:
        """Call ``listener`` with kernel and sync events; call the returned function to stop."""
        self._guard.check()
        return self._planes.register_listener(listener)


@lifetime
async def open_client(
    schema: Schema,
    *,
    plugins: Sequence[Plugin],
    policy: str | None = None,
    environment: Environment | None = None,
) -> AsyncGenerator[Client]:
    """Open a client made of exactly these plugins.

    Leaving the block stops the sync lanes, waits for the running commit, closes the database and leaves no task,
    thread, connection or lock behind; cancelling does the same.

    Args:
        schema: The declared stores.
        plugins: The parts of the client, set up in the order of their dependencies; nothing is added silently.
        policy: The policy for stores and calls that name none; None is ``direct-local``, and ``sync-queue`` for stores
            that replicate. ``topology()`` shows which policy each store has.
        environment: Clock, ids, randomness, executor; the real ones by default.

    Raises:
        ConfigurationError: ``schema`` is not a schema, or a store that is not synced has fields that the hub sets.
        SchemaError: One of the schema's relations does not fit its stores.
        TopologyError: The parts do not fit together; every fault is listed with its remedy, and everything that plugins
            had opened is closed again.
        PluginError: A plugin is malformed, or two claim one name.
        StoreError: The database cannot be opened.
    """
    if not is_a(schema, Schema):
        raise ConfigurationError(f"open_client() takes a schema first, Schema(StoreSpec(…), …), not {schema!r}")
    check_relations(schema)
    declare_observable()
    checked = check_plugins(plugins)
    ordered, problems = in_order(checked, {APPLY.name: LOCAL_DATABASE.name})
    if problems:
        raise TopologyError(problems)
    guard = LoopGuard("the client")
    environment = (environment or Environment()).in_this_loop()
    events = EventDispatch()
    ended = trio.Event()
    async with open_tasks() as supervisor:
        nursery = await supervisor.start(_background, ended)
        planes = Planes(schema, environment, nursery, stores_that_replicate(checked), events)
        async with AsyncExitStack() as stack:
            stack.callback(guard.close)
            stack.callback(planes.undo_all)
            stack.callback(events.flush)  # listeners receive the end before they are taken off
            try:
                apply = await _set_up(planes, ordered, stack)
                client = _assemble(schema, policy, planes, apply, events, guard, stack)
                nursery.start_soon(events.deliver)
                planes.ready.set()
                yield client
            finally:
                # lanes and detached steps end before the plugins' resources are closed
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await ended.wait()


async def _background(ended: trio.Event, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """The nursery of lanes and detached steps, in a task of its own: plugins clean up after it, uncancelled."""
    try:
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.sleep_forever()
    finally:
        ended.set()


async def _set_up(planes: Planes, plugins: Sequence[Plugin], stack: AsyncExitStack) -> ApplyFlow | None:
    """Open the plugins; the way into the local database that one of them offers, with what sync changes on it."""
    apply: ApplyFlow | None = None
    for plugin in plugins:
        planes.owner = plugin.id
        await stack.enter_async_context(plugin.open(planes))
        database = planes.find(LOCAL_DATABASE)
        if database is not None and apply is None:
            planes.owner = "client"
            apply = ApplyFlow(database, planes.synced_stores, replication_part(planes.environment.ids))
            planes.provide(APPLY, apply)
    planes.owner = "client"
    return apply


def _follow_commits(kernel: ExecutionKernel, schema: Schema, feed: CommitFeed) -> Undo:
    """End cached answers with every commit that changes their store, whoever makes it: a pull, a write-back, a rollback."""
    last = 0

    def follow(commit: Commit) -> None:
        nonlocal last
        alone = commit.commit == last + 1
        last = max(last, commit.commit)
        kernel.invalidate(commit.changes if alone else schema.stores)  # what is missing may have changed anything

    return feed.subscribe_commits(follow)


def _assemble(
    schema: Schema,
    policy: str | None,
    planes: Planes,
    apply: ApplyFlow | None,
    events: EventDispatch,
    guard: LoopGuard,
    stack: AsyncExitStack,
) -> Client:
    environment, synced = planes.environment, planes.synced_stores
    check_set_by_hub(schema, synced)
    writeback, database = WriteBack(apply, synced), planes.find(LOCAL_DATABASE)
    kernel = ExecutionKernel(
        schema,
        nodes=planes.nodes,
        policies=tuple(planes.policies.values()),
        environment=environment,
        events=events,
        nursery=planes.nursery,
        writer=database,
        synced=synced,
        default=policy,
        owners=dict(planes.owners),
        detached=writeback,
    )
    known = planes.find(COMPLETENESS)
    if known is not None:
        known.keep_beyond(kernel.kept_elsewhere)
    runtime = Runtime(
        schema,
        query=kernel,
        write=kernel,
        writeback=writeback,
        live=planes.find(LIVE_QUERIES),
        names=PolicyNames(kernel.default, kernel.stores, kernel.policies.names),
        environment=environment,
        synced=synced,
        nursery=planes.nursery,
        guard=guard,
        reach=kernel.write_reach,
        is_remote=kernel.writes_remotely,
        emit=events.emit,
        resolve=kernel,
        recall=None if database is None else database.recall,
        scopes=planes.find(SCOPES),
    )
    if kernel.caches and isinstance(database, CommitFeed):
        stack.callback(_follow_commits(kernel, schema, database))
    if runtime.hooks.listens:
        if isinstance(database, CommitFeed):
            stack.callback(database.subscribe_commits(runtime.hooks.hear))
        planes.nursery.start_soon(runtime.hooks.run, name="after_save")
    return Client(schema, runtime, kernel, planes)
