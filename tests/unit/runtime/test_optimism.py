"""What a write means on a store that another machine decides: every result, shown first or asked first.

The other machine is a node of the test's own; the kernel, the runtime and the local database are the product's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma import Client, Index, Schema, Store, StoreSpec, open_client, select
from atoma.contracts.events import Event, WriteDispatched, WriteSettled, WriteTakenBack
from atoma.contracts.execution import (
    ExecutionMeta,
    QueryRequest,
    QueryResult,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    path_of,
    status_of,
)
from atoma.contracts.mutations import Op
from atoma.contracts.policy import Policy
from atoma.contracts.values import ErrorInfo, RowImage, StoredRow
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ChannelBroken,
    ConflictError,
    ConnectFailed,
    NodeTimeout,
    Overloaded,
    RemoteError,
    SchemaError,
    WriteRejected,
    WriteUnknown,
)
from atoma.kernel import atomic, detach, fallback, local_first, node, sequence, timeout
from atoma.kernel.reach import write_reach
from atoma.plugins import Plugin, PluginContext
from atoma.ports import seeded_environment
from atoma.ports.keys import PortKey
from atoma.runtime import ManyResult, applying, optimism
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.paths import memory

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    rank: int = 0
    code: str | None = None


NOTES = StoreSpec("notes", Note, indexes=[Index("code", unique=True)])
SCHEMA = Schema(NOTES)
Answer = Callable[[WriteRequest], Awaitable[WriteResult]]


@dataclass
class Far:
    """The other machine: what it answers, and what it was asked."""

    answer: Answer
    id: str = "far"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = ()
    asked: list[WriteRequest] = field(default_factory=list)
    rows: dict[str, RowImage] = field(default_factory=dict)
    reading: trio.Event = field(default_factory=trio.Event)
    heard: list[Event] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.reading.set()
        context.register_node("remote-far", self)
        context.register_policy(local_first("remote-far", name="volatile", volatile=True))
        context.register_listener(self.heard.append)
        yield

    async def query(self, request: QueryRequest) -> QueryResult:
        rows = tuple(StoredRow(id, 7, 7, "main", dict(image)) for id, image in self.rows.items())
        await self.reading.wait()
        return QueryResult(rows, meta=ExecutionMeta("remote"))

    async def write(self, request: WriteRequest) -> WriteResult:
        self.asked.append(request)
        return await self.answer(request)


def image(text: str = "", rank: int = 0, code: str | None = None) -> RowImage:
    return {"text": text, "rank": rank, "code": code}


def accepted(entry: Op, seq: int = 100) -> WriteItemResult:
    """The authority's image is always told apart from a prediction by its rank."""
    if entry.kind == "delete":
        return WriteItemResult(entry.id, True, True)
    return WriteItemResult(entry.id, True, True, seq, image(str(entry.values.get("text", "")), 99))


def refused(entry: Op) -> WriteItemResult:
    return WriteItemResult(entry.id, ok=False, error=ErrorInfo("DENIED", "not yours"))


def result_of(items: Sequence[WriteItemResult]) -> WriteResult:
    return WriteResult(status_of(tuple(items)), tuple(items), ExecutionMeta("remote"))


@dataclass
class World:
    client: Client
    far: Far
    notes: Store[Note]

    async def here(self) -> dict[str, Note]:
        return {note.id: note for note in await self.notes.query(select(self.notes.spec), policy="direct-local")}

    def events(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.far.heard if isinstance(event, kind)]


CACHED = {"a": Note(id="a", text="cached", rank=1), "b": Note(id="b", text="cached", rank=1)}


@asynccontextmanager
async def open_world(answer: Answer, policy: str = "direct-remote") -> AsyncGenerator[World]:
    """A client whose cache holds ``CACHED`` as the authority's rows."""
    far = Far(answer)
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(memory())), far]
    async with open_client(SCHEMA, plugins=plugins, policy=policy, environment=seeded_environment(1)) as client:
        world = World(client, far, client.store(NOTES))
        far.rows = {id: image(note.text, note.rank) for id, note in CACHED.items()}
        await world.notes.get_all(policy="direct-remote")
        assert await world.here() == CACHED
        far.heard.clear()
        yield world
        await wait_all_tasks_blocked()


def gated(items: Callable[[WriteRequest], Sequence[WriteItemResult]]) -> tuple[trio.Event, Answer]:
    gate = trio.Event()

    async def answer(request: WriteRequest) -> WriteResult:
        await gate.wait()
        return result_of(items(request))

    return gate, answer


