"""A store, for asyncio; made by ``python -m atoma.bindings.generate``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, TypeVar

import atoma.runtime.store
from atoma.bindings.aio.host import Lifetime, Values, held, observe, run
from atoma.bindings.aio.results import ManyResult, WriteHandle
from atoma.bindings.portal import Portal
from atoma.contracts.execution import Confirm, Durability
from atoma.ports.live import LiveBatch
from atoma.query.builder import Rows
from atoma.runtime.flows import MergeMode, UpsertApply, UpsertConflict
from atoma.runtime.observed import ObservableRows
from atoma.runtime.results import Page
from atoma.runtime.store import Changes
from atoma.runtime.table_files import FileFormat
from atoma.runtime.transfer import ImportConflict, ImportReport
from atoma.schema import Bring, StoreSpec

if TYPE_CHECKING:
    from reactivex import Observable

T = TypeVar("T")


class Store(ObservableRows[T]):
    """A typed store, and an Observable of its rows. Get one with ``client.store(SPEC)``; it is cheap and holds no resources.

    Every method runs within the caller's ``asyncio.timeout``. A cancelled write has happened either completely or not at
    all; the local database and the outbox always agree.

    ``policy=`` chooses how a call is carried out; ``confirm="strict"`` waits for the hub's verdict (by default the
    store's own ``confirm`` applies); ``durability=`` says what a local commit survives.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.store.Store[T]) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    @property
    def spec(self) -> StoreSpec[T]:
        """The declaration."""
        return self._native.spec

    async def get(self, id: str, *, include_deleted: bool = False, policy: str | None = None) -> T | None:
        """Read the row with this id, or None; with ``include_deleted``, also a softly deleted one.

        Raises:
            QueryError: The id is not text, or the store deletes for good.
        """
        return await run(self._portal, lambda: self._native.get(id, include_deleted=include_deleted, policy=policy))

    async def version(self, id: str) -> int:
        """Read the row's version for ``base_version=``; 0 if there is no row."""
        return await run(self._portal, lambda: self._native.version(id))

    async def get_many(self, ids: Sequence[str], *, policy: str | None = None) -> list[T | None]:
        """Read the rows with these ids, in this order, at most 1,000; None stands for each missing row.

        Raises:
            QueryError: An id is not text.
        """
        return await run(self._portal, lambda: self._native.get_many(ids, policy=policy))

    async def get_all(
        self,
        query: Rows[T] | None = None,
        *,
        policy: str | None = None,
        merge: MergeMode = "preserve-missing",
    ) -> Page[T]:
        """Read every row, by id; with a ``query``, every row that it finds, in its order.

        ``merge`` says what a remote answer does to the local cache of an unsynced store, and which cached rows join
        the authority's in the page: if there are any, ``page.meta.source`` is ``mixed``.

        Raises:
            QueryError: The query does not fit the store, or has a limit, an offset or a cursor.
            ValidationError: There is no such ``merge``.
        """
        return await run(self._portal, lambda: self._native.get_all(query, policy=policy, merge=merge))

    async def query(self, query: Rows[T] | None = None, *, policy: str | None = None, bring: Bring = False) -> Page[T]:
        """Read the rows of ``query``, or all rows; for the next page and ``bring`` see :meth:`atoma.Client.query`.

        Raises:
            QueryError: The query does not fit the store, reads another one, or has ``bring`` and does not name its
                scopes.
            ConfigurationError: The query has ``bring``, and this client does not replicate.
        """
        return await run(self._portal, lambda: self._native.query(query, policy=policy, bring=bring))

    async def first(self, query: Rows[T] | None = None, *, policy: str | None = None) -> T | None:
        """Read the first row of ``query``, or None."""
        return await run(self._portal, lambda: self._native.first(query, policy=policy))

    async def count(self, query: Rows[T] | None = None, *, policy: str | None = None) -> int:
        """Count the rows that match (limit, offset and cursor do not apply)."""
        return await run(self._portal, lambda: self._native.count(query, policy=policy))

    async def exists(self, wanted: str | Rows[T], *, policy: str | None = None) -> bool:
        """Return whether there is a row with this id, or one that matches a query."""
        return await run(self._portal, lambda: self._native.exists(wanted, policy=policy))

    def live(
        self,
        query: Rows[T] | None = None,
        *,
        policy: str | None = None,
        bring: Bring = False,
    ) -> Lifetime[AsyncIterator[LiveBatch[T]]]:
        """Follow ``query``: the first batch is a ``Reset``, then one batch per commit that changes the result.

        Without a query every row is followed; see :meth:`atoma.Client.live` for the other arguments and slow readers.

        Raises:
            QueryError: The query does not fit the store, or has ``bring`` and does not name its scopes.
            ConfigurationError: The query has ``bring``, and this client does not replicate.
            AtomaError: The error with which the policy ended.
        """
        return held(self._portal, "live", lambda: self._native.live(query, policy=policy, bring=bring), Values)

    def observe(
        self,
        query: Rows[T] | None = None,
        *,
        policy: str | None = None,
        bring: Bring = False,
    ) -> Observable[tuple[T, ...]]:
        """Return a cold reactivex Observable, which emits the whole result after each commit that changes it.

        Disposing the subscription ends it; closing the client completes it. For the other arguments see :meth:`live`.
        """
        return observe(self._portal, lambda: self._native.live(query, policy=policy, bring=bring))

    async def insert(
        self,
        item: T,
        *,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
    ) -> WriteHandle[T]:
        """Add a row; it is locally durable when this returns.

        If the hub assigns the ids, ``item`` has ``id=""``, ``confirm`` is strict, and the handle has the hub's row.

        Raises:
            ConflictError: A row with this id exists already (never overwritten), or a unique index refuses it.
            ValidationError: A field has a wrong type or value.
            AtomaError: The hub, which assigns the id, was not reached, or its answer was lost (``WriteUnknown``).
        """
        native = await run(
            self._portal,
            lambda: self._native.insert(item, policy=policy, confirm=confirm, durability=durability),
        )
        return WriteHandle(self._portal, native)

    async def insert_many(
        self,
        items: Iterable[T],
        *,
        atomic: bool = False,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
    ) -> ManyResult[T]:
        """Add rows item by item, or all or none with ``atomic=True``; in one local transaction either way."""
        native = await run(
            self._portal,
            lambda: self._native.insert_many(
                items,
                atomic=atomic,
                policy=policy,
                confirm=confirm,
                durability=durability,
            ),
        )
        return ManyResult(self._portal, native)

    async def update(
        self,
        id: str,
        changes: Changes[T] | None = None,
        /,
        *,
        base_version: int | None = None,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
        **fields: object,
    ) -> WriteHandle[T]:
        """Change some fields: by name, as a mapping, or by a function from the current row to the new one.

        Only fields that differ are written and sent. With a function, this is a read-modify-write: if somebody else
        changes the row in between, the function is called again with the new row. For a field that merges by itself the
        difference is sent, so ``Increment(1)``, ``Including("red")`` and ``Excluding("red")`` need not know it.

        Raises:
            NotFoundError: There is no such row.
            ConflictError: The row is no longer at ``base_version``.
            ValidationError: Unknown field, wrong type or value.
        """
        native = await run(
            self._portal,
            lambda: self._native.update(
                id,
                changes,
                base_version=base_version,
                policy=policy,
                confirm=confirm,
                durability=durability,
                **fields,
            ),
        )
        return WriteHandle(self._portal, native)

    async def update_many(
        self,
        changes: Mapping[str, Mapping[str, object]],
        *,
        atomic: bool = False,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
    ) -> ManyResult[T]:
        """Change many rows: id → changed fields."""
        native = await run(
            self._portal,
            lambda: self._native.update_many(
                changes,
                atomic=atomic,
                policy=policy,
                confirm=confirm,
                durability=durability,
            ),
        )
        return ManyResult(self._portal, native)

    async def upsert(
        self,
        item: T | Mapping[str, object],
        *,
        conflict: UpsertConflict = "lww",
        apply: UpsertApply = "merge",
        base_version: int | None = None,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
    ) -> WriteHandle[T]:
        """Add the row, or change the existing one.

        Args:
            item: A whole row, or some fields by name with the id.
            conflict: ``lww`` writes in any case; ``cas`` only over ``base_version`` (0: only if there is no row).
            apply: ``merge`` sets the given fields, ``replace`` the whole row (the rest takes the model's defaults).
            base_version: The version you saw; for ``cas`` only.
            policy: How to carry it out.
            confirm: ``strict`` waits for the hub's verdict.
            durability: What the local commit survives.

        Raises:
            ConflictError: With ``cas``, the row has another version.
            ValidationError: A wrong field, type or value.
        """
        native = await run(
            self._portal,
            lambda: self._native.upsert(
                item,
                conflict=conflict,
                apply=apply,
                base_version=base_version,
                policy=policy,
                confirm=confirm,
                durability=durability,
            ),
        )
        return WriteHandle(self._portal, native)

    async def upsert_many(
        self,
        items: Iterable[T | Mapping[str, object]],
        *,
        apply: UpsertApply = "merge",
        atomic: bool = False,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
    ) -> ManyResult[T]:
        """Add or change many rows."""
        native = await run(
            self._portal,
            lambda: self._native.upsert_many(
                items,
                apply=apply,
                atomic=atomic,
                policy=policy,
                confirm=confirm,
                durability=durability,
            ),
        )
        return ManyResult(self._portal, native)

    async def delete(
        self,
        id: str,
        *,
        base_version: int | None = None,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
    ) -> WriteHandle[None]:
        """Remove a row; in a store with soft delete it is only hidden, and :meth:`restore` brings it back.

        Raises:
            NotFoundError: There is no such row.
            ConflictError: The row is no longer at ``base_version``.
        """
        native = await run(
            self._portal,
            lambda: self._native.delete(
                id,
                base_version=base_version,
                policy=policy,
                confirm=confirm,
                durability=durability,
            ),
        )
        return WriteHandle(self._portal, native)

    async def restore(
        self,
        id: str,
        *,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
    ) -> WriteHandle[T]:
        """Bring back a softly deleted row; a row that is not deleted stays as it is.

        Raises:
            NotFoundError: There is no such row, or it was purged.
            ConflictError: Another row has one of its unique values by now.
            ValidationError: The store deletes for good.
        """
        native = await run(
            self._portal,
            lambda: self._native.restore(id, policy=policy, confirm=confirm, durability=durability),
        )
        return WriteHandle(self._portal, native)

    async def purge(
        self,
        id: str,
        *,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
    ) -> WriteHandle[None]:
        """Remove a row for good, whether it was deleted softly before or not; nothing brings it back.

        Raises:
            NotFoundError: There is no such row.
        """
        native = await run(
            self._portal,
            lambda: self._native.purge(id, policy=policy, confirm=confirm, durability=durability),
        )
        return WriteHandle(self._portal, native)

    async def delete_many(
        self,
        ids: Iterable[str],
        *,
        atomic: bool = False,
        policy: str | None = None,
        confirm: Confirm | None = None,
        durability: Durability | None = None,
    ) -> ManyResult[None]:
        """Remove many rows."""
        native = await run(
            self._portal,
            lambda: self._native.delete_many(ids, atomic=atomic, policy=policy, confirm=confirm, durability=durability),
        )
        return ManyResult(self._portal, native)

    async def export(
        self,
        path: str | PathLike[str],
        query: Rows[T] | None = None,
        *,
        format: FileFormat | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Write every row, or every row of ``query``, to a file; returns how many rows there are.

        The file appears only when it is complete. Only a few hundred rows are in memory. A row that changes meanwhile
        is exported as it was before or after the change.

        Args:
            path: The file, which must not exist.
            query: The rows to write; None for every row, by id.
            format: ``csv``, ``ndjson``, ``json``, ``parquet`` or ``arrow``; None goes by the suffix of the name.
            progress: Called with the number of rows written, and the approximate total.

        Raises:
            ConfigurationError: ``path`` exists or cannot be written, or the format is unknown or needs an extra.
            QueryError: The query does not fit the store, or asks for columns instead of whole rows.

        If the caller is cancelled, no file is left.
        """
        return await run(self._portal, lambda: self._native.export(path, query, format=format, progress=progress))

    async def import_(
        self,
        path: str | PathLike[str],
        *,
        conflict: ImportConflict = "insert",
        format: FileFormat | None = None,
        rejected: str | PathLike[str] | None = None,
        policy: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImportReport:
        """Write the rows of a file, each as :meth:`insert` or :meth:`upsert` would: checked, with hooks, and synced.

        Rows are written some hundred at a time. The report lists refused lines, which do not hold up the others. Equal
        rows that exist already are skipped, so an interrupted import can be repeated.

        Args:
            path: A file from :meth:`export` or from another program, with a column or key per field, also the id.
            conflict: ``insert`` refuses a row whose id another row has; ``upsert`` sets the file's fields.
            format: As in :meth:`export`.
            rejected: A file for the refused lines, each with its reason, as JSON lines; it must not exist.
            policy: How to write; None is the policy of the store.
            progress: Called with the number of bytes read, and the total.

        Raises:
            ConfigurationError: A file cannot be read or written, the format is unknown, or needs the extra ``parquet``.
            ValidationError: The file as a whole is in another format, or has columns that the store does not have.

        If the caller is cancelled, the parts before are written.
        """
        return await run(
            self._portal,
            lambda: self._native.import_(
                path,
                conflict=conflict,
                format=format,
                rejected=rejected,
                policy=policy,
                progress=progress,
            ),
        )
