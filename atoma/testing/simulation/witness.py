"""What an application has been told: the handles of its writes, and the rows that a live query has shown it."""

from __future__ import annotations

from dataclasses import dataclass, field

from atoma.client import Client
from atoma.ports.live import apply_batch
from atoma.runtime import WriteHandle
from atoma.testing.simulation.replicas import Replica
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.stores import PAIRS, Item


@dataclass
class Witness:
    """One opening of a client, as its application sees it.

    Attributes:
        handles: Handles of the writes that have returned, by token.
        shown: What the live query has shown last.
    """

    replica: Replica
    handles: dict[str, WriteHandle[Item]] = field(default_factory=dict[str, WriteHandle[Item]])
    shown: tuple[Item, ...] | None = None

    def returned(self, token: str, handle: WriteHandle[Item] | None) -> None:
        """A write has returned.

        Raises:
            Violation: It is not in the outbox.
        """
        self.replica.expect(token)
        if handle is not None:
            self.handles[token] = handle

    async def watch(self, client: Client) -> None:
        """Follow a live query until cancelled."""
        rows: tuple[Item, ...] = ()
        async with client.store(PAIRS).live() as batches:
            async for batch in batches:
                self.shown = rows = apply_batch(rows, batch)

    def check(self) -> None:
        """Once everything has come together: every handle tells its verdict, the live query shows the rows.

        Raises:
            Violation: One of them does not.
        """
        replica = self.replica
        for token, handle in self.handles.items():
            fate = replica.memory.fates[replica.memory.tokens[token]]
            wanted = "dead" if token in replica.memory.dead and handle.state == "dead" else fate
            if handle.state != wanted:
                found = f"the handle of write {token} says {handle.state!r}, its verdict makes it {wanted!r}"
                raise Violation("F09", replica.name, found)
        if self.shown is None or replica.now is None:
            return
        shown = {item.id: item.token for item in self.shown}
        rows = {id: row["token"] for (store, id), row in replica.now.visible["main"].items() if store == PAIRS.name}
        if shown != rows:
            raise Violation("live", replica.name, f"the live query shows {shown}, the rows are {rows}")
