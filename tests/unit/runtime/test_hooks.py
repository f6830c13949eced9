"""Hooks of a store: they run where a row is written, once, and what they raise never harms more than it is about."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma import Client, Schema, StaticTokenVerifier, StoreSpec, Sync, col, open_client, open_hub, select
from atoma.contracts.events import Event, HookFailed
from atoma.contracts.execution import WriteRequest
from atoma.contracts.policy import Policy
from atoma.errors import ConfigurationError, ConflictError, SchemaError, StoreBusy, ValidationError
from atoma.kernel import atomic, direct_local, retry
from atoma.plugins import Plugin, PluginContext
from atoma.ports.keys import LOCAL_DATABASE, PortKey
from atoma.ports.local import LocalTx
from atoma.runtime import hooks as runtime_hooks
from atoma.schema.hooks import Saved
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite.connections import MEMORY
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.paths import memory

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    words: int = 0
    board: str = "main"


@dataclass
class Desk:
    """Hooks that note what they are called with, and what the application makes of it."""

    save: Callable[[Note], Note] = lambda note: replace(note, words=len(note.text.split()))
    told: Callable[[Saved[Note]], object] = lambda saved: None
    keep: Callable[[Sequence[Note]], Iterable[Note]] = lambda notes: notes
    seen: list[Note] = field(default_factory=list)
    heard: list[Saved[Note]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def before(self, note: Note) -> Note:
        self.seen.append(note)
        return self.save(note)

    async def after(self, saved: Saved[Note]) -> None:
        self.heard.append(saved)
        self.told(saved)
        await trio.lowlevel.checkpoint()

    def writeback(self, notes: Sequence[Note]) -> Iterable[Note]:
        return self.keep(notes)

    def spec(self, **options: Any) -> StoreSpec[Note]:
        return StoreSpec(
            "notes",
            Note,
            scope="board",
            before_save=self.before,
            after_save=self.after,
            writeback=self.writeback,
            **options,
        )

    @property
    def failed(self) -> list[tuple[str, str]]:
        return [(event.hook, event.id) for event in self.events if isinstance(event, HookFailed)]


@asynccontextmanager
async def opened(desk: Desk, *plugins: Any, policy: str | None = None) -> AsyncIterator[tuple[Client, Any]]:
    spec = desk.spec()
    local = LocalExecution(SQLiteEngine(memory()))
    async with open_client(Schema(spec), plugins=[local, *plugins], policy=policy) as client:
        client.listen(desk.events.append)
        yield client, client.store(spec)


@pytest.mark.paths
async def test_every_write_of_a_row_passes_before_save_once() -> None:
    desk = Desk()
    async with opened(desk) as (client, notes):
        handle = await notes.insert(Note(id="1", text="one two"))
        assert handle.value == await notes.get("1") == Note(id="1", text="one two", words=2)
        await notes.update("1", text="one")
        await notes.update("1", lambda note: replace(note, text="now three words"))
        await notes.upsert({"id": "2", "text": "a b"})
        await notes.upsert({"id": "1", "text": "x"})
        await notes.upsert(Note(id="2", text="c d e"), apply="replace")
        async with client.transaction() as tx:
            await tx.store(notes.spec).insert(Note(id="3", text="three"))
            await tx.store(notes.spec).update("3", text="three times three")
        await notes.insert_many([Note(id=f"m{n}", text="m " * n) for n in range(20)])
        await client.update_where(select(notes.spec).where(col("id") == "2"), text="by query")
        assert {note.id: note.words for note in await notes.query()} == {
            "1": 1, "2": 2, "3": 3, **{f"m{n}": n for n in range(20)}
        }  # fmt: skip
        assert len(desk.seen) == 9 + 20
        seen = len(desk.seen)
        await notes.update("1", text="x")
        await notes.delete("1")
        with pytest.raises(ConflictError):
            await notes.insert(Note(id="2"))
        assert len(desk.seen) == seen, "what changes nothing, removes a row, or is refused is not shown to it"


def refuse(note: Note) -> Note:
    if "bad" in note.text:
        raise ValueError("this text is bad")
    return note


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (refuse, "ValueError: this text is bad"),
        (lambda note: None if "bad" in note.text else note, "must return a Note, not NoneType"),
        (lambda note: replace(note, id="other") if "bad" in note.text else note, "id never changes"),
        (lambda note: replace(note, board="other") if "bad" in note.text else note, "board never changes"),
        (lambda note: replace(note, words="many") if "bad" in note.text else note, "notes.words wants int"),
    ],
)
async def test_an_error_of_before_save_refuses_the_write_and_nothing_is_done(hook: Any, why: str) -> None:
    desk = Desk(save=hook)
    async with opened(desk) as (client, notes):
        await notes.insert(Note(id="1", text="good"))
        with pytest.raises(ValidationError, match=why) as caught:
            await notes.update("1", text="bad")
        assert caught.value.store == "notes" and "notes/1" in str(caught.value)
        with pytest.raises(ValidationError, match=why):
            await notes.insert(Note(id="2", text="bad"))
        result = await notes.insert_many([Note(id=str(n), text="bad" if n == 5 else "good") for n in range(3, 30)])
        assert result.status == "partial" and [item.id for item in result.failed] == ["5"]
        together = await notes.insert_many([Note(id="a"), Note(id="b", text="bad")], atomic=True)
        assert together.status == "rejected"
        with pytest.raises(ValidationError, match=why):
            async with client.transaction() as tx:
                await tx.store(notes.spec).insert(Note(id="c"))
                await tx.store(notes.spec).update("1", text="bad")
        assert {note.id for note in await notes.query()} == {"1", *(str(n) for n in range(3, 30) if n != 5)}
        assert (await notes.get("1")).text == "good"
        await wait_all_tasks_blocked()
        assert len(desk.heard) == 1 + 26, "nothing is told of what was not written"


@pytest.mark.paths
async def test_after_save_hears_what_is_committed_in_order_and_its_error_harms_nobody() -> None:
    desk = Desk(save=lambda note: note)

    def fails_on_2(saved: Saved[Note]) -> None:
        if saved.id == "2":
            raise RuntimeError("the printer is out of paper")

    desk.told = fails_on_2
    async with opened(desk) as (_, notes):
        await notes.insert(Note(id="1", text="a"))
        await notes.insert(Note(id="2", text="b"))
        await notes.update("1", text="c")
        await notes.update("1", text="c")
        await notes.delete("2")
        await wait_all_tasks_blocked()
        assert desk.heard == [
            Saved("notes", "1", None, Note(id="1", text="a")),
            Saved("notes", "2", None, Note(id="2", text="b")),
            Saved("notes", "1", Note(id="1", text="a"), Note(id="1", text="c")),
            Saved("notes", "2", Note(id="2", text="b"), None),
        ]
        assert desk.failed == [("after_save", "2"), ("after_save", "2")]
        assert (await notes.get("1")).text == "c"


@pytest.mark.paths
async def test_what_was_committed_is_told_though_its_caller_was_cancelled_or_the_client_closes() -> None:
    desk = Desk()
    async with opened(desk) as (_, notes):
        with trio.CancelScope() as scope:

            def cancel(note: Note) -> Note:
                scope.cancel()
                return note

            desk.save = cancel
            await notes.insert(Note(id="1"))
            await trio.lowlevel.checkpoint()
        desk.save = lambda note: note
        await notes.insert(Note(id="2"))
    assert [saved.id for saved in desk.heard] == ["1", "2"]


async def test_after_save_may_write_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_hooks, "WAITING_MAX", 3)
    desk = Desk()
    async with opened(desk) as (_, notes):
        await notes.insert_many([Note(id=str(n)) for n in range(5)])
        await wait_all_tasks_blocked()
        assert [saved.id for saved in desk.heard] == ["0", "1", "2"]
        assert desk.failed == [("after_save", "3"), ("after_save", "4")]


@dataclass
class Unsteady:
    """A node that stages nothing, and fails so many times before it does."""

    failures: int
    id: str = "unsteady"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = (LOCAL_DATABASE,)
    database: str = ""

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncIterator[None]:
        self.database = context.require(LOCAL_DATABASE).database
        context.register_node("unsteady", self)
        write = retry(atomic("local-write", "unsteady"), attempts=3)
        context.register_policy(Policy("again", query=direct_local().query, write=write))
        yield

    def stage(self, tx: LocalTx, request: WriteRequest) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise StoreBusy("not now")


async def test_a_write_that_a_policy_tries_again_passes_before_save_once() -> None:
    desk = Desk()
    async with opened(desk, Unsteady(2), policy="again") as (_, notes):
        await notes.insert(Note(id="1", text="a b c"))
        assert await notes.get("1") == Note(id="1", text="a b c", words=3)
        await wait_all_tasks_blocked()
        assert len(desk.seen) == 1 and [saved.id for saved in desk.heard] == ["1"]


def remote_to(network: MemoryNetwork) -> Plugin:
    return Remote(MemoryTransport(network, token="token"))


@asynccontextmanager
async def remotely(desk: Desk, *, local: bool) -> AsyncIterator[tuple[Any, Any]]:
    """The store of a client that asks a hub, and the same rows as somebody else sees them there."""
    spec, plain = desk.spec(), StoreSpec("notes", Note, scope="board")
    network, verifier = MemoryNetwork(), StaticTokenVerifier({"token": "ann"})
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(open_hub(Schema(spec), SQLiteHubStore(MEMORY), verifier=verifier))
        await stack.enter_async_context(network.listen(hub))
        other = await stack.enter_async_context(
            open_client(Schema(plain), plugins=[remote_to(network)], policy="direct-remote")
        )
        plugins: list[Plugin] = [remote_to(network)]
        if local:
            plugins.append(LocalExecution(SQLiteEngine(MEMORY)))
        client = await stack.enter_async_context(open_client(Schema(spec), plugins=plugins, policy="direct-remote"))
        client.listen(desk.events.append)
        yield client.store(spec), other.store(plain)


async def test_what_is_shown_before_the_hub_answers_passes_before_save_where_it_is_shown() -> None:
    desk = Desk(save=lambda note: refuse(replace(note, words=len(note.text.split()))))
    async with remotely(desk, local=True) as (notes, there):
        await (await notes.insert(Note(id="1", text="a b"))).accepted()
        await (await notes.update("1", text="a b c")).accepted()
        assert await there.get("1") == await notes.get("1") == Note(id="1", text="a b c", words=3)
        assert len(desk.seen) == 2, "the hub runs none"
        with pytest.raises(ValidationError, match="this text is bad"):
            await notes.update("1", text="bad")
        await (await notes.delete("1")).accepted()
        await wait_all_tasks_blocked()
        assert [(saved.before and saved.before.words, saved.after and saved.after.words) for saved in desk.heard] == [
            (None, 2), (2, 3), (3, None)
        ]  # fmt: skip


@pytest.mark.parametrize("local", [False, True])
async def test_a_row_that_only_the_hub_has_cannot_be_patched_past_before_save(local: bool) -> None:
    desk = Desk()
    async with remotely(desk, local=local) as (notes, there):
        await there.insert(Note(id="1", text="a b", words=7))
        for write in (notes.update("1", text="x"), notes.upsert({"id": "1", "text": "x"}, confirm="strict")):
            with pytest.raises(ValidationError, match="before_save sees whole rows"):
                await write
        assert (await there.get("1")).words == 7 and desk.seen == []
        await notes.upsert(Note(id="1", text="x y z"), apply="replace", confirm="strict")
        assert (await there.get("1")).words == 3
        await notes.delete("1", confirm="strict")
        await wait_all_tasks_blocked()
        assert [saved.after and saved.after.words for saved in desk.heard] == [3, None]


async def test_writeback_changes_and_drops_what_is_kept_of_an_answer() -> None:
    desk = Desk(keep=lambda notes: [replace(note, text=note.text.upper()) for note in notes if note.id != "2"])
    async with remotely(desk, local=True) as (notes, there):
        await there.insert_many([Note(id=str(n), text="text") for n in (1, 2, 3)])
        assert [note.text for note in await notes.query()] == ["text"] * 3, "the answer is the hub's"
        assert [(note.id, note.text) for note in await notes.query(policy="direct-local")] == [
            ("1", "TEXT"), ("3", "TEXT")
        ]  # fmt: skip
        await there.update("1", text="news")
        wrong: list[Any] = [
            lambda notes: 1 / 0,
            lambda notes: [Note(id="mine")],
            lambda notes: [replace(notes[0], board="b")],
        ]
        for keep in wrong:
            desk.keep = keep
            assert [note.text for note in await notes.query()] == ["news", "text", "text"]
        assert {note.text for note in await notes.query(policy="direct-local")} == {"TEXT"}, "nothing of it is kept"
        await wait_all_tasks_blocked()
        assert desk.failed == [("writeback", "")] * 3
        assert desk.seen == [] and desk.heard == [], "what is read is not written by this client"


async def test_hooks_that_cannot_be_are_refused_at_the_start() -> None:
    async def later(note: Note) -> Note:
        return note

    with pytest.raises(SchemaError, match="before_save runs within a write or a read: it cannot be async"):
        StoreSpec("notes", Note, before_save=later)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(SchemaError, match="after_save is a function, not 7"):
        StoreSpec("notes", Note, after_save=7)  # type: ignore[arg-type]  # on purpose
    spec = Desk().spec()
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(MEMORY)), remote_to(MemoryNetwork()), Sync([spec])]
    with pytest.raises(ConfigurationError, match="'notes' has a writeback hook"):
        async with open_client(Schema(spec), plugins=plugins):
            pass
