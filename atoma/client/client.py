"""``open_client``: puts schema, plugins, kernel and runtime together, checks them, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar, overload

import trio

from atoma.client.context import Planes
from atoma.client.inbox import ConflictInbox
from atoma.client.ordering import check_plugins, in_order
from atoma.contracts.checks import is_a
from atoma.contracts.execution import Resolution
from atoma.contracts.explanation import Explanation
from atoma.contracts.policy import Policy
from atoma.errors import ConfigurationError, PluginError, TopologyError, WriteUnknown
from atoma.kernel import FORMS, EventDispatch, ExecutionKernel, Form, Topology
from atoma.plugins import Listener, Plugin, Replicating, Undo
from atoma.ports import APPLY, LIVE_QUERIES, LOCAL_DATABASE, Commit, CommitFeed, Environment
from atoma.ports.live import LiveBatch
from atoma.ports.loops import Lifetime, LoopGuard, lifetime
from atoma.ports.tasks import open_tasks
from atoma.query import Query
from atoma.runtime import Page, Runtime, Store, Transaction
from atoma.runtime.applying import ApplyFlow
from atoma.runtime.raw import read_sql
from atoma.runtime.registry import PolicyNames
from atoma.runtime.writeback import WriteBack
from atoma.schema import Schema, StoreSpec
from atoma.sync import SYNC_CONTROL, SyncControl
from atoma.sync.writebacks import ReplicationPart

if TYPE_CHECKING:
    from reactivex import Observable

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

    async def query(self, query: Query[T], *, policy: str | None = None) -> Page[T]:
        """The rows of ``query``, a ``select(STORE)…``; ``query.after(page.end)`` is the next page.

        Args:
            query: What to read.
            policy: How to carry it out; None is the policy of the store.

        Raises:
            QueryError: The query does not fit the schema.
            UnknownStore: It reads a store that is not declared.

        The caller's cancel scope is the only time limit; a cancelled read has changed nothing.
        """
        return await self._runtime.reading.query(query, policy)

    async def first(self, query: Query[T], *, policy: str | None = None) -> T | None:
        """The first row of ``query``, or None; see :meth:`query`."""
        return await self._runtime.reading.first(query, policy)

    async def count(self, query: Query[T], *, policy: str | None = None) -> int:
        """How many rows ``query`` matches (limit, offset and cursor do not apply); see :meth:`query`."""
        return await self._runtime.reading.count(query, policy)

    async def exists(self, query: Query[T], *, policy: str | None = None) -> bool:
        """Whether a row matches ``query``; see :meth:`query`."""
        return await self._runtime.reading.exists(query, policy)

    def live(self, query: Query[T]) -> Lifetime[AsyncIterator[LiveBatch[T]]]:
        """Follow ``query``: the first batch is a ``Reset``, then one batch per commit that changes the result.

        A slow reader gets what it missed as one ``Reset``. Leaving the block ends the subscription.

        Raises:
            QueryError: The query does not fit the schema.
        """
        return self._runtime.reading.live(query)

    def observe(self, query: Query[T]) -> Observable[tuple[T, ...]]:
        """A cold reactivex Observable of the whole result, again after each commit that changes it.

        Disposing the subscription ends it; closing the client completes it.
        """
        return self._runtime.reading.observe(query)

    async def update_where(
        self,
        query: Query[T],
        changes: Mapping[str, object] | None = None,
        /,
        *,
        policy: str | None = None,
        **fields: object,
    ) -> tuple[str, ...]:
        """Change fields of every row that ``query`` finds, as one write; the ids of the rows.

        The rows are those that match in the moment of the write. Their ids stand in it: where it is replayed or decided, nobody
        asks again.

        Args:
            query: What to change: whole rows of one store, ``select(CARDS).where(…)``; with ``limit`` at most so many.
            changes: Fields by name, for names that are no arguments.
            policy: How to carry it out; None is the policy of the store. It has to write on this device or in its outbox.
            fields: Fields by name.

        Raises:
            QueryError: The query does not fit, or finds more rows than one write may change.
            ValidationError: Unknown field, wrong type or value; nothing was written.
            PolicyNotAllowed: The rows are of several scopes, or the policy writes elsewhere.
            ConflictError: A unique index refuses a row, or other rows matched each time; nothing was written.
        """
        return await self._runtime.by_query.update(query, {**(changes or {}), **fields}, policy)

    async def delete_where(self, query: Query[T], *, policy: str | None = None) -> tuple[str, ...]:
        """Remove every row that ``query`` finds, as one write; the ids of the rows. See :meth:`update_where`."""
        return await self._runtime.by_query.delete(query, policy)

    def transaction(self, *, policy: str | None = None) -> Transaction:
        """Several stores, one atomic write: ``async with client.transaction() as tx: await tx.store(A).insert(…)``."""
        return self._runtime.transaction(policy)

    async def resolve(self, write: WriteUnknown | str, *, policy: str | None = None) -> Resolution:
        """Find out what became of a write whose answer was lost.

        The authority either tells the answer again, or makes sure for ever that the write is not applied: a copy of it
        that is still under way is refused with ``ABANDONED``. Ask as often as you like, the answer stays the same.
        A write that this device shows meanwhile is settled by it. Only who wrote can ask, with the same user's token.

        A write on a store that replicates lies in this device's outbox, where nothing of it is lost: it is followed until
        the hub has judged it, and is never abandoned. So a strict write that outlasted the time of its policy goes on here,
        also after a restart.

        Args:
            write: The error that was raised, or its key ``idem`` if that is all that is left, after a restart for example.
            policy: With a bare key: a policy that writes where the write went; None is the client's default.

        Returns:
            ``resolution.result`` is the lost answer, refused items included; when ``resolution.abandoned``, nothing was
            applied and the same may be written again.

        Raises:
            WriteUnknown: The authority could not be reached or its answer was lost: nothing has changed, ask again.
            NotResolvable: Nobody who could be asked decides about the write.
            ClosedError: The client was closed while the hub's verdict on a write of the outbox was waited for.
            RemoteError: The authority cannot tell; with ``KEY_EXPIRED``, because it has forgotten answers that old.
            AuthenticationError: The authority does not accept the token.

        The caller's cancel scope is the only time limit; cancelled, the write is unknown or resolved: ask again.
        """
        return await self._runtime.resolve(write, policy)

    @property
    def sync(self) -> SyncControl:
        """The sync lanes: status, outbox, inbox, pause and resume.

        Raises:
            PluginError: This client does not sync.
        """
        control = self._planes.find(SYNC_CONTROL)
        if control is None:
            raise PluginError("this client does not sync: add Sync(stores=…) and Remote(…) to plugins")
        return control

    @property
    def inbox(self) -> ConflictInbox:
        """What the hub refused or cut of this device's work.

        Raises:
            PluginError: This client does not sync.
        """
        return ConflictInbox(self.sync.inbox, self._runtime)

    def topology(self) -> Topology:
        """What this client is made of, each part with its owner; breakers and queues as they are.

        Nodes, policies (available or not, and why), transports and ports; the policy and the durability of each store.
        """
        return self._kernel.topology()

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy as data, available or not."""
        return tuple(self._kernel.policies)

    async def sql(self, into: type[T], text: str, /, **params: object) -> tuple[T, ...]:
        """The rows of a statement in SQLite's SQL, which only reads, on this device's file and never elsewhere.

        Stores are tables with their declared fields, as columns keep them: a decimal with a scale is a whole number, for one.
        Whatever scopes the rows belong to, all that are on this device are there.

        Args:
            into: What a row becomes: a dataclass, struct or attrs class by the names of the columns, ``dict``, a named or a
                plain tuple, or the type of the only column.
            text: One statement; a value stands in it as ``:name``.
            params: The values by their names.

        Raises:
            QueryError: SQLite does not understand it, it does something else than read stores, a value is missing or not
                asked for, or a row is no ``into``.
            ConfigurationError: There is no local database.
            StoreError: The engine failed.

        A caller that is cancelled has the statement interrupted.
        """
        self._runtime.core.guard.check()
        database = self._planes.find(LOCAL_DATABASE)
        return await read_sql(database, into, text, params)

    @overload
    def explain(self, what: Query[T]) -> Awaitable[Explanation]: ...

    @overload
    def explain(self, what: str | None = None, *, format: Form = "text") -> str: ...

    def explain(self, what: Query[T] | str | None = None, *, format: Form = "text") -> Awaitable[Explanation] | str:
        """Say what a query or a policy will do, before anything runs.

        Args:
            what: A query, ``print(await client.explain(select(CARDS).where(…)))``: how this device's database will read each
                store, how the query is followed, whether a hub answers it, and which index is missing. Or the name of a policy,
                to be drawn; None draws all of them as text, each with why it cannot be selected.
            format: How a policy is drawn: ``text`` is an indented tree, ``mermaid`` a flowchart for Markdown, ``svg`` a
                complete SVG document.

        Raises:
            QueryError: The query does not fit the schema.
            UnknownPolicy: There is no such policy.
            ConfigurationError: There is no such format; or a drawing shows one policy, and none is named.
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
        """Hear kernel and sync events; call what is returned to stop."""
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
        plugins: What the client is made of; set up in the order of what they need, nothing is added silently.
        policy: The policy of stores and calls that name none; None is ``direct-local``, and ``sync-queue`` for stores that
            replicate. ``topology()`` shows which each store has.
        environment: Clock, ids, randomness, executor; the real ones by default.

    Raises:
        ConfigurationError: What was passed is no schema.
        TopologyError: The parts do not fit together; every fault is listed with its remedy, and what plugins had opened is
            closed again.
        PluginError: A plugin is malformed, or two claim one name.
        StoreError: The database cannot be opened.
    """
    if not is_a(schema, Schema):
        raise ConfigurationError(f"open_client() takes a schema first, Schema(StoreSpec(…), …), not {schema!r}")
    checked = check_plugins(plugins)
    ordered, problems = in_order(checked, {APPLY.name: LOCAL_DATABASE.name})
    if problems:
        raise TopologyError(problems)
    guard = LoopGuard("the client")
    environment = environment or Environment()
    events = EventDispatch()
    ended = trio.Event()
    async with open_tasks() as supervisor:
        nursery = await supervisor.start(_background, ended)
        planes = Planes(schema, environment, nursery, _synced(checked), events)
        async with AsyncExitStack() as stack:
            stack.callback(guard.close)
            stack.callback(planes.undo_all)
            stack.callback(events.flush)  # listeners hear the end before they are taken off
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


