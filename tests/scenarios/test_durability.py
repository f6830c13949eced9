"""What a write survives: as the call says, else the store, else the engine. Seen by the fsyncs that the disk gets."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from atoma import AllowLoopback, Client, Schema, Store, StoreSpec, Sync, open_client, open_hub
from atoma.contracts.execution import Durability
from atoma.plugins import Plugin
from atoma.ports import Channel, Transport, seeded_environment
from atoma.sync.modes import SyncMode
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite.faults import FaultPlan, fault_vfs
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

pytestmark = pytest.mark.virtual_time

WORDS: tuple[Durability | None, ...] = (None, "normal", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""


@dataclass
class Setting:
    """A client whose file lies on a disk that counts.

    Attributes:
        client: The client.
        notes: Its store.
        disk: What the disk has been asked for.
    """

    client: Client
    notes: Store[Note]
    disk: FaultPlan

    async def fsyncs(self, work: Callable[[], Awaitable[object]]) -> int:
        """How often the disk is asked to sync while ``work`` runs."""
        before = self.disk.done["sync"]
        await work()
        return self.disk.done["sync"] - before


@asynccontextmanager
async def open_setting(
    folder: Path,
    *,
    store: Durability | None = None,
    engine: Durability | None = None,
    synced: bool = False,
    policy: str = "",
    network: MemoryNetwork | None = None,
    transport: Transport | None = None,
    mode: SyncMode = "manual",
) -> AsyncGenerator[Setting]:
    notes = StoreSpec("notes", Note, durability=store)
    schema = Schema(notes)
    network = network or MemoryNetwork()
    with fault_vfs("counting") as disk:
        plugins: list[Plugin] = [LocalExecution(SQLiteEngine(folder / "a.db", durability=engine, vfs="counting"))]
        if synced or policy:
            plugins.append(Remote(transport or MemoryTransport(network)))
        if synced:
            plugins.append(Sync([notes], mode=mode))
        name = policy or ("sync-queue" if synced else "direct-local")
        async with open_client(schema, plugins=plugins, policy=name, environment=seeded_environment(2)) as client:
            handle = await client.store(notes).insert(Note(id="first"), policy=None if synced else "direct-local")
            assert handle.state == ("queued" if synced else "local")  # a fresh log has its head synced once, by this
            yield Setting(client, client.store(notes), disk)


def promised(call: Durability | None, store: Durability | None, engine: Durability | None, synced: bool) -> Durability:
    """What the documentation says."""
    return call or store or engine or ("full" if synced else "normal")


@pytest.mark.paths
@pytest.mark.parametrize("synced", [False, True], ids=["not synced", "synced"])
@pytest.mark.parametrize(("store", "engine"), list(itertools.product(WORDS, WORDS)))
async def test_the_call_else_the_store_else_the_engine(
    tmp_path: Path, store: Durability | None, engine: Durability | None, synced: bool
) -> None:
    async with open_setting(tmp_path, store=store, engine=engine, synced=synced) as setting:
        assert setting.client.topology().durability == {"notes": promised(None, store, engine, synced)}
        for call in WORDS:
            fsyncs = await setting.fsyncs(partial(setting.notes.insert, Note(id=f"{call}"), durability=call))
            assert fsyncs == (promised(call, store, engine, synced) == "full"), call


@pytest.mark.paths
async def test_full_goes_for_what_was_there_before(tmp_path: Path) -> None:
    """Nothing is left to write, but what is there already may not be on the disk."""
    async with open_setting(tmp_path) as setting:
        note = Note(id="1", text="x")
        assert await setting.fsyncs(partial(setting.notes.upsert, note, durability="normal")) == 0
        assert await setting.fsyncs(partial(setting.notes.upsert, note, durability="full")) == 1
        assert await setting.fsyncs(partial(setting.notes.upsert, note, durability="full")) == 0


@pytest.mark.parametrize("engine", ["normal", "full"])
async def test_every_way_to_write_heeds_it(tmp_path: Path, engine: Durability) -> None:
    async with open_setting(tmp_path, engine=engine) as setting:
        client, notes = setting.client, setting.notes

        async def transaction() -> None:
            async with client.transaction() as tx:
                await tx.store(notes.spec).insert(Note(id="t"))

        async def other_transaction() -> None:
            async with client.transaction() as tx:
                tx.durability = "normal" if engine == "full" else "full"
                await tx.store(notes.spec).delete("t")

        ways: list[Callable[[], Awaitable[object]]] = [
            lambda: notes.insert(Note(id="1")),
            lambda: notes.insert_many([Note(id=str(number)) for number in range(2, 60)]),
            lambda: notes.update("1", text="x"),
            lambda: notes.update("1", lambda note: Note(id=note.id, text="y")),
            lambda: notes.update_many({"1": {"text": "z"}, "2": {"text": "z"}}, atomic=True),
            lambda: notes.upsert(Note(id="1")),
            lambda: notes.upsert_many([Note(id="1", text="u"), Note(id="u")]),
            lambda: notes.delete("1"),
            lambda: notes.delete_many(["2", "3"], atomic=True),
            transaction,
        ]
        assert [await setting.fsyncs(way) for way in ways] == [int(engine == "full")] * len(ways)
        assert await setting.fsyncs(other_transaction) == int(engine == "normal")


@pytest.mark.parametrize("word", ["normal", "full"])
@pytest.mark.parametrize("owner", ["call", "store", "engine"])
async def test_what_this_device_decides_in_the_authoritys_place_heeds_it_too(
    tmp_path: Path, owner: str, word: Durability
) -> None:
    """The hub is away and ``remote-first`` writes here: the commit that makes the write true is synced, or not."""
    store, engine = (word if owner == "store" else None), (word if owner == "engine" else None)
    async with open_setting(tmp_path, store=store, engine=engine, policy="remote-first") as setting:

        async def decide() -> None:
            handle = await setting.notes.insert(Note(id="1"), durability=word if owner == "call" else None)
            with trio.fail_after(60):
                await handle.observed()
            assert handle.state == "local"

        assert (await setting.fsyncs(decide) > 0) == (word == "full")


async def test_an_answer_that_can_be_asked_for_again_is_worth_no_fsync(tmp_path: Path) -> None:
    network = MemoryNetwork()
    hub_store = SQLiteHubStore(tmp_path / "hub.db")
    async with open_setting(tmp_path, engine="full", policy="direct-remote", network=network) as setting:
        schema = setting.client.schema
        async with open_hub(schema, hub_store, verifier=AllowLoopback(), environment=seeded_environment(1)) as hub:
            async with network.listen(hub):
                await setting.notes.insert(Note(id="1"), confirm="strict")
                assert await setting.fsyncs(setting.notes.get_all) == 0
                assert (await setting.notes.get("1", policy="direct-local")) == Note(id="1"), "and kept"


async def test_what_the_hub_may_forget_is_synced_whatever_the_engine_says(tmp_path: Path) -> None:
    """The outbox shrinks in one place only: the commit that settles a write."""
    network = MemoryNetwork()
    hub_store = SQLiteHubStore(tmp_path / "hub.db")
    async with open_setting(tmp_path, store="normal", engine="normal", synced=True, network=network) as setting:
        client = setting.client
        schema = client.schema
        async with open_hub(schema, hub_store, verifier=AllowLoopback(), environment=seeded_environment(1)) as hub:
            async with network.listen(hub):
                await client.sync.sync_once()
                assert await setting.fsyncs(lambda: setting.notes.insert(Note(id="1"))) == 0
                assert await setting.fsyncs(client.sync.sync_once) >= 1
                assert client.sync.status.pending == 0


@dataclass(frozen=True)
class Listening:
    """A transport that notes how often the disk has been asked to sync when each call is made.

    Attributes:
        late: Replies to pulls wait for these.
    """

    inner: MemoryTransport
    disk: list[FaultPlan]
    heard: list[tuple[str, int]]
    late: list[trio.Event]

    @property
    def name(self) -> str:
        return self.inner.name

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        async with self.inner.connect() as channel:
            yield ListeningChannel(channel, self)


@dataclass(frozen=True)
class ListeningChannel:
    channel: Channel
    transport: Listening

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        self.transport.heard.append((method, self.transport.disk[0].done["sync"]))
        reply = await self.channel.call(method, message)
        if method == "pull":
            for late in self.transport.late:
                await late.wait()
        return reply

    def stream(
        self, method: str, message: msgspec.Struct
    ) -> AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]:
        return self.channel.stream(method, message)


@pytest.mark.paths
async def test_nothing_is_told_before_it_is_on_the_disk(tmp_path: Path) -> None:
    """Neither the state that a session is opened with, nor what is pushed in it, can be lost once the hub knows it."""
    network, heard, disk = MemoryNetwork(), list[tuple[str, int]](), list[FaultPlan]()
    hub_store = SQLiteHubStore(tmp_path / "hub.db")
    transport = Listening(MemoryTransport(network), disk, heard, [])
    async with open_setting(tmp_path, engine="normal", synced=True, transport=transport) as setting:
        disk.append(setting.disk)
        client, schema = setting.client, setting.client.schema
        async with open_hub(schema, hub_store, verifier=AllowLoopback(), environment=seeded_environment(1)) as hub:
            async with network.listen(hub):
                for number in range(2):
                    at = setting.disk.done["sync"]
                    await setting.notes.insert(Note(id=str(number)))
                    assert setting.disk.done["sync"] == at
                    heard.clear()
                    await client.sync.sync_once()
                    assert {"open", "push"} <= {method for method, _ in heard}
                    assert all(syncs > at for _, syncs in heard)


async def test_a_page_that_settles_what_was_written_after_it_was_asked_for_is_synced(tmp_path: Path) -> None:
    """It has no outcome in it, and nothing was pending when it was asked for."""
    network, disk = MemoryNetwork(), list[FaultPlan]()
    hub_store = SQLiteHubStore(tmp_path / "hub.db")
    transport = Listening(MemoryTransport(network), disk, [], [])
    async with open_setting(tmp_path, synced=True, transport=transport, mode="full") as setting:
        disk.append(setting.disk)
        client, schema = setting.client, setting.client.schema
        plugins = [Remote(MemoryTransport(network))]
        async with (
            open_hub(schema, hub_store, verifier=AllowLoopback(), environment=seeded_environment(1)) as hub,
            network.listen(hub),
            open_client(schema, plugins=plugins, policy="direct-remote", environment=seeded_environment(3)) as other,
        ):
            await client.sync.wait_idle()
            await trio.sleep(1)  # and the pull after the push is over
            transport.late.append(trio.Event())
            await other.store(setting.notes.spec).insert(Note(id="1", text="x"), confirm="strict")
            await trio.sleep(1)
            assert transport.heard[-1][0] == "pull"
            handle = await setting.notes.upsert(Note(id="1", text="x"))
            assert await handle.accepted() > 0
            assert handle.state == "accepted", "the hub had it already; it is settled by the page that is on its way"

            async def settle() -> None:
                transport.late[0].set()
                await handle.observed()

            assert await setting.fsyncs(settle) >= 1
