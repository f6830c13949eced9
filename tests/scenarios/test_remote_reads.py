"""What a remote answer does to the rows of this device: a cache keeps it, a replica does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from atoma import AllowLoopback, Client, Schema, StoreSpec, Sync, col, open_client, open_hub, select
from atoma.plugins import Plugin
from atoma.ports import seeded_environment
from atoma.runtime.flows import MergeMode
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    lane: str = "todo"


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


@asynccontextmanager
async def open_hub_and(folder: Path, *, synced: bool) -> AsyncGenerator[tuple[Client, Client]]:
    """A client, and another one that writes at the hub directly."""
    network = MemoryNetwork()

    def device(seed: int, *extra: Plugin) -> list[Plugin]:
        return [
            LocalExecution(SQLiteEngine(folder / f"{seed}.db")),
            Remote(MemoryTransport(network, site=str(seed))),
            *extra,
        ]

    store = SQLiteHubStore(folder / "hub.db")
    mine = device(2, *([Sync([NOTES], mode="manual")] if synced else []))
    policy = "sync-queue" if synced else "direct-remote"
    async with (
        open_hub(SCHEMA, store, verifier=AllowLoopback(), environment=seeded_environment(1)) as hub,
        network.listen(hub),
        open_client(SCHEMA, plugins=mine, policy=policy, environment=seeded_environment(2)) as client,
        open_client(SCHEMA, plugins=device(3), policy="direct-remote", environment=seeded_environment(3)) as other,
    ):
        yield client, other


async def ids_here(client: Client) -> list[str]:
    return [note.id for note in await client.store(NOTES).query(policy="direct-local")]


@pytest.mark.paths
@pytest.mark.parametrize("merge", ["replace", "upsert-only", "preserve-missing"])
async def test_a_remote_read_of_a_synced_store_changes_nothing_here(tmp_path: Path, merge: MergeMode) -> None:
    async with open_hub_and(tmp_path, synced=True) as (client, other):
        notes = client.store(NOTES)
        await other.store(NOTES).insert(Note(id="1"), confirm="strict")
        await client.sync.sync_once()
        await other.store(NOTES).insert(Note(id="2"), confirm="strict")
        await other.store(NOTES).delete("1", confirm="strict")
        await notes.insert(Note(id="3"))
        assert [note.id for note in await notes.query(policy="direct-remote")] == ["2"]
        assert [note.id for note in await notes.get_all(policy="direct-remote", merge=merge)] == ["2"]
        assert (await notes.get("2", policy="remote-first")) == Note(id="2")
        assert await ids_here(client) == ["1", "3"], "the base moves by pages only"
        assert client.sync.status.scope("main").cursor == 1
        await client.sync.sync_once()
        assert await ids_here(client) == ["2", "3"]


async def test_a_filtered_remote_read_adds_to_the_cache_and_takes_nothing_away(tmp_path: Path) -> None:
    async with open_hub_and(tmp_path, synced=False) as (client, other):
        far, notes = other.store(NOTES), client.store(NOTES)
        await far.insert_many([Note(id="1"), Note(id="2", lane="done"), Note(id="3")], confirm="strict")
        todo = select(NOTES).where(col("lane") == "todo")
        assert [note.id for note in await notes.query(todo)] == ["1", "3"]
        assert await ids_here(client) == ["1", "3"]
        assert [note.id for note in await notes.query(select(NOTES).where(col("lane") == "done"))] == ["2"]
        assert await ids_here(client) == ["1", "2", "3"]
        await far.update("3", lane="done", confirm="strict")
        await far.delete("1", confirm="strict")
        with trio.fail_after(60):
            assert [note.id for note in await notes.query(todo)] == []
        assert await ids_here(client) == ["1", "2", "3"], "a filter says nothing about the rows that it does not give"
        assert [note.id for note in await notes.get_all(merge="replace")] == ["2", "3"]
        assert await ids_here(client) == ["2", "3"]


HUB = {
    "fewer rows": ["b"],
    "more rows": ["a", "b", "c", "d"],
    "changed row": ["b", "d changed"],
    "filter": ["a done", "c", "d"],
    "empty": [],
}
"""What the hub has; this device holds ``b`` and ``d``, as they once were there, and ``e``, which never was."""
CASES: dict[tuple[str, MergeMode], tuple[str, str]] = {
    # what the page says, and what is kept here; rows of this device alone are in capitals
    ("fewer rows", "replace"): ("b", "b"),
    ("fewer rows", "upsert-only"): ("b", "b D E"),
    ("fewer rows", "preserve-missing"): ("b D E", "b D E"),
    ("more rows", "replace"): ("a b c d", "a b c d"),
    ("more rows", "upsert-only"): ("a b c d", "a b c d E"),
    ("more rows", "preserve-missing"): ("a b c d E", "a b c d E"),
    ("changed row", "replace"): ("b d*", "b d*"),
    ("changed row", "upsert-only"): ("b d*", "b d* E"),
    ("changed row", "preserve-missing"): ("b d* E", "b d* E"),
    ("filter", "replace"): ("c d", "c d"),
    ("filter", "upsert-only"): ("c d", "B c d E"),
    ("filter", "preserve-missing"): ("B c d E", "B c d E"),
    ("empty", "replace"): ("", ""),
    ("empty", "upsert-only"): ("", "B D E"),
    ("empty", "preserve-missing"): ("B D E", "B D E"),
}


def shown(notes: Iterable[Note], hub: Iterable[str]) -> str:
    letters = [note.id + "*" * (note.lane == "changed") for note in notes]
    return " ".join(letter if letter[0] in hub else letter.upper() for letter in letters)


@pytest.mark.parametrize(("there", "merge"), list(CASES))
async def test_get_all_over_a_real_hub(tmp_path: Path, there: str, merge: MergeMode) -> None:
    async with open_hub_and(tmp_path, synced=False) as (client, other):
        far, notes = other.store(NOTES), client.store(NOTES)
        await notes.insert_many([Note(id="e"), Note(id="b"), Note(id="d")], policy="direct-local")
        hub = {id: words for id, *words in map(str.split, HUB[there])}
        await far.insert_many([Note(id=id, lane=(hub[id] or ["todo"])[0]) for id in hub], confirm="strict")
        query = select(NOTES).where(col("lane") == "todo") if there == "filter" else select(NOTES)
        page = await notes.get_all(query, merge=merge)
        kept = await notes.query(policy="direct-local")
    assert (shown(page, hub), shown(kept, hub)) == CASES[there, merge]
    own = [note for note in page if note.id not in hub]
    assert page.meta.source == ("mixed" if own else "remote")
    assert [step.node for step in page.meta.path] == (["remote-memory", "local-query"] if own else ["remote-memory"])
