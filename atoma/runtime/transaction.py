"""``transaction()``: several stores, one atomic mutation; reads see what was buffered, exit commits in one short step."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from msgspec.structs import replace

from atoma.contracts.execution import Confirm, Durability, WriteItemResult
from atoma.contracts.mutations import Op
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import ErrorInfo, RowKey, StoredRow, is_hidden
from atoma.errors import ClosedError, ConflictError, NotFoundError, PolicyNotAllowed, QueryError, ValidationError
from atoma.mutations import decide
from atoma.ports.loops import lifetime
from atoma.query.binding import bind
from atoma.query.builder import Rows, select
from atoma.query.evaluate import evaluate
from atoma.query.plans import by_ids, lists_one_store
from atoma.runtime.flows import (
    Core,
    UpsertApply,
    checked_id,
    delete_entry,
    insert_entry,
    purge_entry,
    restore_entry,
    update_entry,
    upsert_entry,
)
from atoma.runtime.reading import own, readable
from atoma.runtime.results import error_of
from atoma.schema.hiding import restores
from atoma.schema.spec import StoreSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


class Transaction:
    """A unit under construction. Nothing is locked while the block runs.

    Reads inside see the database plus the block's buffered writes. Leaving the block writes everything in one short
    transaction, which first checks that every row that was read is still at the version that was read. An exception
    inside the block discards the buffer.

    Attributes:
        confirm: ``strict`` waits for the hub's verdict as the block is left; None takes the stores' own.
        durability: What the local commit survives; None takes the stores' own.
        drawn: Once the block is left, the ids that the hub has assigned to rows inserted without one, in order.
    """

    def __init__(self, core: Core, policy: str | None) -> None:
        self._core = core
        self._policy = policy
        self._entries: list[Op] = []
        self._rows: dict[RowKey, StoredRow | None] = {}
        self._reads: dict[RowKey, int | None] = {}
        self._open = False
        self._used = False
        self.confirm: Confirm | None = None
        self.durability: Durability | None = None
        self.drawn: tuple[str, ...] = ()

    def store(self, spec: StoreSpec[T]) -> TransactionStore[T]:
        """The store of ``spec`` inside this transaction.

        Raises:
            UnknownStore: The schema does not declare it.
        """
        self._core.write_flow.schema.store(spec.name)
        return TransactionStore(self, spec)

    @lifetime
    async def savepoint(self) -> AsyncGenerator[Transaction]:
        """Open a nested part: an exception inside discards what it has buffered, and only that."""
        self._core.guard.check_loop()
        entries, rows = len(self._entries), dict(self._rows)
        try:
            yield self
        except BaseException:
            del self._entries[entries:]
            self._rows = rows
            raise

    async def __aenter__(self) -> Self:
        if self._used:
            raise ClosedError("a transaction object is used once; call client.transaction() again")
        self._core.guard.check()
        self._open = self._used = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if kind is None and self._entries:
            await self._commit()

    async def _commit(self) -> None:
        scopes = {entry.scope for entry in self._entries}
        if len(scopes) > 1:
            raise self._not_allowed(f"a transaction touches one scope, this one touches {', '.join(sorted(scopes))}")
        if len({entry.store in self._core.synced for entry in self._entries}) > 1:
            raise self._not_allowed("a transaction must not mix synced and local-only stores")
        self._check_drawn()
        result = await self._core.writes.write(
            self._entries,
            policy=self._policy,
            confirm=self.confirm,
            atomic=True,
            durability=self.durability,
            reads=tuple((store, id, version) for (store, id), version in self._reads.items()),
        )
        for entry, item in zip(self._entries, result.items, strict=True):
            if not item.ok and (item.error is None or item.error.code != "ABORTED"):
                raise error_of(entry.store, item)
        if not all(item.ok for item in result.items):
            raise ConflictError("the transaction was refused and nothing was written; read again and retry")
        pairs = zip(self._entries, result.items, strict=True)
        self.drawn = tuple([item.id for entry, item in pairs if entry.awaits_id])

    def _check_drawn(self) -> None:
        """Refuse what the hub would have to decide together with what this device's outbox does."""
        alone = all(entry.awaits_id for entry in self._entries) and not self._reads
        if alone or not any(entry.awaits_id and entry.store in self._core.synced for entry in self._entries):
            return
        raise self._not_allowed(
            "rows whose ids the hub draws are made there, and whatever else replicates goes through the outbox: read before "
            "the transaction, and write the rest in one of its own"
        )

    def _not_allowed(self, why: str) -> PolicyNotAllowed:
        stores = ", ".join(sorted({entry.store for entry in self._entries}))
        return PolicyNotAllowed(self._policy or self._core.names.default, stores, why)

    async def buffer(self, op: Op) -> StoredRow | None:
        """Add an operation and let later reads see it; returns the row as it will be, None of one that has no id yet.

        Raises:
            ConflictError: There is a row that it wants to create.
            NotFoundError: There is no row that it wants to change.
            ValidationError: The row that is there belongs to another scope.
        """
        self._core.guard.check_loop()
        if not self._open:
            raise ClosedError("the transaction is over; write inside its `async with` block")
        if op.awaits_id:
            self._entries.append(op)
            return None
        row = await self._known(op.store, op.id)
        if row is None and (op.kind in ("delete", "upsert") or restores(op)):
            row = await self._hidden(op)
        effect = decide(op, self._core.writes.schema.store(op.store), row)
        if isinstance(effect, ErrorInfo):
            current = None if row is None else row.image
            raise error_of(op.store, WriteItemResult(op.id, ok=False, row=current, error=effect))
        after = None if effect.post is None else StoredRow(op.id, 0, 0, effect.scope, effect.post)
        self._rows[op.store, op.id] = after
        self._entries.append(replace(op, scope=effect.scope))
        return after

    def bound(self, query: Rows[T]) -> BoundQuery:
        """``query`` as plain data."""
        return bind(query, self._core.writes.schema)

    async def row(self, store: str, id: str) -> StoredRow | None:
        """The row as this transaction sees it; remembers the version that was read."""
        found = await self._known(store, id)
        return None if found is None or is_hidden(found.image) else found

    async def _known(self, store: str, id: str) -> StoredRow | None:
        """The row, also one that was deleted softly in this transaction."""
        key = (store, id)
        if key not in self._rows:
            if not readable(store, (id,)):
                return None
            soft = self._core.writes.schema.store(store).soft_delete
            result = await self._core.reads.query(by_ids(store, (id,), soft=soft), self._policy)
            self._see(store, id, result.rows[0] if result.rows else None)
        return self._rows[key]

    async def _hidden(self, op: Op) -> StoredRow | None:
        """The row of ``op`` if it was deleted softly before this transaction.

        A hub shows such rows to few people, and anybody may upsert: for that, only what is on this device is looked at.
        """
        if not self._core.writes.schema.store(op.store).soft_delete:
            return None
        policy = self._policy
        if op.kind == "upsert":
            if self._core.live_queries is None:
                return None  # nothing is on this device
            policy = "direct-local"
        result = await self._core.reads.query(by_ids(op.store, (op.id,), include_deleted=True), policy)
        return result.rows[0] if result.rows else None

    async def rows(self, query: BoundQuery) -> tuple[StoredRow, ...]:
        """The rows of a query as this transaction sees them.

        Raises:
            QueryError: It looks at something else than rows of one store.
        """
        store = query.store
        if not lists_one_store(query.plan):
            raise QueryError("a query in a transaction looks at the rows of one store; ask for the others before it")
        whole = replace(query, plan=replace(query.plan, limit=None, offset=0, seek=None))
        result = await self._core.reads.query(whole, self._policy)
        for row in result.rows:
            if (store, row.id) not in self._rows:
                self._see(store, row.id, row)
        seen = [row for (name, _), row in self._rows.items() if name == store and row is not None]
        return tuple(evaluate(query, {store: seen}))

    def _see(self, store: str, id: str, row: StoredRow | None) -> None:
        self._rows[store, id] = row
        version = None if row is None or is_hidden(row.image) else row.version  # as whoever decides sees it
        self._reads.setdefault((store, id), version)  # a savepoint may have read it before


