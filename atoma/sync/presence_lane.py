"""The lane of presence: tells the hub what this device says in scopes, and this device who else is there.

It has a connection of its own, for as long as somebody is present. So a program that follows the leader of its file, and a client that
syncs by hand, are present like any other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator
from functools import partial
from typing import cast

import trio

from atoma.concurrency.backoff import Backoff, Retries
from atoma.contracts.failures import retry_after_s
from atoma.contracts.presence import LEASE_S, SESSION_BYTES
from atoma.errors import AtomaError, ConfigurationError, RemoteError, TransportError
from atoma.ports.environment import Environment
from atoma.ports.keys import PortKey
from atoma.ports.loops import LoopGuard, lifetime
from atoma.ports.service import SyncLink, SyncService
from atoma.ports.tasks import open_tasks
from atoma.schema.spec import is_scope
from atoma.sync.failures import Remedy, remedy
from atoma.sync.lanes import contained, converse
from atoma.sync.presence import Appearance, Presence, T
from atoma.sync.replica import bounded
from atoma.sync.wake import Wake

CHANGE_S = 0.1
"""Time between two changes that the hub is told."""
LEAVE_S = 1.0
"""How long leaving waits until the hub knows; after that the lease tells the others."""
BACKOFF = Backoff(0.5, max_s=15.0, jitter=0.5)
STALLED_S = 30.0
"""When a scope is asked for again where only somebody else can help: rights, or a hub of before."""
_log = logging.getLogger(__name__)


class PresenceLane:
    """The lane; one for each client.

    Args:
        link: The way to the hub.
        environment: Randomness.
    """

    def __init__(self, link: SyncLink, environment: Environment) -> None:
        self._link = link
        self._guard = LoopGuard("replication")
        self._random = environment.random
        self._retries = Retries(BACKOFF, environment.random)
        self._present: dict[Appearance[object], None] = {}
        self._wake = Wake()
        self._paused = False
        self._ending = False  # whether the connection of now ends: it was paused, even if that is over by now
        self._running = False

    @lifetime
    async def enter(self, scope: str, state: T) -> AsyncGenerator[Presence[T]]:
        """Be in ``scope`` with ``state`` for as long as the block runs.

        Raises:
            ConfigurationError: No scope can have this name.
            ValidationError: The state is no JSON, cannot be read back as what it is, or is too large.
        """
        self._guard.check()
        if not is_scope(scope):
            raise ConfigurationError(f"presence(): {scope!r} is not the name of a scope")
        appearance = Appearance(scope, state, self._random.randbytes(SESSION_BYTES))
        guard = LoopGuard("the presence")
        here = cast("Appearance[object]", appearance)  # the lane never looks into a state
        self._present[here] = None
        self._wake.poke()
        try:
            yield Presence(appearance, guard)
        finally:
            guard.close()
            here.close()
            if self._running and here.connected:
                with trio.move_on_after(LEAVE_S, shield=True):
                    await here.left.wait()
            del self._present[here]
            self._wake.poke()

    def pause(self) -> None:
        """Be nowhere until :meth:`resume`."""
        self._paused = self._ending = True
        self._ring()

    def resume(self) -> None:
        """Be where this device is present again."""
        self._paused = False
        self._ring()

    def _ring(self) -> None:
        self._wake.poke()
        for here in self._present:
            here.ring()

    async def run(self) -> None:
        """Be present until cancelled; failures are shown, never raised."""
        self._running = True
        try:
            async with open_tasks() as nursery:
                while True:
                    while self._paused or not self._present:
                        await self._wake.wait(math.inf)
                    self._ending = False
                    work = partial(self._be_present_in_all, tasks=nursery)
                    failure = await contained(partial(converse, self._link, work))
                    if failure is not None:
                        await self._wake.wait(self._note(failure, nursery))
        finally:
            self._running = False
            self._let_go()

    def _note(self, failure: Exception, tasks: trio.Nursery) -> float:
        """Show ``failure`` and return the seconds until the next attempt."""
        if not isinstance(failure, AtomaError):
            _log.error("presence failed unexpectedly; it is tried again", exc_info=failure)
        shown = failure if isinstance(failure, AtomaError) else RemoteError(str(failure), remote_code="INTERNAL")
        self._let_go()
        stalled = [self._lose(here, shown, tasks) for here in self._present]
        return self._retries.slow() if any(stalled) else self._retries.fail(retry_after_s(failure))

    def _lose(self, here: Appearance[object], error: AtomaError | None, tasks: trio.Nursery) -> bool:
        """Show that the hub does not have ``here`` any more; whether only somebody else can help."""
        here.lost(error)
        if error is not None and remedy(error) is Remedy.STALL:
            here.clear()
            return True
        if not here.closed:
            tasks.start_soon(self._forget, here, here.answered)
        return False

    def _let_go(self) -> None:
        """Whoever waits to have left waits no longer: the hub cannot be told."""
        for here in self._present:
            if here.closed:
                here.left.set()

    async def _forget(self, here: Appearance[object], answered: int) -> None:
        """Show nobody where a lease has passed without a connection: the hub says the same of this device."""
        await trio.sleep(LEASE_S)
        if not here.connected and here.answered == answered:
            here.clear()

    async def _be_present_in_all(self, service: SyncService, *, tasks: trio.Nursery) -> None:
        """Be present over one connection, until nobody is any more, it is paused, or it is lost."""
        begun: set[Appearance[object]] = set()
        async with trio.open_nursery() as nursery:
            while self._present and not self._ending:
                for here in [here for here in self._present if here not in begun]:
                    begun.add(here)
                    nursery.start_soon(self._be_present, here, service, tasks)
                await self._wake.wait(math.inf)

    async def _be_present(self, here: Appearance[object], service: SyncService, tasks: trio.Nursery) -> None:
        """Be present in one scope until that is over; what the hub refuses is asked again.

        Raises:
            TransportError: The connection broke.
        """
        retries = Retries(BACKOFF, self._random)
        while not self._over(here):
            try:
                await self._hold(here, service, retries, tasks)
            except RemoteError as error:
                stalled = self._lose(here, error, tasks)
                await self._rest(here, STALLED_S if stalled else retries.fail(error.retry_after_s))
        if here.closed:
            here.left.set()

    async def _hold(
        self, here: Appearance[object], service: SyncService, retries: Retries, tasks: trio.Nursery
    ) -> None:
        async with open_tasks() as nursery:
            nursery.start_soon(self._listen, here, service, retries)
            await self._tell(here, service)
            self._lose(here, None, tasks)
            nursery.cancel_scope.cancel()

    async def _listen(self, here: Appearance[object], service: SyncService, retries: Retries) -> None:
        async with service.presence(here.request()) as changes:
            async for change in changes:
                retries.reset()
                self._retries.reset()
                here.take(change)
        raise RemoteError("the hub has ended the stream", remote_code="UNAVAILABLE")

    async def _tell(self, here: Appearance[object], service: SyncService) -> None:
        """Tell the hub what changes, and at last that it is over."""
        while not self._over(here):
            moved = here.moved
            request = here.change()
            if request is None:
                await moved.wait()
                continue
            try:
                with bounded("appear"):
                    reply = await service.appear(request)
            except RemoteError as error:
                if error.remote_code != "RATE_LIMITED":
                    raise
                here.forget_told()
                await self._rest(here, max(CHANGE_S, error.retry_after_s))
                continue
            if not reply.known:
                raise RemoteError("the hub does not know this presence any more", remote_code="UNAVAILABLE")
            await self._rest(here, CHANGE_S)
        if here.connected:
            try:
                with bounded("appear", LEAVE_S):
                    await service.appear(here.leaving())
            except (RemoteError, TransportError):
                pass  # the lease tells the others

    def _over(self, here: Appearance[object]) -> bool:
        return here.closed or self._ending

    async def _rest(self, here: Appearance[object], seconds: float) -> None:
        """Wait, unless it is over."""
        with trio.move_on_after(seconds):
            moved = here.moved
            while not self._over(here):
                await moved.wait()
                moved = here.moved


PRESENCE: PortKey[PresenceLane] = PortKey("presence")
"""Where this client is present; offered by ``Sync``."""
