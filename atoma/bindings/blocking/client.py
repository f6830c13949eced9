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

        The caller's :func:`fail_after` is the only time limit; a cancelled read has changed nothing.
        """
        return run(self._portal, lambda: self._native.query(query, policy=policy, bring=bring))

    def first(self, query: Query[T], *, policy: str | None = None) -> T | None:
        """Read the first row of ``query``, or None; see :meth:`query`."""
        return run(self._portal, lambda: self._native.first(query, policy=policy))

    def count(self, query: Query[T], *, policy: str | None = None) -> int:
        """Count the rows that match ``query`` (limit, offset and cursor do not apply); see :meth:`query`."""
        return run(self._portal, lambda: self._native.count(query, policy=policy))

    def exists(self, query: Query[T], *, policy: str | None = None) -> bool:
        """Return whether a row matches ``query``; see :meth:`query`."""
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
        return held(self._portal, "live", lambda: self._native.live(what, policy=policy, bring=bring), Values)

    def observe(self, query: Query[T], *, policy: str | None = None, bring: Bring = False) -> Observable[tuple[T, ...]]:
        """Return a cold reactivex Observable, which emits the whole result after each commit that changes it.

        Disposing the subscription ends it; closing the client completes it. ``policy`` and ``bring`` are as in
        :meth:`live`, for each subscription.
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
        return run(self._portal, lambda: self._native.update_where(query, changes, policy=policy, **fields))

    def delete_where(self, query: Query[T], *, policy: str | None = None) -> tuple[str, ...]:
        """Remove every row that ``query`` finds, as one write; returns their ids. See :meth:`update_where`."""
        return run(self._portal, lambda: self._native.delete_where(query, policy=policy))

    def transaction(self, *, policy: str | None = None) -> Transaction:
        """Write several stores atomically: ``with client.transaction() as tx: tx.store(A).insert(…)``."""
        return Transaction(self._portal, self._native.transaction(policy=policy))

    def resolve(self, write: WriteUnknown | str, *, policy: str | None = None) -> Resolution:
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

        The caller's :func:`fail_after` is the only time limit. After a cancellation the write is unknown or resolved: ask
        again.
        """
        return run(self._portal, lambda: self._native.resolve(write, policy=policy))

    def handle(self, key: str) -> WriteHandle[object]:
        """Return the handle of a write by its ``handle.key``, even after a restart; it continues to follow the write.

        Its ``value`` is None; read the row instead. The last 10,000 calls that put something into the outbox are known.

        Raises:
            NotResolvable: No write with this key was put into this device's outbox, or it has been forgotten.
        """
        native = run(self._portal, lambda: self._native.handle(key))
        return WriteHandle(self._portal, native)

    @property
    def history(self) -> CommitHistory:
        """The history of this device: its commits, what they changed, and its rows as they were.

        Raises:
            ConfigurationError: This device keeps no history.
        """
        return CommitHistory(self._portal, self._native.history)

    @property
    def undo(self) -> UndoStack:
        """Undo and redo: ``with client.undo.group("Move card"):`` and ``client.undo.undo()``.

        Raises:
            ConfigurationError: This device keeps no history.
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
        """Be present in ``scope`` while the block runs, with ``state`` for others to see; ``here.others`` lists them.

        Nothing is stored. Whoever may read the scope sees who is present. A state is a dataclass, or anything else
        that JSON can express, of at most a kilobyte.

        Raises:
            ConfigurationError: No scope can have this name; as ``PluginError``, this client does not sync.
            ValidationError: The state cannot be written as JSON, cannot be read back as its type, or is too large.
        """
        return held(self._portal, "presence", lambda: self._native.presence(scope, state), Presence)

    @property
    def inbox(self) -> ConflictInbox:
        """The conflict inbox: changes of this device that the hub refused or dropped.

        Raises:
            PluginError: This client does not sync.
        """
        return ConflictInbox(self._portal, self._native.inbox)

    @property
    def quarantine(self) -> Quarantine:
        """Values that migrations of this file could not convert, to be corrected and brought back, or discarded.

        Raises:
            PluginError: There is no local database.
        """
        return Quarantine(self._portal, self._native.quarantine)

    def topology(self) -> Topology:
        """Describe the parts of this client, each with its owner, and the state of breakers and queues.

        Listed are nodes, policies (available or not, and why), transports and ports, and the policy and the durability
        of each store.
        """
        return run_sync(self._portal, self._native.topology)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Return every policy as data, available or not."""
        return self._native.policies

    def sql(self, into: type[T], text: str, /, **params: object) -> tuple[T, ...]:
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
        return run(self._portal, lambda: self._native.sql(into, text, **params))

    def live_sql(self, into: type[T], text: str, /, **params: object) -> Lifetime[Iterator[LiveBatch[T]]]:
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
        return held(self._portal, "live_sql", lambda: self._native.live_sql(into, text, **params), Values)

    def explain_sql(self, text: str, /, **params: object) -> Explanation:
        """Say how SQLite will read each source of a statement, and which changes run it again in :meth:`live_sql`.

        Raises:
            QueryError: As for :meth:`sql`.
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
            what: A query, ``print(client.explain(select(CARDS).where(…)))``: how this device's database will
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
            return run(self._portal, lambda: self._native.explain(what))
        return run_sync(self._portal, lambda: self._native.explain(what, format=format))

    def listen(self, listener: Listener) -> Undo:
        """Call ``listener`` with kernel and sync events; call the returned function to stop."""
        return listen(self._portal, self._native.listen, listener)
