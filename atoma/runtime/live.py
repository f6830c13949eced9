"""Live queries with model instances instead of stored rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Generic, TypeVar, cast

from msgspec.structs import replace

from atoma.ports.live import Change, Insert, LiveBatch, Move, Remove, Reset, ResultRow, Update
from atoma.ports.loops import LoopGuard, lifetime
from atoma.query.binding import Asked
from atoma.query.decoding import Reader
from atoma.runtime.flows import Core
from atoma.schema.shapes import Bring

T = TypeVar("T")


class RowView(Generic[T]):
    """A decoder of rows, once each: an unchanged row is the same object in every batch.

    Args:
        read: Makes an item of a row.
    """

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._rows: list[ResultRow] = []
        self._items: list[T] = []

    @property
    def items(self) -> tuple[T, ...]:
        """The result now."""
        return tuple(self._items)

    def apply(self, batch: LiveBatch[ResultRow]) -> LiveBatch[T]:
        """Take over ``batch`` and give it back with model instances."""
        changes: tuple[Change[T], ...] = tuple(map(self._change, batch.changes))
        return cast("LiveBatch[T]", replace(cast("LiveBatch[object]", batch), changes=changes))

    def _decode(self, row: ResultRow) -> T:
        item: T = self._read(row)
        return item

    def _change(self, change: Change[ResultRow]) -> Change[T]:
        match change:
            case Reset(rows):
                known = {id(row): item for row, item in zip(self._rows, self._items, strict=True)}
                self._items = [known[id(row)] if id(row) in known else self._decode(row) for row in rows]
                self._rows = list(rows)
                return Reset(tuple(self._items))
            case Insert(at, row):
                item = self._decode(row)
                self._rows.insert(at, row)
                self._items.insert(at, item)
                return Insert(at, item)
            case Remove(at, key):
                del self._rows[at], self._items[at]
                return Remove(at, key)
            case Update(at, row):
                item = self._decode(row)
                self._rows[at], self._items[at] = row, item
                return Update(at, item)
            case Move(start, end, row):
                same = self._rows.pop(start) is row
                old = self._items.pop(start)
                item = old if same else self._decode(row)
                self._rows.insert(end, row)
                self._items.insert(end, item)
                return Move(start, end, item)


@lifetime
async def live(
    core: Core, found: Asked[T], policy: str | None = None, *, bring: Bring = False
) -> AsyncGenerator[AsyncIterator[LiveBatch[T]]]:
    """``LiveQueries.open_live`` with model instances; the same promises.

    Where there is a ``policy``, the query is carried out by it first, for what that leaves here: rows that are kept of a remote
    answer, or those of a scope that it has brought up to date. With ``bring`` the scopes that it looks at replicate as long.
    """
    query, followed = found.query, core.live
    async with core.brought(query, bring):
        if policy is not None:
            if query.store in core.synced:  # one row does as well: the lanes bring the others
                query = replace(query, plan=replace(query.plan, limit=1))
            await core.reads.query(query, policy)
        async with followed.open_live(found.query) as batches:
            view: RowView[T] = RowView(found.read)
            yield TypedLiveBatches(batches, view, core.guard)


class TypedLiveBatches(Generic[T]):
    """Batches with model instances: an iterator, not a generator, so that one that is left half-read has nothing to clean up.

    Args:
        batches: Those of the rows.
        view: Makes the instances.
        guard: Says whether this is the client's loop.
    """

    def __init__(self, batches: AsyncIterator[LiveBatch[ResultRow]], view: RowView[T], guard: LoopGuard) -> None:
        self._guard = guard
        self._batches = batches
        self._view = view

    def __aiter__(self) -> TypedLiveBatches[T]:
        return self

    async def __anext__(self) -> LiveBatch[T]:
        self._guard.check_loop()
        return self._view.apply(await anext(self._batches))
