"""Devices and a hub whose files are from before columns had forms: they sync by value, whichever is opened first."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.client import Client, open_client
from atoma.hub import AllowLoopback, Hub, open_hub
from atoma.ports import seeded_environment
from atoma.schema import Schema, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.unit.stores.older import make_older
from tests.unit.stores.test_forms import Count, Name, Price, Thing, some_things

pytestmark = pytest.mark.virtual_time

THINGS = StoreSpec("things", Thing, conflict="server_wins")
SCHEMA = Schema(THINGS)


class Place:
    """A folder with a hub and devices, and the network between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = MemoryNetwork()
        self.openings = 0

    def _environment(self) -> Any:
        self.openings += 1
        return seeded_environment(self.openings)

    @asynccontextmanager
    async def hub(self) -> AsyncGenerator[Hub]:
        store = SQLiteHubStore(self.folder / "hub.db")
        async with open_hub(SCHEMA, store, verifier=AllowLoopback(), environment=self._environment()) as hub:
            async with self.network.listen(hub):
                yield hub

    @asynccontextmanager
    async def device(self, name: str, *, syncs: bool = True) -> AsyncGenerator[Client]:
        plugins: list[Any] = [
            LocalExecution(SQLiteEngine(self.folder / f"{name}.db")),
            Remote(MemoryTransport(self.network, site=name)),
            *([Sync([THINGS], ["main"])] if syncs else []),
        ]
        policy = "sync-queue" if syncs else "direct-remote"
        async with open_client(SCHEMA, plugins=plugins, policy=policy, environment=self._environment()) as client:
            yield client

    def columns(self, name: str) -> list[tuple[Any, ...]]:
        """The rows of a file as they are stored."""
        names = ", ".join(f'"{column}"' for column in THINGS.columns)
        with closing(sqlite3.connect(self.folder / f"{name}.db")) as file:
            return file.execute(f"SELECT {names} FROM things ORDER BY id").fetchall()


async def settle(client: Client) -> None:
    with trio.fail_after(600):
        await client.sync.wait_idle()


async def rows(client: Client, policy: str = "direct-local") -> dict[str, Thing]:
    return {item.id: item for item in await client.store(THINGS).query(policy=policy)}


@pytest.mark.paths
@pytest.mark.parametrize("first", ["hub", "ann", "together"])
async def test_files_of_before_end_equal_whichever_is_opened_first(tmp_path: Path, first: str) -> None:
    place = Place(tmp_path)
    wanted = {thing.id: thing for thing in some_things()}
    async with place.hub():
        async with place.device("ann") as ann, place.device("ben") as ben:
            await ann.store(THINGS).insert_many(list(wanted.values()))
            await settle(ann)
            await settle(ben)
            ann.sync.pause()
            things = ben.store(THINGS)
            await things.update("00", name=Name('"b"'), price=Decimal("2.50"))
            await things.update("01", price=Decimal("7.0"), lasts=timedelta(days=3))
            await things.update("02", count=Count(9))
            await things.update("03", name=Name("ben's"))
            await things.delete("04")
            await settle(ben)
            things = ann.store(THINGS)
            await things.update("00", lasts=timedelta(hours=-1), named_price=Price(Decimal("3.50")))  # other fields
            await things.update("01", price=Decimal(7), lasts=timedelta(hours=72))  # the same, written otherwise
            await things.update("03", name=Name('"ann\'s"'))  # refused
            await things.update("05", alarm=time(6, 30), name=Name('"'))
            await things.insert(replace(wanted["06"], id="new", name=Name('"new"'), price=Decimal("0.10")))
            shown = await rows(ann)
    for name in ("hub", "ann", "ben"):
        make_older(tmp_path / f"{name}.db", SCHEMA)
    if first == "ann":
        async with place.device("ann") as ann:
            assert await rows(ann) == shown
    elif first == "hub":
        async with place.hub():
            pass
    wanted["00"] = replace(
        wanted["00"],
        name=Name('"b"'),
        price=Decimal("2.5"),
        lasts=timedelta(hours=-1),
        named_price=Price(Decimal("3.5")),
    )
    wanted["01"] = replace(wanted["01"], price=Decimal(7), lasts=timedelta(days=3))
    wanted["02"] = replace(wanted["02"], count=Count(9))
    wanted["03"] = replace(wanted["03"], name=Name("ben's"))
    del wanted["04"]
    wanted["05"] = replace(wanted["05"], alarm=time(6, 30), name=Name('"'))
    wanted["new"] = replace(wanted["06"], id="new", name=Name('"new"'), price=Decimal("0.1"))
    async with place.hub(), place.device("ann") as ann, place.device("ben") as ben:
        await settle(ann)
        await settle(ben)
        (refused,) = await ann.inbox.entries()
        assert (refused.id, refused.op.values) == ("03", {"name": '"ann\'s"'})
        assert [None if image is None else image["name"] for image in (refused.base, refused.mine, refused.theirs)] == [
            '"', '"ann\'s"', "ben's",
        ]  # fmt: skip
        assert await rows(ann) == await rows(ben) == await rows(ann, "direct-remote") == wanted
        await ann.inbox.keep_mine(refused)
        await settle(ann)
        await settle(ben)
        wanted["03"] = replace(wanted["03"], name=Name('"ann\'s"'))
        assert await rows(ann) == await rows(ben) == await rows(ann, "direct-remote") == wanted
        async with place.device("direct", syncs=False) as direct:
            written = await direct.store(THINGS).upsert(replace(wanted["02"], name=Name('"x"')), confirm="strict")
            assert written.value == replace(wanted["02"], name=Name('"x"'))
        async with place.device("new") as new:
            await settle(new)
            assert await rows(new) == {**wanted, "02": written.value}
        await settle(ann)
        await settle(ben)
    assert place.columns("ann") == place.columns("ben") == place.columns("new") == place.columns("hub")
