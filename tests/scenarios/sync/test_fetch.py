"""The three ways to fetch: what is here, what the hub has now, and what is here while the hub's rows come."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from atoma.errors import ConfigurationError, ConnectFailed, ScopeNotSubscribed, TransportError, UnknownPolicy
from atoma.ports.live import apply_batch
from atoma.query import col, select
from atoma.runtime.functions import Reads
from atoma.schema import Schema, StoreSpec
from atoma.testing import World, open_world
from atoma.testing.seats import Device

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    board: str = "main"


NOTES = StoreSpec("notes", Note, scope="board")
PRICES = StoreSpec("prices", Note)  # nobody replicates it
SCHEMA = Schema(NOTES, PRICES)
POLICIES = ["cache-only", "network-only", "cache-and-network"]


@asynccontextmanager
async def open_pair(folder: Path, mode: str = "manual") -> AsyncGenerator[tuple[World, Device, Device]]:
    """One device that syncs by itself, and one that does in ``mode``."""
    async with (
        open_world(SCHEMA, folder) as world,
        world.hub(),
        world.device("writer", stores=[NOTES]) as writer,
        world.device("reader", stores=[NOTES], mode=mode) as reader,
    ):
        yield world, writer, reader


async def write(device: Device, *ids: str) -> None:
    await device.store(NOTES).insert_many([Note(id=id) for id in ids])
    await device.sync.wait_idle()


@pytest.mark.parametrize(("policy", "found"), [*zip(POLICIES, ([], ["a"], []), strict=True)])
@pytest.mark.parametrize("mode", ["manual", "full"])
async def test_each_way_answers_as_it_says(tmp_path: Path, policy: str, found: list[str], mode: str) -> None:
    async with open_pair(tmp_path, mode) as (_, writer, reader):
        await reader.sync.sync_once()
        reader.unplug()
        await write(writer, "a")
        reader.plug_in()
        page = await reader.store(NOTES).query(policy=policy)
        assert [note.id for note in page] == found
        assert page.meta.source == "local"
        assert [step.node for step in page.meta.path if step.outcome == "ok"][-1] == "local-query"
        await trio.sleep(5)
        there = await reader.store(NOTES).exists("a")
        assert there == (policy != "cache-only" or mode == "full")


async def test_what_waits_here_stands_on_what_the_hub_has(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (_, writer, reader):
        await write(writer, "a")
        await reader.store(NOTES).insert(Note(id="mine"))
        page = await reader.store(NOTES).query(policy="network-only")
        assert [note.id for note in page] == ["a", "mine"]
        assert page.meta.completeness.state == "complete"
        assert {node.id: node.remote for node in reader.client.topology().nodes}["pull"], "it asks another machine"
        assert [step.node for step in page.meta.path] == ["pull", "local-query"]


@pytest.mark.parametrize("mode", ["manual", "full"])
async def test_without_the_hub_only_the_network_fails(tmp_path: Path, mode: str) -> None:
    async with open_pair(tmp_path, mode) as (_, writer, reader):
        await write(writer, "a")
        await reader.sync.sync_once()
        reader.unplug()
        await trio.sleep(30)
        for policy in ("cache-only", "cache-and-network"):
            page = await reader.store(NOTES).query(policy=policy)
            assert ([note.id for note in page], page.meta.completeness.state) == (["a"], "stale")
        with pytest.raises(TransportError):
            await reader.store(NOTES).query(policy="network-only")
        with pytest.raises(TransportError):
            async with reader.store(NOTES).live(policy="network-only"):
                pytest.fail("it has begun")


@pytest.mark.parametrize(("policy", "first"), [*zip(POLICIES, ([], ["a"], []), strict=True)])
async def test_a_live_query_begins_with_what_was_fetched(tmp_path: Path, policy: str, first: list[str]) -> None:
    async with open_pair(tmp_path) as (_, writer, reader):
        await write(writer, "a")
        async with reader.client.live(select(NOTES), policy=policy) as batches:
            batch = await anext(batches)
            rows = apply_batch((), batch)
            assert ([row.id for row in rows], batch.completeness.state) == (first, "complete" if first else "partial")
            with trio.move_on_after(5):
                async for batch in batches:
                    rows = apply_batch(rows, batch)
            assert [row.id for row in rows] == ([] if policy == "cache-only" else ["a"])


@pytest.mark.parametrize("mode", ["manual", "full"])
async def test_a_fetch_may_bring_its_scope_and_has_its_rows_then(tmp_path: Path, mode: str) -> None:
    board, nobody = (select(NOTES).where(col("board") == name) for name in ("elsewhere", "other"))
    async with (
        open_world(SCHEMA, tmp_path) as world,
        world.hub(),
        world.device("writer", stores=[NOTES], scopes=["elsewhere"]) as writer,
        world.device("reader", stores=[NOTES], mode=mode) as reader,
    ):
        await writer.store(NOTES).insert(Note(id="a", board="elsewhere"))
        await writer.sync.wait_idle()
        with pytest.raises(ScopeNotSubscribed):
            await reader.client.query(board, policy="network-only")
        page = await reader.client.query(board, policy="network-only", bring=True)
        assert ([note.id for note in page], page.meta.completeness.state) == (["a"], "complete")
        await reader.client.query(board, policy="network-only")
        async with reader.client.live(board, policy="network-only", bring=True) as batches:
            batch = await anext(batches)
            assert [note.id for note in apply_batch((), batch)] == ["a"]
        reader.unplug()
        with pytest.raises(TransportError):
            await reader.client.query(nobody, policy="network-only", bring=True)
        assert reader.sync.status.scope("other").brought, "it waits for the hub"
        reader.plug_in()
        reader.sync.poke()
        await reader.sync.pull(["other"])


@pytest.mark.paths
async def test_rows_that_do_not_replicate_are_fetched_from_the_hub(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (_, writer, reader):
        await writer.store(PRICES).insert(Note(id="tea"), policy="direct-remote", confirm="strict")
        assert len(await reader.store(PRICES).query(policy="cache-only")) == 0
        page = await reader.store(PRICES).query(policy="network-only")
        assert ([note.id for note in page], page.meta.source) == (["tea"], "remote")
        await writer.store(PRICES).insert(Note(id="milk"), policy="direct-remote", confirm="strict")
        assert len(await reader.store(PRICES).query(policy="cache-and-network")) == 1
        await trio.sleep(1)
        assert len(await reader.store(PRICES).query(policy="cache-only")) == 2


async def test_what_cannot_be_fetched_is_said(tmp_path: Path) -> None:
    async def number(reads: Reads) -> int:
        return await reads.count(select(NOTES))

    async with open_pair(tmp_path, "push-only") as (world, _, reader):
        with pytest.raises(ConfigurationError, match="push-only"):
            await reader.store(NOTES).query(policy="network-only")
        with pytest.raises(ConfigurationError, match="what is on this device"):
            reader.client.live(number, policy="network-only")
        with pytest.raises(UnknownPolicy, match="no write graph"):
            await reader.store(NOTES).insert(Note(id="b"), policy="cache-only")
        async with world.device("other", stores=[NOTES]) as other:
            with pytest.raises(ScopeNotSubscribed, match="elsewhere"):
                await other.store(NOTES).query(select(NOTES).where(col("board") == "elsewhere"), policy="network-only")
            other.sync.pause()
            other.unplug()
            with pytest.raises(ConnectFailed):
                await other.sync.pull(["main"])
            await other.sync.pull([])
