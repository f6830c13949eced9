"""Transactions, for asyncio; made by ``python -m atoma.bindings.generate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Generic, Self, TypeVar

import atoma.runtime.transaction
from atoma.bindings.aio.host import Lifetime, held, run
from atoma.bindings.portal import Portal
from atoma.contracts.execution import Confirm, Durability
from atoma.query.builder import Rows
from atoma.runtime.flows import UpsertApply
from atoma.schema.spec import StoreSpec

T = TypeVar("T")


class TransactionStore(Generic[T]):
    """A store inside a transaction: the same words, buffered."""

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.transaction.TransactionStore[T]) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    @property
    def spec(self) -> StoreSpec[T]:
        """The declaration."""
        return self._native.spec

    async def get(self, id: str) -> T | None:
        """The row with this id, or None."""
        return await run(self._portal, lambda: self._native.get(id))

    async def query(self, query: Rows[T] | None = None) -> tuple[T, ...]:
        """The rows of ``query``, all without one.

        Raises:
            QueryError: It does not fit the store, or reads another one.
        """
        return await run(self._portal, lambda: self._native.query(query))

    async def insert(self, item: T) -> T:
        """Add a row; if the hub assigns its id, reads inside do not see it, and ``drawn`` has the id afterwards.

        Raises:
            ConflictError: There is a row with this id already.
            ValidationError: A field has a wrong type or value.
        """
        return await run(self._portal, lambda: self._native.insert(item))

    async def update(
        self,
        id: str,
        changes: Mapping[str, object] | Callable[[T], T] | None = None,
        /,
        **fields: object,
    ) -> T:
        """Change some fields, by name or by a function; returns the row as it will be.

        Raises:
            NotFoundError: There is no such row.
            ValidationError: Unknown field, wrong type or value.
        """
        return await run(self._portal, lambda: self._native.update(id, changes, **fields))

    async def upsert(self, item: T | Mapping[str, object], *, apply: UpsertApply = "merge") -> None:
        """Add the row, or change the existing one.

        Raises:
            ValidationError: A field has a wrong type or value.
        """
        await run(self._portal, lambda: self._native.upsert(item, apply=apply))

    async def delete(self, id: str) -> None:
        """Remove a row.

        Raises:
            NotFoundError: There is no such row.
        """
        await run(self._portal, lambda: self._native.delete(id))

    async def restore(self, id: str) -> T:
        """Bring back a softly deleted row; returns it.

        Raises:
            NotFoundError: There is no such row, or it was purged.
            ValidationError: The store deletes for good.
        """
        return await run(self._portal, lambda: self._native.restore(id))

    async def purge(self, id: str) -> None:
        """Remove a row for good, whether it was deleted softly before or not.

        Raises:
            NotFoundError: There is no such row.
        """
        await run(self._portal, lambda: self._native.purge(id))


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

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.transaction.Transaction) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    @property
    def drawn(self) -> tuple[str, ...]:
        """Ids that the hub has drawn, once the block is left."""
        return self._native.drawn

    @property
    def confirm(self) -> Confirm | None:
        """Who has to confirm the commit."""
        return self._native.confirm

    @confirm.setter
    def confirm(self, value: Confirm | None) -> None:
        self._native.confirm = value

    @property
    def durability(self) -> Durability | None:
        """What the commit survives."""
        return self._native.durability

    @durability.setter
    def durability(self, value: Durability | None) -> None:
        self._native.durability = value

    def store(self, spec: StoreSpec[T]) -> TransactionStore[T]:
        """The store of ``spec`` inside this transaction.

        Raises:
            UnknownStore: The schema does not declare it.
        """
        return TransactionStore(self._portal, self._native.store(spec))

    def savepoint(self) -> Lifetime[Transaction]:
        """Open a nested part: an exception inside discards what it has buffered, and only that."""
        return held(self._portal, "savepoint", self._native.savepoint, Transaction)

    async def __aenter__(self) -> Self:
        await run(self._portal, self._native.__aenter__)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await run(self._portal, lambda: self._native.__aexit__(kind, error, trace))
