"""What this device writes on its own while another machine has still to decide about the same rows."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma import Client, Schema, Store, StoreSpec, open_client, select
from atoma.contracts.execution import (
    ExecutionMeta,
    QueryRequest,
    QueryResult,
    WriteItemResult,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.mutations import Op
from atoma.contracts.policy import Policy
from atoma.contracts.values import ErrorInfo, RowImage, StoredRow
from atoma.errors import ConnectFailed, RemoteError, WriteRejected
from atoma.kernel import detach, local_first, node, sequence
from atoma.plugins import Plugin, PluginContext
from atoma.ports import seeded_environment
from atoma.ports.keys import PortKey
from atoma.runtime.flows import MergeMode
from atoma.testing.conformance.cancelling import cancelled_at
from atoma_stores.local import BULK_INSERTS, LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.faults import fault_vfs
from tests.paths import memory

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = "cached"
    rank: int = 0


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)
CACHED = Note(id="a")
Answer = Callable[[WriteRequest], WriteResult]


def refuse(request: WriteRequest) -> WriteResult:
    error = ErrorInfo("DENIED", "no")
    items = tuple(WriteItemResult(entry.id, ok=False, error=error) for entry in request.entries)
    return WriteResult("rejected", items, ExecutionMeta("remote"))


def take(request: WriteRequest) -> WriteResult:
    def row(entry: Op) -> RowImage:
        return {"text": str(entry.values.get("text", "cached")), "rank": 0}

    items = tuple(WriteItemResult(entry.id, True, True, 9, row(entry)) for entry in request.entries)
    return WriteResult("confirmed", items, ExecutionMeta("remote"))


@dataclass
class Far:
    """The other machine: every write waits at the gate and then gets the answer."""

    answer: Answer = refuse
    gate: trio.Event = field(default_factory=trio.Event)
    reading: trio.Event = field(default_factory=trio.Event)
    asked: list[WriteRequest] = field(default_factory=list)
    id: str = "far"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.reading.set()
        context.register_node("remote-far", self)
        refreshing = sequence(node("local-query"), detach(node("remote-far")), node("local-query"))
        context.register_policy(Policy("refreshing", refreshing, node("local-write")))
        context.register_policy(local_first("remote-far", name="volatile", volatile=True))
        yield

    async def query(self, request: QueryRequest) -> QueryResult:
        await self.reading.wait()
        return QueryResult((StoredRow("a", 7, 7, "main", {"text": "cached", "rank": 0}),), meta=ExecutionMeta("remote"))

    async def write(self, request: WriteRequest) -> WriteResult:
        gate, answer = self.gate, self.answer
        self.asked.append(request)
        await gate.wait()
        return answer(request)


@asynccontextmanager
async def open_world(policy: str = "direct-remote") -> AsyncGenerator[tuple[Client, Far, Store[Note]]]:
    """A client whose cache holds ``CACHED``."""
    far = Far()
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(memory())), far]
    async with open_client(SCHEMA, plugins=plugins, policy=policy, environment=seeded_environment(1)) as client:
        notes = client.store(NOTES)
        await notes.get_all(policy="direct-remote")
        assert await rows(notes) == {"a": CACHED}
        yield client, far, notes
        await wait_all_tasks_blocked()


async def rows(notes: Store[Note]) -> dict[str, Note]:
    return {note.id: note for note in await notes.query(select(NOTES), policy="direct-local")}


async def decided(far: Far) -> None:
    far.gate.set()
    await wait_all_tasks_blocked()


async def test_cancelled_anywhere_it_is_there_for_good_or_never_was() -> None:
    step, there, cancelled = 0, 0, True
    while cancelled:
        random.seed(1)  # the order in which Trio runs what is ready
        async with open_world() as (_, far, notes):
            await notes.update("a", text="undecided")
            await wait_all_tasks_blocked()
            cancelled = await cancelled_at(step, lambda: notes.update("a", rank=5, policy="direct-local"))
            shown = (await rows(notes))["a"].rank
            await decided(far)
            assert await rows(notes) == {"a": Note(id="a", rank=shown)}, f"cancelled at step {step}"
            there += shown == 5
            step += 1
    assert 1 <= there < step


@pytest.mark.paths
@pytest.mark.parametrize("late", range(4))
@pytest.mark.parametrize("seed", range(4))
async def test_begun_at_the_same_time_it_stays(late: int, seed: int) -> None:
    """Whether the undecided write was shown when this one began does not matter."""
    random.seed(seed)
    async with open_world() as (_, far, notes):

        async def own() -> None:
            for _ in range(late):
                await trio.lowlevel.checkpoint()
            await notes.update("a", rank=5, policy="direct-local")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(own)
            nursery.start_soon(lambda: notes.update("a", text="undecided"))
        assert await rows(notes) == {"a": Note(id="a", text="undecided", rank=5)}
        await decided(far)
        assert await rows(notes) == {"a": Note(id="a", rank=5)}


async def test_what_changes_nothing_that_is_visible_stays_too() -> None:
    async with open_world() as (_, far, notes):
        await notes.update("a", rank=5)
        assert not (await notes.update("a", rank=5, policy="direct-local")).changed
        await decided(far)
        assert await rows(notes) == {"a": Note(id="a", rank=5)}


@pytest.mark.paths
@pytest.mark.parametrize("count", [1, 4 * BULK_INSERTS])
async def test_inserts_where_an_undecided_delete_left_room(count: int) -> None:
    ids = ["a", *(f"n{number}" for number in range(count - 1))]
    async with open_world() as (_, far, notes):
        await notes.delete("a")
        result = await notes.insert_many([Note(id=id, text="own") for id in ids], policy="direct-local")
        assert result.status == "confirmed"
        await decided(far)
        assert await rows(notes) == {id: Note(id=id, text="own") for id in ids}


async def test_a_strict_write_that_fell_back_to_this_device_outlives_a_newer_one_that_is_refused() -> None:
    def away(request: WriteRequest) -> WriteResult:
        raise ConnectFailed("down")

    async with open_world("remote-first") as (_, far, notes), trio.open_nursery() as nursery:
        far.answer = away
        nursery.start_soon(lambda: notes.update("a", rank=5, confirm="strict"))
        await wait_all_tasks_blocked()
        newer = await notes.update("a", text="undecided")
        first, far.gate, far.answer = far.gate, trio.Event(), refuse
        first.set()
        await wait_all_tasks_blocked()
        assert await rows(notes) == {"a": Note(id="a", text="undecided", rank=5)}
        await decided(far)
        with pytest.raises(WriteRejected):
            await newer.accepted()
        assert await rows(notes) == {"a": Note(id="a", rank=5)}


@pytest.mark.paths
async def test_a_late_answer_nobody_waits_for_does_not_put_an_older_row_back() -> None:
    async with open_world("volatile") as (_, far, notes):
        first, far.answer = far.gate, take
        with trio.move_on_after(1) as patience:
            await notes.update("a", text="first", confirm="strict")
        assert patience.cancelled_caught
        far.gate = trio.Event()
        far.gate.set()
        await notes.update("a", text="second", confirm="strict")
        first.set()
        await wait_all_tasks_blocked()
        assert await rows(notes) == {"a": Note(id="a", text="second")}


async def test_who_gave_up_waiting_for_its_turn_does_not_let_a_later_one_overtake() -> None:
    async with open_world() as (_, far, notes):
        await notes.update("a", text="first")
        with trio.move_on_after(1) as patience:
            await notes.update("a", text="given up", confirm="strict")
        assert patience.cancelled_caught
        await notes.update("a", text="third")
        await wait_all_tasks_blocked()
        assert [dict(request.entries[0].values) for request in far.asked] == [{"text": "first"}]
        await decided(far)
        assert [dict(request.entries[0].values) for request in far.asked] == [{"text": "first"}, {"text": "third"}]


@pytest.mark.paths
async def test_a_refresh_that_began_before_the_answer_is_as_old_as_the_read() -> None:
    async with open_world("refreshing") as (_, far, notes):
        far.reading = trio.Event()
        assert (await notes.query()).items == (CACHED,)
        await wait_all_tasks_blocked()
        far.answer = take
        far.gate.set()
        await notes.update("a", text="new", policy="direct-remote", confirm="strict")
        far.reading.set()
        await wait_all_tasks_blocked()
        assert await rows(notes) == {"a": Note(id="a", text="new")}


async def test_an_answer_that_this_device_has_no_room_for_is_told_all_the_same(tmp_path: Path) -> None:
    far = Far(take)
    far.gate.set()
    with fault_vfs("no-room-for-answers") as plan:
        engine = SQLiteEngine(tmp_path / "a.db", vfs="no-room-for-answers")
        async with open_client(SCHEMA, plugins=[LocalExecution(engine), far], policy="direct-remote") as client:
            notes = client.store(NOTES)
            await notes.get_all()
            plan.fail("write", "full")
            handle = await notes.update("a", text="taken there", confirm="strict")
            assert (handle.state, await handle.accepted()) == ("accepted", 9)
            assert handle.value == Note(id="a", text="taken there")
            assert await rows(notes) == {"a": CACHED}
            plan.heal()
            await notes.update("a", text="later", confirm="strict")
            assert await rows(notes) == {"a": Note(id="a", text="later")}


async def test_rows_that_this_device_has_no_room_for_are_read_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far = Far(take)
    far.gate.set()
    with fault_vfs("no-room-for-rows") as plan:
        engine = SQLiteEngine(tmp_path / "a.db", vfs="no-room-for-rows")
        async with open_client(SCHEMA, plugins=[LocalExecution(engine), far], policy="direct-remote") as client:
            notes = client.store(NOTES)
            plan.fail("write", "full")
            for policy in ("direct-remote", "remote-first"):
                page = await notes.query(policy=policy)
                assert (page.items, page.meta.source) == ((CACHED,), "remote")
            for merge in get_args(MergeMode):
                assert list(await notes.get_all(merge=merge)) == [CACHED]
            assert await rows(notes) == {}
            assert "is not kept" in caplog.text
            plan.heal()
            await notes.query()
            assert await rows(notes) == {"a": CACHED}


async def test_who_asks_for_time_is_not_asked_again_before() -> None:
    asked: list[float] = []
    busy = RemoteError("come back", remote_code="UNAVAILABLE", remote_retryable=True, retry_after_s=500)

    def answer(request: WriteRequest) -> WriteResult:
        asked.append(trio.current_time())
        if len(asked) == 1:
            raise busy
        return take(request)

    async with open_world() as (_, far, notes):
        far.answer = answer
        far.gate.set()
        handle = await notes.update("a", text="mine")
        with trio.fail_after(1000):
            assert await handle.accepted() == 9
        assert asked[1] - asked[0] >= 500
