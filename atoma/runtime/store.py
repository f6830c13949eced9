"""``Store[T]``: one declared store as the application reads and writes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

import trio

from atoma.contracts.checks import is_a
from atoma.contracts.execution import (
    Confirm,
    Durability,
    ExecutionMeta,
    WriteItemResult,
    WriteResult,
    WriteStatus,
    as_receipt,
    note_path,
)
from atoma.contracts.mutations import Op
from atoma.contracts.values import StoredRow
from atoma.errors import AtomaError, ConflictError, NotFoundError, ValidationError
from atoma.ports.live import LiveBatch
from atoma.ports.loops import Lifetime
from atoma.query.builder import Rows, select
from atoma.query.plans import batches, by_ids
from atoma.runtime.core import Core
from atoma.runtime.entries import (
    UpsertApply,
    UpsertConflict,
    delete_entry,
    insert_entries,
    insert_entry,
    update_entry,
    upsert_entry,
)
from atoma.runtime.flows import MergeMode
from atoma.runtime.reading import Reading, own, readable
from atoma.runtime.results import ItemResult, ItemResults, ManyResult, Page, WriteHandle, error_of
from atoma.schema.spec import StoreSpec

if TYPE_CHECKING:
    from reactivex import Observable

T = TypeVar("T")
V = TypeVar("V")
Changes: TypeAlias = Mapping[str, object] | Callable[[T], T]

UPDATE_ATTEMPTS = 100
"""How often ``update(id, function)`` reads again when somebody else was faster."""
VALIDATED_AT_ONCE = 500
"""A ``_many`` call lets other tasks run after so many items."""


class Store(Generic[T]):
    """A typed, observable store. Get one with ``client.store(SPEC)``; it is cheap and holds no resources.

    Every method runs within the caller's cancel scope. A cancelled write either happened wholly or not at all; the
    local database and the outbox always agree.

    ``policy=`` chooses how a call is carried out, ``confirm="strict"`` waits for the hub's verdict (the store's own
    ``confirm`` when a call names none),
    ``durability=`` names what a local commit survives.
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

    async def get(self, id: str, *, policy: str | None = None) -> T | None:
        """The row with this id, or None.

        Raises:
            QueryError: The id is no text.
        """
        rows = await self._by_ids((id,), policy)
        return self.spec.decode(rows[0].id, rows[0].image) if rows else None

    async def version(self, id: str) -> int:
        """Version of the row for ``base_version=``, as :attr:`atoma.runtime.Page.versions` has it; 0 when there is no row."""
        rows = await self._by_ids((id,), None)
        return rows[0].version if rows else 0

    async def get_many(self, ids: Sequence[str], *, policy: str | None = None) -> list[T | None]:
        """The rows with these ids, in this order; None where there is none. At most 1,000 ids are read at a time.

        Raises:
            QueryError: Some id is no text.
        """
        found: dict[str, T] = {}
        wanted = tuple(dict.fromkeys(ids))
        for batch in batches(readable(self.spec.name, wanted)):
            rows = (await self._core.reads.query(by_ids(self.spec.name, batch), policy)).rows
            found.update({row.id: self.spec.decode(row.id, row.image) for row in rows})
        return [found.get(id) for id in ids]

    async def get_all(
        self, query: Rows[T] | None = None, *, policy: str | None = None, merge: MergeMode = "preserve-missing"
    ) -> Page[T]:
        """Every row, by id; of a ``query``, every row that it finds, in its order.

        ``merge`` says what a remote answer does to the local cache of an unsynced store, and which cached rows stand
        among the authority's in the page: when there are any, ``page.meta.source`` is ``mixed``.

        Raises:
            QueryError: The query does not fit the store, or has a limit, an offset or a cursor.
            ValidationError: There is no such ``merge``.
        """
        return await self._reading.get_all(self._own(query), policy, merge)

    async def query(self, query: Rows[T] | None = None, *, policy: str | None = None) -> Page[T]:
        """The rows of ``query``, all without one; ``query.after(page.end)`` is the next page.

        Raises:
            QueryError: The query does not fit the store, or reads another one.
        """
        return await self._reading.query(self._own(query), policy)

    async def first(self, query: Rows[T] | None = None, *, policy: str | None = None) -> T | None:
        """The first row of ``query``, or None."""
        return await self._reading.first(self._own(query), policy)

    async def count(self, query: Rows[T] | None = None, *, policy: str | None = None) -> int:
        """How many rows match (limit, offset and cursor do not apply)."""
        return await self._reading.count(self._own(query), policy)

    async def exists(self, wanted: str | Rows[T], *, policy: str | None = None) -> bool:
        """Whether there is a row with this id, or one that matches a query."""
        if isinstance(wanted, Rows):
            return await self._reading.exists(self._own(wanted), policy)
        return await self.get(wanted, policy=policy) is not None

    # following

    def live(self, query: Rows[T] | None = None) -> Lifetime[AsyncIterator[LiveBatch[T]]]:
        """Follow ``query``: the first batch is a ``Reset``, then one batch per commit that changes the result.

        A slow reader gets what it missed as one ``Reset``. Leaving the block ends the subscription.

        Raises:
            QueryError: The query does not fit the store.
        """
        return self._reading.live(self._own(query))

    def observe(self, query: Rows[T] | None = None) -> Observable[tuple[T, ...]]:
        """A cold reactivex Observable of the whole result, again after each commit that changes it.

        Disposing the subscription ends it; closing the client completes it.
        """
        return self._reading.observe(self._own(query))

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

        Raises:
            ConflictError: There is a row with this id already (never overwritten), or a unique index refuses it.
            ValidationError: A field has a wrong type or value.
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
        """Add rows; item by item, or all or none with ``atomic=True``. One local transaction either way."""
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
        """Change some fields: by name, as a mapping, or by a function from the row to the row as it should be.

        Only what differs is written and sent. A function is read-modify-write: when somebody else changes the row in
        between, it is called again with the new row.

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
        """Add the row or change the one that is there.

        Args:
            item: A whole row, or some fields by name with the id.
            conflict: ``lww`` writes whatever is there; ``cas`` only over ``base_version`` (0: only if there is none).
            apply: ``merge`` sets the given fields, ``replace`` the whole row (the rest takes the model's defaults).
            base_version: The version you saw; for ``cas`` only.
            policy: How to carry it out.
            confirm: ``strict`` waits for the hub's verdict.
            durability: What the local commit survives.

        Raises:
            ConflictError: With ``cas``, the row is at another version.
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
        """Remove a row.

        Raises:
            NotFoundError: There is no such row.
            ConflictError: The row is no longer at ``base_version``.
        """
        entry = delete_entry(self.spec, id, base_version)
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

    # inside

    async def _by_ids(self, ids: tuple[str, ...], policy: str | None) -> tuple[StoredRow, ...]:
        known = readable(self.spec.name, ids)
        return (await self._core.reads.query(by_ids(self.spec.name, known), policy)).rows if known else ()

    def _own(self, query: Rows[T] | None) -> Rows[T]:
        return self._every if query is None else own(query, self.spec.name)

    async def _write_one(
        self, entry: Op, policy: str | None, confirm: Confirm | None, durability: Durability | None
    ) -> WriteHandle[T | None]:
        result = await self._core.writes.write([entry], policy=policy, confirm=confirm, durability=durability)
        item = result.items[0]
        if not item.ok:
            raise self._refusal(result, item)
        return self._handle(result, 0, item)

    def _refusal(self, result: WriteResult, item: WriteItemResult) -> AtomaError:
        error = error_of(self.spec.name, item)
        note_path(error, result.meta.path)
        return error

    def _handle(self, result: WriteResult, index: int, item: WriteItemResult) -> WriteHandle[T | None]:
        receipt = as_receipt(result.receipts[index]) if result.receipts else None
        return WriteHandle(item, self.spec.decode, result.meta, receipt, self._core.guard)

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
            return ManyResult("rejected" if made else "confirmed", tuple(_done(made)), ExecutionMeta())
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
        return ItemResult(item.id, _value(self._handle(result, index, item)), None)

    async def _update_by(
        self,
        id: str,
        function: Callable[[T], T],
        policy: str | None,
        confirm: Confirm | None,
        durability: Durability | None,
    ) -> WriteHandle[T]:
        for attempt in range(UPDATE_ATTEMPTS):
            rows = await self._by_ids((id,), policy)
            if not rows:
                raise NotFoundError(self.spec.name, id)
            row = rows[0]
            changes = self.spec.changes_to(row.id, row.image, function(self.spec.decode(row.id, row.image)))
            entry = update_entry(self.spec, id, changes, row.version)
            try:
                return _value(await self._write_one(entry, policy, confirm, durability))
            except ConflictError:
                if attempt == UPDATE_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")


def _value(handle: WriteHandle[T | None]) -> WriteHandle[T]:
    # An insert, update or upsert that succeeded has a row; a direct remote write may leave the image unknown.
    return cast("WriteHandle[T]", handle)


def _done(outcomes: Sequence[ItemResult[T] | None]) -> tuple[ItemResult[T], ...]:
    return tuple(outcome for outcome in outcomes if outcome is not None)


def _id_of(item: object) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, tuple):
        pair = cast("tuple[object, ...]", item)
        return str(pair[0])
    if isinstance(item, Mapping):
        return str(cast("Mapping[str, object]", item).get("id", ""))
    return str(getattr(item, "id", ""))
