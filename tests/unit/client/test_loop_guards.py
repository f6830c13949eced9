"""A client lives in one Trio loop: from anywhere else each of its doors says so, and the loop it lives in goes on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from reactivex import operators as ops

from atoma import (
    AllowLoopback,
    Client,
    Hub,
    Plugin,
    Schema,
    Store,
    StoreSpec,
    Sync,
    SyncControl,
    Transaction,
    WriteHandle,
    new_id,
    open_client,
    open_hub,
    select,
)
from atoma.client.inbox import ConflictInbox
from atoma.contracts.history import Changeset
from atoma.contracts.quarantine import Quarantined
from atoma.errors import ClosedError, NotEntered, WrongLoop
from atoma.hub.service import HubService
from atoma.ports.service import Principal
from atoma.runtime import TransactionStore
from atoma.runtime.history import CommitHistory
from atoma.runtime.quarantine import Quarantine
from atoma.runtime.undo import UndoStack
from atoma.sync.lost import LostRows
from atoma.sync.waiting import Outbox
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server


@dataclass(frozen=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str = ""


NOTES = StoreSpec("notes", Note, soft_delete=True)
SCHEMA = Schema(NOTES)
NOTHING = select(NOTES)
Doors = dict[str, Callable[[], object]]

ASIDE = Quarantined(1, "notes", "1", "a row", "", 1, {})
NO_LOOP_NEEDED: dict[type, set[str]] = {
    Client: {
        "explain",
        "history",
        "inbox",
        "owner",
        "policies",
        "quarantine",
        "schema",
        "store",
        "sync",
        "topology",
        "transaction",
        "undo",
    },
    Store: {"spec"},
    Transaction: {"bound", "confirm", "drawn", "durability", "store"},
    TransactionStore: {"spec"},
    WriteHandle: {"changed", "id", "key", "meta", "state", "states", "value", "version"},
    CommitHistory: {"at"},
    UndoStack: {"group", "scope"},
    ConflictInbox: set(),
    Quarantine: set(),
    SyncControl: {"inbox", "lost", "outbox", "status"},
    LostRows: set(),
    Outbox: set(),
    Hub: {
        "admits_loopback",
        "authenticate",
        "calls",
        "identity",
        "limits",
        "registry",
        "schema",
        "service",
        "understood",
    },
    HubService: set(),
}
"""What only looks, or makes something that is guarded itself; a hub's ``authenticate`` waits for the verifier alone."""