# A69: three states x shown or asked first x one or many x four operations

ROWS = {"insert": ("x", "y"), "update": ("a", "b"), "upsert": ("a", "y"), "delete": ("a", "b")}


async def write(notes: Store[Note], op: str, batch: bool, confirm: Any) -> Any:
    first, second = ROWS[op]
    match op, batch:
        case "insert", False:
            return await notes.insert(Note(id=first, text="mine"), confirm=confirm)
        case "insert", True:
            return await notes.insert_many([Note(id=first, text="mine"), Note(id=second, text="mine")], confirm=confirm)
        case "update", False:
            return await notes.update(first, text="mine", confirm=confirm)
        case "update", True:
            return await notes.update_many({first: {"text": "mine"}, second: {"text": "mine"}}, confirm=confirm)
        case "upsert", False:
            return await notes.upsert({"id": first, "text": "mine"}, confirm=confirm)
        case "upsert", True:
            return await notes.upsert_many(
                [{"id": first, "text": "mine"}, {"id": second, "text": "mine"}], confirm=confirm
            )
        case "delete", False:
            return await notes.delete(first, confirm=confirm)
        case _:
            return await notes.delete_many([first, second], confirm=confirm)


def predicted(op: str, id: str) -> Note | None:
    """What is shown before the authority has answered."""
    if op == "delete":
        return None
    return Note(id=id, text="mine", rank=CACHED[id].rank if id in CACHED else 0)


def with_rows(rows: dict[str, Note | None]) -> dict[str, Note]:
    """The cache after ``rows`` came over it."""
    return {id: note for id, note in {**CACHED, **rows}.items() if note is not None}


STATES = [("confirmed", False), ("rejected", False), ("confirmed", True), ("partial", True), ("rejected", True)]


@pytest.mark.parametrize(("state", "batch"), STATES)
@pytest.mark.parametrize("confirm", ["optimistic", "strict"])
@pytest.mark.parametrize("op", ["insert", "update", "upsert", "delete"])
@pytest.mark.parametrize("policy", ["direct-remote", "remote-first", "volatile", "hybrid"])
async def test_three_states(state: str, batch: bool, confirm: str, op: str, policy: str) -> None:
    good = {"confirmed": 2, "partial": 1, "rejected": 0}[state]
    gate, answer = gated(
        lambda request: [
            accepted(entry) if place < good else refused(entry) for place, entry in enumerate(request.entries)
        ]
    )
    ids = ROWS[op] if batch else ROWS[op][:1]
    final = {id: (None if op == "delete" else Note(id=id, text="mine", rank=99)) for id in ids[:good]}
    async with open_world(answer, policy) as world, trio.open_nursery() as nursery:
        done: list[Any] = []

        async def run() -> None:
            try:
                done.append(await write(world.notes, op, batch, confirm))
            except AtomaError as error:
                done.append(error)

        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        shown = with_rows({id: predicted(op, id) for id in ids}) if confirm == "optimistic" else CACHED
        assert await world.here() == shown, "before the answer"
        assert bool(done) == (confirm == "optimistic")
        for outcome in done:
            check_undecided(outcome)
        gate.set()
        await wait_all_tasks_blocked()
        assert await world.here() == with_rows(dict(final)), "after the answer"
        outcomes: Sequence[Any] = done[0].items if isinstance(done[0], ManyResult) else done
        if isinstance(done[0], ManyResult):
            assert done[0].status == ("undecided" if confirm == "optimistic" else state)
        for place, outcome in enumerate(outcomes):
            await check(outcome, place < good, state, confirm, policy)
    check_events(world, state, ids[good:], confirm, policy)


def check_undecided(outcome: Any) -> None:
    """What a call returned before the authority had answered: nowhere is it called confirmed."""
    assert getattr(outcome, "status", "undecided") == "undecided"
    handles: list[Any] = [item.handle for item in outcome] if hasattr(outcome, "status") else [outcome]
    for handle in handles:
        assert handle.state == "undecided"
        assert (handle.meta.source, [step.node for step in handle.meta.path]) == ("local", ["overlay"])


PATHS = {
    "direct-remote": ["remote-far"],
    "remote-first": ["remote-far"],
    "volatile": ["local-write", "remote-far", "remote-far"],  # once as detached, once as carried out
    "hybrid": ["remote-far", "local-write"],
}


