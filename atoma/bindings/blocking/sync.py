"""Replication, the inbox and the quarantine, for blocking calls; made by ``python -m atoma.bindings.generate``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import atoma.client.inbox
import atoma.runtime.quarantine
import atoma.sync.control
import atoma.sync.lost
import atoma.sync.presence
import atoma.sync.waiting
from atoma.bindings.blocking.host import Lifetime, Values, held, listen, nothing, run, run_sync
from atoma.bindings.blocking.results import WriteHandle
from atoma.bindings.portal import Portal
from atoma.contracts.outbox import WaitingWrite
from atoma.contracts.quarantine import Quarantined
from atoma.contracts.replica import InboxEntry, LostRow, RepairReport
from atoma.errors import AtomaError
from atoma.schema.shapes import AnyPart
from atoma.sync.presence import Other
from atoma.sync.status import SyncStatus

T = TypeVar("T")


class LostRows:
    """The lost rows, to be resolved. What nobody has decided about for thirty days is resolved as ``expired``, and told.

    Args:
        replica: The client's side.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.sync.lost.LostRows) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    def entries(self, *, resolved: bool = False) -> Sequence[LostRow]:
        """Open entries, oldest first; resolved ones too when asked for."""
        return run(self._portal, lambda: self._native.entries(resolved=resolved))

    def offer(self, entries: Sequence[LostRow]) -> None:
        """Bring rows back as this device had them, in one local transaction.

        The hub takes a row unless somebody has written it since the hub was restored; then it comes to the inbox. An entry
        that is resolved already is passed over. Cancelled, nothing has happened, or all of it.
        """
        run(self._portal, lambda: self._native.offer(entries))

    def discard(self, entries: Sequence[LostRow]) -> None:
        """Leave rows as the hub has them; the entries stay listed among the resolved ones."""
        run(self._portal, lambda: self._native.discard(entries))


