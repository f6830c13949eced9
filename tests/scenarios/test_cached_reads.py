"""What ``cache`` holds ends with every commit that changes the store, whoever made it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoma import AllowLoopback, Client, Schema, StoreSpec, Sync, has_many, open_client, open_hub, select
from atoma.contracts.policy import Policy
from atoma.kernel import atomic, cache, node
from atoma.plugins import Plugin, PluginContext
from atoma.ports import seeded_environment
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""


NOTES, DRAFTS = StoreSpec("notes", Note), StoreSpec("drafts", Note, policy="direct-local")
SCHEMA = Schema(NOTES, DRAFTS)


class Cached:
    """Registers ``cached``: reads here, kept for an hour."""

    id = "cached"
    provides = ()
    needs = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_policy(Policy("cached", cache(node("local-query"), 3600), atomic("local-write", "outbox")))
        yield


class Reading(Cached):
    """Registers ``cached`` where nothing is synced."""

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_policy(Policy("cached", cache(node("local-query"), 3600), None))
        yield


async def read(client: Client) -> tuple[list[str], str]:
    """The texts, and how the last step came by them."""
    page = await client.store(NOTES).query(policy="cached")
    return [note.text for note in page], page.meta.path[-1].note


@pytest.mark.paths
async def test_a_pulled_change_ends_what_is_cached(tmp_path: Path) -> None:
    network = MemoryNetwork()

    def device(seed: int, *extra: Plugin) -> list[Plugin]:
        return [
            LocalExecution(SQLiteEngine(tmp_path / f"{seed}.db")),
            Remote(MemoryTransport(network, site=str(seed))),
            *extra,
        ]

    mine = device(2, Sync([NOTES], mode="manual"), Cached())
    async with (
        open_hub(
            SCHEMA, SQLiteHubStore(tmp_path / "hub.db"), verifier=AllowLoopback(), environment=seeded_environment(1)
        ) as hub,
        network.listen(hub),
        open_client(SCHEMA, plugins=mine, policy="sync-queue", environment=seeded_environment(2)) as client,
        open_client(SCHEMA, plugins=device(3), policy="direct-remote", environment=seeded_environment(3)) as other,
    ):
        await other.store(NOTES).insert(Note(id="1", text="old"), confirm="strict")
        await client.sync.sync_once()
        assert await read(client) == (["old"], "")
        await client.store(DRAFTS).insert(Note(id="1"))
        assert await read(client) == (["old"], "cached"), "another store's change is none of it"
        await other.store(NOTES).update("1", text="new", confirm="strict")
        assert await read(client) == (["old"], "cached"), "nobody here has heard of it yet"
        await client.sync.sync_once()
        assert await read(client) == (["new"], "")


async def test_what_another_program_wrote_ends_with_the_next_commit(tmp_path: Path) -> None:
    def plugins(*extra: Plugin) -> list[Plugin]:
        return [LocalExecution(SQLiteEngine(tmp_path / "notes.db")), *extra]

    async with (
        open_client(SCHEMA, plugins=plugins(Reading()), environment=seeded_environment(1)) as client,
        open_client(SCHEMA, plugins=plugins(), environment=seeded_environment(2)) as other,
    ):
        await client.store(NOTES).insert(Note(id="1", text="old"))
        assert await read(client) == (["old"], "")
        await other.store(NOTES).update("1", text="new")
        await client.store(DRAFTS).insert(Note(id="1"))
        assert await read(client) == (["new"], ""), "a commit is missing between its own two"
        assert await read(client) == (["new"], "cached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    id: str
    note: str
    draft: str


async def test_what_leads_through_a_store_between_ends_when_that_changes(tmp_path: Path) -> None:
    tagged = StoreSpec("tagged", Tagged)
    through = (tagged, tagged.col(lambda each: each.note), tagged.col(lambda each: each.draft))
    query = select(NOTES).include(has_many(NOTES, DRAFTS, through=through))
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(tmp_path / "notes.db")), Reading()]

    async def read(client: Client) -> tuple[list[str], str]:
        page = await client.query(query, policy="cached")
        return [draft.id for _, drafts in page for draft in drafts], page.meta.path[-1].note

    async with open_client(Schema(NOTES, DRAFTS, tagged), plugins=plugins, policy="direct-local") as client:
        await client.store(NOTES).insert(Note(id="1"))
        await client.store(DRAFTS).insert(Note(id="2"))
        assert await read(client) == ([], "")
        assert await read(client) == ([], "cached")
        await client.store(tagged).insert(Tagged(id="3", note="1", draft="2"))
        assert await read(client) == (["2"], "")
