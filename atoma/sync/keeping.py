"""Brings scopes along for as long as somebody uses them, and drops those that nobody has used for long."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence

import trio

from atoma.contracts.query import BoundQuery
from atoma.contracts.replica import BroughtScope
from atoma.errors import ClosedError, ConfigurationError, QueryError, StoreError, SyncError
from atoma.ports.completeness import CompletenessBoard
from atoma.ports.loops import lifetime
from atoma.schema.spec import is_scope
from atoma.sync.failures import refusal
from atoma.sync.modes import MODES
from atoma.sync.replica import Replica
from atoma.sync.scopes import IdleScopes
from atoma.sync.supervisor import Supervisor
from atoma.sync.using import ScopeDropped, ScopeInUse, ScopesUsed, why_it_stays

_log = logging.getLogger(__name__)

LEAVE_S = 5.0
"""Leaving a scope waits at most so long, in seconds, until the file says so."""
AGAIN_S = 60.0
"""A scope that could not be dropped is looked at again after so many seconds."""


class TooManyScopes(SyncError):
    """So many scopes are in use on this device that the hub would take no more; nothing was changed.

    Attributes:
        limit: How many the hub takes.
    """

    code = "TOO_MANY_SCOPES"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} scopes are in use on this device, the most that a hub takes; leave one of them first"
        )
        self.limit = limit


class ScopesNotNamed(QueryError):
    """A query does not say which scopes its rows are of, so it cannot bring them along."""

    code = "SCOPES_NOT_NAMED"


class ScopeKeeper:
    """The keeper of the scopes that were brought along: it counts who uses them here, and drops those that have aged.

    Args:
        replica: The client's side.
        supervisor: Runs the lanes.
        completeness: Knows what a query looks at.
        idle: What stays of scopes that nobody uses.
        limit: So many scopes in all, fixed ones included.
    """

    def __init__(
        self, replica: Replica, supervisor: Supervisor, completeness: CompletenessBoard, idle: IdleScopes, limit: int
    ) -> None:
        self._replica = replica
        self._supervisor = supervisor
        self._completeness = completeness
        self._idle = idle
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._turn = trio.Lock()
        self._not_before: dict[str, float] = {}

    @lifetime
    async def hold_for(self, query: BoundQuery) -> AsyncGenerator[None]:
        """Bring the scopes that ``query`` looks at along for as long as the block lasts; see :meth:`hold`.

        Raises:
            ScopesNotNamed: It may look at any scope.
            AtomaError: As :meth:`hold`.
        """
        scopes = self._completeness.sight(query).scopes
        if scopes is None:
            raise ScopesNotNamed(
                f"this query of {query.store!r} may look at rows of any scope, so it cannot bring them along: name one of each "
                "store that it reads, by == on the field that the scope is taken from"
            )
        async with self.hold(sorted(scopes)):
            yield

    @lifetime
    async def hold(self, scopes: Sequence[str]) -> AsyncGenerator[None]:
        """Have ``scopes`` replicate for as long as the block lasts, and until they age out after it.

        Raises:
            ConfigurationError: One is no scope, or this client fetches nothing.
            TooManyScopes: Too many are in use.
            StoreError: The file cannot be written.
        """
        wanted = [scope for scope in dict.fromkeys(scopes) if scope not in self._replica.replicated.fixed]
        self._check(wanted)
        self._held.update(wanted)
        try:
            await self._bring(wanted)
            yield
        finally:
            self._held.subtract(wanted)
            left = [scope for scope in wanted if not self._held[scope]]
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
                await self._leave(left)

    def _check(self, scopes: Iterable[str]) -> None:
        for scope in scopes:
            if not is_scope(scope):
                raise ConfigurationError(f"{scope!r} is no name of a scope that a hub takes")
            if self._supervisor.lanes == MODES["push-only"]:
                raise ConfigurationError("this client fetches nothing: it was made with Sync(mode='push-only')")

    async def _bring(self, scopes: Sequence[str]) -> None:
        replicated = self._replica.replicated
        async with self._turn:  # so that two do not find room for one
            await self._make_room([scope for scope in scopes if scope not in replicated.brought])
            await self._note(scopes)
        refused = [scope for scope in scopes if refusal(self._replica.progress(scope).error)]
        if refused:
            replicated.ask_anew(refused)

    async def _leave(self, scopes: Sequence[str]) -> None:
        """Note that nobody here uses ``scopes`` any more; where that fails it is noted later, or ends with the program."""
        try:
            await self._register(scopes)
        except ClosedError:
            pass
        except StoreError as error:
            _log.warning("that scopes are not used any more was not noted: %s", error)

    async def _register(self, scopes: Sequence[str]) -> None:
        """Have the file say of ``scopes`` whether this program uses them; as it is by the time that it is written."""
        async with self._turn:
            await self._note(scopes)

    async def _note(self, scopes: Sequence[str]) -> None:
        if not scopes:
            return
        used = [scope for scope in scopes if self._held[scope]]
        left = [scope for scope in scopes if not self._held[scope]]
        self._held -= Counter()  # lets go of those that nobody holds
        change = ScopesUsed(self._replica.program, used, left)
        await self._replica.change(change, durability="normal", fenced=False)
        await self._replica.refresh()

    async def _make_room(self, new: Collection[str]) -> None:
        """Drop what nobody uses, the longest unused first, until there is room for ``new``; nothing where that would not do.

        Raises:
            TooManyScopes: There is no room for all of ``new``.
        """
        replicated = self._replica.replicated
        if (beyond := len(replicated.every) + len(new) - self._limit) <= 0:
            return
        unused = [ScopeDropped(each.scope, each.used_ms) for each in self._unused()]
        free = await self._replica.database.inspect(
            lambda tx: [drop for drop in unused if not why_it_stays(tx, drop.scope, drop.used_ms)]
        )
        if len(free) < beyond:
            raise TooManyScopes(self._limit)
        for drop in free:
            if len(replicated.every) + len(new) <= self._limit:
                return
            await self._drop(drop)
        if len(replicated.every) + len(new) > self._limit:  # something has come to wait in one of them meanwhile
            raise TooManyScopes(self._limit)

    async def drop(self, scope: str) -> None:
        """Take ``scope`` and its rows off this device now.

        Raises:
            ScopeInUse: It stays.
            StoreError: The file cannot be written.
        """
        if scope in self._replica.replicated.fixed:
            raise ScopeInUse(scope, "Sync(scopes=…) names it")
        why = "somebody uses it" if self._held[scope] else await self._drop(ScopeDropped(scope))
        if why:
            raise ScopeInUse(scope, why)

    async def _drop(self, drop: ScopeDropped) -> str:
        """Carry ``drop`` out; why the scope stays. It is not called complete any more before its first row is gone."""
        replica, replicated = self._replica, self._replica.replicated
        if why := await replica.database.inspect(lambda tx: why_it_stays(tx, drop.scope, drop.used_ms)):
            return why
        replicated.leaving.add(drop.scope)
        try:
            await replica.refresh()
            why = await replica.change(drop, fenced=False)
        finally:
            replicated.leaving.discard(drop.scope)
            with (
                trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S),
                contextlib.suppress(ClosedError),
            ):
                await replica.refresh()
        return why

    # ageing

    async def run(self) -> None:
        """Drop what has aged, until cancelled; and bring along again what another program has dropped while it is used here."""
        replicated = self._replica.replicated
        while True:
            moved = replicated.bell.next
            try:
                await self._tidy()
                due_s = self._due_s()
            except StoreError as error:
                _log.warning("scopes were not looked after: %s", error)
                due_s = AGAIN_S
            with trio.move_on_after(due_s):
                await moved.wait()

    async def _tidy(self) -> None:
        if self._replica.replicated.brought:
            await self._replica.refresh()  # whether a program is still alive is told by nobody
        program, brought = self._replica.program, self._replica.replicated.brought
        left = [scope for scope, each in brought.items() if program in each.programs and not self._held[scope]]
        lost = [scope for scope, holders in self._held.items() if holders and scope not in brought]
        if not self._turn.locked():  # else somebody is about to say so
            await self._register([*left, *lost])
        for each in self._aged() if self._may_age else ():
            if await self._drop(ScopeDropped(each.scope, each.used_ms)):
                self._not_before[each.scope] = self._replica.environment.clock() + AGAIN_S

    @property
    def _may_age(self) -> bool:
        """Whether it is for this program to drop anything: the one that runs the lanes, outside of a repair."""
        lead = self._replica.lead
        return (lead is None or lead.term > 0) and self._replica.board.current.state != "repairing"

    def _unused(self) -> list[BroughtScope]:
        """What nobody uses, the longest unused first."""
        brought = self._replica.replicated.brought.values()
        unused = [each for each in brought if not each.programs and not self._held[each.scope]]
        return sorted(unused, key=lambda each: (each.used_ms, each.scope))

    def _aged(self) -> list[BroughtScope]:
        """What is beyond the bounds, the longest unused first."""
        unused, now_ms = self._unused(), self._replica.environment.wall_ms()
        beyond = unused[: max(0, len(unused) - self._idle.count)]
        old = [each for each in unused[len(beyond) :] if each.used_ms + self._idle.seconds * 1000 <= now_ms]
        clock = self._replica.environment.clock()
        return [each for each in (*beyond, *old) if self._not_before.get(each.scope, -math.inf) <= clock]

    def _due_s(self) -> float:
        """Seconds until something may have aged, or another program that uses something may be gone; ``math.inf`` when nothing can."""
        unused, now_ms = self._unused(), self._replica.environment.wall_ms()
        elsewhere = {program for each in self._replica.replicated.brought.values() for program in each.programs}
        again_s = AGAIN_S if elsewhere - {self._replica.program} else math.inf
        if not unused:
            return again_s
        due_ms = min(each.used_ms for each in unused) + self._idle.seconds * 1000
        late = due_ms <= now_ms or len(unused) > self._idle.count
        return min(again_s, AGAIN_S if late else (due_ms - now_ms) / 1000)
