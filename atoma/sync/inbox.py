"""The inbox: what the hub refused or cut of the user's work, with base, mine and theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import trio
from msgspec.structs import replace

from atoma.contracts.mutations import Op
from atoma.contracts.replica import InboxEntry
from atoma.contracts.values import HIDDEN, RowImage, Scalar, is_gone, is_hidden
from atoma.errors import NotFoundError, StoreBusy, ValidationError
from atoma.mutations import columns_of, differences
from atoma.ports.local import LocalTx
from atoma.schema.spec import StoreSpec
from atoma.sync.replica import Replica
from atoma.sync.staging import Resolved

MARK_S = 5.0
"""Marking an entry whose write is there waits at most so long, in seconds, also for who is cancelled."""

Rewrite: TypeAlias = Callable[[Op], Awaitable[object]]
"""Writes an entry as the user would, through the client's write flow."""


class Inbox:
    """The list of what came back, to be resolved; nothing leaves it unless somebody says so.

    Args:
        replica: The client's side.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._turns: WeakValueDictionary[tuple[int, int, str, str], trio.Lock] = WeakValueDictionary()

    async def entries(self, *, resolved: bool = False) -> Sequence[InboxEntry]:
        """Open entries, oldest first; resolved ones too when asked for."""
        return await self._replica.database.inspect(lambda tx: tx.inbox.entries() if resolved else open_entries(tx))

    async def dismiss(self, entry: InboxEntry) -> None:
        """Leave it at the hub's state; the entry stays listed among the resolved ones. One that is resolved already stays so."""
        async with self._turn_of(entry):
            if await self._is_open(entry):
                await self._resolve(entry, "dismissed")

    async def keep_mine(self, entry: InboxEntry, rewrite: Rewrite, fields: Collection[str] | None = None) -> None:
        """Write the user's image again, as a new write on what is there now, and mark the entry as resolved.

        An entry that was resolved since it was listed is passed over: two callers would do twice what adds up.

        Args:
            entry: An entry of :meth:`entries`.
            rewrite: Carries the new write out; when it raises, the entry stays open.
            fields: Those of which the user's values are kept; the hub's stay in the others. None for all.

        Raises:
            ValidationError: There are no values of the user's in one of ``fields``.
            StoreBusy: The write is there, and the entry, which could not be marked in :data:`MARK_S`, is still open.

        Once the write has returned the entry is marked, whoever is cancelled. Cancelled while a strict write waits for the hub, the
        write may be there and the entry still open.
        """
        async with self._turn_of(entry):
            if not entry.resolution and not await self._is_open(entry):
                return
            try:
                await rewrite(mine_again(entry, self._replica.schema.store(entry.store), fields))
            except NotFoundError:
                if not is_gone(entry.mine):
                    raise  # a delete of a row that is gone is what was asked for
            with trio.CancelScope(shield=True, deadline=trio.current_time() + MARK_S) as marking:
                await self._resolve(entry, "kept_mine")
            if marking.cancelled_caught:
                what = f"{entry.store}/{entry.id} was written again, and its entry of the inbox"
                raise StoreBusy(f"{what} could not be marked within {MARK_S:.0f} s: it is still open")

    def _turn_of(self, entry: InboxEntry) -> trio.Lock:
        return self._turns.setdefault((entry.lsn, entry.mid, entry.store, entry.id), trio.Lock())

    async def _is_open(self, entry: InboxEntry) -> bool:
        named = (entry.lsn, entry.mid, entry.store, entry.id)
        found = await self._replica.database.inspect(open_entries)
        return any((each.lsn, each.mid, each.store, each.id) == named for each in found)

    async def _resolve(self, entry: InboxEntry, resolution: str) -> None:
        await self._replica.change(Resolved(entry, resolution))


def open_entries(tx: LocalTx) -> list[InboxEntry]:
    """The entries that nobody has resolved yet, oldest first."""
    return [entry for entry in tx.inbox.entries() if not entry.resolution]


def mine_again(entry: InboxEntry, store: StoreSpec[Any], fields: Collection[str] | None = None) -> Op:
    """The write that makes the row what the user had made of it: only the columns they had changed, or those of ``fields``.

    To a column that merges by itself it does what the user had done to it: an increment is added to what is there now.
    """
    again = replace(entry.op, values={}, defaults={}, after_mid=0, cas=False, scope=entry.scope, edits=())
    if entry.mine is None or is_hidden(entry.mine):
        if fields is not None:
            raise ValidationError(
                f"{entry.store}/{entry.id} was deleted here: there is no field to keep", store=entry.store
            )
        if entry.mine is None:
            return replace(again, kind="delete")
        return replace(again, kind="patch", values={HIDDEN: entry.mine[HIDDEN]})
    seen = entry.base or {}
    changed = {
        name: value
        for name, value in entry.mine.items()
        if name not in seen or seen[name] != value or name == HIDDEN  # it may have been deleted by somebody since
    }
    if fields is not None:
        changed = _chosen(entry, changed, fields)
    edits = differences(store, seen, changed) if entry.base is not None else ()
    edited = {name for edit in edits for name in columns_of(edit)}
    values = {name: value for name, value in changed.items() if name not in edited}
    rest = {name: value for name, value in entry.mine.items() if name not in values}
    return replace(again, kind="upsert", values=values, defaults=rest, edits=edits)


def _chosen(entry: InboxEntry, changed: Mapping[str, Scalar], fields: Collection[str]) -> RowImage:
    unchanged = next((name for name in fields if name not in changed or name == HIDDEN), None)
    if unchanged is not None or not fields:
        what = f"{unchanged!r} was not changed here" if fields else "fields names no field"
        named = ", ".join([name for name in changed if name != HIDDEN]) or "none"
        raise ValidationError(
            f"{entry.store}/{entry.id}: {what}; changed were: {named}", store=entry.store, field=unchanged or ""
        )
    return {name: value for name, value in changed.items() if name in fields or name == HIDDEN}
