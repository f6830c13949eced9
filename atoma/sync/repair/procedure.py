"""The phases of a repair over a connection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec.structs import replace

from atoma.contracts.events import RepairDone, RepairStarted
from atoma.contracts.mutations import QUEUED, PendingMutation
from atoma.contracts.replica import RepairReport
from atoma.contracts.sync import (
    ASKED_MAX,
    OpenReply,
    OpenRequest,
    Outcome,
    ScopeStatus,
    Verdict,
)
from atoma.errors import RemoteError
from atoma.ports.local import LocalTx
from atoma.ports.service import SyncService
from atoma.sync.failures import HistoryMoved
from atoma.sync.outbox import digest_before
from atoma.sync.parts import given_in
from atoma.sync.repair.changes import Reborn
from atoma.sync.repair.diagnosis import Diagnosis
from atoma.sync.repair.offers import Cut
from atoma.sync.repair.rebirth import Rebirth
from atoma.sync.replica import Replica, bounded
from atoma.sync.requests import PageRequests, RequestSize
from atoma.sync.staging import SnapshotPage, SnapshotsForgotten, TailPage
from atoma.sync.status import RepairPhase, RepairProgress

CLIENT_ID_BYTES = 16


def new_client_id(replica: Replica) -> bytes:
    """An id that no file has had."""
    return replica.environment.random.randbytes(CLIENT_ID_BYTES)


async def look_up(
    service: SyncService, request: OpenRequest, mids: Sequence[int], asked: Callable[[int], None] = lambda _: None
) -> dict[int, Verdict]:
    """What the hub keeps of the mutations ``mids`` of the client that ``request`` is from; ``asked`` is called with how many were."""
    found: dict[int, Verdict] = {}
    request, size, done = replace(request, scopes=(), places=()), RequestSize("open", ASKED_MAX), 0
    while done < len(mids):
        some = mids[done : done + size.now]
        try:
            with bounded("open"):
                reply = await service.open(replace(request, asked=tuple(some)))
        except RemoteError as error:
            if not size.shrink(error, len(some)):
                raise
            continue
        found.update((verdict.outcome.mid, verdict) for verdict in reply.verdicts)
        done += len(some)
        asked(done)
    return found


async def look_up_waiting(
    replica: Replica, service: SyncService, request: OpenRequest, reply: OpenReply, moved: Collection[str]
) -> dict[str, Outcome] | Diagnosis:
    """Verdicts that the hub has given and that wait here, by key; or what is wrong, as it has forgotten one.

    They are asked for where they may not come by themselves: the mutations cannot be sent once more, or were refused as those
    of another file. The hub has forgotten one where this file was restored or copied long ago, and another copy has confirmed
    it. In scopes that have ``moved`` to another epoch, or may have, what the hub had applied waits for its verdict again.
    """
    suspected, replica.repairs.suspected = replica.repairs.suspected, ""

    def strange(tx: LocalTx) -> list[PendingMutation]:
        decided = tx.outbox.every(reply.last_mid)
        queued = [item for item in decided if item.status == QUEUED or item.scope in moved]
        return queued if suspected or (queued and digest_before(tx, queued[0].mid) is None) else []

    waiting = await replica.database.inspect(strange)
    verdicts = await look_up(service, request, [item.mid for item in waiting])
    lost = [item.mid for item in waiting if item.mid not in verdicts]
    if not lost:
        return {item.idem: verdicts[item.mid].outcome for item in waiting}
    why = (
        f"the hub has decided mutation {lost[0]} of this client and forgotten how: a copy of this file has received it"
    )
    return Diagnosis("CLIENT_FORKED", why)


async def stage(
    replica: Replica,
    service: SyncService,
    client_id: bytes,
    status: ScopeStatus,
    reply: OpenReply,
    shapes: tuple[bytes, ...],
    staged: Callable[[int], None],
) -> Cut:
    """Stage a snapshot of a scope, in ``shapes``, beside its rows, up to the last page, which is left for the swap.

    Raises:
        RemoteError: The hub refuses, or what was staged has expired; the next session begins anew.
        TransportError: The connection broke; nothing visible has changed.
    """
    scope = status.scope
    pages = PageRequests(service, scope, client_id, reply.limits, replica.version_told(reply))
    await replica.begin_snapshot(scope)
    while True:
        at = await replica.database.inspect(lambda tx: tx.scopes.read(scope))
        if at.state == "new":
            raise HistoryMoved(f"scope {scope!r} was dropped from this device while it was repaired")
        if at.state == "snapshot":
            rows = await pages.snapshot(at.token, shapes)
            await replica.change(SnapshotPage(at.token, rows, replica.stores))
            staged(sum(len(part.rows) for part in rows.stores))
            continue
        assert at.stage_cursor is not None
        page = await pages.pull(at.stage_cursor, 0, shapes)
        if not page.more:
            return Cut(status, page)
        await replica.change(TailPage(page, replica.stores))


async def repair(
    replica: Replica,
    service: SyncService,
    diagnosis: Diagnosis,
    request: OpenRequest,
    reply: OpenReply,
    forks: Collection[str],
    apart: Mapping[str, int],
    *,
    rehearsal: bool = False,
) -> RepairReport:
    """Look up what became of the outbox, stage what the hub has in the place of what it lost, and be reborn.

    Args:
        replica: The client's side.
        service: The hub.
        diagnosis: Why the file does not continue the hub's history.
        request: What it was told.
        reply: What it answered.
        forks: Scopes of which it has lost a part that this file has seen; it was asked for the shapes in which they are wanted.
        apart: Others of which it has, and which it gives out in none of the shapes.
        rehearsal: Take the local transaction back, and only tell what it would have done.

    Raises:
        RemoteError: The hub refuses; nothing has changed.
        TransportError: The connection broke; nothing has changed.
        StoreError: The local transaction failed as a whole.
    """
    shown = _Shown(replica, diagnosis, rehearsal=rehearsal)
    mids = await replica.database.inspect(lambda tx: [item.mid for item in tx.outbox.every(reply.last_mid)])
    shown.show("verdicts", 0, len(mids))
    verdicts = await look_up(service, request, mids, lambda done: shown.show("verdicts", done, len(mids)))
    before = await replica.database.inspect(lambda tx: [tx.scopes.read(scope) for scope in sorted(forks)])
    cuts = [
        await stage(replica, service, request.client_id, status, reply, given_in(replica, status.scope), shown.staged)
        for status in reply.scopes
        if status.scope in forks
    ]
    rebirth = Rebirth(
        diagnosis=diagnosis,
        client_id=new_client_id(replica),
        verdicts=verdicts,
        reply=reply,
        cuts=cuts,
        apart=apart,
        stores=replica.stores,
        policy=replica.on_hub_loss,
    )
    if rehearsal:
        report, _ = await replica.change(Reborn(rebirth, rehearsal=True))
        await replica.change(SnapshotsForgotten(before))
        return report
    shown.show("commit")
    report, work = await replica.change(Reborn(rebirth))
    replica.settled(work)
    replica.board.show(replace(replica.board.current, last_repair=report))
    replica.emit(RepairDone(report))
    replica.show_now()
    return report


class _Shown:
    """A display of how far a repair is; nobody sees a rehearsal."""

    def __init__(self, replica: Replica, diagnosis: Diagnosis, *, rehearsal: bool) -> None:
        self._board = replica.board
        self._diagnosis = diagnosis
        self._rehearsal = rehearsal
        self._rows = 0
        if not rehearsal:
            replica.emit(RepairStarted(diagnosis.cause, diagnosis.why))

    def show(self, phase: RepairPhase, done: int = 0, of: int = 0) -> None:
        """Show where the repair is."""
        cause, why = self._diagnosis.cause, self._diagnosis.why
        if not self._rehearsal:
            progress = RepairProgress(cause, phase, done, of)
            self._board.show(replace(self._board.current, state="repairing", reason=why, repair=progress))

    def staged(self, rows: int) -> None:
        """Count ``rows`` more."""
        self._rows += rows
        self.show("snapshot", self._rows)
