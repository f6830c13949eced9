"""A write whose answer was lost, and what resolving its key tells and shows."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma import Client, StaticTokenVerifier, Sync, open_client, open_hub
from atoma.contracts.events import Event, WriteDispatched, WriteResolved, WriteTakenBack
from atoma.errors import NotResolvable, WriteRejected, WriteUnknown
from atoma.plugins import Plugin
from atoma.ports import seeded_environment
from atoma.testing.network_link import NetworkLink, open_network_link
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport

from .conftest import NOTES, SCHEMA, Note


def keys_of(events: list[Event]) -> list[str]:
    return [event.idem for event in events if isinstance(event, WriteDispatched)]


@pytest.mark.virtual_time
async def test_what_was_done_is_shown_when_the_resolution_returns(open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.store.get_all()
        world.road.break_replies = 1
        with pytest.raises(WriteUnknown) as lost:
            await world.store.insert(Note(id="1", text="done"), confirm="strict")
        assert lost.value.nodes == ("remote-memory",)
        assert await world.here() == {}
        found = await world.client.resolve(lost.value)
        assert found.result.status == "confirmed"
        assert [(item.id, item.row["text"]) for item in found.result.items] == [("1", "done")]
        assert {id: note.text for id, note in (await world.here()).items()} == {"1": "done"}
        again = await world.client.resolve(lost.value.idem)
        assert again.result.items == found.result.items


@pytest.mark.virtual_time
async def test_what_never_came_is_abandoned_and_can_be_written_again(open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.store.get_all()
        world.road.break_requests = 1
        with pytest.raises(WriteUnknown) as lost:
            await world.store.insert(Note(id="1", text="lost"), confirm="strict")
        found = await world.client.resolve(lost.value)
        assert found.abandoned
        await trio.sleep(1000)  # whatever was to be sent again has been
        assert await world.there() == await world.here() == {}
        await world.store.insert(Note(id="1", text="again"), confirm="strict")
        assert (await world.there())["1"].text == (await world.here())["1"].text == "again"


@pytest.mark.virtual_time
@pytest.mark.parametrize("came", [True, False])
async def test_a_shown_write_in_doubt_is_settled_by_its_resolution(came: bool, open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.store.insert(Note(id="1", text="old"), confirm="strict")
        if came:
            world.road.break_replies = 1
        else:
            world.road.break_requests = 1
        handle = await world.store.update("1", text="new")
        await wait_all_tasks_blocked()
        assert handle.state == "undecided"
        assert (await world.here())["1"].text == "new"
        key = keys_of(world.probe.heard)[-1]
        with trio.fail_after(0.001):  # long before it would be sent again
            found = await world.client.resolve(key)
        assert found.abandoned is not came
        assert (await world.here())["1"].text == (await world.there())["1"].text == ("new" if came else "old")
        assert await world.pending() == []
        if came:
            assert handle.state == "observed"
        else:
            with pytest.raises(WriteRejected) as refused:
                await handle.accepted()
            assert refused.value.reason == "ABANDONED"
            await wait_all_tasks_blocked()
            taken_back = [event for event in world.probe.heard if isinstance(event, WriteTakenBack)]
            assert [(event.idem, event.code) for event in taken_back] == [(key, "ABANDONED")]
        after = await world.store.update("1", text="later")
        await after.accepted()
        assert (await world.there())["1"].text == "later"


@pytest.mark.virtual_time
async def test_an_answer_lost_while_resolving_leaves_the_write_unknown(open_remotely: Any) -> None:
    async with open_remotely() as world:
        world.road.break_replies = 3
        with pytest.raises(WriteUnknown) as lost:
            await world.store.insert(Note(id="1"), confirm="strict")
        with pytest.raises(WriteUnknown) as still:
            await world.client.resolve(lost.value)
        assert (still.value.idem, still.value.nodes) == (lost.value.idem, lost.value.nodes)
        world.network.partition()
        with pytest.raises(WriteUnknown):
            await world.client.resolve(still.value)
        world.network.heal()
        world.network.partition(silent=True)
        with trio.move_on_after(1) as patience:
            await world.client.resolve(still.value)
        assert patience.cancelled_caught
        world.network.heal()
        world.network.disconnect()
        world.road.break_replies = 0
        await trio.sleep(1)  # who was connecting has noticed
        assert (await world.client.resolve(still.value)).result.status == "confirmed"
        told = [event for event in world.probe.heard if isinstance(event, WriteResolved)]
        assert [event.error for event in told][:2] == ["UNKNOWN_OUTCOME", "UNKNOWN_OUTCOME"]


@pytest.mark.virtual_time
async def test_what_lies_in_the_outbox_is_followed_over_a_restart_and_never_called_abandoned(tmp_path: Path) -> None:
    network, heard = MemoryNetwork(), list[Event]()

    @asynccontextmanager
    async def started() -> AsyncGenerator[Client]:
        remote = Remote(MemoryTransport(network, token="token"))
        plugins: list[Plugin] = [LocalExecution(SQLiteEngine(tmp_path / "a.db")), remote, Sync([NOTES])]
        async with open_client(
            SCHEMA, plugins=plugins, policy="sync-queue", environment=seeded_environment(1)
        ) as client:
            client.listen(heard.append)
            yield client

    async with started() as client:
        await client.store(NOTES).insert_many([Note(id="1"), Note(id="2")])
        await wait_all_tasks_blocked()
        (key,) = keys_of(heard)
        for policy in (None, "direct-remote"):
            with trio.move_on_after(60) as patience:
                await client.resolve(key, policy=policy)
            assert patience.cancelled_caught, "it is sent as soon as there is a hub"
        for policy in (None, "hybrid"):
            with pytest.raises(NotResolvable):
                await client.resolve("some other key", policy=policy)
    hub_store, verifier = SQLiteHubStore(tmp_path / "hub.db"), StaticTokenVerifier({"token": "ann"})
    async with (
        open_hub(SCHEMA, hub_store, verifier=verifier, environment=seeded_environment(2)) as hub,
        network.listen(hub),
        started() as client,
    ):
        with trio.fail_after(600):
            found = await client.resolve(key)
        assert found.result is not None
        assert (found.result.status, [item.id for item in found.result.items]) == ("confirmed", ["1", "2"])
        assert {note.id for note in await client.store(NOTES).query(policy="direct-remote")} == {"1", "2"}


@pytest.mark.virtual_time
@pytest.mark.parametrize("came", [True, False])
async def test_who_was_cancelled_has_the_key_from_the_event(came: bool, open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.store.get_all()
        if came:
            world.road.close()
        else:
            world.network.partition(silent=True)
        with trio.move_on_after(1) as patience:
            await world.store.insert(Note(id="1", text="strict"), confirm="strict")
        assert patience.cancelled_caught
        world.road.gate.set()
        world.network.heal()
        found = await world.client.resolve(keys_of(world.probe.heard)[-1])
        assert found.abandoned is not came
        assert (await world.there()).keys() == ({"1"} if came else set())


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the n-th step of any task from now on."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self.left = at
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@pytest.mark.virtual_time
@pytest.mark.parametrize("came", [True, False])
async def test_cancelled_at_any_step_it_can_be_asked_again(came: bool, open_remotely: Any) -> None:
    random.seed(1)  # the order in which Trio runs what is ready
    async with open_remotely() as world:
        await world.store.get_all()
        tasks = trio.lowlevel.current_statistics().tasks_living
        step = 0
        while step < 1000:
            step += 1
            world.road.break_replies, world.road.break_requests = int(came), int(not came)
            with pytest.raises(WriteUnknown) as lost:
                await world.store.insert(Note(id=f"{step:03}"), confirm="strict")
            with trio.CancelScope() as scope:
                instrument = CancelAt(step, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await world.client.resolve(lost.value)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            found = await world.client.resolve(lost.value)
            assert found.abandoned is not came
            if not scope.cancel_called:
                break
        assert step > 20, "there were few points to cancel at"
        await trio.sleep(5)
        assert await world.here() == await world.there()
        assert len(await world.there()) == (step if came else 0)
        assert trio.lowlevel.current_statistics().tasks_living == tasks


@asynccontextmanager
async def over_websocket(
    folder: Path, *, local: bool, token: str = "ann"
) -> AsyncGenerator[tuple[Client, NetworkLink]]:
    """A client that asks a hub through a link, with a local database or without one."""
    verifier = StaticTokenVerifier({"ann": "ann", "bob": "bob"})
    async with (
        open_hub(SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=verifier) as hub,
        open_server(hub, "127.0.0.1:0") as address,
        open_network_link(int(address.rpartition(":")[2])) as link,
    ):
        remote = Remote(WebSocketTransport(f"ws://{link.address}", token=token))
        database = [LocalExecution(SQLiteEngine(folder / "client.db"))] if local else []
        async with open_client(SCHEMA, plugins=[*database, remote], policy="direct-remote") as client:
            yield client, link


def at_the_hub(folder: Path) -> dict[str, str]:
    connection = apsw.Connection(str(folder / "hub.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return dict(connection.execute("SELECT id, text FROM notes"))
    finally:
        connection.close()


@pytest.mark.parametrize("local", [True, False], ids=["cached", "without a local database"])
@pytest.mark.parametrize("lost", ["to-client", "to-server"])
async def test_over_a_real_wire(lost: Any, local: bool, tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with over_websocket(tmp_path, local=local) as (client, link):
            notes = client.store(NOTES)
            await notes.insert(Note(id="0", text="first"), confirm="strict")
            link.truncate(lost, 0)
            with pytest.raises(WriteUnknown) as unknown:
                await notes.insert(Note(id="1", text="in doubt"), confirm="strict")
            found = await client.resolve(unknown.value)
            key = unknown.value.idem
            if found.result is not None:
                # the other way nothing has passed, unless it was sent again in the background meanwhile
                assert lost == "to-client" or local
                assert [(item.id, item.ok) for item in found.result.items] == [("1", True)]
            assert at_the_hub(tmp_path) == ({"0": "first"} if found.abandoned else {"0": "first", "1": "in doubt"})
            if found.abandoned:
                await notes.insert(Note(id="1", text="in doubt"), confirm="strict")
            assert {note.id for note in await notes.query()} == {"0", "1"}
        async with over_websocket(tmp_path, local=local) as (client, _):  # the key is all that is left of it
            again = await client.resolve(key)
            assert again.abandoned == found.abandoned
        async with over_websocket(tmp_path, local=local, token="bob") as (client, _):
            assert (await client.resolve(key)).abandoned  # somebody else's key of the same name
        async with over_websocket(tmp_path, local=local) as (client, _):
            assert (await client.resolve(key)).abandoned == found.abandoned
