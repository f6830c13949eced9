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

    A write that was sent, or may have been, is the hub's to decide: it is accepted, or comes back in the inbox. The
    writes to one row keep their order: holding one holds those that build on it, and releasing one releases those
    that are held with it.

    Args:
        replica: The client's side.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.sync.waiting.Outbox) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    def entries(self) -> Sequence[WaitingWrite]:
        """Return every waiting write, in the order in which they were made."""
        return run(self._portal, self._native.entries)

    def retry(self) -> None:
        """Send queued writes now, without waiting for their next attempt, even if another program sends them.

        If the call is cancelled before its one local transaction, nothing was requested.
        """
        run(self._portal, self._native.retry)

    def hold(self, entries: Sequence[WaitingWrite], *, why: str = "") -> int:
        """Keep writes, and those that build on them, on this device; their rows stay visible as they are.

        Their handles end in ``dead``, and later writes to their rows are held as well. Other writes go on.

        Args:
            entries: Entries from :meth:`entries`.
            why: Shown beside them; by default it says that somebody holds them.

        Returns:
            How many were not held before.

        Raises:
            AlreadySent: One was sent, or may have been; nothing was changed.
            NotPending: One no longer waits; nothing was changed.

        If the call is cancelled before its one local transaction, nothing has changed; the same holds for every
        call here.
        """
        return run(self._portal, lambda: self._native.hold(entries, why=why))

    def release(self, entries: Sequence[WaitingWrite]) -> None:
        """Send held writes after all, behind the waiting ones, with every other write that is held on the same rows.

        A write that builds on one that was refused meanwhile goes to the inbox.

        Raises:
            NotPending: One no longer waits; nothing was changed.
        """
        run(self._portal, lambda: self._native.release(entries))

    def edit(self, entry: WaitingWrite, changes: Mapping[str, object], *, row: tuple[str, str] | None = None) -> None:
        """Change the values of a write, in its place in the order.

        Args:
            entry: An entry from :meth:`entries`.
            changes: Values by field.
            row: Store and id of the row, if the write is on several.

        Raises:
            AlreadySent: It was sent, or may have been; nothing was changed.
            NotPending: It no longer waits; nothing was changed.
            ValidationError: It does not write the row, a value is wrong, or ``row`` is needed.
            ConflictError: The row would have a unique value of another one.
        """
        run(self._portal, lambda: self._native.edit(entry, changes, row=row))

    def discard(self, entries: Sequence[WaitingWrite], *, dependents: bool = False) -> int:
        """Take writes back, as if they had never been made; their handles end in ``rejected`` with ``TAKEN_BACK``.

        Args:
            entries: Entries from :meth:`entries`.
            dependents: Also take back the later writes that build on them.

        Returns:
            How many were taken back.

        Raises:
            AlreadySent: One was sent, or may have been; nothing was changed.
            NotPending: One no longer waits; nothing was changed.
            ConflictError: Later writes build on them, and ``dependents`` is false.
        """
        return run(self._portal, lambda: self._native.discard(entries, dependents=dependents))