class Outbox:
    """The writes that the hub has not confirmed yet; those that were never sent can be held, edited and discarded.

    A write that was sent, or may have been, is the hub's to decide: it is accepted, or comes back in the inbox. The writes of one
    row keep their order: holding one holds those that build on it, and releasing one releases those that it is held with.

    Args:
        replica: The client's side.
        committed: Has the supervisor look at what there is in the file.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.sync.waiting.Outbox) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    def entries(self) -> Sequence[WaitingWrite]:
        """Everything that waits, in the order in which it was written."""
        return run(self._portal, self._native.entries)

    def retry(self) -> None:
        """Send what is queued now, without waiting for its next attempt; also where another program of the file sends.

        Cancelled before its one local transaction, nothing was asked for.
        """
        run(self._portal, self._native.retry)

    def hold(self, entries: Sequence[WaitingWrite], *, why: str = "") -> int:
        """Keep writes, and those that build on them, on this device; their rows stay as they are shown.

        Their handles end in ``dead``, and what is written on their rows from now on is held as well. Other writes go on.

        Args:
            entries: Of :meth:`entries`.
            why: Shown beside them; by default that somebody holds them.

        Returns:
            How many were not held before.

        Raises:
            AlreadySent: One was sent, or may have been; nothing was changed.
            NotPending: One does not wait any more; nothing was changed.

        Cancelled before its one local transaction, nothing has changed; so for all the calls here.
        """
        return run(self._portal, lambda: self._native.hold(entries, why=why))

    def release(self, entries: Sequence[WaitingWrite]) -> None:
        """Send held writes after all, with every other one that is held on the same rows, behind what waits.

        One that builds on a write that was refused meanwhile comes to the inbox.

        Raises:
            NotPending: One does not wait any more; nothing was changed.
        """
        run(self._portal, lambda: self._native.release(entries))

    def edit(self, entry: WaitingWrite, changes: Mapping[str, object], *, row: tuple[str, str] | None = None) -> None:
        """Let a write have other values, in its place in the order.

        Args:
            entry: Of :meth:`entries`.
            changes: Values by field.
            row: Store and id of the row, where the write is on several.

        Raises:
            AlreadySent: It was sent, or may have been; nothing was changed.
            NotPending: It does not wait any more; nothing was changed.
            ValidationError: It does not write the row, a value is wrong, or ``row`` is needed.
            ConflictError: The row would have a unique value of another one.
        """
        run(self._portal, lambda: self._native.edit(entry, changes, row=row))

    def discard(self, entries: Sequence[WaitingWrite], *, dependents: bool = False) -> int:
        """Take writes back, as if they had never been written; their handles end in ``rejected`` with ``TAKEN_BACK``.

        Args:
            entries: Of :meth:`entries`.
            dependents: Also take back the later writes that build on them.

        Returns:
            How many were taken back.

        Raises:
            AlreadySent: One was sent, or may have been; nothing was changed.
            NotPending: One does not wait any more; nothing was changed.
            ConflictError: Later writes build on them, and ``dependents`` is not said.
        """
        return run(self._portal, lambda: self._native.discard(entries, dependents=dependents))


class SyncControl:
    """Replication of one client."""

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.sync.control.SyncControl) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    @property
    def status(self) -> SyncStatus:
        """What replication is doing now."""
        return self._native.status

    @property
    def outbox(self) -> Outbox:
        """What waits to be sent, and what may still be done about it."""
        return Outbox(self._portal, self._native.outbox)

    @property
    def lost(self) -> LostRows:
        """What a restored hub has lost and this device still had, where it was not offered by itself."""
        return LostRows(self._portal, self._native.lost)

    def repair(self, *, dry_run: bool = False) -> RepairReport | None:
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
        return run(self._portal, lambda: self._native.repair(dry_run=dry_run))

    def adopt_hub(self, *, dry_run: bool = False) -> RepairReport | None:
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
        return run(self._portal, lambda: self._native.adopt_hub(dry_run=dry_run))

    def repairs(self) -> Sequence[RepairReport]:
        """The last repairs of this file, oldest first; at most twenty are kept."""
        return run(self._portal, self._native.repairs)

    def subscribe(self, listener: Callable[[SyncStatus], None]) -> Callable[[], None]:
        """Call ``listener`` with the status now and after every change; returns the undo. One that raises is logged.

        Raises:
            ConfigurationError: There are too many: nobody calls the undo.
        """
        return listen(self._portal, self._native.subscribe, listener)

    def watch(self) -> Lifetime[Iterator[SyncStatus]]:
        """Iterate over the status: now, then the latest after every change; a slow reader skips some."""
        return held(self._portal, "watch", self._native.watch, Values)

    def poke(self) -> None:
        """Try now whatever waits for its next attempt."""
        run_sync(self._portal, self._native.poke)

    def pause(self) -> None:
        """Disconnect and stay so until :meth:`resume`. Local reads and writes go on; the outbox is kept, presence is not."""
        run_sync(self._portal, self._native.pause)

    def resume(self) -> None:
        """Connect again."""
        run_sync(self._portal, self._native.resume)

    def sync_once(self) -> None:
        """Push what is queued and pull every scope to its head, now.

        Works in every mode, and while paused. While the lanes run it hurries them and waits.

        Raises:
            AtomaError: The attempt failed, or the hub refuses a scope; the outbox is kept and a later attempt goes on.
        """
        run(self._portal, self._native.sync_once)

    def pull(self, scopes: Iterable[AnyPart] | None = None) -> None:
        """Bring scopes to the head that the hub has now; what is queued is not waited for.

        Args:
            scopes: Their names, or parts of them, as :meth:`scope` takes them; None for all that replicate here.

        Raises:
            ScopeNotSubscribed: One of them does not replicate here.
            ConfigurationError: The mode is ``push-only``.
            AtomaError: The attempt failed, or the hub refuses one of them; a later attempt goes on.
        """
        run(self._portal, lambda: self._native.pull(scopes))

    def scope(self, scope: AnyPart) -> Lifetime[None]:
        """Replicate ``scope`` for as long as the block lasts: ``with client.sync.scope("board:7"):``.

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
        return held(self._portal, "scope", lambda: self._native.scope(scope), nothing)

    def drop(self, scope: AnyPart) -> None:
        """Take a scope that nobody uses off this device now, with its rows; at the hub nothing changes.

        Of a part that is taken in a shape those rows go that nobody else wants; something waits in it where it does in one of its rows.

        Raises:
            ScopeInUse: ``Sync(scopes=…)`` names it, somebody uses it, or something waits in it: in the outbox, in the inbox, or in
                :attr:`lost`. Nothing was changed.
            StoreError: The file cannot be written; nothing was changed.

        Cancelled, it is dropped whole or not at all.
        """
        run(self._portal, lambda: self._native.drop(scope))

    def wait_idle(self) -> None:
        """Wait until nothing is left to do: every write settled, every scope at the head the hub has now.

        Waits through failures and re-connections; the caller's :func:`fail_after` is the limit. What a mode does not do
        (pushing in ``pull-only``, pulling in ``push-only``), and scopes the hub refuses, are not waited for.
        """
        run(self._portal, self._native.wait_idle)


