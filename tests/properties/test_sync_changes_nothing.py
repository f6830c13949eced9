"""Switching sync on changes nothing about writing: same state, same results, same events, same live batches (A10, A76).

The same random commands run in a client that names no policy: without Sync, with it and offline, with it and online. What
Sync does change, the policy of its stores and what a write there survives, is what ``topology()`` says, and nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from atoma import Client, Index, Schema, StaticTokenVerifier, StoreSpec, Sync, open_client, open_hub, select
from atoma.contracts.events import Event, QueryFinished, StepFinished, StepStarted, WriteDispatched, WriteSettled
from atoma.contracts.execution import Durability
from atoma.errors import AtomaError, TopologyError
from atoma.kernel import Topology
from atoma.plugins import Plugin
from atoma.ports import seeded_environment
from atoma.runtime import ManyResult, WriteHandle
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

pytestmark = pytest.mark.virtual_time

Mode = Literal["local", "offline", "online"]
MEMORY_DISK = "/dev/shm" if Path("/dev/shm").is_dir() else None  # many small files, no need for a real disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str
    rank: int | None = None
    code: str | None = None


NOTES = StoreSpec("notes", Note, indexes=[Index("code", unique=True)])
DRAFTS = StoreSpec("drafts", Note)
SCHEMA = Schema(NOTES, DRAFTS)

ids = st.sampled_from(["a", "b", "c", "d"])
texts = st.sampled_from(["", "x", "y", "é\N{SNOWMAN}"])
ranks = st.one_of(st.none(), st.integers(-2, 2))
codes = st.one_of(st.none(), st.sampled_from(["k1", "k2"]))
notes = st.builds(Note, id=ids, text=texts, rank=ranks, code=codes)
changes = st.dictionaries(st.sampled_from(["text", "rank"]), st.one_of(texts, ranks), max_size=2)
version_gap = st.one_of(st.none(), st.integers(-1, 1))
commands = st.one_of(
    st.tuples(st.just("insert"), notes),
    st.tuples(st.just("insert_many"), st.lists(notes, max_size=4), st.booleans()),
    st.tuples(st.just("update"), ids, changes, version_gap),
    st.tuples(st.just("update_many"), st.dictionaries(ids, changes, max_size=3), st.booleans()),
    st.tuples(st.just("upsert"), notes, st.sampled_from(["merge", "replace"])),
    st.tuples(st.just("delete"), ids, version_gap),
    st.tuples(st.just("delete_many"), st.lists(ids, max_size=3), st.booleans()),
    st.tuples(st.just("transaction"), st.lists(st.tuples(ids, texts), min_size=1, max_size=3), st.booleans()),
    st.tuples(st.just("query"), ranks),
    st.tuples(st.just("draft"), notes),
)


@asynccontextmanager
async def open_world(mode: Mode, folder: Path) -> AsyncGenerator[Client]:
    environment = seeded_environment(7)
    local: list[Plugin] = [LocalExecution(SQLiteEngine(folder / "client.db"))]
    if mode == "local":
        async with open_client(SCHEMA, plugins=local, environment=environment) as client:
            yield client
        return
    network = MemoryNetwork()
    verifier = StaticTokenVerifier({"token": "somebody"})
    hub_store = SQLiteHubStore(folder / "hub.db")
    async with open_hub(SCHEMA, hub_store, verifier=verifier, environment=seeded_environment(8)) as hub:
        async with network.listen(hub):
            if mode == "offline":
                network.partition()
            plugins: list[Plugin] = [
                *local,
                Remote(MemoryTransport(network, token="token")),
                Sync(stores=[NOTES], scopes=["main"]),
            ]
            async with open_client(SCHEMA, plugins=plugins, environment=environment) as client:
                yield client


def neutral(event: Event) -> object:
    """What must be equal: everything but ids, policy names, node ids and times. Sync's own events are beside it."""
    match event:
        case WriteDispatched(entries=entries):
            return ("dispatched", entries)
        case WriteSettled(status=status, error=error):
            return ("settled", status, error)
        case QueryFinished(store=store, error=error):
            return ("queried", store, error)
        case StepStarted() | StepFinished():
            return None
        case _:
            return None


