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
    """The work of this device that the hub refused or cut, each entry with base, mine and theirs.

    Nothing leaves the inbox unless somebody says so.
    """

    def __init__(self, inbox: Inbox, runtime: Runtime) -> None:
        self._inbox = inbox
        self._runtime = runtime

    async def entries(self, *, resolved: bool = False) -> Sequence[InboxEntry]:
        """Open entries, oldest first; resolved ones too when asked for."""
        self._runtime.core.guard.check()
        return await self._inbox.entries(resolved=resolved)

    async def dismiss(self, entry: InboxEntry) -> None:
        """Leave the row at the hub's state; an entry that is resolved already stays as it is."""
        self._runtime.core.guard.check()
        await self._inbox.dismiss(entry)

    async def keep_mine(self, entry: InboxEntry, *, fields: Collection[str] | None = None) -> None:
        """Write what the user had made again, as a new write on what is there now.

        An entry that somebody has resolved since it was listed is passed over, so that nothing is done twice.

        Args:
            entry: An entry of :meth:`entries`.
            fields: Those of which the user's values are kept; the hub's stay in the others. None for all that the user had
                changed.

        Raises:
            WriteError: The new write was refused; the entry stays open.
            ValidationError: What the user had made may not be written any more, or the user had not changed one of
                ``fields``; the entry stays open.

        Cancelled, nothing has happened, or all of it; where a strict write waits for the hub the write may be there and the entry
        still open.
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
