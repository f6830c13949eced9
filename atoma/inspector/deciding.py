"""What somebody decides in the inspector: about writes that wait, conflicts, and rows that a hub has lost."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from atoma.client import Client


class PageDecision(Protocol):
    """A decision, as a page sends it."""

    @property
    def client(self) -> str:
        """The key of the client that it is about."""
        ...

    async def carry_out(self, client: Client) -> int:
        """Do it; the number of entries that it was about.

        Raises:
            AtomaError: It cannot be done, or not any more; nothing has changed.
        """
        ...


class LostDecision(msgspec.Struct, frozen=True):
    """Rows that the hub has lost are offered to it, or let go."""

    client: str
    numbers: list[int]
    action: Literal["offer", "drop"]

    async def carry_out(self, client: Client) -> int:
        """See :meth:`Decision.carry_out`; what was decided meanwhile does not count."""
        lost = client.sync.lost
        chosen = [row for row in await lost.entries() if row.number in self.numbers]
        await (lost.offer(chosen) if self.action == "offer" else lost.discard(chosen))
        return len(chosen)


class OutboxDecision(msgspec.Struct, frozen=True):
    """Writes that wait are held, released or taken back; or everything that is queued is sent now (``keys`` is empty then)."""

    client: str
    action: Literal["retry", "hold", "release", "discard"]
    keys: list[str] = []
    dependents: bool = False

    async def carry_out(self, client: Client) -> int:
        """See :meth:`Decision.carry_out`; what has left the outbox meanwhile does not count."""
        outbox = client.sync.outbox
        if self.action == "retry":
            await outbox.retry()
            return 0
        chosen = [entry for entry in await outbox.entries() if entry.key in self.keys]
        if self.action == "hold":
            await outbox.hold(chosen)
        elif self.action == "release":
            await outbox.release(chosen)
        else:
            await outbox.discard(chosen, dependents=self.dependents)
        return len(chosen)


class ConflictDecision(msgspec.Struct, frozen=True):
    """An entry of the inbox is resolved: what the user had made is written again, or the row stays as the hub has it.

    ``number`` is the local order of the entry's mutation; ``fields`` are those of which the user's values are kept, None for
    all that the user had changed.
    """

    client: str
    number: int
    store: str
    id: str
    action: Literal["mine", "theirs"]
    fields: list[str] | None = None

    async def carry_out(self, client: Client) -> int:
        """See :meth:`Decision.carry_out`; an entry that was resolved meanwhile does not count."""
        inbox = client.inbox
        named = (self.number, self.store, self.id)
        chosen = [entry for entry in await inbox.entries() if (entry.lsn, entry.store, entry.id) == named][:1]
        for entry in chosen:
            await (inbox.keep_mine(entry, fields=self.fields) if self.action == "mine" else inbox.dismiss(entry))
        return len(chosen)
