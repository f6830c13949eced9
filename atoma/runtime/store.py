"""``Store[T]``: one declared store as the application reads and writes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast, get_args

import trio

from atoma.contracts.checks import check_word, is_a
from atoma.contracts.execution import (
    Confirm,
    Durability,
    ExecutionMeta,
    WriteItemResult,
    WriteResult,
    WriteStatus,
    note_path,
)
from atoma.contracts.mutations import Op
from atoma.contracts.values import StoredRow
from atoma.errors import AtomaError, ConflictError, NotFoundError, ValidationError
from atoma.ports.live import LiveBatch
from atoma.ports.loops import Lifetime
from atoma.query.arguments import check_soft
from atoma.query.builder import Query, Rows, select
from atoma.query.plans import by_ids, in_parts
from atoma.runtime.flows import (
    Core,
    MergeMode,
    UpsertApply,
    UpsertConflict,
    checked_id,
    delete_entry,
    insert_entries,
    insert_entry,
    purge_entry,
    restore_entry,
    update_entry,
    upsert_entry,
    written_over,
)
from atoma.runtime.observed import ObservableRows
from atoma.runtime.reading import Reading, own, readable
from atoma.runtime.results import ItemResult, ItemResults, ManyResult, Page, WriteHandle, error_of, handle_of
from atoma.schema import Bring, StoreSpec

if TYPE_CHECKING:
    from reactivex import Observable

    from atoma.runtime.table_files import FileFormat
    from atoma.runtime.transfer import ImportConflict, ImportReport

T = TypeVar("T")
V = TypeVar("V")
Changes: TypeAlias = Mapping[str, object] | Callable[[T], T]

UPDATE_ATTEMPTS = 100
"""How often ``update(id, function)`` reads again when somebody else was faster."""
VALIDATED_AT_ONCE = 500
"""A ``_many`` call lets other tasks run after so many items."""


class Store(ObservableRows[T]):
    """A typed store, and an Observable of its rows. Get one with ``client.store(SPEC)``; it is cheap and holds no resources.

    Every method runs within the caller's cancel scope. A cancelled write has happened either completely or not at
    all; the local database and the outbox always agree.

    ``policy=`` chooses how a call is carried out; ``confirm="strict"`` waits for the hub's verdict (by default the
    store's own ``confirm`` applies); ``durability=`` says what a local commit survives.
    """

    __slots__ = ("_core", "_every", "_reading", "spec")

    def __init__(self, core: Core, spec: StoreSpec[T], reading: Reading) -> None:
        self._core = core
        self._reading = reading
        self._every = select(spec)
        self.spec = spec

    def __repr__(self) -> str:
        return f"Store({self.spec.name!r})"

    # reading

    async def get(self, id: str, *, include_deleted: bool = False, policy: str | None = None) -> T | None:
        """Read the row with this id, or None; with ``include_deleted``, also a softly deleted one.

        Raises:
            QueryError: The id is not text, or the store deletes for good.
        """
        row = await self._row(id, policy, include_deleted=include_deleted)
        return None if row is None else self.spec.read(row)

    async def version(self, id: str) -> int:
        """Read the row's version for ``base_version=``; 0 if there is no row."""
        row = await self._row(id, None)
        return 0 if row is None else row.version

    async def get_many(self, ids: Sequence[str], *, policy: str | None = None) -> list[T | None]:
        """Read the rows with these ids, in this order, at most 1,000; None stands for each missing row.

        Raises:
            QueryError: An id is not text.
        """
        found: dict[str, T] = {}
        wanted = tuple(dict.fromkeys(ids))
        for part in in_parts(readable(self.spec.name, wanted)):
            query = by_ids(self.spec.name, part, soft=self.spec.soft_delete)
            rows = (await self._core.reads.query(query, policy)).rows
            found.update({row.id: self.spec.decode(row.id, row.image) for row in rows})
        return [found.get(id) for id in ids]

    async def get_all(
        self, query: Rows[T] | None = None, *, policy: str | None = None, merge: MergeMode = "preserve-missing"
    ) -> Page[T]:
        """Read every row, by id; with a ``query``, every row that it finds, in its order.

        ``merge`` says what a remote answer does to the local cache of an unsynced store, and which cached rows join
        the authority's in the page: if there are any, ``page.meta.source`` is ``mixed``.

        Raises:
            QueryError: The query does not fit the store, or has a limit, an offset or a cursor.
            ValidationError: There is no such ``merge``.
        """
        return await self._reading.get_all(self._own(query), policy, merge)

    async def query(self, query: Rows[T] | None = None, *, policy: str | None = None, bring: Bring = False) -> Page[T]:
        """Read the rows of ``query``, or all rows; for the next page and ``bring`` see :meth:`atoma.Client.query`.

        Raises:
            QueryError: The query does not fit the store, reads another one, or has ``bring`` and does not name its
                scopes.
            ConfigurationError: The query has ``bring``, and this client does not replicate.
        """
        return await self._reading.query(self._own(query), policy, bring=bring)

    async def first(self, query: Rows[T] | None = None, *, policy: str | None = None) -> T | None:
        """Read the first row of ``query``, or None."""
        return await self._reading.first(self._own(query), policy)

    async def count(self, query: Rows[T] | None = None, *, policy: str | None = None) -> int:
        """Count the rows that match (limit, offset and cursor do not apply)."""
        return await self._reading.count(self._own(query), policy)

    async def exists(self, wanted: str | Rows[T], *, policy: str | None = None) -> bool:
        """Return whether there is a row with this id, or one that matches a query."""
        if isinstance(wanted, Rows):
            return await self._reading.exists(self._own(wanted), policy)
        return await self.get(wanted, policy=policy) is not None

    # following

    def live(
        self, query: Rows[T] | None = None, *, policy: str | None = None, bring: Bring = False
    ) -> Lifetime[AsyncIterator[LiveBatch[T]]]:
        """Follow ``query``: the first batch is a ``Reset``, then one batch per commit that changes the result.

        Without a query every row is followed; see :meth:`atoma.Client.live` for the other arguments and slow readers.

        Raises:
            QueryError: The query does not fit the store, or has ``bring`` and does not name its scopes.
            ConfigurationError: The query has ``bring``, and this client does not replicate.
            AtomaError: The error with which the policy ended.
        """
        return self._reading.live(self._own(query), policy, bring=bring)

    def observe(
        self, query: Rows[T] | None = None, *, policy: str | None = None, bring: Bring = False
    ) -> Observable[tuple[T, ...]]:
        """Return a cold reactivex Observable, which emits the whole result after each commit that changes it.

        Disposing the subscription ends it; closing the client completes it. For the other arguments see :meth:`live`.
        """
        return self._reading.observe(self._own(query), policy, bring=bring)

    # writing

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
        entry = insert_entry(self.spec, item)
        return _value(await self._write_one(entry, policy, confirm, durability))

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
        return await self._write_many(
            items,
            lambda item: insert_entry(self.spec, item),
            atomic,
            policy,
            confirm,
            durability,
            make_many=lambda part: insert_entries(self.spec, part),
        )

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
        if callable(changes):
            if fields or base_version is not None:
                raise ValidationError("update() takes a function or fields, not both", store=self.spec.name)
            return await self._update_by(id, changes, policy, confirm, durability)
        merged = {**(changes or {}), **fields}
        entry = update_entry(self.spec, id, merged, base_version)
        return _value(await self._write_one(entry, policy, confirm, durability))

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
        return await self._write_many(
            changes.items(),
            lambda pair: update_entry(self.spec, pair[0], pair[1], None),
            atomic,
            policy,
            confirm,
            durability,
        )

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
        entry = upsert_entry(self.spec, item, conflict, apply, base_version)
        return _value(await self._write_one(entry, policy, confirm, durability))

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
        return await self._write_many(
            items, lambda item: upsert_entry(self.spec, item, "lww", apply, None), atomic, policy, confirm, durability
        )

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
        entry = delete_entry(self.spec, id, base_version)
        return cast("WriteHandle[None]", await self._write_one(entry, policy, confirm, durability))

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
        entry = restore_entry(self.spec, id, None)
        return _value(await self._write_one(entry, policy, confirm, durability))

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
        entry = purge_entry(self.spec, id, None)
        return cast("WriteHandle[None]", await self._write_one(entry, policy, confirm, durability))

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
        result = await self._write_many(
            ids, lambda id: delete_entry(self.spec, id, None), atomic, policy, confirm, durability
        )
        return cast("ManyResult[None]", result)

    # files

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
        from atoma.runtime.transfer import export_rows

        return await export_rows(self._reading, self.spec, self._own(query), path, format, progress)

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
        from atoma.runtime.transfer import ImportConflict, import_rows

        self._core.guard.check()
        check_word("conflict", conflict, get_args(ImportConflict))

        def write(items: Sequence[T], given: Sequence[Mapping[str, object]]) -> Awaitable[ManyResult[T]]:
            return (
                self.insert_many(items, policy=policy)
                if conflict == "insert"
                else self.upsert_many(given, policy=policy)
            )

        return await import_rows(self.spec, write, path, format, rejected, progress)

    # inside

    async def _row(self, id: str, policy: str | None, *, include_deleted: bool = False) -> StoredRow | None:
        known, spec = readable(self.spec.name, (id,)), self.spec
        if include_deleted:
            check_soft(spec)
        if not known:
            return None
        query = by_ids(spec.name, known, soft=spec.soft_delete, include_deleted=include_deleted)
        rows = (await self._core.reads.query(query, policy, unread=True)).rows
        return rows[0] if rows else None

    def _own(self, query: Rows[T] | None) -> Rows[T]:
        return self._every if query is None else own(query, self.spec.name)

    async def _write_one(
        self, entry: Op, policy: str | None, confirm: Confirm | None, durability: Durability | None
    ) -> WriteHandle[T | None]:
        result = await self._core.writes.write([entry], policy=policy, confirm=confirm, durability=durability)
        item = result.items[0]
        if not item.ok:
            raise self._refusal(result, item)
        return self._handle(result, 0)

    def _refusal(self, result: WriteResult, item: WriteItemResult) -> AtomaError:
        error = error_of(self.spec.name, item)
        note_path(error, result.meta.path)
        return error

    def _handle(self, result: WriteResult, index: int) -> WriteHandle[T | None]:
        return handle_of(result, index, self.spec.seen, self._core)

    async def _write_many(
        self,
        items: Iterable[V],
        make: Callable[[V], Op],
        atomic: bool,
        policy: str | None,
        confirm: Confirm | None,
        durability: Durability | None,
        *,
        make_many: Callable[[Sequence[V]], list[Op]] | None = None,
    ) -> ManyResult[T]:
        """Validate item by item; what is valid is one unit (none of it when ``atomic`` and one is not)."""
        writes = self._core.writes
        made: list[ItemResult[T] | None] = []
        entries: list[Op] = []
        if not is_a(items, Iterable):
            if is_a(items, Query):
                checked_id(self.spec, items)
            raise ValidationError(
                "this takes a list of items; for one there is the method without _many", store=self.spec.name
            )
        every = list(items)
        for start in range(0, len(every), VALIDATED_AT_ONCE):
            if start:
                await trio.lowlevel.checkpoint()
            part = every[start : start + VALIDATED_AT_ONCE]
            try:
                entries += make_many(part) if make_many is not None else [make(item) for item in part]
                made += [None] * len(part)
            except AtomaError:
                self._validate(part, make, atomic, entries, made)
        if not entries:
            refused = tuple([one for one in made if one is not None])
            return ManyResult("rejected" if made else "confirmed", refused, ExecutionMeta())
        result = await writes.write(entries, policy=policy, confirm=confirm, atomic=atomic, durability=durability)
        status: WriteStatus = result.status
        if len(entries) < len(made) and status == "confirmed":
            status = "partial"
        return ManyResult(status, self._items(result, made), result.meta)

    def _validate(
        self,
        part: Sequence[V],
        make: Callable[[V], Op],
        atomic: bool,
        entries: list[Op],
        made: list[ItemResult[T] | None],
    ) -> None:
        """Add the entries of what is valid, and the results of what is not; raise the first error when ``atomic``."""
        for item in part:
            try:
                entries.append(make(item))
                made.append(None)
            except AtomaError as error:
                if atomic:
                    raise
                made.append(ItemResult(_id_of(item), None, error))

    def _items(self, result: WriteResult, made: list[ItemResult[T] | None]) -> ItemResults[T]:
        """The items of ``result`` at the places that have no result yet."""
        places = [place for place, known in enumerate(made) if known is None]
        written: Mapping[int, int] | range = range(len(made))
        if len(places) < len(made):
            written = {place: index for index, place in enumerate(places)}

        def make(place: int) -> ItemResult[T]:
            index = written[place]
            return self._item(result, index, result.items[index])

        return ItemResults(made, make)

    def _item(self, result: WriteResult, index: int, item: WriteItemResult) -> ItemResult[T]:
        if not item.ok:
            return ItemResult(item.id, None, self._refusal(result, item))
        return ItemResult(item.id, _value(self._handle(result, index)), None)

    async def _update_by(
        self,
        id: str,
        function: Callable[[T], T],
        policy: str | None,
        confirm: Confirm | None,
        durability: Durability | None,
    ) -> WriteHandle[T]:
        for attempt in range(UPDATE_ATTEMPTS):
            row = await self._row(id, policy)
            if row is None:
                raise NotFoundError(self.spec.name, id)
            changes = self.spec.changes_to(row.id, row.image, function(self.spec.read(row)))
            entry = written_over(self.spec, row, self.spec.encode_changes(changes))
            try:
                return _value(await self._write_one(entry, policy, confirm, durability))
            except ConflictError:
                if attempt == UPDATE_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")


def _value(handle: WriteHandle[T | None]) -> WriteHandle[T]:
    # An insert, update or upsert that succeeded has a row; a direct remote write may leave the image unknown.
    return cast("WriteHandle[T]", handle)


def _id_of(item: object) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, tuple):
        pair = cast("tuple[object, ...]", item)
        return str(pair[0])
    if isinstance(item, Mapping):
        return str(cast("Mapping[str, object]", item).get("id", ""))
    return str(getattr(item, "id", ""))
