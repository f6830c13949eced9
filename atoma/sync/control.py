"""What an application may ask of replication: look, pause, resume, hurry, wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import trio

from atoma.contracts.replica import ClientIdentity, RepairReport
from atoma.errors import AtomaError, ConfigurationError, ScopeNotSubscribed
from atoma.ports.keys import PortKey
from atoma.ports.local import LocalTx
from atoma.ports.loops import Lifetime, LoopGuard
from atoma.schema.shapes import AnyPart
from atoma.sync.failures import refusal
from atoma.sync.inbox import Inbox
from atoma.sync.keeping import ScopeKeeper
from atoma.sync.lost import LostRows
from atoma.sync.modes import MODES
from atoma.sync.presence_lane import PresenceLane
from atoma.sync.replica import RepairOrder, Replica
from atoma.sync.scopes import portion_of
from atoma.sync.status import SyncStatus
from atoma.sync.supervisor import Supervisor
from atoma.sync.waiting import Outbox


class SyncControl:
    """Replication of one client."""

    def __init__(self, replica: Replica, supervisor: Supervisor, keeper: ScopeKeeper, presence: PresenceLane) -> None:
        self._replica = replica
        self._supervisor = supervisor
        self._keeper = keeper
        self._presence = presence
        self._guard = LoopGuard("replication")
        self._inbox = Inbox(replica)
        self._lost = LostRows(replica)
        self._outbox = Outbox(replica)

    @property
    def status(self) -> SyncStatus:
        """What replication is doing now."""
        return self._replica.board.current

    @property
    def inbox(self) -> Inbox:
        """What the hub refused or cut."""
        return self._inbox

    @property
    def outbox(self) -> Outbox:
        """What waits to be sent, and what may still be done about it."""
        return self._outbox

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
        """Call ``listener`` with the status now and after every change; returns the undo. One that raises is logged.

        Raises:
            ConfigurationError: There are too many: nobody calls the undo.
        """
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
        """Disconnect and stay so until :meth:`resume`. Local reads and writes go on; the outbox is kept, presence is not."""
        self._guard.check()
        self._presence.pause()
        self._supervisor.pause()

    def resume(self) -> None:
        """Connect again."""
        self._guard.check()
        self._presence.resume()
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
            await self._wait(self._goals(self._replica.scopes), failing=True, pushed=True)
        else:
            await supervisor.run_once()
            self._replica.board.publish()
        self._raise_refusal(self._replica.scopes)

    async def pull(self, scopes: Iterable[AnyPart] | None = None) -> None:
        """Bring scopes to the head that the hub has now; what is queued is not waited for.

        Args:
            scopes: Their names, or parts of them, as :meth:`scope` takes them; None for all that replicate here.

        Raises:
            ScopeNotSubscribed: One of them does not replicate here.
            ConfigurationError: The mode is ``push-only``.
            AtomaError: The attempt failed, or the hub refuses one of them; a later attempt goes on.
        """
        self._guard.check()
        supervisor, known = self._supervisor, self._replica.scopes
        portions = [portion_of(part, self._replica.shapes) for part in (known if scopes is None else scopes)]
        wanted = tuple(dict.fromkeys(portion.scope for portion in portions))
        for portion in portions:
            if portion.scope not in known or (portion.shape and not self._replica.replicated.takes_in(portion)):
                raise ScopeNotSubscribed(portion.scope, known)
        if supervisor.lanes == MODES["push-only"]:
            raise ConfigurationError("this client fetches nothing: it was made with Sync(mode='push-only')")
        if not wanted:
            await trio.lowlevel.checkpoint()
        elif supervisor.running and "pull" in supervisor.lanes:
            await self._wait(self._goals(wanted), failing=True, pushed=False)
        else:
            await supervisor.run_once()
            self._replica.board.publish()
        self._raise_refusal(wanted)
        for portion in portions:
            if (refused := refusal(self._replica.error_of(portion))) is not None:
                raise refused

    def scope(self, scope: AnyPart) -> Lifetime[None]:
        """Replicate ``scope`` for as long as the block lasts: ``async with client.sync.scope("board:7"):``.

        A part of it is taken in a shape of the schema, ``client.sync.scope(RECENT.of("board:7", since=…))``. Other values are another
        part; where several are wanted, the device has the rows of each of them.

        The block is entered at once, with or without a hub: the file says from then on that the scope is wanted, and the lanes bring
        its rows and keep them up to date. :meth:`pull` waits for them, and raises where the hub refuses the scope; :attr:`status` has
        its progress and its error. Afterwards the scope stays until it ages out, as ``Sync(idle=…)`` says, and does not have to be
        fetched anew before. One that ``Sync(scopes=…)`` names is there anyhow.

        Raises:
            ConfigurationError: It is no name of a scope, or the mode is ``push-only``.
            SchemaError: It is of a shape that the schema does not declare.
            QueryError: A value does not fit what it is compared with.
            TooManyScopes: As many are in use as a hub takes.
            StoreError: The file cannot be written.
        """
        self._guard.check()
        return self._keeper.hold([scope])

    async def drop(self, scope: AnyPart) -> None:
        """Take a scope that nobody uses off this device now, with its rows; at the hub nothing changes.

        Of a part that is taken in a shape those rows go that nobody else wants; something waits in it where it does in one of its rows.

        Raises:
            ScopeInUse: ``Sync(scopes=…)`` names it, somebody uses it, or something waits in it: in the outbox, in the inbox, or in
                :attr:`lost`. Nothing was changed.
            StoreError: The file cannot be written; nothing was changed.

        Cancelled, it is dropped whole or not at all.
        """
        self._guard.check()
        await self._keeper.drop(scope)

    async def wait_idle(self) -> None:
        """Wait until nothing is left to do: every write settled, every scope at the head the hub has now.

        Waits through failures and re-connections; the caller's cancel scope is the limit. What a mode does not do
        (pushing in ``pull-only``, pulling in ``push-only``), and scopes the hub refuses, are not waited for.
        """
        self._guard.check()
        await self._wait(self._goals(self._replica.scopes), failing=False, pushed=True)

    def _refused(self, scope: str) -> AtomaError | None:
        """Why the hub does not give ``scope`` out, None while it does."""
        return refusal(self._replica.progress(scope).error)

    def _raise_refusal(self, scopes: Iterable[str]) -> None:
        refused = next((error for error in map(self._refused, scopes) if error is not None), None)
        if refused is not None:
            raise refused

    def _goals(self, scopes: Iterable[str]) -> dict[str, int]:
        """The round of each scope's lane that begins from now on."""
        return {scope: self._replica.schedule(scope).begun + 1 for scope in scopes}

    async def _wait(self, goals: dict[str, int], *, failing: bool, pushed: bool) -> None:
        """Wait for rounds of lanes, with ``pushed`` for the outbox too, and with ``failing`` no longer than until an attempt fails."""
        supervisor, replica = self._supervisor, self._replica
        failures = supervisor.failures
        with supervisor.asked():
            supervisor.poke()
            while True:
                moved = replica.bell.next
                if self._pulled(goals) and (not pushed or await self._pushed()):
                    replica.board.publish()
                    await trio.lowlevel.checkpoint()
                    return
                if failing and supervisor.failures > failures and supervisor.last_failure is not None:
                    raise supervisor.last_failure
                await moved.wait()

    def _pulled(self, goals: dict[str, int]) -> bool:
        here = set(self._replica.scopes)  # what is dropped meanwhile is waited for no more
        waiting = [
            scope
            for scope, goal in goals.items()
            if scope in here and (self._replica.schedule(scope).done < goal or not self._is_as_wanted(scope))
        ]
        return "pull" not in self._supervisor.lanes or all(self._refused(scope) is not None for scope in waiting)

    def _is_as_wanted(self, scope: str) -> bool:
        """Whether what is here of ``scope`` are the parts that are wanted, but for those that the hub refuses."""
        progress, replicated = self._replica.progress(scope), self._replica.replicated
        if not replicated.shapes(scope):
            return not progress.narrowed
        return all(part.here or part.error is not None for part in progress.parts)

    async def _pushed(self) -> bool:
        lanes = self._supervisor.lanes
        if "push" not in lanes:
            return True
        identity, queued, accepted = await self._replica.database.inspect(_backlog)
        if "pull" not in lanes or queued:
            return not queued
        confirmed = identity.confirmed_mid == identity.next_mid - 1
        return confirmed or (bool(accepted) and all(self._refused(scope) is not None for scope in accepted))


def _backlog(tx: LocalTx) -> tuple[ClientIdentity, bool, set[str]]:
    """Who the file is, whether something is to be sent, and if not, the scopes in which pages are waited for."""
    queued = bool(tx.outbox.queued(limit=1, max_bytes=1))
    return tx.outbox.identity(), queued, set() if queued else {item.scope for item in tx.outbox.every()}


SYNC_CONTROL: PortKey[SyncControl] = PortKey("sync-control")
"""Replication of this client; offered by ``Sync``."""
