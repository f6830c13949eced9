"""The application's control of replication: look, pause, resume, hurry, wait."""

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
    """The control of one client's replication."""

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
        """The changes that the hub refused or dropped."""
        return self._inbox

    @property
    def outbox(self) -> Outbox:
        """The writes that wait to be sent, and what can still be done about them."""
        return self._outbox

    @property
    def lost(self) -> LostRows:
        """Rows that a restored hub has lost and this device still had, if they were not offered automatically."""
        return self._lost

    async def repair(self, *, dry_run: bool = False) -> RepairReport | None:
        """Repair this file now, if it does not continue the hub's history; see "Repair" in the explanation of sync.

        Repairs are automatic, unless ``Sync(repair="manual")`` leaves them to this call, or repeated repairs did not
        help.

        Args:
            dry_run: Only report what would be done; the file then waits as before.

        Returns:
            What was, or would be, done; None if nothing is wrong.

        Raises:
            AtomaError: The hub cannot be reached, or the file cannot be repaired.

        If the call is cancelled before its one local transaction, nothing has changed.
        """
        return await self._ordered(RepairOrder(rehearsal=dry_run))

    async def adopt_hub(self, *, dry_run: bool = False) -> RepairReport | None:
        """Hand this file over to the hub, and the principal, with which it is opened: the remedy for ``WRONG_HUB``.

        Use it for a hub that was set up again without a backup, or a device that moves to another hub or user. Until
        then nothing is sent. The file takes the hub's rows. Rows from the old hub that the new one lacks, or holds
        differently, are listed in :attr:`lost` with the reason ``adopted``, for :meth:`LostRows.offer` or
        ``discard``. Pending writes are sent in the new principal's name if nobody has touched their rows; otherwise
        they go to the inbox (``UNKNOWN_OUTCOME``). For another principal of the same hub, rows and cursors stay.

        Args:
            dry_run: Only report what would be done; the file then waits as before.

        Returns:
            What was, or would be, done; None if the file already belongs here.

        Raises:
            AtomaError: The hub cannot be reached, or serves none of the scopes.

        If the call is cancelled before its one local transaction, nothing has changed.
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
        """Return the last repairs of this file, oldest first; at most twenty are kept."""
        self._guard.check()
        return await self._replica.database.inspect(lambda tx: tx.inbox.repairs())

    def subscribe(self, listener: Callable[[SyncStatus], None]) -> Callable[[], None]:
        """Call ``listener`` with the status now and after every change; call the returned function to stop.

        An exception in the listener is logged.

        Raises:
            ConfigurationError: There are too many listeners: nobody stops them.
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
        """Disconnect until :meth:`resume`. Local reads and writes go on; the outbox is kept, presence is not."""
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

        This works in every mode, and while paused. If the lanes are running, it hurries them and waits.

        Raises:
            AtomaError: The attempt failed, or the hub refuses a scope; the outbox is kept and a later attempt
                continues.
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
        """Bring scopes up to the hub's current head, without waiting for queued writes.

        Args:
            scopes: Their names, or parts of them, as :meth:`scope` takes them; None for all that replicate to this
                device.

        Raises:
            ScopeNotSubscribed: One of them does not replicate to this device.
            ConfigurationError: The mode is ``push-only``.
            AtomaError: The attempt failed, or the hub refuses one of them; a later attempt continues.
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

        A part of a scope is given by a shape of the schema, ``client.sync.scope(RECENT.of("board:7", since=…))``.
        Other values make another part; if several parts are wanted, the device has the rows of each of them.

        The block is entered at once, with or without a hub: from then on the file says that the scope is wanted, and
        the lanes fetch its rows and keep them up to date. :meth:`pull` waits for the rows, and raises if the hub
        refuses the scope; :attr:`status` has its progress and its error. Afterwards the scope stays until it ages
        out, as ``Sync(idle=…)`` says, so a later use need not fetch it again. A scope named in ``Sync(scopes=…)``
        stays in any case.

        Raises:
            ConfigurationError: This cannot be the name of a scope, or the mode is ``push-only``.
            SchemaError: The schema does not declare the shape.
            QueryError: A value does not fit the column that it is compared with.
            TooManyScopes: As many scopes are in use as a hub accepts.
            StoreError: The file cannot be written.
        """
        self._guard.check()
        return self._keeper.hold([scope])

    async def drop(self, scope: AnyPart) -> None:
        """Remove an unused scope and its rows from this device now; nothing changes at the hub.

        For a part, the rows that no other part needs are removed, and only what waits in one of its rows prevents it.

        Raises:
            ScopeInUse: ``Sync(scopes=…)`` names it, somebody uses it, or something waits in it: in the outbox, in the
                inbox, or in :attr:`lost`. Nothing was changed.
            StoreError: The file cannot be written; nothing was changed.

        If the call is cancelled, the scope is dropped completely or not at all.
        """
        self._guard.check()
        await self._keeper.drop(scope)

    async def wait_idle(self) -> None:
        """Wait until nothing is left to do: every write is settled, and every scope is at the hub's current head.

        This waits through failures and reconnections; the caller's cancel scope is the only limit. It does not wait
        for work that the mode excludes (pushing in ``pull-only``, pulling in ``push-only``), or for scopes that the
        hub refuses.
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
                    await replica.show_file()
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
        identity, queued = await self._replica.database.inspect(_backlog)
        if "pull" not in lanes or queued:
            return not queued
        if identity.confirmed_mid == identity.next_mid - 1:
            return True
        if all(self._refused(scope) is None for scope in self._replica.scopes):
            return False  # a page is waited for, which will come
        accepted = await self._replica.database.inspect(lambda tx: {item.scope for item in tx.outbox.every()})
        return bool(accepted) and all(self._refused(scope) is not None for scope in accepted)


def _backlog(tx: LocalTx) -> tuple[ClientIdentity, bool]:
    """Who the file is, and whether something is to be sent."""
    return tx.outbox.identity(), bool(tx.outbox.queued(limit=1, max_bytes=1))


SYNC_CONTROL: PortKey[SyncControl] = PortKey("sync-control")
"""Replication of this client; offered by ``Sync``."""
