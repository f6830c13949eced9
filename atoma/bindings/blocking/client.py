"""The client, for blocking calls; made by ``python -m atoma.bindings.generate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar, overload

import atoma.client.client
from atoma.bindings.blocking.history import CommitHistory, UndoStack
from atoma.bindings.blocking.host import Lifetime, Values, held, listen, observe, run, run_sync
from atoma.bindings.blocking.results import WriteHandle
from atoma.bindings.blocking.store import Store
from atoma.bindings.blocking.sync import ConflictInbox, Presence, Quarantine, SyncControl
from atoma.bindings.blocking.transaction import Transaction
from atoma.bindings.portal import Portal
from atoma.contracts.execution import Resolution
from atoma.contracts.explanation import Explanation
from atoma.contracts.policy import Policy
from atoma.errors import WriteUnknown
from atoma.kernel import Form, Topology
from atoma.plugins import Listener, Undo
from atoma.ports.live import LiveBatch
from atoma.query import Query
from atoma.runtime import Page
from atoma.runtime.functions import LiveFunction
from atoma.schema import Bring, Schema, StoreSpec

if TYPE_CHECKING:
    from reactivex import Observable

T = TypeVar("T")


class Client:
    """An open client. Get one with :func:`open_client`.

    Attributes:
        schema: The declared stores.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.client.client.Client) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    @property
    def schema(self) -> Schema:
        """The declared stores."""
        return self._native.schema

    def store(self, spec: StoreSpec[T]) -> Store[T]:
        """The store of ``spec``.

        Raises:
            UnknownStore: The schema does not declare it.
        """
        return Store(self._portal, self._native.store(spec))

    def query(self, query: Query[T], *, policy: str | None = None, bring: Bring = False) -> Page[T]:
        """The rows of ``query``, a ``select(STORE)…``; ``query.after(page.end)`` is the next page.

        Args:
            query: What to read.
            policy: How to carry it out; None is the policy of the store.
            bring: Have the scopes that the query looks at replicate from now on, until they age out; or parts of them,
                ``bring=RECENT.of("team:7", since=…)``, of each store that it reads. With the policy ``network-only`` their
                rows are in the answer; with another one what is here is, and :attr:`~Page.meta` says whether it is complete.

        Raises:
            QueryError: The query does not fit the schema, or is to bring its scopes and does not name them (``SCOPES_NOT_NAMED``).
            ConfigurationError: It is to bring its scopes, and nothing replicates here.
            UnknownStore: It reads a store that is not declared.

        The caller's :func:`fail_after` is the only time limit; a cancelled read has changed nothing.
        """
        return run(self._portal, lambda: self._native.query(query, policy=policy, bring=bring))

    def first(self, query: Query[T], *, policy: str | None = None) -> T | None:
        """The first row of ``query``, or None; see :meth:`query`."""
        return run(self._portal, lambda: self._native.first(query, policy=policy))

    def count(self, query: Query[T], *, policy: str | None = None) -> int:
        """How many rows ``query`` matches (limit, offset and cursor do not apply); see :meth:`query`."""
        return run(self._portal, lambda: self._native.count(query, policy=policy))

    def exists(self, query: Query[T], *, policy: str | None = None) -> bool:
        """Whether a row matches ``query``; see :meth:`query`."""
        return run(self._portal, lambda: self._native.exists(query, policy=policy))

    @overload
    def live(
        self,
        what: Query[T],
        *,
        policy: str | None = None,
        bring: Bring = False,
    ) -> Lifetime[Iterator[LiveBatch[T]]]: ...
    @overload
    def live(self, what: LiveFunction[T]) -> Lifetime[Iterator[T]]: ...
    @overload
    def live(
        self,
        what: Query[T] | LiveFunction[T],
        *,
        policy: str | None = None,
        bring: Bring = False,
    ) -> Lifetime[Iterator[object]]: ...
    def live(
        self,
        what: Query[T] | LiveFunction[T],
        *,
        policy: str | None = None,
        bring: Bring = False,
    ) -> Lifetime[Iterator[object]]:
        """Follow a query, or the value of a function of reads.

        Of a query the first batch is a ``Reset``, then comes one batch per commit that changes the result. A slow reader gets
        what it missed as one ``Reset``. Leaving the block ends the subscription.

        Args:
            what: A query. Or a function, ``async def overview(reads): …``, that awaits nothing but ``reads.query(…)``, ``first``,
                ``count``, ``exists``, ``get`` and ``sql``: all of its reads see one state of the database, and it is carried out again when a
                change concerns the rows and columns that it has read. An equal value does not come again; all who follow
                one function share it.
            policy: How to fetch it as it is opened: ``network-only`` gives nothing before the hub's rows are here, ``cache-and-network``
                gives what is here and fetches them meanwhile. None fetches nothing; the sync lanes bring what they bring.
            bring: Have the scopes that the query looks at replicate for as long as it is followed, and until they age out after it; or parts of
                them, as in :meth:`query`, which is complete where its conditions are no wider than those of their shapes. The
                batches are ``partial`` until their rows are here.

        Raises:
            QueryError: The query does not fit the schema, or is to bring its scopes and does not name them (``SCOPES_NOT_NAMED``); from
                the iterator, what a function asks for does not fit, or it awaits something else.
            ConfigurationError: A function is to be fetched, or to bring scopes: it reads what is here. Or nothing replicates here
                that could be brought.
            AtomaError: What the policy ended with.
        """
        return held(self._portal, "live", lambda: self._native.live(what, policy=policy, bring=bring), Values)

    def observe(self, query: Query[T], *, policy: str | None = None, bring: Bring = False) -> Observable[tuple[T, ...]]:
        """A cold reactivex Observable of the whole result, again after each commit that changes it.

        Disposing the subscription ends it; closing the client completes it. ``policy`` and ``bring`` are as in :meth:`live`, for
        each subscription.
        """
        return observe(self._portal, lambda: self._native.live(query, policy=policy, bring=bring))

    def update_where(
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
            changes: Fields by name, for names that cannot be arguments.
            policy: How to carry it out; None is the policy of the store. It has to write on this device or in its outbox.
            fields: Fields by name.

        Raises:
            QueryError: The query does not fit, or finds more rows than one write may change.
            ValidationError: Unknown field, wrong type or value; nothing was written.
            PolicyNotAllowed: The rows are of several scopes, or the policy writes elsewhere.
            ConflictError: A unique index refuses a row, or other rows matched each time; nothing was written.
        """
        return run(self._portal, lambda: self._native.update_where(query, changes, policy=policy, **fields))

    def delete_where(self, query: Query[T], *, policy: str | None = None) -> tuple[str, ...]:
        """Remove every row that ``query`` finds, as one write; the ids of the rows. See :meth:`update_where`."""
        return run(self._portal, lambda: self._native.delete_where(query, policy=policy))

    def transaction(self, *, policy: str | None = None) -> Transaction:
        """Several stores, one atomic write: ``with client.transaction() as tx: tx.store(A).insert(…)``."""
        return Transaction(self._portal, self._native.transaction(policy=policy))

    def resolve(self, write: WriteUnknown | str, *, policy: str | None = None) -> Resolution:
        """Find out what became of a write whose answer was lost.

        The authority either gives the answer again, or makes sure for ever that the write is not applied: a copy of it
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

        The caller's :func:`fail_after` is the only time limit; cancelled, the write is unknown or resolved: ask again.
        """
        return run(self._portal, lambda: self._native.resolve(write, policy=policy))

    def handle(self, key: str) -> WriteHandle[object]:
        """The handle of a write by its ``handle.key``, after a restart too: it follows the write on.

        Its ``value`` is None: the row is read where it is. Known are the last 10,000 calls that put something into the outbox.

        Raises:
            NotResolvable: Nothing with this key was put into this device's outbox, or it was forgotten.
        """
        native = run(self._portal, lambda: self._native.handle(key))
        return WriteHandle(self._portal, native)

    @property
    def history(self) -> CommitHistory:
        """What this device remembers of its past: commits, what they changed, its rows as they were.

        Raises:
            ConfigurationError: It remembers nothing.
        """
        return CommitHistory(self._portal, self._native.history)

    @property
    def undo(self) -> UndoStack:
        """What can be undone and redone: ``with client.undo.group("Move card"):`` and ``client.undo.undo()``.

        Raises:
            ConfigurationError: This device remembers nothing of its past.
        """
        return UndoStack(self._portal, self._native.undo)

    @property
    def sync(self) -> SyncControl:
        """The sync lanes: status, outbox, inbox, pause and resume.

        Raises:
            PluginError: This client does not sync.
        """
        return SyncControl(self._portal, self._native.sync)

    def presence(self, scope: str, state: T) -> Lifetime[Presence[T]]:
        """Be in ``scope`` while the block runs: who else is there sees ``state``, and ``here.others`` are they. Nothing is stored.

        Whoever may read the scope sees who is there. A state is a dataclass, or what else JSON can say, of a kilobyte at most.

        Raises:
            ConfigurationError: No scope can have this name; as ``PluginError``, this client does not sync.
            ValidationError: The state is no JSON, cannot be read back as what it is, or is too large.
        """
        return held(self._portal, "presence", lambda: self._native.presence(scope, state), Presence)

    @property
    def inbox(self) -> ConflictInbox:
        """What the hub refused or cut of this device's work.

        Raises:
            PluginError: This client does not sync.
        """
        return ConflictInbox(self._portal, self._native.inbox)

    @property
    def quarantine(self) -> Quarantine:
        """What migrations of this device's file could not convert: to be corrected and brought back, or let go of.

        Raises:
            PluginError: There is no local database.
        """
        return Quarantine(self._portal, self._native.quarantine)

    def topology(self) -> Topology:
        """What this client is made of, each part with its owner; breakers and queues as they are.

        Nodes, policies (available or not, and why), transports and ports; the policy and the durability of each store.
        """
        return run_sync(self._portal, self._native.topology)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy as data, available or not."""
        return self._native.policies

    def sql(self, into: type[T], text: str, /, **params: object) -> tuple[T, ...]:
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
                asked for, or a row does not make an ``into``.
            ConfigurationError: There is no local database.
            StoreError: The engine failed.

        A caller that is cancelled has the statement interrupted.
        """
        return run(self._portal, lambda: self._native.sql(into, text, **params))

    def live_sql(self, into: type[T], text: str, /, **params: object) -> Lifetime[Iterator[LiveBatch[T]]]:
        """Follow the rows of a statement in SQLite's SQL; its arguments are those of :meth:`sql`, its batches those of :meth:`live`.

        SQLite says which fields of which stores it reads. It is asked again when a change reaches one of them, whoever made
        it; of equal rows nothing is told. What it makes of the time (``date('now')``) is of the moment in which it was asked.
        Every other live result of the client waits for it.

        Raises:
            QueryError: As of :meth:`sql`; from the iterator, it took more than 10 seconds, gives more than 100,000 rows, or a
                row does not make an ``into``.
            ConfigurationError: There is no local database.
            StoreError: The engine failed.

        Leaving the block ends the subscription, and interrupts the statement that runs for it alone.
        """
        return held(self._portal, "live_sql", lambda: self._native.live_sql(into, text, **params), Values)

    def explain_sql(self, text: str, /, **params: object) -> Explanation:
        """What :meth:`sql` and :meth:`live_sql` will do with a statement: how SQLite reads each source, and what it is followed by.

        Raises:
            QueryError: As of :meth:`sql`.
            ConfigurationError: There is no local database.
            StoreError: The engine failed.
        """
        return run(self._portal, lambda: self._native.explain_sql(text, **params))

    @overload
    def explain(self, what: Query[T]) -> Explanation: ...
    @overload
    def explain(self, what: str | None = None, *, format: Form = "text") -> str: ...
    def explain(self, what: Query[T] | str | None = None, *, format: Form = "text") -> Explanation | str:
        """Say what a query or a policy will do, before anything runs.

        Args:
            what: A query, ``print(client.explain(select(CARDS).where(…)))``: how this device's database will read each
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
            return run(self._portal, lambda: self._native.explain(what))
        return run_sync(self._portal, lambda: self._native.explain(what, format=format))

    def listen(self, listener: Listener) -> Undo:
        """Call ``listener`` with kernel and sync events; call what is returned to stop."""
        return listen(self._portal, self._native.listen, listener)
