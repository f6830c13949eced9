"""Keeps a session with the hub: connect, open, run the lanes, and after a failure wait and begin again."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial

import msgspec
import trio

from atoma.concurrency.backoff import Retries
from atoma.contracts.failures import info_from, retry_after_s
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, RemoteError, StoreError
from atoma.ports.engine import Commit, Lead
from atoma.ports.service import SyncLink, SyncService
from atoma.sync.conditions import state_of
from atoma.sync.failures import Course, HistoryMoved, SeveralHubs, as_forked, course, of_this_file
from atoma.sync.lanes import STALLED_S, Lanes, contained, converse, given_out
from atoma.sync.modes import SyncLane
from atoma.sync.pull import PullLane
from atoma.sync.push import PushLane
from atoma.sync.repair.diagnosis import REPEATED_S
from atoma.sync.replica import BACKOFF, Replica
from atoma.sync.session import PUSH, SyncSession, open_sync_session
from atoma.sync.staging import LeadLost
from atoma.sync.status import SyncState
from atoma.sync.wake import Wake

_log = logging.getLogger(__name__)

MOVED_MAX = 3
"""A history that has moved under so many sessions within ``REPEATED_S`` is taken for several histories."""
READ_AGAIN_S = 5.0
"""What could not be read of the file is read again after so many seconds."""

SyncWork = Callable[[SyncSession], Awaitable[None]]


class Supervisor:
    """The supervisor of one client's lanes; it runs one session at a time.

    Args:
        replica: The client's side.
        link: The way to the hub.
        lanes: What to run of its own accord; nothing for manual mode.
    """

    def __init__(self, replica: Replica, link: SyncLink, lanes: frozenset[SyncLane]) -> None:
        self._replica = replica
        self._link = link
        self._lanes = lanes
        self._retries = Retries(BACKOFF, replica.environment.random)
        self._retry = Wake()
        self._stale = Wake()
        self._turn = trio.Lock()
        self._current: trio.CancelScope | None = None
        self._allowed = trio.Event()
        self._turned = trio.Event()
        self._asked = 0
        self._seen: tuple[int, bytes] | None = None
        self._unled: ErrorInfo | None = None
        self._moved_at: deque[float] = deque(maxlen=MOVED_MAX)
        self.failures = 0
        self.last_failure: Exception | None = None
        if lanes:
            self._allowed.set()

    @property
    def lanes(self) -> frozenset[SyncLane]:
        """What runs of its own accord."""
        return self._lanes

    @property
    def running(self) -> bool:
        """Whether sessions are kept up: neither manual mode nor paused."""
        return self._allowed.is_set()

    def poke(self) -> None:
        """Try now what waits for its next attempt."""
        self._retry.poke()
        self._replica.push_wake.poke()
        self._replica.poke_pull(self._replica.scopes)

    def hear(self, commit: Commit) -> None:
        """Show what ``commit`` has changed, and wake the lane that sends it; called before the caller of the commit goes on."""
        position = self._replica.position
        position.hear(commit)
        if position.is_stale:
            self._stale.poke()
        self._wake_lanes()  # also of what somebody has read already: it is told by nobody else

    def _wake_lanes(self) -> None:
        """Wake the push lane where the outbox goes on, and everything where somebody wants it sent at once."""
        position = self._replica.position
        if position.identity is None:
            return
        seen = position.hurries, position.identity.tail_digest
        hurries, tail = self._seen or seen
        self._seen = seen
        if position.hurries != hurries:
            self.poke()
        elif position.identity.tail_digest != tail:
            self._replica.push_wake.poke()

    def pause(self) -> None:
        """End the session and begin none until :meth:`resume`; what is being committed locally is finished."""
        if self._allowed.is_set():
            self._allowed = trio.Event()
        self._want_lead(False)
        self._end_session()
        self._show("stopped", "paused")

    def resume(self) -> None:
        """Keep a session up again; does nothing in manual mode."""
        if self._lanes and not self._allowed.is_set():
            self._allowed.set()
            self._want_lead(True)
            self._retry.poke()
            self._show("offline")

    def _end_session(self) -> None:
        self._replica.push_state.idle = False  # at once: its lane takes note of the end when it runs next
        if self._current is not None:
            self._current.cancel()

    def _show(self, state: SyncState, reason: str = "") -> None:
        board = self._replica.board
        board.show(msgspec.structs.replace(board.current, state=state, reason=reason, next_attempt_ms=0))

    async def run(self) -> None:
        """Supervise until cancelled; failures are shown, never raised."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_file)
                if self._replica.lead is not None:
                    self._want_lead(self._allowed.is_set())
                    nursery.start_soon(self._follow_lead, self._replica.lead)
                while True:
                    await self._allowed.wait()
                    turned = self._turned
                    if self._may_work:
                        await self._keep_session()
                    else:
                        self._show_unled()
                        await turned.wait()
        finally:
            self._want_lead(False)
            self._show("stopped", "closed")

    @property
    def _may_work(self) -> bool:
        """Whether this program is the one that runs the lanes, or somebody waits here for what they do."""
        lead = self._replica.lead
        return lead is None or lead.term > 0 or self._asked > 0

    def _show_unled(self) -> None:
        """Show why no lanes run here: another program runs them, or the file does not take that this one does."""
        lead, board = self._replica.lead, self._replica.board
        fault = None if lead is None or lead.led else lead.fault
        if fault is not None:
            info = self._unled = info_from(fault)
            state, attempt = state_of(info, session=False), board.current.attempt
            board.show_failure(info, reason=str(fault), state=state, attempt=attempt, next_attempt_ms=0)
            return
        if board.current.error == self._unled:
            board.note(msgspec.structs.replace(board.current, error=None))
        self._show("following", "another program that has the file open syncs it")

    def _want_lead(self, wanted: bool) -> None:
        if self._replica.lead is not None:
            self._replica.lead.want(wanted)

    async def _follow_lead(self, lead: Lead) -> None:
        term, fault = 0, None  # whatever has happened before this task began to run is looked at first
        while True:
            await lead.wait_change(term, fault)
            term, fault = lead.term, lead.fault
            self._turn_over()

    def _turn_over(self) -> None:
        """Who runs the lanes may have changed."""
        self._turned.set()
        self._turned = trio.Event()
        if not self._may_work:
            self._end_session()
            if self._replica.lead is not None and self._replica.lead.led:
                self._retry.poke()  # what this program has to wait for concerns it no more

    @contextmanager
    def asked(self) -> Generator[None]:
        """Have the lanes run here for as long as the block does, even if another program runs them as well.

        Each step is a transaction that changes nothing the second time, so both may do the same.
        """
        self._asked += 1
        self._turn_over()
        try:
            yield
        finally:
            self._asked -= 1
            self._turn_over()

    async def _follow_file(self) -> None:
        """Read the file again when another program has written to it; also while nothing is connected."""
        while True:
            self._wake_lanes()
            await self._stale.wait(READ_AGAIN_S if self._replica.position.is_stale else math.inf)
            error = await contained(self._replica.refresh)
            if error is not None and not isinstance(error, StoreError):
                _log.error("reading what other programs have written failed", exc_info=error)

    async def _keep_session(self) -> None:
        async with self._turn:
            if not self._allowed.is_set():
                return
            failure: Exception | None = None
            with trio.CancelScope() as scope:
                self._current = scope
                try:
                    failure = await self._attempt(self._run_lanes)
                finally:
                    self._current = None
        lead = self._replica.lead
        if isinstance(failure, LeadLost) and lead is not None:
            lead.doubt()
        elif failure is not None and self._may_work:
            if lead is not None:
                lead.stand_back()
            await self._retry.wait(self._note(failure))
            self._want_lead(self._allowed.is_set())

    def _note(self, failure: Exception) -> float:
        """Show ``failure`` with the next attempt and return the seconds until then."""
        if not isinstance(failure, AtomaError):
            _log.error("a sync lane failed unexpectedly; it is tried again", exc_info=failure)
        slow = isinstance(failure, AtomaError) and course("open", failure) is Course.SLOWLY
        delay = self._retries.slow() if slow else self._retries.fail(retry_after_s(failure))
        self._show_fault(failure, delay)
        return delay

    def _show_fault(self, failure: Exception, delay: float) -> None:
        self.failures += 1
        self.last_failure = failure
        info = info_from(failure)
        self._replica.board.show_failure(
            info,
            reason=str(failure),
            state=state_of(info, session=False),
            attempt=self._retries.failures,
            next_attempt_ms=self._replica.due_ms(delay),
        )
        self._replica.bell.ring()

    async def _attempt(self, work: SyncWork) -> Exception | None:
        """Connect, open a session, do ``work``; the failure it ended with, None when it was done."""
        self._show("connecting")
        failure = await contained(partial(converse, self._link, partial(self._in_session, work)))
        if isinstance(failure, HistoryMoved):
            failure = self._moved(failure)
        return as_forked(failure) if isinstance(failure, AtomaError) else failure

    def _moved(self, failure: HistoryMoved) -> AtomaError:
        """``failure``, or what is wrong where it comes again and again; a restore, or an epoch, moves the history once."""
        now = self._replica.environment.clock()
        self._moved_at.append(now)
        if len(self._moved_at) < MOVED_MAX or now - self._moved_at[0] >= REPEATED_S:
            return failure
        times = f"{MOVED_MAX} times within {REPEATED_S // 60} minutes"
        return SeveralHubs(f"{failure}; the history has moved {times}: do several hubs answer under this address?")

    async def _in_session(self, work: SyncWork, service: SyncService) -> None:
        session = await open_sync_session(self._replica, service)
        self._retry = Wake()  # what was poked for is here; the next failure waits its time
        if session.fault is None:
            self._replica.board.show_online()
        else:
            self._show_fault(session.fault, STALLED_S)
        try:
            await work(session)
        except RemoteError as error:
            if not of_this_file(error) or not session.compared:
                raise
            self._replica.repairs.suspected = str(error)
            raise HistoryMoved(str(error)) from error
        finally:
            if session.progressed and PUSH not in session.failing:
                self._retries.reset()

    async def _run_lanes(self, session: SyncSession) -> None:
        """Run the lanes until one fails; its failure ends the session."""
        await Lanes(self._replica, session, self._lanes).run()

    async def _drain(self, session: SyncSession) -> None:
        """Push what is queued, then pull every scope to its head, once.

        Raises:
            AtomaError: What ended it early.
        """
        lanes = self._lanes & {"push", "pull"} or {"push", "pull"}
        scopes = given_out(self._replica, session)
        if "push" in lanes and session.fault is None:
            await PushLane(self._replica, session).drain()
        if "pull" in lanes:
            for scope in scopes:
                await PullLane(self._replica, session, scope, patient=False).catch_up()
        if "push" in lanes and session.fault is not None:
            raise session.fault
        if "push" in lanes:  # a first sync may have queued what was here before
            await PushLane(self._replica, session).drain()

    async def open_once(self) -> None:
        """Open one session and end it; one that is kept up is interrupted for it.

        Raises:
            AtomaError: Why it could not be opened.
        """
        self._end_session()
        async with self._turn:
            failure = await self._attempt(_no_work)
            if failure is not None:
                self._note(failure)
                raise failure
            self._show("offline" if self._allowed.is_set() else "stopped", "" if self._allowed.is_set() else "manual")
        self._retry.poke()

    async def run_once(self) -> None:
        """One session that drains and ends; a session that is kept up is interrupted for it.

        Raises:
            AtomaError: What ended it early.
        """
        self._end_session()
        async with self._turn:
            failure = await self._attempt(self._drain)
            if failure is not None:
                self._note(failure)
                raise failure
            self._show("offline" if self._allowed.is_set() else "stopped", "" if self._allowed.is_set() else "manual")


async def _no_work(_session: SyncSession) -> None:
    """What a session does that is opened for its opening."""