@dataclass
class Opened:
    """Everything an application holds, open."""

    client: Client
    hub: Hub
    handle: WriteHandle[Any]
    tx: Transaction
    batches: Any

    def doors(self) -> dict[type, Doors]:
        notes, tx_notes = self.client.store(NOTES), self.tx.store(NOTES)
        sync, inbox = self.client.sync, self.client.inbox
        entry: Any = None
        service = self.hub.service(Principal("ann"))
        asked: Any = SimpleNamespace(
            scopes=(), context=SimpleNamespace(trace_id="")
        )  # it is refused before it is looked at
        return {
            Client: {
                "query": lambda: self.client.query(NOTHING),
                "first": lambda: self.client.first(NOTHING),
                "count": lambda: self.client.count(NOTHING),
                "exists": lambda: self.client.exists(NOTHING),
                "live": lambda: self.client.live(NOTHING).__aenter__(),
                "observe": lambda: told(self.client.observe(NOTHING)),
                "listen": lambda: self.client.listen(print),
                "resolve": lambda: self.client.resolve("key"),
                "handle": lambda: self.client.handle("key"),
                "sql": lambda: self.client.sql(int, "SELECT 1"),
                "live_sql": lambda: self.client.live_sql(int, "SELECT 1").__aenter__(),
                "explain_sql": lambda: self.client.explain_sql("SELECT 1"),
                "presence": lambda: self.client.presence("board:7", {}).__aenter__(),
                "update_where": lambda: self.client.update_where(NOTHING, text="x"),
                "delete_where": lambda: self.client.delete_where(NOTHING),
            },
            Store: {
                "get": lambda: notes.get("1"),
                "version": lambda: notes.version("1"),
                "get_many": lambda: notes.get_many(["1"]),
                "get_all": lambda: notes.get_all(),
                "query": lambda: notes.query(),
                "first": lambda: notes.first(),
                "count": lambda: notes.count(),
                "exists": lambda: notes.exists("1"),
                "live": lambda: notes.live().__aenter__(),
                "observe": lambda: told(notes.observe()),
                "subscribe": lambda: told(notes),
                "pipe": lambda: told(notes.pipe(ops.map(len))),
                "insert": lambda: notes.insert(Note()),
                "insert_many": lambda: notes.insert_many([Note()]),
                "update": lambda: notes.update("1", text="x"),
                "update_many": lambda: notes.update_many({"1": {"text": "x"}}),
                "upsert": lambda: notes.upsert(Note()),
                "upsert_many": lambda: notes.upsert_many([Note()]),
                "delete": lambda: notes.delete("1"),
                "delete_many": lambda: notes.delete_many(["1"]),
                "restore": lambda: notes.restore("1"),
                "purge": lambda: notes.purge("1"),
                "export": lambda: notes.export("never.csv"),
                "import_": lambda: notes.import_("never.csv"),
            },
            Transaction: {
                "__aenter__": lambda: self.client.transaction().__aenter__(),
                "savepoint": lambda: self.tx.savepoint().__aenter__(),
                "row": lambda: self.tx.row("notes", "2"),
                "rows": lambda: tx_notes.query(NOTHING),
                "buffer": lambda: tx_notes.insert(Note()),
            },
            TransactionStore: {
                "get": lambda: tx_notes.get("2"),
                "query": lambda: tx_notes.query(NOTHING),
                "insert": lambda: tx_notes.insert(Note()),
                "update": lambda: tx_notes.update("2", text="x"),
                "upsert": lambda: tx_notes.upsert(Note()),
                "delete": lambda: tx_notes.delete("2"),
                "restore": lambda: tx_notes.restore("2"),
                "purge": lambda: tx_notes.purge("2"),
            },
            WriteHandle: {"accepted": lambda: self.handle.accepted(), "observed": lambda: self.handle.observed()},
            CommitHistory: {
                "commits": lambda: self.client.history.commits(),
                "floor": lambda: self.client.history.floor(),
                "changes": lambda: self.client.history.changes(1),
                "apply": lambda: self.client.history.apply(Changeset(1, 0, 1, ())),
            },
            UndoStack: {
                "undo": lambda: self.client.undo.undo(),
                "redo": lambda: self.client.undo.redo(),
                "discard": lambda: self.client.undo.discard(),
                "steps": lambda: self.client.undo.steps(),
            },
            ConflictInbox: {
                "entries": lambda: inbox.entries(),
                "dismiss": lambda: inbox.dismiss(entry),
                "keep_mine": lambda: inbox.keep_mine(entry),
            },
            Quarantine: {
                "entries": lambda: self.client.quarantine.entries(),
                "discard": lambda: self.client.quarantine.discard(ASIDE),
                "bring_back": lambda: self.client.quarantine.bring_back(ASIDE, {}),
            },
            SyncControl: {
                "subscribe": lambda: sync.subscribe(print),
                "watch": lambda: sync.watch().__aenter__(),
                "poke": lambda: sync.poke(),
                "pause": lambda: sync.pause(),
                "resume": lambda: sync.resume(),
                "sync_once": lambda: sync.sync_once(),
                "pull": lambda: sync.pull(),
                "scope": lambda: sync.scope("board:7").__aenter__(),
                "drop": lambda: sync.drop("board:7"),
                "wait_idle": lambda: sync.wait_idle(),
                "repair": lambda: sync.repair(),
                "repairs": lambda: sync.repairs(),
                "adopt_hub": lambda: sync.adopt_hub(),
            },
            LostRows: {
                "entries": lambda: sync.lost.entries(),
                "offer": lambda: sync.lost.offer([]),
                "discard": lambda: sync.lost.discard([]),
            },
            Outbox: {
                "entries": lambda: sync.outbox.entries(),
                "retry": lambda: sync.outbox.retry(),
                "hold": lambda: sync.outbox.hold([]),
                "release": lambda: sync.outbox.release([]),
                "edit": lambda: sync.outbox.edit(entry, {}),
                "discard": lambda: sync.outbox.discard([]),
            },
            Hub: {
                "compact": lambda: self.hub.compact(),
                "new_epoch": lambda: self.hub.new_epoch(),
                "epochs": lambda: self.hub.epochs(),
                "allow_deletes": lambda: self.hub.allow_deletes(b""),
                "allow_offers": lambda: self.hub.allow_offers(b""),
                "accept_unproven": lambda: self.hub.accept_unproven(b""),
                "absent": lambda: self.hub.absent(b""),
                "sessions": lambda: self.hub.sessions(),
                "end": lambda: self.hub.end("ann"),
            },
            HubService: {
                name: partial(getattr(service, name), asked)
                for name in ("open", "push", "pull", "snapshot", "appear", "query", "write", "resolve")
            }
            | {
                "notify": lambda: service.notify(asked).__aenter__(),
                "presence": lambda: service.presence(asked).__aenter__(),
            },
        }

    def every(self) -> Iterator[tuple[str, Callable[[], object]]]:
        for owner, doors in self.doors().items():
            for name, door in doors.items():
                yield f"{owner.__name__}.{name}", door
        yield "a live query's batches", lambda: anext(self.batches)


def told(observable: Any) -> object:
    """Subscribe, and raise what the observer is told."""
    errors: list[Exception] = []
    observable.subscribe(on_error=errors.append)
    if errors:
        raise errors[0]
    return None


