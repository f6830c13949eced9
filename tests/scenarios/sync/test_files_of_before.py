"""A device's file of an earlier version, which has no proof of what it has seen, and a hub that was restored."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma_stores.sqlite._internals import CLIENT_ADDITIONS
from tests.scenarios.sync.conftest import World
from tests.scenarios.sync.kit import back_up_with, inbox, put_in

pytestmark = pytest.mark.virtual_time


def make_earlier(path: Path) -> None:
    """Take from a closed file what files of earlier versions lack."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, column in CLIENT_ADDITIONS:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column.split()[0]}")


async def lose(world: World) -> None:
    """A device with rows of before the backup and since, with a write that was accepted and not paged, and with two that wait."""
    async with world.open_device("a", down=True) as a:
        cards = a.store(world.CARDS)
        await cards.insert(world.Card(id="1", title="backup"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await cards.update("1", title="lost")
            await cards.insert(world.Card(id="2"))
            await a.settle()
            a.wire.hold["pull"] = trio.Event()
            accepted = await cards.insert(world.Card(id="accepted"))
            with trio.fail_after(10):
                await accepted.accepted()
            a.wire.cut()
        await cards.insert(world.Card(id="waits"))
        await cards.update("2", lane="done")


async def titles(device: Any) -> dict[str, tuple[str, str]]:
    return {id: (card.title, card.lane) for id, card in (await device.rows()).items()}


async def test_a_file_of_before_sends_what_waits_and_keeps_the_rest_for_the_operator(world: World) -> None:
    await lose(world)
    make_earlier(world.folder / "a.db")
    world.hub_file = "backup.db"
    async with world.open_hub() as hub, world.open_device("a", down=True) as a, world.open_device("c") as c:
        (lost,) = {place.cursor.epoch for place in [await a.inspect(lambda tx: tx.scopes.read("main"))]}
        await hub.new_epoch()
        await put_in(a)
        assert {(row.id, row.reason) for row in await a.sync.lost.entries()} == {("1", "unproven"), ("2", "unproven")}
        assert await inbox(a) == [("NOT_FOUND", "2")], "it builds on a row that the hub has not"
        here = {"1": ("backup", "todo"), "accepted": ("", "todo"), "waits": ("", "todo")}
        assert await titles(a) == here
        (report,) = await a.sync.repairs()
        assert (report.cause, report.offered, report.lost) == ("HUB_LOST_DATA", 0, 2)
        await hub.accept_unproven(lost)
        a.wire.cut()
        await put_in(a)
        await c.settle()
        assert await a.sync.lost.entries() == [] and await a.outbox() == []
        assert await titles(a) == await titles(c) == {**here, "1": ("lost", "todo"), "2": ("", "todo")}


@pytest.mark.paths
async def test_a_file_of_before_that_has_followed_the_hub_since_has_proofs(world: World) -> None:
    async with world.open_device("a", down=True) as a:
        await a.store(world.CARDS).insert(world.Card(id="1", title="backup"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).update("1", title="lost")
            await a.settle()
            a.wire.cut()
    make_earlier(world.folder / "a.db")
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()  # the hub has nothing new, and proves what it had
    world.hub_file = "backup.db"
    async with world.open_hub() as hub, world.open_device("a", down=True) as a:
        await hub.new_epoch()
        await put_in(a)
        assert await a.sync.lost.entries() == [] == await inbox(a)
        assert await titles(a) == {"1": ("lost", "todo")}


async def test_a_number_that_was_refused_in_an_earlier_life_takes_nothing_along_that_builds_on_it_now(
    world: World,
) -> None:
    """Its inbox does not say in which life of the file a number was refused; that one waits in the outbox does."""
    async with world.open_hub() as hub, world.open_device("c") as c:
        await c.store(world.CARDS).insert(world.Card(id="1", title="c's"))
        await c.settle()
        async with world.open_device("a", down=True) as a:
            cards = a.store(world.CARDS)
            await cards.insert(world.Card(id="in the first life"))
            await cards.insert(world.Card(id="1", title="refused"))
            await put_in(a)
            assert await inbox(a) == [("ALREADY_EXISTS", "1")]
            a.wire.cut()
            await hub.compact(client_days=-1)
            await cards.insert(world.Card(id="in the second life"))
            await put_in(a)
            a.wire.cut()
            await cards.update("1", title="a's")
            await cards.update("1", lane="done")
        make_earlier(world.folder / "a.db")
        await hub.compact(client_days=-1)
        async with world.open_device("a") as a:
            await a.settle()
            assert await inbox(a) == [("ALREADY_EXISTS", "1")]
            assert (await a.rows())["1"] == world.Card(id="1", title="a's", lane="done")