def told(outcome: object) -> object:
    match outcome:
        case WriteHandle():
            return (outcome.id, outcome.value, outcome.version, outcome.changed, outcome.meta.source)
        case ManyResult():
            items = [
                (item.id, told(item.handle) if item.handle else (type(item.error).__name__, str(item.error)))
                for item in outcome
            ]
            return (outcome.status, items)
        case _:
            return outcome


async def run_one(client: Client, command: tuple[object, ...]) -> object:
    store = client.store(NOTES)
    match command:
        case ("insert", Note() as note):
            return await store.insert(note)
        case ("insert_many", list() as many, bool() as atomic):
            return await store.insert_many(many, atomic=atomic)
        case ("update", str() as id, dict() as patch, gap):
            base = None if gap is None else await store.version(id) + int(str(gap))
            return await store.update(id, patch, base_version=base)
        case ("update_many", dict() as patches, bool() as atomic):
            return await store.update_many(patches, atomic=atomic)
        case ("upsert", Note() as note, "merge"):
            return await store.upsert(note, apply="merge")
        case ("upsert", Note() as note, _):
            return await store.upsert(note, apply="replace")
        case ("delete", str() as id, gap):
            base = None if gap is None else await store.version(id) + int(str(gap))
            return await store.delete(id, base_version=base)
        case ("delete_many", list() as gone, bool() as atomic):
            return await store.delete_many(gone, atomic=atomic)
        case ("transaction", list() as steps, bool() as broken):
            async with client.transaction() as tx:
                for id, text in steps:
                    await tx.store(NOTES).upsert({"id": id, "text": text})
                if broken:
                    await tx.store(NOTES).insert(Note(id=steps[0][0], text="taken"))
            return None
        case ("query", rank):
            page = await store.query(select(NOTES).order_by("-rank", "text").limit(2 if rank is None else 3))
            return (page.items, page.versions, page.meta.cursor)
        case ("draft", Note() as note):
            return await client.store(DRAFTS).upsert(note)
        case _:
            raise AssertionError(command)


@dataclass
class History:
    """What a client did with a script.

    Attributes:
        answers: What every command answered, and the rows after it.
        events: What was told, in order.
        batches: What a live query of the notes delivered, but for the commits it was delivered at.
        stores: The policy of each store, as ``topology()`` has it.
        durability: What a write of each store survives, as ``topology()`` has it.
    """

    answers: list[object] = field(default_factory=list[object])
    events: list[object] = field(default_factory=list[object])
    batches: list[object] = field(default_factory=list[object])
    stores: dict[str, str] = field(default_factory=dict[str, str])
    durability: dict[str, Durability] = field(default_factory=dict[str, Durability])

    async def follow(self, client: Client, *, task_status: trio.TaskStatus[None]) -> None:
        async with client.store(NOTES).live(select(NOTES).order_by("text")) as batches:
            task_status.started()
            async for batch in batches:
                self.batches.append(batch.changes)

    async def run(self, client: Client, script: list[tuple[object, ...]], mode: Mode) -> None:
        for command in script:
            try:
                self.answers.append(told(await run_one(client, command)))
            except AtomaError as error:
                self.answers.append((type(error).__name__, str(error)))
            for store in (NOTES, DRAFTS):
                page = await client.store(store).get_all()
                self.answers.append((page.items, page.versions))
            await trio.sleep(0.001)  # the reader has its batch before the next commit
            if mode == "online" and len(self.answers) % 3 == 0:
                await trio.sleep(0.5)  # let the lanes push and pull in between


