"""The inbox: what the hub refused or cut of the user's work, with base, mine and theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from atoma.contracts.mutations import Op
from atoma.contracts.replica import InboxEntry
from atoma.errors import NotFoundError
from atoma.sync.replica import Replica
from atoma.sync.staging import Resolved

Rewrite: TypeAlias = Callable[[Op], Awaitable[object]]
"""Writes an entry as the user would, through the client's write flow."""


class Inbox:
    """Lists and resolves what came back; nothing leaves it unless somebody says so.

    Args:
        replica: The client's side.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def entries(self, *, resolved: bool = False) -> Sequence[InboxEntry]:
        """Open entries, oldest first; resolved ones too when asked for."""
        found = await self._replica.database.inspect(lambda tx: tx.inbox.entries())
        return [entry for entry in found if resolved or not entry.resolution]

    async def dismiss(self, entry: InboxEntry) -> None:
        """Leave it at the hub's state; the entry stays listed among the resolved ones."""
        await self._resolve(entry, "dismissed")

    async def keep_mine(self, entry: InboxEntry, rewrite: Rewrite) -> None:
        """Write the user's image again, as a new write on what is there now, and mark the entry as resolved.

        Args:
            entry: An entry of :meth:`entries`.
            rewrite: Carries the new write out; when it raises, the entry stays open.

        Cancelled between the two steps, the write is there and the entry still open; doing it again does no harm.
        """
        try:
            await rewrite(mine_again(entry))
        except NotFoundError:
            if entry.mine is not None:
                raise  # a delete of a row that is gone is what was asked for
        await self._resolve(entry, "kept_mine")

    async def _resolve(self, entry: InboxEntry, resolution: str) -> None:
        await self._replica.change(Resolved(entry, resolution))


def mine_again(entry: InboxEntry) -> Op:
    """The write that makes the row what the user had made of it: only the columns they had changed."""
    again = replace(entry.op, values={}, defaults={}, after_mid=0, cas=False, scope=entry.scope)
    if entry.mine is None:
        return replace(again, kind="delete")
    seen = entry.base or {}
    changed = {name: value for name, value in entry.mine.items() if name not in seen or seen[name] != value}
    rest = {name: value for name, value in entry.mine.items() if name not in changed}
    return replace(again, kind="upsert", values=changed, defaults=rest)
