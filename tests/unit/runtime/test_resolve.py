"""What resolving a key does to the writes that this device shows, whatever the authority is busy with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma import Client, Schema, StoreSpec, open_client, select
from atoma.contracts.events import Event, WriteDispatched
from atoma.contracts.execution import (
    ExecutionMeta,
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.values import ErrorInfo
from atoma.errors import ChannelBroken, NotResolvable, WriteRejected, WriteUnknown
from atoma.plugins import Plugin, PluginContext
from atoma.ports import seeded_environment
from atoma.ports.keys import LOCAL_DATABASE, PortKey
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.paths import memory

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


@dataclass
class Far:
    """The other machine: it never answers a write, and tells what a test says about any key."""

    id: str = "far"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = (LOCAL_DATABASE,)
    database: Any = None
    breaks: bool = False
    refuses: bool = False
    abandons: bool = False
    asked: list[WriteRequest] = field(default_factory=list)
    heard: list[Event] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.database = context.require(LOCAL_DATABASE)
        context.register_node("remote-far", self)
        context.register_listener(self.heard.append)
        yield

    async def query(self, request: QueryRequest) -> QueryResult:
        return QueryResult((), meta=ExecutionMeta("remote"))

    async def write(self, request: WriteRequest) -> WriteResult:
        self.asked.append(request)
        if self.breaks:
            raise ChannelBroken("the answer was lost")
        await trio.sleep_forever()

    async def resolve(self, request: ResolveRequest) -> Resolution:
        if self.abandons:
            return Resolution(request.idem)
        (write,) = {one.idem: one for one in self.asked if one.idem == request.idem}.values()
        error = ErrorInfo("DENIED", "no") if self.refuses else None
        items = tuple(
            WriteItemResult(entry.id, error is None, True, 9, {"text": "as it is there"}, error)
            for entry in write.entries
        )
        return Resolution(request.idem, WriteResult(status_of(items), items, ExecutionMeta("remote")))

    def key(self, place: int = -1) -> str:
        return [event.idem for event in self.heard if isinstance(event, WriteDispatched)][place]


@asynccontextmanager
async def world() -> AsyncGenerator[tuple[Client, Far]]:
    far = Far()
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(memory())), far]
    async with open_client(
        SCHEMA, plugins=plugins, policy="direct-remote", environment=seeded_environment(1)
    ) as client:
        yield client, far


async def here(client: Client) -> dict[str, str]:
    return {note.id: note.text for note in await client.store(NOTES).query(select(NOTES), policy="direct-local")}


@pytest.mark.paths
async def test_a_shown_write_that_hangs_is_settled_by_what_was_told() -> None:
    async with world() as (client, far):
        handle = await client.store(NOTES).insert(Note(id="1", text="as it is here"))
        await wait_all_tasks_blocked()
        assert (handle.state, await here(client)) == ("undecided", {"1": "as it is here"})
        with trio.fail_after(0.001):
            found = await client.resolve(far.key())
        assert found.result is not None
        assert (handle.state, await here(client)) == ("observed", {"1": "as it is there"})
        assert await handle.accepted() == 9
        assert len(far.asked) == 1


@pytest.mark.paths
@pytest.mark.parametrize(("how", "reason"), [("refuses", "DENIED"), ("abandons", "ABANDONED")])
async def test_what_was_not_done_leaves_and_what_was_written_on_it_stays(how: str, reason: str) -> None:
    async with world() as (client, far):
        notes = client.store(NOTES)
        first = await notes.insert(Note(id="1", text="first"))
        await wait_all_tasks_blocked()
        second = await notes.upsert(Note(id="1", text="second"))  # waits for its turn
        await wait_all_tasks_blocked()
        setattr(far, how, True)
        await client.resolve(far.key())
        with pytest.raises(WriteRejected) as refused:
            await first.accepted()
        assert refused.value.reason == reason
        assert await here(client) == {"1": "second"}
        await wait_all_tasks_blocked()
        assert [one.entries[0].kind for one in far.asked] == ["create", "upsert"]  # its turn has come
        setattr(far, how, False)
        await client.resolve(far.key())
        assert (second.state, await here(client)) == ("observed", {"1": "as it is there"})


@pytest.mark.parametrize("abandons", [True, False])
async def test_who_asked_first_and_lost_the_answer_sees_what_was_told(abandons: bool) -> None:
    async with world() as (client, far):
        far.breaks = True
        with pytest.raises(WriteUnknown) as lost:
            await client.store(NOTES).insert(Note(id="1", text="strict"), confirm="strict")
        far.abandons = abandons
        asked = len(far.asked)
        found = await client.resolve(lost.value)
        assert found.abandoned is abandons
        assert await here(client) == ({} if abandons else {"1": "as it is there"})
        await trio.sleep(3600)
        assert len(far.asked) == asked, "nobody goes on asking"


async def test_cancelled_while_a_write_waits_for_its_turn_it_is_settled_all_the_same() -> None:
    async with world() as (client, far):
        notes = client.store(NOTES)
        first = await notes.insert(Note(id="1", text="first"))
        await wait_all_tasks_blocked()
        second = await notes.upsert(Note(id="1", text="second"))
        earlier, later = [one.idem for one in await far.database.inspect(lambda tx: tx.outbox.volatile())]
        far.abandons = True
        with trio.move_on_after(1) as patience:
            await client.resolve(later)
        assert patience.cancelled_caught
        assert (second.state, await here(client)) == ("undecided", {"1": "second"})
        await client.resolve(earlier)
        for handle in (first, second):
            with pytest.raises(WriteRejected) as refused:
                await handle.accepted()
            assert refused.value.reason == "ABANDONED"
        assert await here(client) == {}
        assert [one.idem for one in far.asked] == [earlier]


async def test_a_node_that_cannot_tell_is_not_asked() -> None:
    async with world() as (client, _):
        with pytest.raises(NotResolvable):
            await client.resolve(WriteUnknown("k", "lost", nodes=()))
        with pytest.raises(NotResolvable):
            await client.resolve("k", policy="direct-local")