class ConflictInbox:
    """The work of this device that the hub refused or cut, each entry with base, mine and theirs.

    Nothing leaves the inbox unless somebody says so.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.client.inbox.ConflictInbox) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    def entries(self, *, resolved: bool = False) -> Sequence[InboxEntry]:
        """Open entries, oldest first; resolved ones too when asked for."""
        return run(self._portal, lambda: self._native.entries(resolved=resolved))

    def dismiss(self, entry: InboxEntry) -> None:
        """Leave the row at the hub's state; an entry that is resolved already stays as it is."""
        run(self._portal, lambda: self._native.dismiss(entry))

    def keep_mine(self, entry: InboxEntry, *, fields: Collection[str] | None = None) -> None:
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
        run(self._portal, lambda: self._native.keep_mine(entry, fields=fields))


class Quarantine:
    """The values that a migration of this device's file could not convert: none of them is dropped.

    Nothing leaves it unless somebody says so.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.quarantine.Quarantine) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    def entries(self) -> Sequence[Quarantined]:
        """Everything that was put aside, oldest first.

        Raises:
            StoreError: The engine failed.
        """
        return run(self._portal, self._native.entries)

    def discard(self, entry: Quarantined) -> None:
        """Let go of what was put aside; the row stays as it is, or absent.

        Raises:
            ConflictError: It is not in the quarantine any more.
        """
        run(self._portal, lambda: self._native.discard(entry))

    def bring_back(self, entry: Quarantined, fields: Mapping[str, object]) -> WriteHandle[object]:
        """Write the row with the values that it should have, as any other write, and let go of the entry.

        Where there is a row by now, ``fields`` are set in it, and no others. Where there is none, it is made of ``fields``,
        of what was put aside and can be read today, and of the model's defaults.

        Args:
            entry: One of :meth:`entries`.
            fields: Values by the names of today's fields, without the id.

        Returns:
            The handle of the write.

        Raises:
            ConflictError: It is not in the quarantine any more.
            ValidationError: A field is unknown or missing, or cannot have its value; the entry stays.
            UnknownStore: There is no such store any more.
            WriteError: The write was refused; the entry stays.

        Cancelled between the two steps, the row is there and the entry, too; doing it again does no harm.
        """
        native = run(self._portal, lambda: self._native.bring_back(entry, fields))
        return WriteHandle(self._portal, native)


class Presence(Generic[T]):
    """What this device says in a scope, and who else is there. Get one with ``client.presence(scope, state)``."""

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.sync.presence.Presence[T]) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    @property
    def scope(self) -> str:
        """The scope."""
        return self._native.scope

    @property
    def state(self) -> T:
        """What this device says."""
        return self._native.state

    @property
    def others(self) -> tuple[Other[T], ...]:
        """Who else is here, in the order in which they came.

        Without a connection those who were here when it was lost, for fifteen seconds; then nobody.
        """
        return self._native.others

    @property
    def connected(self) -> bool:
        """Whether the others can see this device, as far as it knows."""
        return self._native.connected

    @property
    def error(self) -> AtomaError | None:
        """Why they cannot: ``PERMISSION_DENIED``, a hub of before presence, no connection. It is tried again."""
        return self._native.error

    def update(self, state: T) -> None:
        """Say something else. Returns at once; of states that follow one another quickly the hub is told the last.

        Raises:
            ValidationError: The state has another type than the first one, is no JSON, or is too large.
            ClosedError: The block was left.
        """
        run_sync(self._portal, lambda: self._native.update(state))

    def subscribe(self, listener: Callable[[tuple[Other[T], ...]], None]) -> Callable[[], None]:
        """Call ``listener`` with the others now and after every change; returns the undo. One that raises is logged.

        Raises:
            ConfigurationError: There are too many: nobody calls the undo.
            ClosedError: The block was left.
        """
        return listen(self._portal, self._native.subscribe, listener)

    def watch(self) -> Lifetime[Iterator[tuple[Other[T], ...]]]:
        """Iterate over the others: those of now, then the latest after every change; a slow reader skips some.

        The iteration ends when the presence does.
        """
        return held(self._portal, "watch", self._native.watch, Values)
