"""The lanes of one session; those of scopes come and go with the scopes."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from atoma.errors import AtomaError, ConnectFailed
from atoma.ports.service import SyncLink, SyncService
from atoma.sync.failures import worst
from atoma.sync.modes import SyncLane
from atoma.sync.notify import NotifyLane
from atoma.sync.pull import PullLane
from atoma.sync.push import PushLane
from atoma.sync.replica import CONNECT_S, Replica
from atoma.sync.session import SyncSession, subscribe

_log = logging.getLogger(__name__)

STALLED_S = 60.0
"""A session in which nothing may be pushed ends after so many seconds, and the next one looks again; a scope that is refused is asked for
again after as many."""

LaneWork = Callable[[], Awaitable[None]]


async def contained(work: LaneWork) -> Exception | None:
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


async def converse(link: SyncLink, work: Callable[[SyncService], Awaitable[None]]) -> None:
    """Connect to the hub, in bounded time, and do ``work`` over that connection, for however long it takes.

    Raises:
        ConnectFailed: There was no connection in time.
        Exception: What ``work``, or the connection, failed with; one plain error and never a group.
    """
    reached, failure = False, None
    with trio.CancelScope(deadline=trio.current_time() + CONNECT_S) as scope:
        async with link.connect() as service:
            reached, scope.deadline = True, math.inf
            failure = await contained(partial(work, service))
    if scope.cancelled_caught and not reached:
        raise ConnectFailed(f"no connection to the hub within {CONNECT_S:g} s")
    if failure is not None:
        raise failure


def given_out(replica: Replica, session: SyncSession) -> list[str]:
    """The scopes that the hub gives out; none where it refuses the shapes in which they are wanted, so that there is only to push.

    Raises:
        AtomaError: It gives out none of them.
    """
    scopes = [scope for scope in replica.scopes if scope not in session.refused]
    if not scopes and not session.partless:
        raise next(iter(session.refused.values()))
    return scopes


class Lanes:
    """The lanes of one session: push and notify, and one to pull each scope.

    Args:
        replica: The client's side.
        session: The connection.
        kinds: What runs of its own accord.
    """

    def __init__(self, replica: Replica, session: SyncSession, kinds: frozenset[SyncLane]) -> None:
        self._replica = replica
        self._session = session
        self._kinds = kinds
        self._pulling: dict[str, trio.CancelScope] = {}
        self._waiting: dict[str, trio.CancelScope] = {}
        self._hints = trio.Event()  # set when other scopes are to be listened for than the stream of hints has
        self._failures: list[Exception] = []

    async def run(self) -> None:
        """Run them until one fails.

        Raises:
            AtomaError: The failure.
        """
        if self._follows:
            given_out(self._replica, self._session)
        async with trio.open_nursery() as nursery:
            if self._follows:
                self._follow(nursery)
            if "notify" in self._kinds:
                nursery.start_soon(self._run_lane, self._notify, nursery.cancel_scope)
            if "push" in self._kinds:
                nursery.start_soon(self._run_lane, self._push, nursery.cancel_scope)
            if self._follows:
                nursery.start_soon(self._run_lane, partial(self._follow_scopes, nursery), nursery.cancel_scope)
        if self._failures:
            raise worst(BaseExceptionGroup("lanes", self._failures))

    @property
    def _follows(self) -> bool:
        """Whether anything here is about single scopes."""
        return bool(self._kinds & {"pull", "notify"})

    async def _run_lane(self, work: LaneWork, whole: trio.CancelScope) -> None:
        failure = await contained(work)
        if failure is not None:
            self._failures.append(failure)
        whole.cancel()

    async def _push(self) -> None:
        """Push; where nothing may be pushed, end the session after a while, so that the next one looks again.

        Raises:
            AtomaError: What ended it.
        """
        if self._session.fault is None:
            await PushLane(self._replica, self._session).run()
            return
        await trio.sleep(STALLED_S)
        raise self._session.fault

    async def _notify(self) -> None:
        """Listen for hints of the scopes that there are; anew when there are more."""
        lane = NotifyLane(self._replica, self._session)
        while True:
            self._hints = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lane.run)
                await self._hints.wait()
                nursery.cancel_scope.cancel()

    # scopes

    async def _follow_scopes(self, nursery: trio.Nursery) -> None:
        """Take up scopes as they come, and let go of those that were dropped.

        Raises:
            AtomaError: The hub cannot be asked for one.
        """
        replicated, session = self._replica.replicated, self._session
        while True:
            moved = replicated.bell.next
            for scope in replicated.anew:
                self._let_go(scope)
            replicated.anew.clear()
            new = [
                scope
                for scope in replicated.every
                if scope not in session.heads or replicated.shapes(scope) != replicated.asked.get(scope, ())
            ]
            if new:
                await subscribe(self._replica, session, new)
                if not session.listened >= set(session.given(new)) or session.listened & session.refused.keys():
                    self._hints.set()
            self._follow(nursery)
            self._replica.poke_pull(session.given(new))
            await moved.wait()

    def _follow(self, nursery: trio.Nursery) -> None:
        """Pull each scope that the hub gives out, and no other; those that it refuses are asked for again after a while.

        Raises:
            AtomaError: It gives out none.
        """
        for scope in self._session.heads.keys() - set(self._replica.scopes):
            self._let_go(scope)
        for scope in self._pulling.keys() & self._session.refused.keys():
            self._pulling.pop(scope).cancel()
        waiting = self._session.refused.keys() - self._session.partless
        for scope in self._waiting.keys() - waiting:  # in other shapes it is given out
            self._waiting.pop(scope).cancel()
        given_out(self._replica, self._session)
        for scope in self._session.given(self._replica.scopes) if "pull" in self._kinds else ():
            if scope not in self._pulling:
                self._pulling[scope] = trio.CancelScope()
                nursery.start_soon(self._pull, scope, self._pulling[scope], nursery.cancel_scope)
        for scope in waiting - self._waiting.keys():
            self._waiting[scope] = trio.CancelScope()
            nursery.start_soon(self._ask_again, scope, self._waiting[scope])

    def _let_go(self, scope: str) -> None:
        """Pull ``scope`` no more, and know nothing of it."""
        for lanes in (self._pulling, self._waiting):
            if scope in lanes:
                lanes.pop(scope).cancel()
        self._session.forget(scope)

    async def _ask_again(self, scope: str, until: trio.CancelScope) -> None:
        """Ask for a scope that is refused after a while, or once somebody wants everything tried."""
        with until:
            await self._replica.schedule(scope).wake.wait(STALLED_S)
            self._replica.replicated.ask_anew([scope])

    async def _pull(self, scope: str, until: trio.CancelScope, whole: trio.CancelScope) -> None:
        with until:
            await self._run_lane(PullLane(self._replica, self._session, scope).run, whole)