class TransactionStore(Generic[T]):
    """A store inside a transaction: the same words, buffered."""

    __slots__ = ("_tx", "spec")

    def __init__(self, tx: Transaction, spec: StoreSpec[T]) -> None:
        self._tx = tx
        self.spec = spec

    async def get(self, id: str) -> T | None:
        """The row with this id, or None."""
        row = await self._tx.row(self.spec.name, id)
        return None if row is None else self.spec.decode(row.id, row.image)

    async def query(self, query: Rows[T] | None = None) -> tuple[T, ...]:
        """The rows of ``query``, all without one.

        Raises:
            QueryError: It does not fit the store, or reads another one.
        """
        asked = select(self.spec) if query is None else own(query, self.spec.name)
        rows = await self._tx.rows(self._tx.bound(asked))
        return tuple(self.spec.decode(row.id, row.image) for row in rows)

    async def insert(self, item: T) -> T:
        """Add a row; if the hub assigns its id, reads inside do not see it, and ``drawn`` has the id afterwards.

        Raises:
            ConflictError: There is a row with this id already.
            ValidationError: A field has a wrong type or value.
        """
        await self._tx.buffer(insert_entry(self.spec, item))
        return item

    async def update(
        self, id: str, changes: Mapping[str, object] | Callable[[T], T] | None = None, /, **fields: object
    ) -> T:
        """Change some fields, by name or by a function; returns the row as it will be.

        Raises:
            NotFoundError: There is no such row.
            ValidationError: Unknown field, wrong type or value.
        """
        row = await self._tx.row(self.spec.name, checked_id(self.spec, id))
        if row is None:
            raise NotFoundError(self.spec.name, id)
        if callable(changes):
            if fields:
                raise ValidationError("update() takes a function or fields, not both", store=self.spec.name)
            wanted = changes(self.spec.decode(row.id, row.image))
            patch = self.spec.changes_to(row.id, row.image, wanted)
        else:
            patch = {**(changes or {}), **fields}
        after = await self._tx.buffer(update_entry(self.spec, id, patch, None))
        assert after is not None
        return self.spec.decode(after.id, after.image)

    async def upsert(self, item: T | Mapping[str, object], *, apply: UpsertApply = "merge") -> None:
        """Add the row, or change the existing one.

        Raises:
            ValidationError: A field has a wrong type or value.
        """
        await self._tx.buffer(upsert_entry(self.spec, item, "lww", apply, None))

    async def delete(self, id: str) -> None:
        """Remove a row.

        Raises:
            NotFoundError: There is no such row.
        """
        await self._tx.buffer(delete_entry(self.spec, id, None))

    async def restore(self, id: str) -> T:
        """Bring back a softly deleted row; returns it.

        Raises:
            NotFoundError: There is no such row, or it was purged.
            ValidationError: The store deletes for good.
        """
        after = await self._tx.buffer(restore_entry(self.spec, id, None))
        assert after is not None
        return self.spec.decode(after.id, after.image)

    async def purge(self, id: str) -> None:
        """Remove a row for good, whether it was deleted softly before or not.

        Raises:
            NotFoundError: There is no such row.
        """
        await self._tx.buffer(purge_entry(self.spec, id, None))