def _synced(plugins: Sequence[Plugin]) -> frozenset[str]:
    names: set[str] = set()
    for plugin in plugins:
        names.update(plugin.synced_stores if isinstance(plugin, Replicating) else ())
    return frozenset(names)


async def _set_up(planes: Planes, plugins: Sequence[Plugin], stack: AsyncExitStack) -> ApplyFlow | None:
    """Open the plugins; the way into the local database that one of them offers, with what sync changes on it."""
    apply: ApplyFlow | None = None
    for plugin in plugins:
        planes.owner = plugin.id
        await stack.enter_async_context(plugin.open(planes))
        database = planes.find(LOCAL_DATABASE)
        if database is not None and apply is None:
            planes.owner = "client"
            apply = ApplyFlow(database, planes.synced_stores, ReplicationPart(planes.environment.ids))
            planes.provide(APPLY, apply)
    planes.owner = "client"
    return apply


def _follow_commits(kernel: ExecutionKernel, schema: Schema, feed: CommitFeed) -> Undo:
    """End cached answers with every commit that changes their store, whoever makes it: a pull, a write-back, a rollback."""
    last = 0

    def hear(commit: Commit) -> None:
        nonlocal last
        alone = commit.commit == last + 1
        last = max(last, commit.commit)
        kernel.invalidate(commit.changes if alone else schema.stores)  # what is missing may have changed anything

    return feed.subscribe_commits(hear)


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
    if isinstance(database, CommitFeed):
        stack.callback(_follow_commits(kernel, schema, database))
    topology = kernel.topology()
    runtime = Runtime(
        schema,
        query=kernel,
        write=kernel,
        writeback=writeback,
        live=planes.find(LIVE_QUERIES),
        names=PolicyNames(topology.default, topology.stores, frozenset(info.name for info in topology.policies)),
        environment=environment,
        synced=synced,
        nursery=planes.nursery,
        guard=guard,
        reach=kernel.write_reach,
        emit=events.emit,
        resolve=kernel,
        recall=None if database is None else database.recall,
    )
    return Client(schema, runtime, kernel, planes)
