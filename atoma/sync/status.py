"""What replication is doing, as a value that can be read, watched and subscribed to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Literal, TypeAlias

import msgspec
import trio

from atoma.concurrency.listeners import Listeners
from atoma.contracts.replica import RepairReport, SubscriptionState
from atoma.contracts.values import ErrorInfo
from atoma.ports.loops import lifetime
from atoma.sync.conditions import state_of, what_helps
from atoma.sync.wake import Bell

SyncState: TypeAlias = Literal["offline", "connecting", "repairing", "online", "stalled", "stopped", "following"]

RepairPhase: TypeAlias = Literal["verdicts", "snapshot", "commit"]


class PartProgress(msgspec.Struct, frozen=True):
    """The state of a part of a scope that is wanted in a shape.

    Attributes:
        shape: The shape with its values, as it travels.
        title: The same for a person: ``recent(since='2026-01-01')``.
        here: Whether the scope's rows that are here take it in.
        error: Why the hub does not give it out, None when it does.
    """

    shape: bytes
    title: str
    here: bool = False
    error: ErrorInfo | None = None


class ScopeProgress(msgspec.Struct, frozen=True):
    """The progress of one scope's replication.

    Attributes:
        scope: The scope.
        state: ``new`` never synced, ``snapshot`` and ``tail`` first sync or re-sync in progress, ``live`` up to date
            as of ``cursor``.
        cursor: Hub sequence the confirmed base is at.
        head: Highest sequence the hub has told of in this session, or the last one.
        error: Why the scope does not move, None when it does.
        brought: Whether it was brought along, and leaves this device when nobody has used it for long.
        parts: The shapes in which it is wanted; whoever wants all of it is not among them.
        narrowed: Whether what is here is of such parts only.
    """

    scope: str
    state: SubscriptionState = "new"
    cursor: int = 0
    head: int = 0
    error: ErrorInfo | None = None
    brought: bool = False
    parts: tuple[PartProgress, ...] = ()
    narrowed: bool = False

    @property
    def helps(self) -> str:
        """What would let the scope go on, for a person; ``""`` when nothing is needed."""
        return "" if self.error is None else what_helps(self.error)


class RepairProgress(msgspec.Struct, frozen=True):
    """The progress of a repair.

    Attributes:
        cause: Why it is made; see :attr:`RepairReport.cause`.
        phase: ``verdicts`` what became of the outbox is asked, ``snapshot`` the hub's rows are staged beside the ones that are
            shown, ``commit`` the one local transaction.
        done: Verdicts, or rows, so far.
        of: How many there are, 0 when nobody can tell.
    """

    cause: str
    phase: RepairPhase
    done: int = 0
    of: int = 0


class SyncStatus(msgspec.Struct, frozen=True):
    """The state of replication.

    Attributes:
        state: ``offline`` waiting for the next attempt, ``connecting``, ``repairing`` the file does not continue the
            hub's history and is brought back to where it does, ``online``, ``stalled`` something keeps it from going on
            (it is tried again all the same), ``stopped`` paused or closed, ``following`` another program that has the file
            open does the work.
        reason: Why, for a person; ``""`` when there is nothing to say.
        pending: Writes the hub has not confirmed in a page yet; an upper bound while earlier ones are in flight.
        held: Writes that are held on this device until somebody releases them.
        scopes: Progress by scope, in the order they were declared, then those that were brought along by name.
        attempt: Failed attempts since the last success.
        next_attempt_ms: Wall-clock time of the next attempt, 0 when none is planned.
        error: The last failure, None once something worked again.
        principal: Who the hub says this client is, ``""`` before first contact.
        repair: How far the repair is that is being made, None in every state but ``repairing``.
        last_repair: The last repair since the client was opened, None when there was none.
    """

    state: SyncState = "offline"
    reason: str = ""
    pending: int = 0
    held: int = 0
    scopes: tuple[ScopeProgress, ...] = ()
    attempt: int = 0
    next_attempt_ms: int = 0
    error: ErrorInfo | None = None
    principal: str = ""
    repair: RepairProgress | None = None
    last_repair: RepairReport | None = None

    @property
    def helps(self) -> str:
        """What helps against :attr:`error`, for a person; ``""`` when nothing is wrong."""
        return "" if self.error is None else what_helps(self.error)

    def scope(self, name: str) -> ScopeProgress:
        """Progress of the scope ``name``; a fresh one when it is not synced."""
        return next((item for item in self.scopes if item.scope == name), ScopeProgress(name))


class StatusBoard:
    """The current status and those who follow it.

    Args:
        status: What to begin with.
        bell: Rung whenever everybody is told.
    """

    def __init__(self, status: SyncStatus, bell: Bell) -> None:
        self._status = status
        self._told = status
        self._due = trio.Event()  # set while there is something to tell
        self._listeners = Listeners[[SyncStatus]]("the status of replication")
        self._bell = bell

    @property
    def current(self) -> SyncStatus:
        """The status now."""
        return self._status

    def show(self, status: SyncStatus) -> None:
        """Replace the status and tell everybody at once, unless they know it."""
        self.note(status)
        self.publish()

    def note(self, status: SyncStatus) -> None:
        """Replace the status; everybody is told in the next pass of the loop, of the last one if there are several."""
        if status.state != "repairing" and status.repair is not None:
            status = msgspec.structs.replace(status, repair=None)
        if status != self._status:
            self._status = status
            self._due.set()

    def publish(self) -> None:
        """Tell everybody the status, unless they know it."""
        if not self._due.is_set():
            return
        self._due = trio.Event()
        self._bell.ring()  # also for who has looked in between, and saw another one
        if self._status != self._told:
            self._told = self._status
            self._listeners.tell(self._status)

    async def run(self) -> None:
        """Tell everybody what was noted, once in a pass of the loop, until cancelled."""
        while True:
            await self._due.wait()
            self.publish()

    def show_failure(
        self, error: ErrorInfo, *, reason: str, state: SyncState, attempt: int, next_attempt_ms: int
    ) -> None:
        """Show why replication does not go on, and when it is tried again."""
        self.show(
            msgspec.structs.replace(
                self._status, state=state, reason=reason, error=error, attempt=attempt, next_attempt_ms=next_attempt_ms
            )
        )

    def show_waiting(self, error: ErrorInfo, *, reason: str, attempt: int, next_attempt_ms: int) -> None:
        """Show why a request of a session has failed and when it is made again; a pause that the hub asks for is no fault."""
        state = state_of(error, session=True)
        self.show_failure(error, reason=reason, state=state, attempt=attempt, next_attempt_ms=next_attempt_ms)

    def show_online(self) -> None:
        """Show that everything works."""
        self.show(
            msgspec.structs.replace(self._status, state="online", reason="", next_attempt_ms=0, attempt=0, error=None)
        )

    def subscribe(self, listener: Callable[[SyncStatus], None]) -> Callable[[], None]:
        """Call ``listener`` now and at every change; returns the undo. A listener that raises is logged.

        Raises:
            ConfigurationError: There are too many: nobody calls the undo.
        """
        self.publish()
        undo = self._listeners.add(listener)
        listener(self._status)
        return undo

    async def wait_change(self, seen: SyncStatus) -> SyncStatus:
        """The status as soon as it is another than ``seen``."""
        while self._status == seen:
            await self._bell.next.wait()
        return self._status

    @lifetime
    async def watch(self) -> AsyncGenerator[AsyncIterator[SyncStatus]]:
        """Iterate over the status: the current one first, then the latest after every change.

        A slow reader skips intermediate values; nothing is queued.
        """

        async def follow() -> AsyncGenerator[SyncStatus]:
            seen = self._status
            yield seen
            while True:
                seen = await self.wait_change(seen)
                yield seen

        values = follow()
        try:
            yield values
        finally:
            await values.aclose()
