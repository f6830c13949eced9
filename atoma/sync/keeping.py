"""Brings scopes along for as long as somebody uses them, and drops those that nobody has used for long."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence

import trio

from atoma.contracts.query import BoundQuery
from atoma.contracts.replica import BroughtScope, Portion
from atoma.contracts.shapes import SHAPES_MAX
from atoma.errors import ClosedError, ConfigurationError, QueryError, StoreError, SyncError
from atoma.ports.completeness import CompletenessBoard
from atoma.ports.loops import lifetime
from atoma.query.shapes import Taken
from atoma.schema.shapes import AnyPart, ScopePart
from atoma.schema.spec import is_scope
from atoma.sync.failures import refusal
from atoma.sync.modes import MODES
from atoma.sync.replica import Replica
from atoma.sync.scopes import IdleScopes, portion_of
from atoma.sync.supervisor import Supervisor
from atoma.sync.using import ScopeDropped, ScopeInUse, ScopesUsed

_log = logging.getLogger(__name__)

LEAVE_S = 5.0
"""Leaving a scope waits at most so long, in seconds, until the file says so."""
AGAIN_S = 60.0
"""A scope that could not be dropped is looked at again after so many seconds."""


class TooManyScopes(SyncError):
    """A use of more scopes on this device than the hub accepts; nothing was changed.

    Attributes:
        limit: How many the hub accepts.
    """

    code = "TOO_MANY_SCOPES"

    def __init__(self, limit: int, what: str = "scopes") -> None:
        super().__init__(
            f"{limit} {what} are in use on this device, the most that a hub takes; leave one of them first"
        )
        self.limit = limit


class ScopesNotNamed(QueryError):
    """A query that does not name the scopes of its rows, so that they cannot be replicated for it."""

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
        self._held: Counter[Portion] = Counter()
        self._turn = trio.Lock()
        self._not_before: dict[Portion, float] = {}

    @lifetime
    async def hold_for(self, query: BoundQuery, parts: Sequence[ScopePart] | None = None) -> AsyncGenerator[None]:
        """Bring the scopes that ``query`` looks at along for as long as the block lasts, or ``parts``; see :meth:`hold`.

        Raises:
            ScopesNotNamed: It may look at any scope.
            AtomaError: As :meth:`hold`.
        """
        scopes = frozenset[str]() if parts is not None else self._completeness.sight(query).scopes
        if scopes is None:
            raise ScopesNotNamed(
                f"this query of {query.store!r} may look at rows of any scope, so it cannot bring them along: name one of each "
                "store that it reads, by == on the field that the scope is taken from"
            )
        async with self.hold(sorted(scopes) if parts is None else parts):
            yield

    @lifetime
    async def hold(self, parts: Sequence[AnyPart]) -> AsyncGenerator[None]:
        """Have scopes, or parts of them, replicate for as long as the block lasts, and until they age out after it.

        Raises:
            ConfigurationError: One is no scope, or this client fetches nothing.
            SchemaError: One is of a shape that the schema does not declare.
            QueryError: A value of one does not fit.
            TooManyScopes: Too many are in use.
            StoreError: The file cannot be written.
        """
        replicated = self._replica.replicated
        portions = dict.fromkeys(portion_of(part, self._replica.shapes) for part in parts)
        wanted = [portion for portion in portions if portion not in replicated.always]
        self._check(wanted)
        self._held.update(wanted)
        try:
            await self._bring(wanted)
            yield
        finally:
            self._held.subtract(wanted)
            left = [portion for portion in wanted if not self._held[portion]]
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
                await self._leave(left)

    def _check(self, portions: Iterable[Portion]) -> None:
        for portion in portions:
            if not is_scope(portion.scope):
                raise ConfigurationError(f"{portion.scope!r} is no name of a scope that a hub takes")
            if self._supervisor.lanes == MODES["push-only"]:
                raise ConfigurationError("this client fetches nothing: it was made with Sync(mode='push-only')")

    async def _bring(self, portions: Sequence[Portion]) -> None:
        replicated = self._replica.replicated
        async with self._turn:  # so that two do not find room for one
            await self._make_room(portions)
            await self._note(portions)
        refused = [portion.scope for portion in portions if refusal(self._replica.error_of(portion))]
        if refused:
            replicated.ask_anew(refused)

    async def _leave(self, portions: Sequence[Portion]) -> None:
        """Note that nobody here uses ``portions`` any more; where that fails it is noted later, or ends with the program."""
        try:
            await self._register(portions)
        except ClosedError:
            pass
        except StoreError as error:
            _log.warning("that scopes are not used any more was not noted: %s", error)

    async def _register(self, portions: Sequence[Portion]) -> None:
        """Have the file say of ``portions`` whether this program uses them; as it is by the time that it is written."""
        async with self._turn:
            await self._note(portions)

    async def _note(self, portions: Sequence[Portion]) -> None:
        if not portions:
            return
        used = [portion for portion in portions if self._held[portion]]
        left = [portion for portion in portions if not self._held[portion]]
        self._held -= Counter()  # lets go of those that nobody holds
        kept = (*self._replica.replicated.always, *self._held)
        change = ScopesUsed(self._replica.program, used, left, kept)
        await self._replica.change(change, durability="normal", fenced=False)

    async def _make_room(self, portions: Sequence[Portion]) -> None:
        """Drop scopes that nobody uses, the longest unused first, until there is room for ``portions``; none where that would not do.

        Parts of a scope make room as they are noted: see :class:`ScopesUsed`.

        Raises:
            TooManyScopes: There is no room for all of ``portions``.
        """
        replicated = self._replica.replicated
        for scope in {portion.scope for portion in portions if portion.shape}:
            used = {each for each in replicated.portions(scope) if each in replicated.always or self._uses(each)}
            used.update(each for each in portions if each.scope == scope)
            if sum(bool(each.shape) for each in used) > SHAPES_MAX:
                raise TooManyScopes(SHAPES_MAX, f"parts of scope {scope!r}")
        scopes = {portion.scope for portion in portions} - set(replicated.every)
        if (beyond := len(replicated.every) + len(scopes) - self._limit) <= 0:
            return
        unused = [drop for drop in self._drops(self._unused()) if self._is_whole(drop)]
        free = await self._replica.database.inspect(lambda tx: [drop for drop in unused if not drop.why_it_stays(tx)])
        if len(free) < beyond:
            raise TooManyScopes(self._limit)
        for drop in free:
            if len(replicated.every) + len(scopes) <= self._limit:
                return
            await self._drop(drop)
        if len(replicated.every) + len(scopes) > self._limit:  # something has come to wait in one of them meanwhile
            raise TooManyScopes(self._limit)

    def _drops(self, unused: Iterable[BroughtScope]) -> list[ScopeDropped]:
        """A drop for each scope of ``unused``, in their order; it stays if any of them was used since."""
        of_scope: dict[str, list[BroughtScope]] = {}
        for each in unused:
            of_scope.setdefault(each.scope, []).append(each)
        return [
            self._dropped([each.portion for each in parts], max(each.used_ms for each in parts))
            for parts in of_scope.values()
        ]

    def _is_whole(self, drop: ScopeDropped) -> bool:
        """Whether nothing is wanted of the scope but what ``drop`` lets go of."""
        return set(self._replica.replicated.portions(drop.scope)) <= set(drop.portions)

    def _uses(self, portion: Portion) -> bool:
        """Whether somebody uses ``portion``, here or in another program."""
        return bool(self._held[portion] or self._replica.replicated.brought[portion].programs)

    async def drop(self, part: AnyPart) -> None:
        """Take a scope, or what is wanted of it in a shape, off this device now.

        Raises:
            ScopeInUse: It stays.
            StoreError: The file cannot be written.
        """
        replicated = self._replica.replicated
        portion = portion_of(part, self._replica.shapes)
        portions = [portion] if portion.shape else replicated.portions(portion.scope) or [portion]
        if any(each in replicated.always for each in portions):
            raise ScopeInUse(portion.scope, "Sync(scopes=…) names it")
        if any(self._held[each] for each in portions):
            raise ScopeInUse(portion.scope, "somebody uses it")
        if why := await self._drop(self._dropped(portions)):
            raise ScopeInUse(portion.scope, why)

    def _dropped(self, portions: Sequence[Portion], used_ms: int | None = None) -> ScopeDropped:
        scope, replicated = portions[0].scope, self._replica.replicated
        whole = not all(portion.shape for portion in (*portions, *replicated.portions(scope)))
        taken = () if whole else tuple(self._taken(portion) for portion in portions)
        return ScopeDropped(tuple(portions), used_ms, fixed=scope in replicated.fixed, taken=taken)

    def _taken(self, portion: Portion) -> Taken | None:
        try:
            return self._replica.shapes.read(portion.shape)
        except QueryError:  # an earlier version of the program has brought it along
            return None

    async def _drop(self, drop: ScopeDropped) -> str:
        """Carry ``drop`` out; why the scope stays. It is not called complete any more before its first row is gone."""
        replica, replicated, scope = self._replica, self._replica.replicated, drop.scope
        if why := await replica.database.inspect(drop.why_it_stays):
            return why
        if self._is_whole(drop):
            replicated.leaving.add(scope)
        try:
            replica.show_now()
            why = await replica.change(drop, fenced=False)
        finally:
            replicated.leaving.discard(scope)
            replica.show_now()
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
        left = [portion for portion, each in brought.items() if program in each.programs and not self._held[portion]]
        lost = [portion for portion, holders in self._held.items() if holders and portion not in brought]
        if not self._turn.locked():  # else somebody is about to say so
            await self._register([*left, *lost])
        for drop in self._drops(self._aged()) if self._may_age else ():
            if await self._drop(drop):
                again = self._replica.environment.clock() + AGAIN_S
                self._not_before.update(dict.fromkeys(drop.portions, again))

    @property
    def _may_age(self) -> bool:
        """Whether it is for this program to drop anything: the one that runs the lanes, outside of a repair."""
        lead = self._replica.lead
        return (lead is None or lead.term > 0) and self._replica.board.current.state != "repairing"

    def _unused(self) -> list[BroughtScope]:
        """What nobody uses, the longest unused first; what a restored hub has lost, and cannot be offered yet, is not among it."""
        replicated = self._replica.replicated
        brought = [each for each in replicated.brought.values() if each.scope not in replicated.apart]
        unused = [each for each in brought if not each.programs and not self._held[each.portion]]
        return sorted(unused, key=lambda each: (each.used_ms, each.portion))

    def _aged(self) -> list[BroughtScope]:
        """What is beyond the bounds, the longest unused first."""
        unused, now_ms = self._unused(), self._replica.environment.wall_ms()
        beyond = unused[: max(0, len(unused) - self._idle.count)]
        old = [each for each in unused[len(beyond) :] if each.used_ms + self._idle.seconds * 1000 <= now_ms]
        clock = self._replica.environment.clock()
        return [each for each in (*beyond, *old) if self._not_before.get(each.portion, -math.inf) <= clock]

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
