"""A69 and A36 on a store that replicates: the hub takes all, a part, nothing, or is away, under every policy it admits."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from atoma import Client, Schema, StaticTokenVerifier, StoreSpec, Sync, open_client, open_hub, select
from atoma.contracts.events import ConflictDetected, Event, WriteDispatched, WriteSettled, WriteTakenBack
from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.errors import AtomaError, WriteRejected, WriteUnknown
from atoma.hub import Access
from atoma.ports import seeded_environment
from atoma.ports.service import Principal
from atoma.runtime import ManyResult
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.paths import memory

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    rank: int = 0
    board: str


NOTES = StoreSpec("notes", Note, scope="board")
SCHEMA = Schema(NOTES)
HELD = {f"{board}-{name}": Note(id=f"{board}-{name}", text="old", rank=1, board=board) for board in ("mine", "theirs") for name in "ab"}  # fmt: skip


class MineAlone:
    """ann writes on her own board and reads the other; root does as it likes."""

    def scope_access(self, principal: Principal, scope: str) -> Access:
        return "write" if principal.subject == "root" or scope == "mine" else "read"


@dataclass
class World:
    client: Client
    network: MemoryNetwork
    heard: list[Event] = field(default_factory=list)

    @property
    def notes(self) -> Any:
        return self.client.store(NOTES)

    async def here(self) -> dict[str, Note]:
        return {note.id: note for note in await self.notes.query(select(self.notes.spec), policy="direct-local")}

    async def there(self) -> dict[str, Note]:
        return {note.id: note for note in await self.notes.query(select(self.notes.spec), policy="direct-remote")}


@asynccontextmanager
async def open_world(policy: str) -> AsyncGenerator[World]:
    """A device that replicates both boards, at rest."""
    network = MemoryNetwork()
    verifier = StaticTokenVerifier({"token": "ann"})
    plugins: list[Any] = [
        LocalExecution(SQLiteEngine(memory())),
        Remote(MemoryTransport(network, token="token")),
        Sync([NOTES], scopes=["mine", "theirs"]),
    ]
    store = SQLiteHubStore(memory())
    async with (
        open_hub(SCHEMA, store, verifier=verifier, rules=MineAlone(), environment=seeded_environment(2)) as hub,
        network.listen(hub),
    ):
        rows = [
            Op("create", "notes", id, {"text": "old", "rank": 1, "board": note.board}, scope=note.board)
            for id, note in HELD.items()
        ]
        request = WriteRequest(tuple(rows), WriteOptions(), OperationContext("t"), "held")
        assert (await hub.service(Principal("root")).write(request)).status == "confirmed"
        async with open_client(SCHEMA, plugins=plugins, policy=policy, environment=seeded_environment(1)) as client:
            with trio.fail_after(600):
                await client.sync.wait_idle()
                world = World(client, network)
                assert await world.here() == HELD
                client.listen(world.heard.append)
                yield world


def ids_of(op: str, state: str, batch: bool) -> list[str]:
    """Rows whose writes the hub answers as the state says: it takes those of the one board."""
    boards = {"confirmed": ("mine", "mine"), "partial": ("mine", "theirs"), "rejected": ("theirs", "theirs")}[state]
    names = {"insert": "xy", "update": "ab", "upsert": "ay", "delete": "ab"}[op]
    return [f"{board}-{name}" for board, name in zip(boards, names, strict=True)][: 2 if batch else 1]


def written(id: str) -> Note:
    return Note(id=id, text="new", board=id.partition("-")[0])


async def write(notes: Any, op: str, ids: list[str], batch: bool, confirm: str) -> Any:
    match op:
        case "insert":
            items: Any = [written(id) for id in ids]
        case "update":
            items = {id: {"text": "new"} for id in ids}
        case "upsert":
            items = [{"id": id, "text": "new", "board": id.partition("-")[0]} for id in ids]
        case _:
            items = ids
    if batch:
        return await getattr(notes, f"{op}_many")(items, confirm=confirm)
    if op == "update":
        return await notes.update(ids[0], {"text": "new"}, confirm=confirm)
    return await getattr(notes, op)(items[0], confirm=confirm)


def after(op: str, ids: list[str]) -> dict[str, Note]:
    """The rows once the writes of ``ids`` are there."""
    rows = dict(HELD)
    for id in ids:
        if op == "delete":
            del rows[id]
        else:
            rows[id] = Note(id=id, text="new", rank=HELD[id].rank if id in HELD else 0, board=id.partition("-")[0])
    return rows


STATES = [("confirmed", False), ("rejected", False), ("confirmed", True), ("partial", True), ("rejected", True)]


@pytest.mark.parametrize(("state", "batch"), STATES)
@pytest.mark.parametrize("confirm", ["optimistic", "strict"])
@pytest.mark.parametrize("op", ["insert", "update", "upsert", "delete"])
@pytest.mark.parametrize("policy", ["sync-queue", "local-first", "remote-first", "hybrid"])
async def test_three_states(state: str, batch: bool, confirm: str, op: str, policy: str) -> None:
    ids = ids_of(op, state, batch)
    good = [id for id in ids if id.startswith("mine")]
    waits = confirm == "strict"
    async with open_world(policy) as world, trio.open_nursery() as nursery:
        done: list[Any] = []

        async def run() -> None:
            try:
                done.append(await write(world.notes, op, ids, batch, confirm))
            except AtomaError as error:
                done.append(error)

        world.network.partition(silent=True)
        nursery.start_soon(run)
        await trio.sleep(0.01)
        assert await world.here() == after(op, ids), "shown while nobody has decided"
        assert bool(done) != waits
        world.network.heal()
        await world.client.sync.wait_idle()
        while not done:
            await trio.sleep(0.1)
        assert await world.here() == await world.there() == after(op, good), "as the hub has it"
        many = done[0] if isinstance(done[0], ManyResult) else None
        if many is not None:
            assert many.status == (state if waits else "confirmed")
        for id, outcome in zip(ids, many or done, strict=True):
            await check(outcome, id in good, waits)
        inbox = await world.client.sync.inbox.entries()
        assert [(entry.store, entry.id, entry.code) for entry in inbox] == [
            ("notes", id, "DENIED") for id in ids if id not in good
        ]
    (dispatched,) = [event for event in world.heard if isinstance(event, WriteDispatched)]
    settled = [event for event in world.heard if isinstance(event, WriteSettled)]
    assert {(event.idem, event.error) for event in settled} == {(dispatched.idem, "")}
    detected = [event for event in world.heard if isinstance(event, ConflictDetected)]
    assert [(event.store, event.id, event.code) for event in detected] == [
        ("notes", id, "DENIED") for id in ids if id not in good
    ]
    assert not [event for event in world.heard if isinstance(event, WriteTakenBack)], "these are the outbox's"


async def check(outcome: Any, good: bool, waited: bool) -> None:
    """One result of one item."""
    error: Any = outcome if isinstance(outcome, AtomaError) else getattr(outcome, "error", None)
    if error is not None:
        assert not good
        assert isinstance(error, WriteRejected)
        assert error.reason == "DENIED"
        return
    handle: Any = getattr(outcome, "handle", outcome)
    assert handle.state == ("observed" if good else "rejected")
    if good:
        assert await handle.accepted() > 2
    else:
        assert not waited
        with pytest.raises(WriteRejected) as caught:
            await handle.accepted()
        assert caught.value.reason == "DENIED"


# A36 on a store that replicates, while the hub is away


@pytest.mark.paths
async def test_an_optimistic_remote_first_write_returns_at_once_and_its_item_is_queued() -> None:
    async with open_world("remote-first") as world:
        world.network.partition(silent=True)
        began = trio.current_time()
        many = await world.notes.insert_many([written("mine-x"), written("mine-y")])
        assert trio.current_time() == began
        assert many.status == "confirmed", "committed here, and owed to the hub"
        handles = [item.handle for item in many]
        assert [handle.state for handle in handles] == ["queued", "queued"]
        assert [(step.node, step.outcome) for step in handles[0].meta.path] == [("local-write", "ok"), ("outbox", "ok")]
        await trio.sleep(300)
        assert {handle.state for handle in handles} <= {"queued", "sent"}
        world.network.heal()
        await world.client.sync.wait_idle()
        assert {handle.state for handle in handles} == {"observed"}


async def test_a_strict_remote_first_write_waits_as_long_as_its_caller_allows() -> None:
    async with open_world("remote-first") as world:
        world.network.partition(silent=True)
        began = trio.current_time()
        with trio.move_on_after(300) as scope:
            await world.notes.insert(written("mine-x"), confirm="strict")
        assert scope.cancelled_caught
        assert trio.current_time() == began + 300
        assert "mine-x" in await world.here(), "and what it did not wait for is queued"
        world.network.heal()
        await world.client.sync.wait_idle()
        assert "mine-x" in await world.there()


async def test_a_time_limit_is_one_that_stands_in_the_policy() -> None:
    async with open_world("remote-first-10s") as world:
        assert "timeout 10 s" in world.client.explain("remote-first-10s")
        world.network.partition(silent=True)
        began = trio.current_time()
        await world.notes.insert(written("mine-x"))
        assert trio.current_time() == began, "an optimistic write waits for nothing"
        with pytest.raises(WriteUnknown):
            await world.notes.insert(written("mine-y"), confirm="strict")
        assert trio.current_time() == began + 10
        world.network.heal()
        await world.client.sync.wait_idle()
        assert {"mine-x", "mine-y"} <= (await world.there()).keys()


@pytest.mark.paths
@pytest.mark.parametrize("state", ["confirmed", "partial", "rejected"])
async def test_a_write_that_outlasted_the_time_of_its_policy_is_followed_to_the_verdict(state: str) -> None:
    """Its key is in no hub, but in this device's outbox: resolving waits for the hub, and never calls it abandoned."""
    ids = ids_of("insert", state, batch=True)
    verdicts = [(id, "" if id.startswith("mine") else "DENIED") for id in ids]
    async with open_world("remote-first-10s") as world:
        world.network.partition(silent=True)
        with pytest.raises(WriteUnknown) as lost:
            await write(world.notes, "insert", ids, True, "strict")
        with trio.move_on_after(60) as patience:
            await world.client.resolve(lost.value)
        assert patience.cancelled_caught, "nobody knows yet"
        world.network.heal()
        found = await world.client.resolve(lost.value)
        for policy in (None, "direct-remote"):  # the outbox is empty now, and the file remembers
            again = await world.client.resolve(lost.value.idem, policy=policy)
            for one in (found, again):
                assert one.result is not None
                assert one.result.status == state
                assert [(item.id, item.error.code if item.error else "") for item in one.result.items] == verdicts
        await world.client.sync.wait_idle()
        assert await world.here() == await world.there() == after("insert", [id for id, code in verdicts if not code])