@asynccontextmanager
async def everything_open() -> AsyncGenerator[Opened]:
    network = MemoryNetwork()
    local, remote = LocalExecution(SQLiteEngine(":memory:", history=History())), Remote(MemoryTransport(network))
    plugins: list[Plugin] = [local, remote, Sync(stores=[NOTES])]
    async with (
        open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub,
        open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client,
    ):
        handle = await client.store(NOTES).insert(Note(id="1"))
        async with client.store(NOTES).live() as batches, client.transaction() as tx:
            await anext(batches)
            yield Opened(client, hub, handle, tx, batches)


async def awaited(call: Callable[[], object]) -> None:
    result = call()
    if inspect.isawaitable(result):
        await result


def by_asyncio(call: Callable[[], object]) -> None:
    asyncio.run(awaited(call))


def by_another_trio(call: Callable[[], object]) -> None:
    trio.run(awaited, call)


def by_hand(call: Callable[[], object]) -> None:
    """As a notebook's cell or a callback without a loop does it."""
    coroutine = awaited(call)
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


def methods_of(owner: type) -> set[str]:
    public = {name for name in dir(owner) if not name.startswith("_")}
    return public - {"confirm", "durability"} if owner is Transaction else public


async def test_every_public_method_is_tried_below() -> None:
    async with everything_open() as opened:
        for owner, doors in opened.doors().items():
            tried = {name for name in doors if not name.startswith("_")}
            assert tried | NO_LOOP_NEEDED[owner] >= methods_of(owner), f"{owner.__name__} has a door that nobody guards"


@pytest.mark.parametrize(
    ("elsewhere", "where", "right"),
    [
        (by_asyncio, "an asyncio loop", "atoma.bindings.aio.open_client"),
        (by_another_trio, "another Trio loop", "atoma.open_client"),
        (by_hand, "no loop at all", "atoma.bindings.blocking.open_client"),
    ],
)
async def test_from_another_thread_each_door_says_where_the_client_lives(
    elsewhere: Callable[[Callable[[], object]], None], where: str, right: str
) -> None:
    async with everything_open() as opened:
        said: dict[str, str] = {}
        doors = list(opened.every())

        def try_all() -> None:
            for name, door in doors:
                try:
                    elsewhere(door)
                    said[name] = "nothing"
                except WrongLoop as error:
                    said[name] = str(error)

        await trio.to_thread.run_sync(try_all)
        unclear = {name: text for name, text in said.items() if where not in text or right not in text}
        assert (unclear, len(said)) == ({}, len(doors))
        await opened.client.store(NOTES).update("1", text="the loop that it lives in goes on")
        assert [batch async for batch in first(opened.batches)]


async def first(batches: Any) -> AsyncGenerator[object]:
    yield await anext(batches)


def test_a_later_loop_of_the_same_thread_finds_the_client_closed() -> None:
    held: list[Opened] = []

    async def hold() -> None:
        async with everything_open() as opened:
            held.append(opened)

    trio.run(hold)
    notes = held[0].client.store(NOTES)
    for call in (lambda: notes.get("1"), lambda: notes.insert(Note())):
        with pytest.raises(ClosedError, match="the client is closed"):
            trio.run(awaited, call)


async def test_a_closed_client_is_called_by_its_name() -> None:
    async with everything_open() as opened:
        pass
    with pytest.raises(ClosedError, match="the client is closed"):
        await opened.client.store(NOTES).get("1")


def openings() -> dict[str, Callable[[], Any]]:
    plugins = [LocalExecution(SQLiteEngine(":memory:"))]
    return {
        "open_client": lambda: open_client(SCHEMA, plugins=plugins),
        "open_hub": lambda: open_hub(SCHEMA, SQLiteHubStore(":memory:")),
        "open_server": lambda: open_server(None, "127.0.0.1:0"),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("name", openings())
async def test_a_lifetime_without_async_with_says_so(name: str) -> None:
    opening = openings()[name]()
    with pytest.raises(NotEntered, match=rf"async with {name}\(…\) as it"):
        await opening
    with pytest.raises(NotEntered, match="no 'store'"):
        _ = opening.store
    with pytest.raises(NotEntered, match="plain `with`"):
        with opening:
            pass
    with pytest.raises(NotEntered, match="not iterated"):
        async for _ in opening:
            pass
    with pytest.raises(NotEntered, match="not iterated"):
        list(opening)
    assert not hasattr(opening, "store")


async def test_a_live_query_without_async_with_says_so() -> None:
    async with everything_open() as opened:
        with pytest.raises(NotEntered, match=r"async with live\(…\) as it"):
            async for _ in opened.client.store(NOTES).live():  # pyright: ignore[reportGeneralTypeIssues]
                pass


@pytest.mark.parametrize("name", openings())
def test_opening_under_asyncio_names_what_works(name: str) -> None:
    async def enter() -> None:
        async with openings()[name]():
            pytest.fail("it must not open")

    with ThreadPoolExecutor(1) as pool:  # a driver of browsers may run a loop of its own in this thread
        with pytest.raises(WrongLoop, match=r"asyncio loop.*trio\.run\(main\).*atoma\.bindings\.aio"):
            pool.submit(lambda: asyncio.run(enter())).result()