def check_path(meta: ExecutionMeta, state: str, confirm: str, policy: str) -> None:
    """A settled write has the trail of how it came about; what is shown first has that in front."""
    nodes = PATHS[policy] if state == "confirmed" or policy != "hybrid" else ["remote-far"]  # a refusal ends a sequence
    assert [step.node for step in meta.path] == (["overlay"] if confirm == "optimistic" else []) + nodes
    last = [step.node for step in meta.path if step.outcome == "ok"][-1:]
    assert meta.source == ("remote" if last == ["remote-far"] else "local")


async def check(outcome: Any, good: bool, state: str, confirm: str, policy: str) -> None:
    """One result of one item."""
    if confirm == "strict" and not good:
        error = outcome if isinstance(outcome, AtomaError) else outcome.error
        assert isinstance(error, WriteRejected)
        assert error.reason == "DENIED"
        assert path_of(error)[-1].node == "remote-far"
        return
    handle = outcome.handle if hasattr(outcome, "handle") else outcome
    assert handle.state == ("observed" if good else "rejected")
    check_path(handle.meta, state, confirm, policy)
    if good:
        assert await handle.accepted() == await handle.observed()
    else:
        with pytest.raises(WriteRejected, match="not yours") as caught:
            await handle.accepted()
        assert (caught.value.reason, caught.value.id) == ("DENIED", handle.id)


def check_events(world: World, state: str, lost: Sequence[str], confirm: str, policy: str) -> None:
    """What was told: one dispatch, the verdict, and what was taken back of what had been shown."""
    (dispatched,) = world.events(WriteDispatched)
    assert dispatched.policy == policy
    assert [event.idem for event in world.events(WriteSettled)] == [dispatched.idem] * (
        2 if policy == "volatile" else 1
    )
    assert world.events(WriteSettled)[-1].status == state
    taken = world.events(WriteTakenBack)
    if lost and confirm == "optimistic":
        assert [(event.idem, event.code) for event in taken] == [(dispatched.idem, "DENIED")]
        assert taken[0].rows == tuple(("notes", id) for id in lost)
    else:
        assert taken == []


# A51: how it can fail x shown or asked first


async def fails(error: Exception, request: WriteRequest) -> WriteResult:
    raise error


async def hangs(request: WriteRequest) -> WriteResult:
    await trio.sleep_forever()
    raise AssertionError


async def one_refused(request: WriteRequest) -> WriteResult:
    return result_of([refused(entry) if entry.id == "a" else accepted(entry) for entry in request.entries])


async def all_refused(request: WriteRequest) -> WriteResult:
    return result_of([refused(entry) for entry in request.entries])


FAILURES: dict[str, tuple[Answer, str]] = {
    "one item refused": (one_refused, "DENIED"),
    "all items refused": (all_refused, "DENIED"),
    "not connected": (lambda request: fails(ConnectFailed("down"), request), "CONNECT_FAILED"),
    "overloaded": (lambda request: fails(Overloaded("the channel", 1), request), "OVERLOADED"),
    "refused as a whole": (
        lambda request: fails(RemoteError("too large", remote_code="TOO_LARGE"), request),
        "TOO_LARGE",
    ),
    "lost every time": (lambda request: fails(ChannelBroken("lost"), request), "UNKNOWN_OUTCOME"),
    "out of time": (lambda request: fails(NodeTimeout("far", 1), request), "UNKNOWN_OUTCOME"),
    "no answer": (hangs, "UNKNOWN_OUTCOME"),
    "a fault": (lambda request: fails(RuntimeError("a bug"), request), "UNKNOWN_OUTCOME"),
}