class SyncControl:
    """The control of one client's replication."""

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
        """The writes that wait to be sent, and what can still be done about them."""
        return Outbox(self._portal, self._native.outbox)

    @property
    def lost(self) -> LostRows:
        """Rows that a restored hub has lost and this device still had, if they were not offered automatically."""
        return LostRows(self._portal, self._native.lost)

    def repair(self, *, dry_run: bool = False) -> RepairReport | None:
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
        return run(self._portal, lambda: self._native.repair(dry_run=dry_run))

    def adopt_hub(self, *, dry_run: bool = False) -> RepairReport | None:
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
        return run(self._portal, lambda: self._native.adopt_hub(dry_run=dry_run))

    def repairs(self) -> Sequence[RepairReport]:
        """Return the last repairs of this file, oldest first; at most twenty are kept."""
        return run(self._portal, self._native.repairs)

    def subscribe(self, listener: Callable[[SyncStatus], None]) -> Callable[[], None]:
        """Call ``listener`` with the status now and after every change; call the returned function to stop.

        An exception in the listener is logged.

        Raises:
            ConfigurationError: There are too many listeners: nobody stops them.
        """
        return listen(self._portal, self._native.subscribe, listener)

    def watch(self) -> Lifetime[Iterator[SyncStatus]]:
        """Iterate over the status: now, then the latest after every change; a slow reader skips some."""
        return held(self._portal, "watch", self._native.watch, Values)

    def poke(self) -> None:
        """Try now whatever waits for its next attempt."""
        run_sync(self._portal, self._native.poke)

    def pause(self) -> None:
        """Disconnect until :meth:`resume`. Local reads and writes go on; the outbox is kept, presence is not."""
        run_sync(self._portal, self._native.pause)

    def resume(self) -> None:
        """Connect again."""
        run_sync(self._portal, self._native.resume)

    def sync_once(self) -> None:
        """Push what is queued and pull every scope to its head, now.

        This works in every mode, and while paused. If the lanes are running, it hurries them and waits.

        Raises:
            AtomaError: The attempt failed, or the hub refuses a scope; the outbox is kept and a later attempt
                continues.
        """
        run(self._portal, self._native.sync_once)

    def pull(self, scopes: Iterable[AnyPart] | None = None) -> None:
        """Bring scopes up to the hub's current head, without waiting for queued writes.

        Args:
            scopes: Their names, or parts of them, as :meth:`scope` takes them; None for all that replicate to this
                device.

        Raises:
            ScopeNotSubscribed: One of them does not replicate to this device.
            ConfigurationError: The mode is ``push-only``.
            AtomaError: The attempt failed, or the hub refuses one of them; a later attempt continues.
        """
        run(self._portal, lambda: self._native.pull(scopes))

    def scope(self, scope: AnyPart) -> Lifetime[None]:
        """Replicate ``scope`` for as long as the block lasts: ``with client.sync.scope("board:7"):``.

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
        return held(self._portal, "scope", lambda: self._native.scope(scope), nothing)

    def drop(self, scope: AnyPart) -> None:
        """Remove an unused scope and its rows from this device now; nothing changes at the hub.

        For a part, the rows that no other part needs are removed, and only what waits in one of its rows prevents it.

        Raises:
            ScopeInUse: ``Sync(scopes=…)`` names it, somebody uses it, or something waits in it: in the outbox, in the
                inbox, or in :attr:`lost`. Nothing was changed.
            StoreError: The file cannot be written; nothing was changed.

        If the call is cancelled, the scope is dropped completely or not at all.
        """
        run(self._portal, lambda: self._native.drop(scope))

    def wait_idle(self) -> None:
        """Wait until nothing is left to do: every write is settled, and every scope is at the hub's current head.

        This waits through failures and reconnections; the caller's :func:`fail_after` is the only limit. It does not wait
        for work that the mode excludes (pushing in ``pull-only``, pulling in ``push-only``), or for scopes that the
        hub refuses.
        """
        run(self._portal, self._native.wait_idle)


class ConflictInbox:
    """Changes of this device that the hub refused or dropped, each entry with base, mine and theirs.

    Entries leave the inbox only when somebody resolves them.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.client.inbox.ConflictInbox) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    def entries(self, *, resolved: bool = False) -> Sequence[InboxEntry]:
        """Return the open entries, oldest first; on request the resolved ones too."""
        return run(self._portal, lambda: self._native.entries(resolved=resolved))

    def dismiss(self, entry: InboxEntry) -> None:
        """Leave the row at the hub's state; an entry that is already resolved stays as it is."""
        run(self._portal, lambda: self._native.dismiss(entry))

    def keep_mine(self, entry: InboxEntry, *, fields: Collection[str] | None = None) -> None:
        """Write the user's change again, as a new write on the current row.

        An entry that somebody has resolved since it was listed is skipped, so that nothing is done twice.

        Args:
            entry: An entry of :meth:`entries`.
            fields: The fields that keep the user's values; the others keep the hub's. None for all that the user had
                changed.

        Raises:
            WriteError: The new write was refused; the entry stays open.
            ValidationError: The user's change may no longer be written, or the user had not changed one of
                ``fields``; the entry stays open.

        If the call is cancelled, nothing has happened, or all of it; while a strict write waits for the hub, the
        write may have been made and the entry still be open.
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
