"""Layered optimism against a model: whatever is written, refused, lost, found again and cancelled, in whatever order,
the visible rows are the confirmed ones with the undecided writes on them, and in the end they are the authority's.

The authority is the test's: a dictionary behind a node that waits for a rule to say what becomes of each call. The model
knows nothing of layers, shadows or keys: it keeps a list of undecided writes and replays it.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import msgspec
import pytest
import trio
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from atoma import Client, Schema, StoreSpec, open_client, select
from atoma.contracts.execution import (
    ExecutionMeta,
    QueryRequest,
    QueryResult,
    Receipt,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.mutations import Op
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.errors import AtomaError, ChannelBroken, ConnectFailed, WriteUnknown
from atoma.kernel import local_first
from atoma.mutations import layers
from atoma.plugins import Plugin, PluginContext
from atoma.ports import seeded_environment
from atoma.ports.keys import PortKey
from atoma.runtime import applying, optimism
from atoma.runtime.optimism import TRIES
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine

T = TypeVar("T")
Rows = dict[str, dict[str, Any]]
Fate = Literal["apply", "deny", "refuse", "lose reply", "lose request"]
IDS = ("a", "b")
STEP_S = 120.0  # longer than any wait between two tries


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    rank: int = 0


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


@dataclass
class Call:
    """One call that has reached the authority's door."""

    request: WriteRequest
    fate: Fate | None = None
    told: trio.Event = field(default_factory=trio.Event)


class Authority:
    """The rows that count, and the outcomes of the keys it has seen."""

    id = "far"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = ()

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.seqs: dict[str, int] = {}
        self.outcomes: dict[str, WriteResult] = {}
        self.calls: list[Call] = []
        self.applied: list[tuple[str, str, str]] = []
        self._seq = 0

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_node("remote-far", self)
        context.register_policy(local_first("remote-far", name="volatile", volatile=True, refresh_s=1e6))
        yield

    async def query(self, request: QueryRequest) -> QueryResult:
        rows = tuple(StoredRow(id, self.seqs[id], self.seqs[id], "main", dict(row)) for id, row in self.rows.items())
        return QueryResult(rows, meta=ExecutionMeta("remote"))

    async def write(self, request: WriteRequest) -> WriteResult:
        call = Call(request)
        self.calls.append(call)
        try:
            await call.told.wait()
        finally:
            self.calls.remove(call)
        if call.fate == "refuse":
            raise ConnectFailed("nobody is there")
        if call.fate == "lose request":
            raise ChannelBroken("the request was lost")
        if call.fate == "deny":
            self.outcomes.setdefault(request.idem, denied(request))
        result = self.decide(request)
        if call.fate == "lose reply":
            raise ChannelBroken("the reply was lost")
        return result

    def decide(self, request: WriteRequest) -> WriteResult:
        """At most once per key."""
        known = self.outcomes.get(request.idem)
        if known is None:
            self.applied += [(entry.kind, entry.id, str(entry.values)) for entry in request.entries if entry.values]
            items = tuple(self.put(entry) for entry in request.entries)
            known = self.outcomes[request.idem] = WriteResult(status_of(items), items, ExecutionMeta("remote"))
        return known

    def put(self, entry: Op) -> WriteItemResult:
        row = self.rows.get(entry.id)
        if entry.kind == "create" and row is not None:
            return WriteItemResult(entry.id, False, error=ErrorInfo("CONFLICT", "taken"))
        if entry.kind in ("patch", "delete") and row is None:
            return WriteItemResult(entry.id, False, error=ErrorInfo("NOT_FOUND", "gone"))
        self._seq += 1
        if entry.kind == "delete":
            del self.rows[entry.id]
            return WriteItemResult(entry.id, True, True)
        new = {**(entry.defaults if row is None else row), **entry.values}
        self.rows[entry.id] = new
        self.seqs[entry.id] = self._seq
        return WriteItemResult(entry.id, True, True, self._seq, dict(new))


def denied(request: WriteRequest) -> WriteResult:
    error = ErrorInfo("DENIED", "no")
    items = tuple(WriteItemResult(entry.id, False, error=error) for entry in request.entries)
    return WriteResult("rejected", items, ExecutionMeta("remote"))