@pytest.mark.parametrize("failure", list(FAILURES))
@pytest.mark.parametrize("policy", ["direct-remote", "volatile"])
async def test_rows_of_a_failed_write_are_as_they_were(failure: str, policy: str) -> None:
    answer, code = FAILURES[failure]
    async with open_world(answer, policy) as world:
        many = await world.notes.update_many({"a": {"text": "mine"}, "b": {"text": "mine"}})
        assert {note.text for note in (await world.here()).values()} == {"mine"}
        handle = many.items[0].handle
        assert handle is not None
        with pytest.raises(WriteRejected) as caught, trio.fail_after(7200):
            await handle.accepted()
        assert caught.value.reason == code
        await trio.sleep(1)
        kept = {"b": Note(id="b", text="mine", rank=99)} if failure == "one item refused" else {}
        assert await world.here() == {**CACHED, **kept}
        assert [event.code for event in world.events(WriteTakenBack)] == [code]
        assert len({request.idem for request in world.far.asked}) == 1
        tries = len(world.far.asked)
        assert tries == (optimism.TRIES if code == "UNKNOWN_OUTCOME" else 1)
        asked = [step for step in handle.meta.path if step.node in ("remote-far", "authority")]
        asked = [step for step in asked if step.outcome != "detached"]
        assert len(asked) == tries, "every try is in the trail"
        assert handle.meta.source == ("remote" if failure == "one item refused" else "local")
        world.far.answer = lambda request: succeed(request)
        await world.notes.update("a", text="later", confirm="strict")  # nothing stands in its way


async def succeed(request: WriteRequest) -> WriteResult:
    return result_of([accepted(entry) for entry in request.entries])


@pytest.mark.paths
@pytest.mark.parametrize("policy", ["direct-remote", "volatile"])
async def test_cancelling_an_asked_write_leaves_the_rows_alone(policy: str) -> None:
    async with open_world(hangs, policy) as world:
        with trio.move_on_after(5) as scope:
            await world.notes.update("a", text="mine", confirm="strict")
        assert scope.cancelled_caught
        assert await world.here() == CACHED
        assert world.events(WriteTakenBack) == []


async def test_a_strict_failure_is_the_callers() -> None:
    async with open_world(lambda request: fails(ConnectFailed("down"), request)) as world:
        with pytest.raises(ConnectFailed):
            await world.notes.update("a", text="mine", confirm="strict")
        world.far.answer = lambda request: fails(ChannelBroken("lost"), request)
        with pytest.raises(WriteUnknown):
            await world.notes.update("a", text="mine", confirm="strict")
        assert await world.here() == CACHED


@pytest.mark.paths
async def test_an_answer_of_before_a_write_does_not_put_the_old_row_back() -> None:
    async with open_world(succeed) as world, trio.open_nursery() as nursery:
        world.far.reading = trio.Event()
        nursery.start_soon(world.notes.get_all)
        await wait_all_tasks_blocked()
        await world.notes.update("a", text="new", confirm="strict")
        await world.notes.delete("b", confirm="strict")
        world.far.reading.set()
        await wait_all_tasks_blocked()
        assert await world.here() == {"a": Note(id="a", text="new", rank=99)}


async def test_also_when_it_is_forgotten_which_rows_were_settled_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "ROWS_MAX", 2)
    async with open_world(succeed) as world, trio.open_nursery() as nursery:
        world.far.reading = trio.Event()
        nursery.start_soon(world.notes.get_all)
        await wait_all_tasks_blocked()
        await world.notes.update("a", text="new", confirm="strict")
        for number in range(3):
            await world.notes.insert(Note(id=f"n{number}"), confirm="strict")
        world.far.reading.set()
        await wait_all_tasks_blocked()
        assert (await world.here())["a"].text == "new"


@pytest.mark.paths
async def test_an_answer_of_a_refresh_behind_a_read_is_as_old_as_the_read() -> None:
    async with open_world(succeed, "volatile") as world:
        world.far.reading = trio.Event()
        assert len(await world.notes.query()) == 2
        await wait_all_tasks_blocked()
        await world.notes.update("a", text="new", confirm="strict")
        world.far.reading.set()
        await wait_all_tasks_blocked()
        assert (await world.here())["a"].text == "new"


@pytest.mark.paths
async def test_a_remote_answer_goes_under_what_is_not_decided() -> None:
    gate, answer = gated(lambda request: [refused(entry) for entry in request.entries])
    async with open_world(answer) as world:
        await world.notes.update("a", text="mine")
        world.far.rows["a"] = image("theirs", 5)
        await world.notes.get_all(merge="replace")
        assert (await world.here())["a"] == Note(id="a", text="mine", rank=5)
        gate.set()
        await wait_all_tasks_blocked()
        assert (await world.here())["a"] == Note(id="a", text="theirs", rank=5)


@pytest.mark.paths
async def test_a_mixed_answer_confirms_nothing() -> None:
    gate, answer = gated(lambda request: [refused(entry) for entry in request.entries])
    async with open_world(answer) as world:
        await world.notes.insert(Note(id="x", text="mine"))
        await world.notes.get_all(policy="hybrid")
        gate.set()
        await wait_all_tasks_blocked()
        assert await world.here() == CACHED