async def history(mode: Mode, script: list[tuple[object, ...]]) -> History:
    found = History()
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK) as folder:
        async with open_world(mode, Path(folder)) as client, trio.open_nursery() as nursery:
            if mode == "online":
                await client.sync.wait_idle()
            topology = client.topology()
            found.stores, found.durability = topology.stores, topology.durability
            client.listen(lambda event: found.events.append(neutral(event)))
            await nursery.start(partial(found.follow, client))
            await found.run(client, script, mode)
            nursery.cancel_scope.cancel()
    found.events = [event for event in found.events if event is not None]
    return found


WITHOUT = History(
    stores={"notes": "direct-local", "drafts": "direct-local"}, durability={"notes": "normal", "drafts": "normal"}
)
WITH = History(
    stores={"notes": "sync-queue", "drafts": "direct-local"}, durability={"notes": "full", "drafts": "normal"}
)


@given(st.lists(commands, min_size=1, max_size=14))
@settings(max_examples=25)
async def test_the_same_commands_give_the_same_answers_states_and_events(script: list[tuple[object, ...]]) -> None:
    local = await history("local", script)
    assert (local.stores, local.durability) == (WITHOUT.stores, WITHOUT.durability)
    for mode in ("offline", "online"):
        synced = await history(mode, script)
        assert synced.answers == local.answers
        assert synced.events == local.events
        assert synced.batches == local.batches
        assert (synced.stores, synced.durability) == (WITH.stores, WITH.durability)


async def test_the_comparison_sees_something() -> None:
    script: list[tuple[object, ...]] = [
        ("insert", Note(id="a", text="x", code="k1")),
        ("insert", Note(id="a", text="y")),
        ("insert_many", [Note(id="b", text="x", code="k1"), Note(id="c", text="z")], False),
        ("update", "c", {"rank": 2}, -1),
        ("update", "c", {"rank": 2}, 0),
        ("update", "c", {"rank": 2}, 0),
        ("transaction", [("a", "t"), ("d", "t")], False),
        ("transaction", [("a", "u"), ("d", "u")], True),
        ("delete", "zzz", None),
        ("query", 1),
        ("draft", Note(id="a", text="here alone")),
    ]
    found = await history("online", script)
    names = [answer[0] for answer in found.answers[::3] if isinstance(answer, tuple)]
    assert names.count("ConflictError") == 3
    assert "NotFoundError" in names
    assert "partial" in names
    assert len(found.events) > len(script)
    assert len(found.batches) == 1 + 4, "what is there, and each commit that changed it"


async def test_a_client_that_named_no_policy_syncs_and_says_what_that_changed() -> None:
    """A58: one plugin more is not a start error, and touches its own stores only."""
    network = MemoryNetwork()
    shown: list[Topology] = []
    for more in ([], [Sync(stores=[NOTES])]):
        plugins: list[Plugin] = [LocalExecution(SQLiteEngine(":memory:")), Remote(MemoryTransport(network)), *more]
        async with open_client(SCHEMA, plugins=plugins) as client:
            shown.append(client.topology())
    before, after = shown
    assert before.default == after.default == "direct-local"
    assert (before.stores, after.stores) == (WITHOUT.stores, WITH.stores)
    assert (before.durability, after.durability) == (WITHOUT.durability, WITH.durability)
    assert after.synced == {"notes"}
    assert {node.id for node in after.nodes} - {node.id for node in before.nodes} == {"outbox", "pull"}
    available = {policy.name for policy in before.policies if not policy.unavailable}
    now = {policy.name for policy in after.policies if not policy.unavailable}
    assert now - available == {"sync-queue"}
    assert available <= now


async def test_a_policy_that_is_named_is_not_replaced() -> None:
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(":memory:")), Remote(MemoryTransport(MemoryNetwork())), Sync(stores=[NOTES])
    ]  # fmt: skip
    with pytest.raises(TopologyError, match="SYNCED_WITHOUT_OUTBOX"):
        async with open_client(SCHEMA, plugins=plugins, policy="direct-local"):
            pass
    async with open_client(SCHEMA, plugins=plugins, policy="remote-first") as client:
        assert client.topology().stores == {"notes": "remote-first", "drafts": "remote-first"}
