"""Replication and the inbox, for blocking calls; made by ``python -m atoma.bindings.generate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import atoma.client.inbox
import atoma.sync.control
import atoma.sync.lost
from atoma.bindings.blocking.host import Batches, Lifetime, held, listen, run, run_sync
from atoma.bindings.portal import Portal
from atoma.contracts.replica import InboxEntry, LostRow, RepairReport
from atoma.sync.status import SyncStatus


class LostRows:
    """Lists and resolves them. What nobody has decided about for thirty days is resolved as ``expired``, and told.

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
        """Call ``listener`` with the status now and after every change; returns the undo."""
        return listen(self._portal, self._native.subscribe, listener)

    def watch(self) -> Lifetime[Iterator[SyncStatus]]:
        """Iterate over the status: now, then the latest after every change; a slow reader skips some."""
        return held(self._portal, "watch", self._native.watch, Batches)

    def poke(self) -> None:
        """Try now whatever waits for its next attempt."""
        run_sync(self._portal, self._native.poke)

    def pause(self) -> None:
        """Disconnect and stay so until :meth:`resume`. Local reads and writes go on; the outbox is kept."""
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

    def wait_idle(self) -> None:
        """Wait until nothing is left to do: every write settled, every scope at the head the hub has now.

        Waits through failures and re-connections; the caller's :func:`fail_after` is the limit. What a mode does not do
        (pushing in ``pull-only``, pulling in ``push-only``), and scopes the hub refuses, are not waited for.
        """
        run(self._portal, self._native.wait_idle)


class ConflictInbox:
    """What the hub refused or cut of this device's work, each with base, mine and theirs.

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
        """Leave the row at the hub's state."""
        run(self._portal, lambda: self._native.dismiss(entry))

    def keep_mine(self, entry: InboxEntry) -> None:
        """Write what the user had made again, as a new write on what is there now.

        Raises:
            WriteError: The new write was refused; the entry stays open.
            ValidationError: What the user had made may not be written any more; the entry stays open.
        """
        run(self._portal, lambda: self._native.keep_mine(entry))