@pytest.mark.paths
async def test_rows_may_exchange_a_unique_value_and_be_taken_back() -> None:
    gate, answer = gated(lambda request: [refused(entry) for entry in request.entries])
    async with open_world(succeed) as world:
        world.far.rows = {"a": image("cached", 1, "k1"), "b": image("cached", 1, "k2")}
        await world.notes.get_all()
        world.far.answer = answer
        await world.notes.update("a", code=None)
        await world.notes.update("b", code="k1")
        await world.notes.update("a", code="k2")
        gate.set()
        await wait_all_tasks_blocked()
        assert {id: note.code for id, note in (await world.here()).items()} == {"a": "k1", "b": "k2"}


async def test_an_answer_may_hold_a_value_that_an_older_row_of_the_cache_still_shows() -> None:
    async with open_world(succeed) as world:
        world.far.rows = {"a": image("cached", 1, "k1"), "b": image("cached", 1, "k2")}
        await world.notes.get_all()
        world.far.rows = {"b": image("theirs", 1, "k1")}
        assert [note.code for note in await world.notes.get_all()] == ["k1", "k1"], "the hub's, and what it left out"
        assert {id: note.code for id, note in (await world.here()).items()} == {"a": "k1"}
        world.far.rows = {"a": image("theirs", 1, "k2"), "b": image("theirs", 1, "k1")}
        await world.notes.get_all()
        assert {id: note.code for id, note in (await world.here()).items()} == {"a": "k2", "b": "k1"}


async def test_what_an_index_here_refuses_is_asked_first() -> None:
    async with open_world(succeed) as world:
        world.far.rows = {"a": image("cached", 1, "k1"), "b": image("cached", 1, "k2")}
        await world.notes.get_all()
        world.far.answer = all_refused
        with pytest.raises(WriteRejected):
            await world.notes.update("b", code="k1")


async def test_a_taken_id_is_asked_first_and_not_overwritten() -> None:
    async def taken(request: WriteRequest) -> WriteResult:
        return result_of([WriteItemResult("a", ok=False, error=ErrorInfo("CONFLICT", "taken"))])

    async with open_world(taken) as world:
        with pytest.raises(ConflictError):
            await world.notes.insert(Note(id="a", text="mine"))
        assert await world.here() == CACHED


@pytest.mark.paths
@pytest.mark.parametrize("is_refused", [True, False])
async def test_a_write_of_this_devices_own_outlives_what_is_undecided(is_refused: bool) -> None:
    gate, answer = gated(lambda request: [(refused if is_refused else accepted)(entry) for entry in request.entries])
    async with open_world(answer) as world:
        await world.notes.update("a", text="remote")
        await world.notes.update("a", rank=5, policy="direct-local")
        await world.notes.update("b", rank=5, policy="direct-local")
        assert await world.here() == {
            "a": Note(id="a", text="remote", rank=5),
            "b": Note(id="b", text="cached", rank=5),
        }
        gate.set()
        await wait_all_tasks_blocked()
        kept = Note(id="a", text="cached", rank=5) if is_refused else Note(id="a", text="remote", rank=99)
        assert (await world.here())["a"] == kept


async def test_a_store_has_its_own_way_of_confirming_and_a_call_another() -> None:
    strict = StoreSpec("strict_notes", Note, confirm="strict")
    gate, answer = gated(lambda request: [accepted(entry) for entry in request.entries])
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(memory())), Far(answer)]
    async with open_client(Schema(strict), plugins=plugins, policy="direct-remote") as client:
        notes = client.store(strict)
        with trio.move_on_after(1) as scope:
            await notes.insert(Note(id="1"))
        assert scope.cancelled_caught
        handle = await notes.insert(Note(id="2"), confirm="optimistic")
        assert handle.state == "undecided"
        gate.set()
        assert (await notes.insert(Note(id="3"))).state == "observed"
    with pytest.raises(SchemaError):
        StoreSpec("notes", Note, confirm="never")  # type: ignore[arg-type]  # it is the point


