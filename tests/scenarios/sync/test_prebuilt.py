"""A file that is shipped with rows and cursors: each copy is somebody of its own, and syncs the difference only."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

from atoma import Client, Sync, open_client
from atoma.contracts.sync import PullReply
from atoma.errors import ConfigurationError, RemoteError, StoreError
from atoma.plugins import Plugin
from atoma.sync.failures import WrongHub
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine, make_prebuilt
from tests.scenarios.sync.conftest import SCHEMA, SYNCED, Wire
from tests.scenarios.sync.test_two_devices import both_settle

pytestmark = pytest.mark.virtual_time

ROWS = 300


class Counting(Wire):
    """Counts the rows that come.

    Attributes:
        rows: How many have come.
    """

    def __init__(self, world: Any, principal: str) -> None:
        super().__init__(world.running_hub, principal)
        self.rows = 0
        self.tamper["pull"] = self._look

    def _look(self, reply: PullReply) -> PullReply:
        self.rows += sum(len(each.rows) + len(each.deletes) for each in reply.stores)
        return reply


@asynccontextmanager
async def built(world: Any) -> AsyncGenerator[Path]:
    """The file that is shipped, made on a device that has things of its own beside the rows."""
    shipped = world.folder / "shipped.db"
    async with world.open_device("builder", history=History()) as builder:
        cards = builder.store(world.CARDS)
        await cards.insert_many([world.Card(id=f"{number:03}", title="shipped") for number in range(ROWS)])
        await cards.insert(world.Card(id="gone", title="canary of the builder"))
        await cards.delete("gone")
        await builder.settle()
    make_prebuilt(world.folder / "builder.db", shipped)
    yield shipped


@asynccontextmanager
async def installed(
    world: Any, name: str, shipped: Path, *, principal: str = "ann"
) -> AsyncGenerator[tuple[Client, Counting]]:
    wire = Counting(world, principal)
    engine = SQLiteEngine(world.folder / f"{name}.db", prebuilt=shipped)
    plugins: list[Plugin] = [LocalExecution(engine), wire, Sync(SYNCED, ["main"])]
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue", environment=world.environment(name)) as client:
        yield client, wire


@pytest.mark.paths
async def test_the_first_sync_of_a_copy_is_the_difference_only(world: Any) -> None:
    async with world.open_hub(), built(world) as shipped, world.open_device("author") as author:
        await author.settle()
        cards = author.store(world.CARDS)
        await cards.update_many({f"{number:03}": {"title": "newer"} for number in range(4)})
        await cards.insert(world.Card(id="new"))
        await cards.delete("010")
        await author.settle()
        async with installed(world, "phone", shipped) as (client, wire):
            assert await client.store(world.CARDS).count() == ROWS, "they are there before there is a connection"
            await client.sync.wait_idle()
            assert wire.rows == 6
            assert wire.count("snapshot") == 0
            assert await client.store(world.CARDS).count() == ROWS
            assert {card.id: card for card in await client.store(world.CARDS).query()} == await author.rows()


async def test_each_copy_is_somebody_of_its_own(world: Any) -> None:
    async with world.open_hub(), built(world) as shipped:
        async with (
            installed(world, "one", shipped) as (one, _),
            installed(world, "two", shipped, principal="bob") as (two, _),
        ):
            for client, title in ((one, "of one"), (two, "of two")):
                await client.store(world.CARDS).insert(world.Card(id=title, title=title))
            with trio.fail_after(600):
                for client in (one, two, one):
                    await client.sync.wait_idle()
            assert await one.store(world.CARDS).get("of two") is not None
            assert await two.store(world.CARDS).get("of one") is not None
            assert await one.inbox.entries() == await two.inbox.entries() == []
            assert await one.sync.repairs() == await two.sync.repairs() == []
            assert (one.sync.status.principal, two.sync.status.principal) == ("ann", "bob")
        names = {identity(world.folder / f"{name}.db") for name in ("one", "two", "builder")}
        assert len(names) == 3
        async with installed(world, "one", shipped) as (one, wire):
            assert await one.store(world.CARDS).get("of one") is not None, "the file goes on, it does not begin anew"
            await one.sync.wait_idle()
            assert wire.rows == 0


def identity(path: Path) -> object:
    with closing(apsw.Connection(str(path))) as connection:
        return connection.execute("SELECT value FROM _atoma_meta WHERE key='identity'").get


async def test_nothing_of_the_builder_is_in_the_file(world: Any) -> None:
    async with world.open_hub(), built(world) as shipped:
        assert b"canary of the builder" not in shipped.read_bytes()
        assert [file.name for file in world.folder.glob("shipped*")] == ["shipped.db"]
        with closing(apsw.Connection(str(shipped))) as connection:
            for table in ("_atoma_unit", "_atoma_inbox", "_atoma_history", "_atoma_undo", "_atoma_pending"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


@pytest.mark.paths
async def test_a_copy_belongs_to_the_hub_it_was_made_for_and_then_to_its_first_user(world: Any) -> None:
    async with world.open_hub(), built(world) as shipped:
        async with installed(world, "phone", shipped) as (client, _):
            await client.sync.wait_idle()
        async with installed(world, "phone", shipped, principal="bob") as (client, _):
            with pytest.raises(WrongHub, match="belongs to 'ann'"):
                await client.sync.sync_once()
    world.hub_file = "other.db"
    async with world.open_hub(), installed(world, "tablet", shipped) as (client, _):
        with pytest.raises(RemoteError, match="belongs to another hub"):
            await client.sync.sync_once()
        assert await client.store(world.CARDS).count() == ROWS


async def test_a_file_with_writes_that_wait_is_not_shipped(world: Any) -> None:
    async with world.open_device("builder", down=True) as builder:
        await builder.store(world.CARDS).insert(world.Card(id="1"))
    with pytest.raises(StoreError, match="1 writes wait"):
        make_prebuilt(world.folder / "builder.db", world.folder / "shipped.db")
    assert list(world.folder.glob("shipped*")) == []


async def test_wrong_files_are_refused(world: Any, tmp_path: Path) -> None:
    async with world.open_hub(), built(world) as shipped, world.open_device("a") as a:
        await both_settle(a)
        with pytest.raises(ConfigurationError, match="there is a file already"):
            make_prebuilt(world.folder / "a.db", shipped)
        with pytest.raises(ConfigurationError, match="no such file"):
            make_prebuilt(tmp_path / "missing.db", tmp_path / "x.db")
        for wrong, message in (("a.db", "a device's own file"), ("missing.db", "no such file")):
            with pytest.raises(ConfigurationError, match=message):
                async with installed(world, "phone", world.folder / wrong):
                    pass
            assert list(world.folder.glob("phone*")) == []
    with pytest.raises(ConfigurationError, match="begins empty"):
        SQLiteEngine(":memory:", prebuilt=shipped)
