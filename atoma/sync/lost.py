"""Rows that a restored hub has lost and this device still had, kept until somebody offers them or lets them go."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from atoma.contracts.codec import encode
from atoma.contracts.overlay import LostRow, PendingMutation
from atoma.contracts.sync import MutationBody
from atoma.ports.local import LocalTx
from atoma.sync.outbox import next_digest
from atoma.sync.repair.offers import offer_op, set_aside
from atoma.sync.replica import Replica
from atoma.sync.settle import rebase_rows


class LostRows:
    """Lists and resolves them; nothing leaves the list unless somebody says so.

    Args:
        replica: The client's side.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def entries(self, *, resolved: bool = False) -> Sequence[LostRow]:
        """Open entries, oldest first; resolved ones too when asked for."""
        found = await self._replica.database.inspect(lambda tx: tx.lost())
        return [entry for entry in found if resolved or not entry.resolution]

    async def offer(self, entries: Sequence[LostRow]) -> None:
        """Bring rows back as this device had them, in one local transaction.

        The hub takes a row unless somebody has written it since the hub was restored; then it comes to the inbox. An entry
        that is resolved already is passed over. Cancelled, nothing has happened, or all of it.
        """
        await self._replica.apply.apply_writeback(lambda tx: self._enqueue(tx, entries))
        self._replica.push_wake.poke()

    async def discard(self, entries: Sequence[LostRow]) -> None:
        """Leave rows as the hub has them; the entries stay listed among the resolved ones."""

        def mark(tx: LocalTx) -> None:
            for entry in entries:
                tx.resolve_lost(entry.number, "discarded")

        await self._replica.apply.apply_writeback(mark)

    def _enqueue(self, tx: LocalTx, entries: Sequence[LostRow]) -> None:
        still_open = {entry.number for entry in tx.lost() if not entry.resolution}
        identity, ids = tx.identity(), self._replica.environment.ids
        mid, tail = identity.next_mid, identity.tail_digest
        dirty: dict[tuple[str, str], str] = {}
        for entry in entries:
            if entry.number not in still_open:
                continue
            key = ids()
            op = offer_op(entry.store, entry.id, entry.image)
            proved = bool(entry.recovers.proof)
            body = encode(
                MutationBody(
                    mid,
                    key,
                    entry.scope,
                    entry.fork.seq,
                    tx.schema.version,
                    tx.now_ms,
                    (op if proved else replace(op, cas=True),),
                    entry.fork.epoch,
                    recovers=entry.recovers if proved else None,
                )
            )
            row = tx.read_row(entry.store, entry.id)
            set_aside(tx, entry.store, entry.id, entry.scope)
            tail = next_digest(tail, body)
            pending = PendingMutation(0, "outbox", mid, key, entry.scope, entry.fork.seq, body, tail)
            tx.enqueue(pending, [(entry.store, entry.id, None if row is None else row.image)])
            tx.resolve_lost(entry.number, "offered")
            dirty[entry.store, entry.id] = entry.scope
            mid += 1
        tx.save_identity(replace(identity, next_mid=mid, tail_digest=tail))
        rebase_rows(tx, dirty)