@pytest.mark.parametrize(
    ("later", "decides"),
    [
        (AuthenticationError("expired"), False),
        (RemoteError("too much", remote_code="QUOTA"), False),
        (RemoteError("too much now", remote_code="OVERLOADED", remote_retryable=True), False),
        (ConnectFailed("down"), False),
        (RemoteError("the same request", remote_code="TOO_LARGE"), True),
        (RemoteError("an older hub answers now", remote_code="SCHEMA_TOO_NEW"), False),
        (RemoteError("a word of a later version", remote_code="OF_THE_FUTURE"), False),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, Exception) else str(value),
)
async def test_what_ends_the_doubt_about_a_lost_answer(later: AtomaError, decides: bool) -> None:
    errors = [ChannelBroken("lost"), later, later]

    async def answer(request: WriteRequest) -> WriteResult:
        return await (fails(errors.pop(0), request) if errors else succeed(request))

    async with open_world(answer) as world:
        handle = await world.notes.update("a", text="mine")
        await trio.sleep(600)
        assert handle.state == ("rejected" if decides else "observed")
        assert len(world.far.asked) == (2 if decides else 4)


async def test_undecided_writes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimism, "UNDECIDED_MAX", 3)
    gate, answer = gated(lambda request: [accepted(entry) for entry in request.entries])
    async with open_world(answer) as world:
        for number in range(3):
            await world.notes.insert(Note(id=f"n{number}"))
        with pytest.raises(Overloaded):
            await world.notes.insert(Note(id="n3"))
        assert "n3" not in await world.here()
        gate.set()
        await wait_all_tasks_blocked()
        await world.notes.insert(Note(id="n3"))


async def test_writes_that_are_resolved_in_the_background_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimism, "UNDECIDED_MAX", 3)
    async with open_world(lambda request: fails(ChannelBroken("lost"), request)) as world:
        for number in range(3):
            with pytest.raises(WriteUnknown):
                await world.notes.insert(Note(id=f"n{number}"), confirm="strict")
        with pytest.raises(Overloaded):
            await world.notes.insert(Note(id="n3"), confirm="strict")
        world.far.answer = succeed
        await trio.sleep(3600)
        await world.notes.insert(Note(id="n3"), confirm="strict")
        assert (await world.here()).keys() == {"a", "b", "n0", "n1", "n2", "n3"}


async def test_at_most_so_many_are_asked_at_a_time() -> None:
    gate, answer = gated(lambda request: [accepted(entry) for entry in request.entries])
    async with open_world(answer) as world:
        for number in range(optimism.SENDING_MAX + 5):
            await world.notes.insert(Note(id=f"n{number}"))
        await wait_all_tasks_blocked()
        assert len(world.far.asked) == optimism.SENDING_MAX
        gate.set()
        await wait_all_tasks_blocked()
        assert len(world.far.asked) == optimism.SENDING_MAX + 5


@pytest.mark.parametrize(
    ("graph", "reach"),
    [
        (node("local-write"), "local"),
        (atomic("local-write", "outbox"), "local"),
        (node("remote-far"), "remote"),
        (timeout(node("remote-far"), 1), "remote"),
        (fallback(node("remote-far"), node("local-write")), "remote"),
        (sequence(node("remote-far"), node("local-write")), "both"),
        (sequence(node("local-write"), node("remote-far")), "remote"),
        (sequence(node("local-write"), detach(node("remote-far"))), "later"),
        (sequence(node("remote-far"), detach(node("local-write"))), "remote"),
    ],
)
def test_how_far_a_policy_goes_is_read_off_its_graph(graph: Any, reach: str) -> None:
    assert write_reach(graph, {"local-write": object(), "remote-far": object()}) == reach


async def test_a_policy_of_the_applications_own_is_treated_by_its_graph() -> None:
    gate, answer = gated(lambda request: [accepted(entry) for entry in request.entries])
    far = Far(answer)
    own = Policy("own", node("local-query"), timeout(node("remote-far"), 60))

    class Own:
        id = "own"
        provides: Sequence[PortKey[Any]] = ()
        needs: Sequence[PortKey[Any]] = ()

        @asynccontextmanager
        async def open(self, context: PluginContext) -> AsyncGenerator[None]:
            context.register_policy(own)
            yield

    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(memory())), far, Own()]
    async with open_client(SCHEMA, plugins=plugins, policy="own") as client:
        handle = await client.store(NOTES).insert(Note(id="1", text="mine"))
        assert await client.store(NOTES).get("1") == Note(id="1", text="mine")
        gate.set()
        assert await handle.accepted() == 100
        assert await client.store(NOTES).get("1") == Note(id="1", text="mine", rank=99)
