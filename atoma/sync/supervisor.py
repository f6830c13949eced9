"""Keeps a session with the hub: connect, open, run the lanes, and after a failure wait and begin again."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import trio

from atoma.concurrency.backoff import Retries
from atoma.contracts.failures import info_from, retry_after_s
from atoma.errors import AtomaError, ConnectFailed, RemoteError, StoreError
from atoma.ports.service import SyncLink, SyncService
from atoma.sync.failures import HistoryMoved, Remedy, as_forked, of_this_file, remedy, worst
from atoma.sync.modes import Lane
from atoma.sync.notify import NotifyLane
from atoma.sync.pull import PullLane
from atoma.sync.push import PushLane
from atoma.sync.replica import BACKOFF, CONNECT_S, Replica
from atoma.sync.session import Session, open_session
from atoma.sync.status import SyncState
from atoma.sync.wake import Wake

_log = logging.getLogger(__name__)

STALLED_S = 60.0
"""A session in which nothing may be pushed ends after so many seconds, and the next one looks again."""

SessionWork = Callable[[Session], Awaitable[None]]


async def contained(work: Callable[[], Awaitable[None]]) -> Exception | None:
    """Run ``work`` and return the error it ended with, one plain error and never a group; cancellation passes."""
    try:
        await work()
    except BaseExceptionGroup as group:
        cancelled, errors = group.split(trio.Cancelled)
        error = None if errors is None else worst(errors)
        if cancelled is None:
            return error
        if error is not None and not isinstance(error, AtomaError):
            _log.error("a lane failed while it was cancelled", exc_info=error)
        raise cancelled from None
    except Exception as error:
        return error
    return None


class Supervisor:
    """Runs one client's lanes, one session at a time.

    Args:
        replica: The client's side.
        link: The way to the hub.
        lanes: What to run of its own accord; nothing for manual mode.
    """

    def __init__(self, replica: Replica, link: SyncLink, lanes: frozenset[Lane]) -> None:
        self._replica = replica
        self._link = link
        self._lanes = lanes
        self._retries = Retries(BACKOFF, replica.environment.random)
        self._retry = Wake()
        self._count = Wake()
        self._turn = trio.Lock()
        self._current: trio.CancelScope | None = None
        self._allowed = trio.Event()
        self.failures = 0
        self.last_failure: Exception | None = None
        if lanes:
            self._allowed.set()

    @property
    def lanes(self) -> frozenset[Lane]:
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

    def committed(self) -> None:
        """A local write may have been committed: count it and push it. A hint; the lanes look on their own too."""
        self._count.poke()
        self._replica.push_wake.poke()

    def pause(self) -> None:
        """End the session and begin none until :meth:`resume`; what is being committed locally is finished."""
        if self._allowed.is_set():
            self._allowed = trio.Event()
        self._end_session()
        self._show("stopped", "paused")

    def resume(self) -> None:
        """Keep a session up again; does nothing in manual mode."""
        if self._lanes and not self._allowed.is_set():
            self._allowed.set()
            self._retry.poke()
            self._show("offline")

    def _end_session(self) -> None:
        if self._current is not None:
            self._current.cancel()

    def _show(self, state: SyncState, reason: str = "") -> None:
        board = self._replica.board
        board.show(msgspec.structs.replace(board.current, state=state, reason=reason, next_attempt_ms=0))

    async def run(self) -> None:
        """Supervise until cancelled; failures are shown, never raised."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_count)
                while True:
                    await self._allowed.wait()
                    await self._keep_session()
        finally:
            self._show("stopped", "closed")

    async def _keep_count(self) -> None:
        """Show how much is pending, also while nothing is connected."""
        while True:
            error = await contained(self._replica.refresh)
            if error is not None and not isinstance(error, StoreError):
                _log.error("counting pending writes failed", exc_info=error)
            await self._count.wait(math.inf)

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
        if failure is not None:
            await self._retry.wait(self._note(failure))

    def _note(self, failure: Exception) -> float:
        """Show ``failure`` with the next attempt and return the seconds until then."""
        if not isinstance(failure, AtomaError):
            _log.error("a sync lane failed unexpectedly; it is tried again", exc_info=failure)
        stalled = remedy(failure) is Remedy.STALL or isinstance(failure, StoreError)
        slow = stalled and isinstance(failure, AtomaError)
        delay = self._retries.slow() if slow else self._retries.fail(retry_after_s(failure))
        self._show_fault(failure, delay, "stalled" if stalled else "offline")
        return delay

    def _show_fault(self, failure: Exception, delay: float, state: SyncState = "stalled") -> None:
        self.failures += 1
        self.last_failure = failure
        self._replica.board.show_failure(
            info_from(failure),
            reason=str(failure),
            state=state,
            attempt=self._retries.failures,
            next_attempt_ms=self._replica.environment.wall_ms() + int(delay * 1000),
        )
        self._replica.bell.ring()

    async def _attempt(self, work: SessionWork) -> Exception | None:
        """Connect, open a session, do ``work``; the failure it ended with, None when it was done."""
        self._show("connecting")
        failure = await contained(partial(self._connected, work))
        return as_forked(failure) if isinstance(failure, AtomaError) else failure

    async def _connected(self, work: SessionWork) -> None:
        reached = False
        failure: Exception | None = None
        with trio.CancelScope(deadline=trio.current_time() + CONNECT_S) as scope:
            async with self._link.connect() as service:
                reached = True
                scope.deadline = math.inf
                failure = await contained(partial(self._converse, service, work))
        if scope.cancelled_caught and not reached:
            raise ConnectFailed(f"no connection to the hub within {CONNECT_S:g} s")
        if failure is not None:
            raise failure

    async def _converse(self, service: SyncService, work: SessionWork) -> None:
        session = await open_session(self._replica, service)
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
            if session.progressed and not session.push_failed:
                self._retries.reset()

    def _scopes(self, session: Session) -> list[str]:
        """The scopes the hub gives out.

        Raises:
            AtomaError: It gives out none of them.
        """
        scopes = [scope for scope in self._replica.scopes if scope not in session.refused]
        if not scopes:
            raise next(iter(session.refused.values()))
        return scopes

    async def _run_lanes(self, session: Session) -> None:
        """Run the lanes until one fails; its failure ends the session."""
        works: list[Callable[[], Awaitable[None]]] = []
        if "pull" in self._lanes:
            works += [PullLane(self._replica, session, scope).run for scope in self._scopes(session)]
        if "notify" in self._lanes and self._scopes(session):
            works.append(NotifyLane(self._replica, session).run)
        if "push" in self._lanes:
            works.append(
                PushLane(self._replica, session).run if session.fault is None else partial(_wait_out, session.fault)
            )
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:
            for work in works:
                nursery.start_soon(_run_lane, work, failures, nursery.cancel_scope)
        if failures:
            raise worst(BaseExceptionGroup("lanes", failures))

    async def _drain(self, session: Session) -> None:
        """Push what is queued, then pull every scope to its head, once.

        Raises:
            AtomaError: What ended it early.
        """
        lanes = self._lanes & {"push", "pull"} or {"push", "pull"}
        scopes = self._scopes(session)
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


async def _no_work(_session: Session) -> None:
    """What a session does that is opened for its opening."""


async def _wait_out(fault: AtomaError) -> None:
    """In the place of the push lane: end the session after a while, so that the next one looks again.

    Raises:
        AtomaError: ``fault``.
    """
    await trio.sleep(STALLED_S)
    raise fault


async def _run_lane(work: Callable[[], Awaitable[None]], failures: list[Exception], scope: trio.CancelScope) -> None:
    failure = await contained(work)
    if failure is not None:
        failures.append(failure)
    scope.cancel()