class Loop:
    """A Trio run on a virtual clock in a thread of its own, stepped from outside; time stands still between steps."""

    def __init__(self, main: Callable[[], Any]) -> None:
        self.clock = MockClock(rate=0.0)
        self._main = main
        self._ready: queue.Queue[Any] = queue.Queue()
        self._done: trio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        ready = self._ready.get()
        if isinstance(ready, BaseException):
            raise ready
        self.token, self.world = ready

    def _run(self) -> None:
        async def whole() -> None:
            async with self._main() as world:
                self._done = trio.Event()
                self._ready.put((trio.lowlevel.current_trio_token(), world))
                await self._done.wait()

        try:
            trio.run(whole, clock=self.clock)
        except BaseException as error:
            self._ready.put(error)

    def call(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do ``step`` and let everything that can run do so."""

        async def settled() -> T:
            result = await step()
            await wait_all_tasks_blocked()
            return result

        return trio.from_thread.run(settled, trio_token=self.token)

    def close(self) -> None:
        async def end() -> None:
            assert self._done is not None
            self._done.set()

        trio.from_thread.run(end, trio_token=self.token)
        self._thread.join(30)
        assert not self._thread.is_alive()


@dataclass
class World:
    client: Client
    authority: Authority
    nursery: trio.Nursery

    @property
    def notes(self) -> Any:
        return self.client.store(NOTES)


@asynccontextmanager
async def open_world() -> AsyncGenerator[World]:
    authority = Authority()
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(":memory:")), authority]
    async with (
        open_client(SCHEMA, plugins=plugins, policy="direct-remote", environment=seeded_environment(3)) as client,
        trio.open_nursery() as nursery,
    ):
        yield World(client, authority, nursery)
        nursery.cancel_scope.cancel()


@dataclass(eq=False)
class Undecided:
    """One item of a write as the model sees it."""

    op: str
    id: str
    values: dict[str, Any]
    unit: Unit


@dataclass(eq=False)
class Unit:
    """One write: shown or asked first, and how often it was tried."""

    items: list[Undecided] = field(default_factory=list)
    shown: bool = True
    handles: list[Any] = field(default_factory=list)
    scope: trio.CancelScope | None = None
    error: AtomaError | None = None
    tries: int = 0
    doubt: bool = False


def played(row: dict[str, Any] | None, item: Undecided) -> dict[str, Any] | None:
    """What a person expects a write to do to a row."""
    if item.op == "delete":
        return None
    if item.op == "patch":
        return None if row is None else {**row, **item.values}
    if item.op == "create":
        return dict(item.values)
    return {"text": "", "rank": 0, **(row or {}), **item.values}


class Optimism(RuleBasedStateMachine):
    """One client, one authority, and rules that say what happens next."""

    @initialize()
    def begin(self) -> None:
        self.loop = Loop(open_world)
        self.world: World = self.loop.world
        self.base: Rows = {}
        self.undecided: list[Undecided] = []
        self.units: list[Unit] = []
        self.written = 0
        self.forgotten: set[str] = set()
        self.base_before_refresh: Rows = {}

    # what the model says

    def visible(self) -> Rows:
        rows: dict[str, dict[str, Any] | None] = {id: dict(row) for id, row in self.base.items()}
        for item in self.undecided:
            rows[item.id] = played(rows.get(item.id), item)
        return {id: row for id, row in rows.items() if row is not None}

    def ahead(self, unit: Unit) -> bool:
        """Whether an earlier write on one of its rows is still undecided."""
        earlier = self.units[: self.units.index(unit)]
        rows = {item.id for item in unit.items}
        return any(rows & {item.id for item in other.items} for other in earlier)

    def unit_of(self, call: Call) -> Unit:
        wanted = [(entry.kind, entry.id, entry.values) for entry in call.request.entries]
        for unit in self.units:
            if [(item.op, item.id, item.values) for item in unit.items] == wanted and not self.ahead(unit):
                return unit
        raise AssertionError(f"the authority was asked what nobody wrote, or out of order: {wanted}")

    # rules: writing

    def submit(self, unit: Unit, policy: str, confirm: str) -> None:
        async def one() -> None:
            notes = self.world.notes
            item = unit.items[0]
            match item.op:
                case "create":
                    handle = await notes.insert(Note(id=item.id, **item.values), policy=policy, confirm=confirm)
                case "patch":
                    handle = await notes.update(item.id, item.values, policy=policy, confirm=confirm)
                case "upsert":
                    handle = await notes.upsert({"id": item.id, **item.values}, policy=policy, confirm=confirm)
                case _:
                    handle = await notes.delete(item.id, policy=policy, confirm=confirm)
            unit.handles = [handle]

        async def many() -> None:
            result = await self.world.notes.upsert_many(
                [{"id": item.id, **item.values} for item in unit.items], policy=policy, confirm=confirm
            )
            unit.handles = [item.handle for item in result]

        async def guarded() -> None:
            unit.scope = trio.CancelScope()
            with unit.scope:
                try:
                    await (one() if len(unit.items) == 1 else many())
                except AtomaError as error:
                    unit.error = error

        async def start() -> None:
            self.world.nursery.start_soon(guarded)

        self.units.append(unit)
        if unit.shown:
            self.undecided += unit.items
            self.loop.call(guarded)
            assert len(unit.handles) == len(unit.items), unit.error
            assert all(handle.state == "undecided" for handle in unit.handles)
        else:
            self.loop.call(start)

    def drawn(self, op: str, id: str, rank: int, *, shown: bool) -> Unit | None:
        """The unit of one operation, None when it could not be shown."""
        row = self.visible().get(id)
        if shown and (row is None) != (op == "create") and op != "upsert":
            return None
        self.written += 1  # no two writes are the same
        text = f"{op} {self.written}"
        values: dict[str, Any] = {"text": text, "rank": rank}
        if op == "patch":
            values = {"rank": 100 + self.written} if rank % 2 else {"text": text}
        if op == "upsert":
            values = {"text": text}
        if op == "delete":
            values = {}
        unit = Unit(shown=shown)
        unit.items.append(Undecided(op, id, values, unit))
        return unit

    OPS = st.sampled_from(["create", "patch", "upsert", "delete"])
    WAYS = st.sampled_from(["direct-remote", "volatile", "hybrid", "remote-first"])

    @rule(op=OPS, id=st.sampled_from(IDS), rank=st.integers(1, 9), policy=WAYS)
    def write(self, op: str, id: str, rank: int, policy: str) -> None:
        unit = self.drawn(op, id, rank, shown=True)
        if unit is not None:
            self.submit(unit, policy if policy != "remote-first" else "direct-remote", "optimistic")

    @rule(rank=st.integers(1, 9), policy=st.sampled_from(["direct-remote", "volatile"]))
    def write_both(self, rank: int, policy: str) -> None:
        unit = Unit()
        self.written += 1
        unit.items = [Undecided("upsert", id, {"rank": 100 * rank + self.written}, unit) for id in IDS]
        self.submit(unit, policy, "optimistic")

    @rule(
        op=OPS, id=st.sampled_from(IDS), rank=st.integers(1, 9), policy=st.sampled_from(["direct-remote", "volatile"])
    )
    def ask(self, op: str, id: str, rank: int, policy: str) -> None:
        unit = self.drawn(op, id, rank, shown=False)
        assert unit is not None
        self.submit(unit, policy, "strict")

    @rule(op=OPS, id=st.sampled_from(IDS))
    def cancelled_before(self, op: str, id: str) -> None:
        async def step() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await self.world.notes.upsert(Note(id=id, text="never"), policy="direct-remote")
            assert scope.cancelled_caught

        self.loop.call(step)

    @precondition(lambda self: any(not unit.shown and not unit.doubt for unit in self.units))
    @rule(data=st.data())
    def cancel_asked(self, data: st.DataObject) -> None:
        unit = data.draw(st.sampled_from([unit for unit in self.units if not unit.shown and not unit.doubt]))

        async def step() -> None:
            assert unit.scope is not None
            unit.scope.cancel()

        self.forgotten |= {call.request.idem for call in self.asked() if self.unit_of(call) is unit}
        self.units.remove(unit)
        self.loop.call(step)

    # rules: the authority

    @rule(id=st.sampled_from(IDS), rank=st.integers(10, 19), gone=st.booleans())
    def somebody_else(self, id: str, rank: int, gone: bool) -> None:
        op: Any = "delete" if gone else "upsert"
        self.world.authority.put(Op(op, "notes", id, {} if gone else {"text": "else", "rank": rank}, scope="main"))

    FATES = st.sampled_from(["apply", "apply", "deny", "refuse", "lose reply", "lose reply", "lose request"])

    @precondition(lambda self: self.asked())
    @rule(data=st.data(), fate=FATES)
    def answer(self, data: st.DataObject, fate: Fate) -> None:
        calls = self.asked()
        self.tell(data.draw(st.sampled_from(calls), label="call"), fate)

    def asked(self) -> list[Call]:
        """Calls that somebody waits for; a cancelled detached one goes on for nobody."""
        found = [call for call in self.world.authority.calls if call.request.idem not in self.forgotten]
        for call in found:
            self.unit_of(call)
        return found

    def tell(self, call: Call, fate: Fate) -> None:
        unit = self.unit_of(call)
        unit.tries += 1
        call.fate = fate

        async def step() -> None:
            call.told.set()

        self.loop.call(step)
        known = self.world.authority.outcomes.get(call.request.idem)
        if fate in ("apply", "deny"):
            assert known is not None
            self.settle(unit, known.items)
        elif (fate == "refuse" and not unit.doubt) or unit.tries == TRIES + (not unit.shown):
            self.settle(unit, None)
        else:
            unit.doubt = True
            assert unit.shown or isinstance(unit.error, WriteUnknown)

    def settle(self, unit: Unit, items: Sequence[WriteItemResult] | None) -> None:
        self.units.remove(unit)
        self.undecided = [item for item in self.undecided if item.unit is not unit]
        for place, item in enumerate(unit.items):
            told = None if items is None else items[place]
            if told is not None and told.ok:
                self.base.pop(item.id, None)
                if told.row is not None:
                    self.base[item.id] = dict(told.row)
            if unit.shown:
                good = told is not None and told.ok
                handle = unit.handles[place]
                assert handle.state == ("observed" if good else "rejected")
                ok = [step.node for step in handle.meta.path if step.outcome == "ok"]
                assert handle.meta.source == ("remote" if ok[-1].startswith("remote-") else "local")
            elif told is None or not told.ok:
                assert unit.error is not None

    @rule()
    def time_passes(self) -> None:
        async def step() -> None:
            self.loop.clock.jump(0.9)

        self.loop.call(step)

    @precondition(lambda self: self.units and not self.asked())
    @rule()
    def much_time_passes(self) -> None:
        """Nobody is being asked, so no budget runs out: what is in doubt is asked again."""

        async def step() -> None:
            self.loop.clock.jump(STEP_S)

        self.loop.call(step)

    @rule()
    def refresh(self) -> None:
        self.base = {id: dict(row) for id, row in self.world.authority.rows.items()}
        hidden = {item.id for item in self.undecided}
        before = self.base_before_refresh
        for id in hidden - self.base.keys():  # a read does not take the base from under an undecided write
            if id in before:
                self.base[id] = before[id]
        self.loop.call(lambda: self.world.notes.get_all(policy="direct-remote", merge="replace"))

    # what has to hold

    @invariant()
    def visible_is_the_model(self) -> None:
        if not hasattr(self, "loop"):
            return

        async def read() -> Rows:
            page = await self.world.notes.query(select(self.world.notes.spec), policy="direct-local")
            return {note.id: {"text": note.text, "rank": note.rank} for note in page}

        assert self.loop.call(read) == self.visible()
        applied = self.world.authority.applied
        assert len(applied) == len(set(applied)), "nothing is applied twice"
        self.base_before_refresh = {id: dict(row) for id, row in self.base.items()}

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.come_to_rest()
        finally:
            self.loop.close()

    def come_to_rest(self) -> None:
        """Let the authority answer everything; then the cache is the authority's state, for all rows."""
        for _ in range(200):
            calls = self.asked()
            if calls:
                self.tell(calls[0], "apply")
            elif self.units:
                self.loop.clock.jump(STEP_S)
                self.loop.call(trio.lowlevel.checkpoint)
            else:
                break
        assert self.units == []
        assert self.undecided == []
        self.visible_is_the_model()
        self.refresh()
        self.visible_is_the_model()
        assert self.visible() == self.world.authority.rows


CHECKED = settings(max_examples=60, stateful_step_count=40)


def test_the_visible_rows_are_the_model_after_every_step() -> None:
    run_state_machine_as_test(Optimism, settings=CHECKED)  # its invariant asserts
    assert math.isfinite(CHECKED.max_examples)


# planted bugs: each one has to be found


def _pre_image(tx: Any, request: WriteRequest, lsns: Sequence[int], items: Sequence[WriteItemResult]) -> Any:
    """Taking back puts back what was there when the write began."""
    pre = {}
    if not any(item.ok for item in items):
        pre = {
            (e.store, e.id): tx.outbox.pre_image(e.store, e.id, lsn)
            for e, lsn in zip(request.entries, lsns, strict=False)
        }
    versions = _SETTLE(tx, request, lsns, items)
    for (store, id), image in pre.items():
        tx.rows.put(store, id, "main", image)
    return versions


def _ghost(tx: Any, request: WriteRequest, lsns: Sequence[int], items: Sequence[WriteItemResult]) -> Any:
    """A write that failed leaves the overlay and stays visible."""
    if any(item.ok for item in items) or not lsns:
        return _SETTLE(tx, request, lsns, items)
    for lsn in lsns:
        tx.outbox.remove({lsn: None})
    return tuple(0 for _ in items)


def _prediction(tx: Any, entry: Op, item: WriteItemResult) -> None:
    """What was asked for is taken for what was done."""
    _CONFIRM(tx, entry, msgspec.structs.replace(item, row=None, changed=entry.kind == "delete"))


async def _no_turn(unit: Any) -> None:
    """Writes are sent as they come and settled as they end."""


async def _new_key(self: Any, request: WriteRequest, reach: Any) -> WriteResult:
    """Every try has a key of its own."""
    renamed = msgspec.structs.replace(request, idem=self._environment.ids())
    return await _BUDGET(self, renamed, reach)


async def _early(self: Any, request: WriteRequest) -> WriteResult:
    """``strict`` shows first and waits afterwards."""
    reach = self._reach(request.context.policy)
    shown: WriteResult | None = await self._show(request, reach)
    if shown is None:
        asked: WriteResult = await self._ask(request, reach)
        return asked
    if request.options.confirm == "strict":
        await cast("Receipt", shown.receipts[0]).wait(observed=False)
    return shown


def _eager(error: AtomaError, *, in_doubt: bool) -> bool:
    """A later try that did not get through ends the doubt about an earlier one."""
    return not isinstance(error, WriteUnknown)


def _no_rebase(tx: Any, rows: Any) -> None:
    """A confirmed image that a read brings does not reach the rows with undecided writes."""


_SETTLE, _CONFIRM, _BUDGET = layers.settle, layers._confirm, optimism.LayeredWrites._within_budget
PLANTED: dict[str, tuple[Any, str, Any]] = {
    "taking back restores the pre-image": (applying, "settle", _pre_image),
    "settled in the order of completion": (optimism, "_turn", _no_turn),
    "a failed write stays visible": (applying, "settle", _ghost),
    "a new key for every try": (optimism.LayeredWrites, "_within_budget", _new_key),
    "strict shows early": (optimism.LayeredWrites, "write", _early),
    "the prediction becomes the base": (layers, "_confirm", _prediction),
    "a lost answer is a failure": (optimism, "TRIES", 1),
    "a refused connection ends the doubt": (optimism, "_decides", _eager),
    "a read does not reach shown rows": (applying, "rebase_rows", _no_rebase),
}


@pytest.mark.parametrize("bug", list(PLANTED))
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong = PLANTED[bug]
    monkeypatch.setattr(where, name, wrong)
    # what is drawn depends on the modules that are loaded, and the first failure ends the hunt: room costs nothing
    hunt = settings(
        CHECKED, max_examples=500, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False, database=None
    )
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(Optimism, settings=hunt)
