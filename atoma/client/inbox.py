"""The conflict inbox with the client's own write path behind it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from atoma.contracts.mutations import Op
from atoma.contracts.replica import InboxEntry
from atoma.runtime import Runtime
from atoma.runtime.results import error_of

if TYPE_CHECKING:
    from atoma.sync import Inbox


class ConflictInbox:
    """Changes of this device that the hub refused or dropped, each entry with base, mine and theirs.

    Entries leave the inbox only when somebody resolves them.
    """

    def __init__(self, inbox: Inbox, runtime: Runtime) -> None:
        self._inbox = inbox
        self._runtime = runtime

    async def entries(self, *, resolved: bool = False) -> Sequence[InboxEntry]:
        """Return the open entries, oldest first; on request the resolved ones too."""
        self._runtime.core.guard.check()
        return await self._inbox.entries(resolved=resolved)

    async def dismiss(self, entry: InboxEntry) -> None:
        """Leave the row at the hub's state; an entry that is already resolved stays as it is."""
        self._runtime.core.guard.check()
        await self._inbox.dismiss(entry)

    async def keep_mine(self, entry: InboxEntry, *, fields: Collection[str] | None = None) -> None:
        """Write the user's change again, as a new write on the current row.

        An entry that somebody has resolved since it was listed is skipped, so that nothing is done twice.

        Args:
            entry: An entry of :meth:`entries`.
            fields: The fields that keep the user's values; the others keep the hub's. None for all that the user had
                changed.

        Raises:
            WriteError: The new write was refused; the entry stays open.
            ValidationError: The user's change may no longer be written, or the user had not changed one of
                ``fields``; the entry stays open.

        If the call is cancelled, nothing has happened, or all of it; while a strict write waits for the hub, the
        write may have been made and the entry still be open.
        """
        self._runtime.core.guard.check()
        await self._inbox.keep_mine(entry, self._rewrite, fields)

    async def _rewrite(self, entry: Op) -> None:
        spec = self._runtime.schema.store(entry.store)
        for values in (entry.values, entry.defaults):  # an older version may have let in what is refused today
            for name, value in values.items():
                spec.canonical(name, value)
        result = await self._runtime.core.writes.write([entry])
        if not result.items[0].ok:
            raise error_of(entry.store, result.items[0])
