"""Layered optimism: a write that another machine decides is shown at once, and shown as decided once it is.

For stores that do not replicate and have a local database. A unit is laid over the confirmed base in one local
transaction and its handle returned; a task in the client's nursery then asks the authority. Its answer becomes the
base and the layer goes; a refusal, or a failure before anything was sent, only takes the layer away. What other writes
have laid on the row stays, in the order it was written.

Units that share a row are sent one after the other, in the order they were written, so that the authority sees the
order the user saw. An answer that was lost is asked for again under the same key, which the authority carries out at
most once.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from atoma.concurrency.backoff import Backoff
from atoma.contracts.events import Event, WriteTakenBack
from atoma.contracts.execution import (
    ExecutionMeta,
    Resolution,
    Source,
    Step,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    WriteState,
    note_path,
    path_of,
    status_of,
)
from atoma.contracts.failures import code_of, refusal, retry_after_s, verdict_of
from atoma.contracts.policy import WriteReach
from atoma.contracts.receipts import WriteReceipt
from atoma.contracts.values import RowKey
from atoma.errors import (
    AtomaError,
    NodeTimeout,
    Overloaded,
    StoreError,
    WriteUnknown,
)
from atoma.mutations.layers import BaseVersions, Laid, Settled, address, named_versions, only_nodded
from atoma.ports.environment import Environment
from atoma.ports.execution import WritePort
from atoma.runtime.applying import ApplyFlow
from atoma.runtime.drawn import named
from atoma.runtime.hooks import StoreHooks
from atoma.runtime.results import ResultMismatch, aligned

_log = logging.getLogger("atoma.runtime")

OVERLAY = "overlay"
"""What the trail calls the step that shows a write before anybody has decided it."""
AUTHORITY = "authority"
"""What the trail calls the machine that decides, when a try at asking it was given up before a node had ended."""
CALL_S = 30.0
"""Budget of one try, in seconds; the caller has its handle, so no deadline of its own bounds the call."""
TRIES = 12
"""How often a write is sent whose answer was lost."""
BACKOFF = Backoff(0.5, max_s=60.0)
UNDECIDED_MAX = 1024
SENDING_MAX = 16


@dataclass(eq=False, slots=True)
class _Unit:
    """A unit on its way to the authority, laid over the base or not.

    Attributes:
        number: In the order of entering.
        before: Units that share a row with it and were written earlier; empty once it had its turn.
        based_on: The authority's versions of the rows whose versions it names, as they were when it was entered.
        made: The authority's versions of its rows that whoever saw it shown has seen: what it has written. One that shows
            nothing before its answer passes on what the units before it have made.
        left: It is settled, or its caller has given it up.
        asking: Around what asks for its answer again and again.
        path: What has happened to it so far.
        followed: Its caller was told that nobody knows, and it is asked about without its caller.
        resolution: What became of it, when somebody else has found out.
    """

    number: int
    request: WriteRequest
    reach: WriteReach
    rows: tuple[RowKey, ...]
    before: tuple[_Unit, ...]
    based_on: BaseVersions = field(default_factory=BaseVersions)
    made: BaseVersions = field(default_factory=BaseVersions)
    layers: tuple[int, ...] = ()
    receipts: tuple[WriteReceipt, ...] = ()
    left: trio.Event = field(default_factory=trio.Event)
    asking: trio.CancelScope = field(default_factory=trio.CancelScope)
    path: list[Step] = field(default_factory=list[Step])
    followed: bool = False
    resolution: Resolution | None = None


@dataclass(eq=False, slots=True)
class _Answer:
    """The answer of a step that the kernel has detached."""

    came: trio.Event = field(default_factory=trio.Event)
    result: WriteResult | None = None
    error: AtomaError | None = None


class LayeredWrites:
    """The writes that another machine decides, shown at once and settled later.

    Args:
        port: Carries writes out.
        apply: The way into the local database.
        reach: How far the writes of a policy go.
        nursery: Where the authority is asked; cancelling it leaves what is undecided to the next start, which takes it
            back.
        environment: Clock and randomness.
        emit: Tells the listeners.
        hooks: The hooks of the stores.
        settled: Told which rows have the authority's images now.
    """

    def __init__(
        self,
        port: WritePort,
        apply: ApplyFlow,
        *,
        reach: Callable[[str], WriteReach],
        nursery: trio.Nursery,
        environment: Environment,
        emit: Callable[[Event], None],
        hooks: StoreHooks,
        settled: Callable[[Sequence[RowKey]], None] = lambda rows: None,
    ) -> None:
        self._port = port
        self._apply = apply
        self._reach = reach
        self._nursery = nursery
        self._environment = environment
        self._emit = emit
        self._hooks = hooks
        self._settled = settled
        self._laying = trio.Lock()
        self._places = trio.Semaphore(SENDING_MAX)
        self._undecided = 0
        self._numbers = itertools.count()
        self._last: dict[RowKey, _Unit] = {}
        self._answers: dict[str, _Answer] = {}
        self._units: dict[str, _Unit] = {}

    async def write(self, request: WriteRequest) -> WriteResult:
        """Carry ``request`` out.

        Optimistic, it returns at the local commit with one receipt per entry. What the rows of this device cannot
        predict (a row that is not here, a version that is not this device's, a taken id) is decided by the authority
        before anything is shown, as is everything with ``confirm="strict"``.

        Cancelled before the local commit, nothing has happened; afterwards the write goes on without its caller.
        Cancelled while the authority is asked, the write may have been carried out there; nothing of it is shown.

        Raises:
            Overloaded: Too many writes are undecided; nothing was written.
            WriteUnknown: The authority was asked first and its answer was lost. Its key is resolved in the background:
                what was done is shown when it is known, and a ``WriteSettled`` event with that key reports it; a caller that does
                not want to wait for that resolves the key.
            ValidationError: ``before_save`` refuses a row; nothing was written or sent.
            AtomaError: It was asked first and could not be.
        """
        reach = self._reach(request.context.policy)
        if self._undecided >= UNDECIDED_MAX:
            raise Overloaded("the place for undecided writes", UNDECIDED_MAX)
        if request.options.confirm == "optimistic":
            shown = await self._show(request, reach)
            if shown is not None:
                return shown
        return await self._ask(request, reach)

    def answered(self, request: WriteRequest, result: WriteResult | None, error: AtomaError | None) -> bool:
        """Take the answer of a detached step; False when nobody here waits for it."""
        answer = self._answers.get(request.idem)
        if answer is None:
            return False
        answer.result, answer.error = result, error
        answer.came.set()
        return True

    async def resolved(self, resolution: Resolution) -> None:
        """Settle the write that somebody has resolved by its key, if it is undecided here, and wait until it is.

        Cancelled, the write is settled without its waiter.
        """
        unit = self._units.get(resolution.idem)
        if unit is not None:
            unit.resolution = resolution
            unit.asking.cancel()
            await unit.left.wait()

    # showing first

    async def _show(self, request: WriteRequest, reach: WriteReach) -> WriteResult | None:
        """Lay the unit and start asking; None when it cannot be predicted."""
        began = self._environment.clock()
        async with self._laying:  # units are entered in the order in which they are laid
            laid = await self._apply.show(request)
            if laid is None:
                return None
            unit = self._enter(_staged(msgspec.structs.replace(request, entries=laid.entries)), reach, laid)
            unit.path.append(Step(OVERLAY, "ok", self._environment.clock() - began, note="shown, not decided"))
            self._nursery.start_soon(self._carry, unit, name=f"write {request.idem}")
        return WriteResult(status_of(laid.items), laid.items, _meta(unit, "local"), unit.receipts)

    async def _carry(self, unit: _Unit) -> None:
        """Ask the authority about a laid unit and settle it."""
        try:
            items, source = await self._decision(unit)
            await self._settle(unit, items)
            meta = _meta(unit, source)
            for entry, item, receipt in zip(unit.request.entries, items, unit.receipts, strict=True):
                if item.error is not None:
                    receipt.refuse(item.error, store=entry.store, id=entry.id, meta=meta)
                elif only_nodded(item):
                    receipt.settle("local", meta=meta)  # the policy let this device answer in the authority's place
                else:
                    receipt.settle("observed", item.version, meta)
            self._tell(unit, items)
        except Exception:
            _log.exception("write %s could not be settled; the next start takes it back", unit.request.idem)
        finally:
            self._leave(unit)

    async def _decision(self, unit: _Unit) -> tuple[Sequence[WriteItemResult], Source]:
        """What became of each entry, and who says so; a failure refuses them all."""
        try:
            await _turn(unit)
            unit.request = address(unit.request, unit.based_on)
            result = await self._resolved(unit)
            unit.path += result.meta.path
            return result.items, result.meta.source
        except AtomaError as error:
            info = refusal(code_of(error), f"the write was taken back: {error}")
        except Exception as error:  # supervised: a fault of a port must not end the client
            _log.exception("write %s failed", unit.request.idem)
            info = refusal("INTERNAL", f"the write was taken back: {type(error).__name__}: {error}")
        return [WriteItemResult(entry.id, ok=False, error=info) for entry in unit.request.entries], "local"

    async def _resolved(self, unit: _Unit, doubt: AtomaError | None = None) -> WriteResult:
        """The authority's answer, asked for until it is there or somebody else has found it out.

        Raises:
            WriteUnknown: It could not be had.
            AtomaError: Nothing of the write was carried out.
        """
        with unit.asking:
            try:
                return await self._asked_again(unit, doubt)
            except AtomaError:
                if unit.resolution is None:
                    raise
        assert unit.resolution is not None, "nobody else cancels the asking"
        return _told(unit.request, unit.resolution)

    async def _asked_again(self, unit: _Unit, doubt: AtomaError | None) -> WriteResult:
        """The answer, asked for again under the same key while it is in doubt."""
        request = unit.request
        for tries in range(TRIES):
            if doubt is not None:
                await trio.sleep(self._wait_s(tries, doubt))
            try:
                async with self._places:
                    result = await self._within_budget(request, unit.reach)
                if doubt is None or not all(map(only_nodded, result.items)):
                    return result
                unit.path += result.meta.path
            except AtomaError as error:
                unit.path += path_of(error)
                if _decides(error, in_doubt=doubt is not None):
                    raise
                doubt = error
        raise WriteUnknown(request.idem, f"{TRIES} tries, the last one: {doubt}")

    def _wait_s(self, tries: int, doubt: AtomaError) -> float:
        return BACKOFF.wait_s(tries + 1, self._environment.random, retry_after_s(doubt))

    async def _within_budget(self, request: WriteRequest, reach: WriteReach) -> WriteResult:
        with trio.move_on_after(CALL_S):
            return await self._call(request, reach)
        late = NodeTimeout(request.context.policy, CALL_S)
        error = WriteUnknown(request.idem, str(late))
        note_path(error, [Step(AUTHORITY, "unknown", CALL_S, error=late.code, note=f"no answer in {CALL_S:g} s")])
        raise error

    async def _settle(self, unit: _Unit, items: Sequence[WriteItemResult]) -> Settled:
        """Settle in one local transaction, tried again while the engine fails for a time."""
        for tries in range(TRIES):
            try:
                settled = await self._apply.settle(unit.request, unit.layers, items)
            except StoreError as error:
                if tries == TRIES - 1:
                    raise
                _log.warning("write %s cannot be settled yet: %s", unit.request.idem, error)
                await trio.sleep(self._wait_s(tries, error))
            else:
                self._settled([(entry.store, entry.id) for entry in unit.request.entries])
                if unit.layers:
                    unit.made = settled.made
                return settled
        raise AssertionError("unreachable")

    def _tell(self, unit: _Unit, items: Sequence[WriteItemResult]) -> None:
        refused = [
            (entry.store, entry.id, item.error)
            for entry, item in zip(unit.request.entries, items, strict=True)
            if item.error is not None
        ]
        if refused:
            context = unit.request.context
            rows = tuple((store, id) for store, id, _ in refused)
            code = next((error.code for _, _, error in refused if error.code != "ABORTED"), "ABORTED")
            self._emit(WriteTakenBack(context.trace_id, unit.request.idem, context.policy, rows, code))

    # asking first

    async def _ask(self, request: WriteRequest, reach: WriteReach) -> WriteResult:
        """Ask the authority, then show what it answered."""
        request = self._hooks.leaving(request)
        if reach != "remote":
            request = _staged(request)
        unit = self._enter(request, reach, None)
        followed = False
        try:
            if named_versions(request):
                unit.based_on = await self._apply.known_versions(request)
            await _turn(unit)
            unit.request = request = address(request, unit.based_on)
            result = await self._call(request, reach)
            unit.request = request = named(request, result.items)
            if not request.context.staged and result.meta.source == "local":
                return result  # written here in the authority's place
            self._hooks.answered(request, result)
            shown = await self._shown(unit, result.items)
        except WriteUnknown as error:
            unit.request = _staged(request)  # whatever comes of it, it is not to be written here instead
            self._nursery.start_soon(self._follow, unit, error, name=f"resolve {request.idem}")
            self._undecided += 1
            followed = unit.followed = True
            raise
        finally:
            if not followed:
                self._leave(unit)
        state: WriteState = "accepted" if shown is None else "observed"
        receipts = tuple(WriteReceipt(state, item.version, settled=True) if item.ok else None for item in result.items)
        items = tuple(
            msgspec.structs.replace(item, version=version) if item.ok else item
            for item, version in zip(result.items, shown or (0,) * len(result.items), strict=True)
        )
        return WriteResult(status_of(items), items, result.meta, receipts)

    async def _shown(self, unit: _Unit, items: Sequence[WriteItemResult]) -> tuple[int, ...] | None:
        """Versions here of what the authority has answered; None when it cannot be shown: it is true all the same."""
        try:
            return (await self._settle(unit, items)).versions
        except StoreError as error:
            _log.warning("write %s was answered and is not shown: %s", unit.request.idem, error)
            return None

    async def _follow(self, unit: _Unit, doubt: AtomaError) -> None:
        """Find out what became of a write whose caller was told that nobody knows, and show it if it was done."""
        try:
            result = await self._resolved(unit, doubt)
            unit.request = named(unit.request, result.items)
            await self._settle(unit, result.items)
        except AtomaError as error:
            _log.info("write %s: %s", unit.request.idem, error)
        except Exception:
            _log.exception("write %s could not be resolved", unit.request.idem)
        finally:
            self._leave(unit)

    # both

    async def _call(self, request: WriteRequest, reach: WriteReach) -> WriteResult:
        """One try over the port; when the asking is detached, its answer is waited for."""
        if reach != "later":
            return aligned(request, await self._port.execute_write(request))
        answer = self._answers[request.idem] = _Answer()
        try:
            first = aligned(request, await self._port.execute_write(request))
            if not any(step.outcome == "detached" for step in first.meta.path):
                return first
            await answer.came.wait()
        finally:
            if self._answers.get(request.idem) is answer:
                del self._answers[request.idem]
        path = first.meta.path
        if answer.result is None:
            error = answer.error or WriteUnknown(request.idem, "the detached step ended without an answer")
            note_path(error, (*path, *path_of(error)))
            raise error
        found = aligned(request, answer.result)
        meta = msgspec.structs.replace(found.meta, path=(*path, *found.meta.path))
        return msgspec.structs.replace(found, meta=meta)

    def _enter(self, request: WriteRequest, reach: WriteReach, laid: Laid | None) -> _Unit:
        """Queue a unit behind the undecided units on its rows."""
        rows = tuple(dict.fromkeys((entry.store, entry.id) for entry in request.entries if not entry.awaits_id))
        before = {id(found): found for row in rows if (found := self._last.get(row)) is not None}
        unit = _Unit(next(self._numbers), request, reach, rows, tuple(before.values()))
        if laid is not None:
            unit.layers = laid.layers
            unit.based_on = laid.seen
            unit.receipts = tuple(WriteReceipt("undecided") for _ in laid.items)
            self._undecided += 1
        for row in rows:
            self._last[row] = unit
        self._units[request.idem] = unit
        return unit

    def _leave(self, unit: _Unit) -> None:
        """Let the next one on its rows go."""
        if unit.receipts or unit.followed:
            self._undecided -= 1
        for receipt in unit.receipts:
            receipt.close("the client was closed before the write had its answer")
        unit.left.set()
        self._units.pop(unit.request.idem, None)
        for row in unit.rows:
            if self._last.get(row) is unit:
                del self._last[row]
                # given up while it waited for its turn: who comes next waits for what it waited for
                earlier = [found for found in _undecided(unit.before) if row in found.rows]
                if earlier:
                    self._last[row] = max(earlier, key=lambda found: found.number)


async def _turn(unit: _Unit) -> None:
    """Wait until the units before this one are settled; what they had shown of its rows is what it is based on."""
    while waiting := _undecided(unit.before):
        await waiting[0].left.wait()
    shown = {row: made for earlier in _all_before(unit) for row, made in earlier.made.items()}
    unit.based_on.update({row: made for row, made in shown.items() if row in unit.based_on})
    if not unit.layers:
        unit.made = {row: made for row, made in shown.items() if row in unit.rows}
    unit.before = ()


def _all_before(unit: _Unit) -> list[_Unit]:
    """The units that this one waited for, in order; those that were given up while they waited stand in for theirs."""
    found = {earlier.number: earlier for one in unit.before for earlier in (*_all_before(one), one)}
    return [found[number] for number in sorted(found)]


def _undecided(units: Sequence[_Unit]) -> list[_Unit]:
    """The units that are not settled; behind one that was given up stand those that it waited for."""
    found: list[_Unit] = []
    for unit in units:
        found += _undecided(unit.before) if unit.left.is_set() else [unit]
    return found


def _meta(unit: _Unit, source: Source) -> ExecutionMeta:
    """How ``unit`` has come to where it is."""
    context = unit.request.context
    return ExecutionMeta(source, tuple(unit.path), context.trace_id, policy=context.policy)


def _told(request: WriteRequest, resolution: Resolution) -> WriteResult:
    """The answer that a resolution stands for."""
    if resolution.result is not None:
        return aligned(request, resolution.result)
    error = refusal("ABANDONED", "its key was resolved: it was not applied, and never will be")
    items = tuple(WriteItemResult(entry.id, ok=False, error=error) for entry in request.entries)
    return WriteResult("rejected", items, resolution.meta)


def _staged(request: WriteRequest) -> WriteRequest:
    return msgspec.structs.replace(request, context=msgspec.structs.replace(request.context, staged=True))


def _decides(error: AtomaError, *, in_doubt: bool) -> bool:
    """Whether ``error`` says that nothing of the write was or will be carried out.

    An error of a first try that does not leave the write in doubt does. In doubt, only a judgement of the request
    itself does: that a later try did not get through says nothing about an earlier one.
    """
    if isinstance(error, WriteUnknown | ResultMismatch):
        return False
    return not in_doubt or verdict_of(error) == "refused"
