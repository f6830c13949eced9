"""The steps of a repair over a connection."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from atoma.contracts.overlay import QUEUED
from atoma.contracts.sync import ASKED_MAX, OpenReply, OpenRequest, Verdict
from atoma.ports.local import LocalTx
from atoma.ports.service import SyncService
from atoma.sync.outbox import digest_before
from atoma.sync.repair.diagnosis import Diagnosis
from atoma.sync.repair.rebirth import Reborn, be_reborn
from atoma.sync.replica import Replica, bounded

CLIENT_ID_BYTES = 16


async def look_up(service: SyncService, request: OpenRequest, mids: Sequence[int]) -> dict[int, Verdict]:
    """What the hub keeps of the mutations ``mids`` of the client that ``request`` is from."""
    found: dict[int, Verdict] = {}
    for first in range(0, len(mids), ASKED_MAX):
        with bounded("open"):
            reply = await service.open(replace(request, asked=tuple(mids[first : first + ASKED_MAX])))
        found.update((verdict.outcome.mid, verdict) for verdict in reply.verdicts)
    return found


async def undecidable(
    replica: Replica, service: SyncService, request: OpenRequest, reply: OpenReply
) -> Diagnosis | None:
    """Whether a mutation is still queued here that the hub has decided and whose verdict it has forgotten.

    That happens to a file that was restored or copied long ago: another copy has confirmed the verdict.
    """
    suspected, replica.repairs.suspected = replica.repairs.suspected, ""

    def strange(tx: LocalTx) -> list[int]:
        queued = [item for item in tx.every_outbox() if item.status == QUEUED and 0 < item.mid <= reply.last_mid]
        if suspected or (queued and digest_before(tx, queued[0].mid) is None):
            return [item.mid for item in queued]
        return []

    mids = await replica.database.inspect(strange)
    verdicts = await look_up(service, request, mids)
    lost = [mid for mid in mids if mid not in verdicts]
    if not lost:
        return None
    why = f"the hub has decided mutation {lost[0]} of this client and forgotten how: a copy of this file has heard it"
    return Diagnosis("CLIENT_FORKED", why)


async def repair(replica: Replica, service: SyncService, request: OpenRequest, reply: OpenReply) -> Reborn:
    """Look up what became of the outbox, and let the file be reborn.

    Raises:
        RemoteError: The hub refuses; nothing has changed.
        TransportError: The connection broke; nothing has changed.
        StoreError: The local transaction failed as a whole.
    """
    mids = await replica.database.inspect(
        lambda tx: [item.mid for item in tx.every_outbox() if 0 < item.mid <= reply.last_mid]
    )
    verdicts = await look_up(service, request, mids)
    client_id = replica.environment.random.randbytes(CLIENT_ID_BYTES)
    reborn = await replica.apply.apply_writeback(
        lambda tx: be_reborn(tx, client_id, verdicts, reply.last_mid, known=reply.known)
    )
    replica.settled(reborn.work)
    await replica.refresh()
    return reborn
