"""A handle walks through the closed set of states: queued, sent, accepted, observed; and back to queued when a push fails."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from atoma import Client, Schema, StaticTokenVerifier, StoreSpec, Sync, new_id, open_client, open_hub
from atoma.errors import ClosedError, NotResolvable
from atoma.hub.rules import Access, Rules
from atoma.plugins import Plugin
from atoma.ports import seeded_environment
from atoma.ports.service import Principal
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


@dataclass
class Slow:
    """Every frame takes a second of virtual time; or none arrives."""

    lost: bool = False

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        await trio.sleep(1)
        return [] if self.lost else [frame]


class ReadOnly:
    """Nobody may write."""

    def scope_access(self, principal: Principal, scope: str) -> Access:
        return "read"


@asynccontextmanager
async def open_device(folder: Path, faults: Slow, rules: Rules | None = None) -> AsyncGenerator[Client]:
    network = MemoryNetwork(faults=faults)
    verifier = StaticTokenVerifier({"t": "somebody"})
    store = SQLiteHubStore(folder / "hub.db")
    async with open_hub(SCHEMA, store, verifier=verifier, rules=rules, environment=seeded_environment(1)) as hub:
        async with network.listen(hub):
            plugins: list[Plugin] = [
                LocalExecution(SQLiteEngine(folder / "client.db")),
                Remote(MemoryTransport(network, token="t")),
                Sync(stores=[NOTES]),
            ]
            environment = seeded_environment(2)
            async with open_client(SCHEMA, plugins=plugins, policy="sync-queue", environment=environment) as client:
                yield client


@pytest.mark.paths
async def test_a_write_is_queued_sent_accepted_and_observed(tmp_path: Path) -> None:
    async with open_device(tmp_path, Slow()) as client:
        await client.sync.wait_idle()
        handle = await client.store(NOTES).insert(Note(text="x"))
        seen = [handle.state]
        with trio.fail_after(60):
            while seen[-1] != "observed":
                await trio.sleep(0.1)
                if handle.state != seen[-1]:
                    seen.append(handle.state)
        assert seen == ["queued", "sent", "accepted", "observed"]
        assert await handle.observed() == await handle.accepted() == 1


@pytest.mark.paths
async def test_the_states_of_a_write_are_iterated_and_observed_to_the_last(tmp_path: Path) -> None:
    async with open_device(tmp_path, Slow()) as client:
        await client.sync.wait_idle()
        handle = await client.store(NOTES).insert(Note(text="x"))
        told: list[str] = []
        completed = trio.Event()
        handle.states.subscribe(told.append, on_completed=completed.set)
        with trio.fail_after(60):
            seen = [state async for state in handle.states]
            await completed.wait()
        assert seen == told == ["queued", "sent", "accepted", "observed"]
        assert [state async for state in handle.states] == ["observed"]


async def test_a_refused_write_ends_in_rejected(tmp_path: Path) -> None:
    async with open_device(tmp_path, Slow(), rules=ReadOnly()) as client:
        await client.sync.wait_idle()
        handle = await client.store(NOTES).insert(Note(text="x"))
        with trio.fail_after(60):
            assert [state async for state in handle.states][-1] == "rejected"


@pytest.mark.paths
async def test_a_restart_finds_the_handle_and_its_states_by_the_key(tmp_path: Path) -> None:
    faults = Slow(lost=True)
    async with open_device(tmp_path, faults) as client:
        notes = client.store(NOTES)
        one = await notes.insert(Note(text="x"))
        many = await notes.insert_many([Note(text="y"), Note(text="z")])
        keys = [one.key, *(item.handle.key for item in many if item.handle is not None)]
        states = aiter(one.states)
        assert await anext(states) == "queued"
    with pytest.raises(ClosedError):
        while True:
            await anext(states)
    faults.lost = False
    async with open_device(tmp_path, faults) as client:
        handles = [await client.handle(key) for key in keys]
        assert [handle.id for handle in handles] == [one.id, *(item.id for item in many)]
        with trio.fail_after(600):
            for handle in handles:
                assert [state async for state in handle.states][-1] == "observed"
        for unknown in ("nothing", f"{keys[0]}:7", ""):
            with pytest.raises(NotResolvable):
                await client.handle(unknown)
    async with open_device(tmp_path, faults) as client:
        assert (await client.handle(keys[2])).state == "observed"


async def test_a_write_that_nobody_else_decides_is_local_and_done(tmp_path: Path) -> None:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(tmp_path / "alone.db"))]) as client:
        handle = await client.store(NOTES).insert(Note(text="x"))
        assert handle.key == ""
        assert [state async for state in handle.states] == ["local"]


async def test_a_push_that_fails_is_queued_again_with_a_visible_next_attempt(tmp_path: Path) -> None:
    faults = Slow()
    async with open_device(tmp_path, faults) as client:
        await client.sync.wait_idle()
        faults.lost = True
        handle = await client.store(NOTES).insert(Note(text="x"))
        seen = {handle.state}
        with trio.fail_after(600):
            while not (seen == {"queued", "sent"} and handle.state == "queued"):
                await trio.sleep(0.1)
                seen.add(handle.state)
        status = client.sync.status
        assert status.state != "online"
        assert status.next_attempt_ms > 0
        faults.lost = False
        with trio.fail_after(600):
            assert await handle.accepted() == 1
