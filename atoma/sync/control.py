"""What an application may ask of replication: look, pause, resume, hurry, wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from atoma.contracts.replica import ClientIdentity, RepairReport
from atoma.errors import AtomaError
from atoma.ports.keys import PortKey
from atoma.ports.local import LocalTx
from atoma.ports.loops import Lifetime, LoopGuard
from atoma.sync.failures import Remedy, error_from, remedy
from atoma.sync.inbox import Inbox
from atoma.sync.lost import LostRows
from atoma.sync.replica import RepairOrder, Replica
from atoma.sync.status import SyncStatus
from atoma.sync.supervisor import Supervisor


class SyncControl:
    """Replication of one client."""

    def __init__(self, replica: Replica, supervisor: Supervisor) -> None:
        self._replica = replica
        self._supervisor = supervisor
        self._guard = LoopGuard("replication")
        self._inbox = Inbox(replica)
        self._lost = LostRows(replica)

    @property
    def status(self) -> SyncStatus:
        """What replication is doing now."""
        return self._replica.board.current

    @property
    def inbox(self) -> Inbox:
        """What the hub refused or cut."""
        return self._inbox

    @property
    def lost(self) -> LostRows:
        """What a restored hub has lost and this device still had, where it was not offered by itself."""
        return self._lost

    async def repair(self, *, dry_run: bool = False) -> RepairReport | None:
        """Repair this file now, if it does not continue the hub's history; see "Repair" in the explanation of sync.

        Repairs are made by themselves, unless ``Sync(repair="manual")`` leaves them to this call, or they were made again
        and again and did not help.

        Args:
            dry_run: Only tell what would be done; the file then waits as before.

        Returns:
            What was, or would be, done; None when nothing is wrong.

        Raises:
            AtomaError: The hub cannot be reached, or the file cannot be repaired.

        Cancelled before its one local transaction, nothing has changed.
        """
        return await self._ordered(RepairOrder(rehearsal=dry_run))

    async def adopt_hub(self, *, dry_run: bool = False) -> RepairReport | None:
        """Hand this file over to the hub, and the principal, that it is opened with: the way out of ``WRONG_HUB``.

        For a hub that was set up anew without a backup, or a device that moves to another hub or user. Until then nothing is
        sent. The file takes the hub's rows over. What it has of its old hub and the new one lacks, or has otherwise, is listed
        in :attr:`lost` with the reason ``adopted``, for :meth:`LostRows.offer` or ``discard``. Pending writes are sent, in
        the new principal's name, where nobody has touched their rows; else they come to the inbox (``UNKNOWN_OUTCOME``). For
        another principal of the same hub, rows and cursors stay.

        Args:
            dry_run: Only tell what would be done; the file then waits as before.

        Returns:
            What was, or would be, done; None when the file belongs here.

        Raises:
            AtomaError: The hub cannot be reached, or gives out none of the scopes.

        Cancelled before its one local transaction, nothing has changed.
        """
        return await self._ordered(RepairOrder(adopt=True, rehearsal=dry_run))

    async def _ordered(self, order: RepairOrder) -> RepairReport | None:
        self._guard.check()
        history = self._replica.repairs
        history.order, history.told = order, None
        try:
            await self._supervisor.open_once()
        except AtomaError:
            if not order.rehearsal or history.told is None:
                raise
        finally:
            history.order = None
        return history.told

    async def repairs(self) -> Sequence[RepairReport]:
        """The last repairs of this file, oldest first; at most twenty are kept."""
        self._guard.check()
        return await self._replica.database.inspect(lambda tx: tx.inbox.repairs())

    def subscribe(self, listener: Callable[[SyncStatus], None]) -> Callable[[], None]:
        """Call ``listener`` with the status now and after every change; returns the undo."""
        self._guard.check()
        return self._replica.board.subscribe(listener)

    def watch(self) -> Lifetime[AsyncIterator[SyncStatus]]:
        """Iterate over the status: now, then the latest after every change; a slow reader skips some."""
        self._guard.check()
        return self._replica.board.watch()

    def poke(self) -> None:
        """Try now whatever waits for its next attempt."""
        self._guard.check()
        self._supervisor.poke()

    def pause(self) -> None:
        """Disconnect and stay so until :meth:`resume`. Local reads and writes go on; the outbox is kept."""
        self._guard.check()
        self._supervisor.pause()

    def resume(self) -> None:
        """Connect again."""
        self._guard.check()
        self._supervisor.resume()

    async def sync_once(self) -> None:
        """Push what is queued and pull every scope to its head, now.

        Works in every mode, and while paused. While the lanes run it hurries them and waits.

        Raises:
            AtomaError: The attempt failed, or the hub refuses a scope; the outbox is kept and a later attempt goes on.
        """
        self._guard.check()
        supervisor = self._supervisor
        if supervisor.running and {"push", "pull"} <= supervisor.lanes:
            await self._wait(failing=True)
        else:
            await supervisor.run_once()
            await self._replica.refresh()
        refused = [error for error in map(self._refused, self._replica.scopes) if error is not None]
        if refused:
            raise refused[0]

    async def wait_idle(self) -> None:
        """Wait until nothing is left to do: every write settled, every scope at the head the hub has now.

        Waits through failures and re-connections; the caller's cancel scope is the limit. What a mode does not do
        (pushing in ``pull-only``, pulling in ``push-only``), and scopes the hub refuses, are not waited for.
        """
        self._guard.check()
        await self._wait(failing=False)

    def _refused(self, scope: str) -> AtomaError | None:
        """Why the hub does not give ``scope`` out, None while it does."""
        info = self._replica.progress(scope).error
        error = None if info is None else error_from(info)
        return error if error is not None and remedy(error) is Remedy.STALL else None

    async def _wait(self, *, failing: bool) -> None:
        supervisor, replica = self._supervisor, self._replica
        failures = supervisor.failures
        goals = {scope: schedule.begun + 1 for scope, schedule in replica.pulls.items()}
        supervisor.poke()
        while True:
            moved = replica.bell.next
            if await self._idle(goals):
                await replica.refresh()
                return
            if failing and supervisor.failures > failures and supervisor.last_failure is not None:
                raise supervisor.last_failure
            await moved.wait()

    async def _idle(self, goals: dict[str, int]) -> bool:
        lanes, pulls = self._supervisor.lanes, self._replica.pulls
        waiting = [scope for scope, goal in goals.items() if pulls[scope].done < goal]
        if "pull" in lanes and any(self._refused(scope) is None for scope in waiting):
            return False
        if "push" not in lanes:
            return True
        identity, queued = await self._replica.database.inspect(_backlog)
        return not queued if "pull" not in lanes else identity.confirmed_mid == identity.next_mid - 1


def _backlog(tx: LocalTx) -> tuple[ClientIdentity, bool]:
    return tx.outbox.identity(), bool(tx.outbox.queued(limit=1, max_bytes=1))


SYNC_CONTROL: PortKey[SyncControl] = PortKey("sync-control")
"""Replication of this client; offered by ``Sync``."""
