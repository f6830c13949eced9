"""Two versions of an application sync at one hub, each in its own words; once it is updated, a file has what the hub has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.client import open_client
from atoma.hub import AllowLoopback, open_hub
from atoma.ports import seeded_environment
from atoma.schema import Drop, Schema, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.scenarios.migrations.versions import Item1, Item4, Place, items, rows, settle

pytestmark = pytest.mark.virtual_time


async def test_each_version_reads_and_writes_in_its_own_words(tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with place.hub(4):
        async with place.device("old", 1) as old, place.device("new", 4) as new:
            await items(new).insert(Item4("1", "Lamp", Decimal("12.55"), "Ann", "Lee", "a note"))
            await items(old).insert(Item1("2", "Desk", 250, "Bob Moe", "red"))
            await items(old).insert(Item1("3", "Gone"))
            for device in (new, old, new):
                await settle(device)
            assert await rows(old) == {
                "1": Item1("1", "Lamp", 125, "Ann Lee"),  # what an int of tenths can say
                "2": Item1("2", "Desk", 250, "Bob Moe"),
                "3": Item1("3", "Gone"),
            }
            assert (await rows(new))["2"] == Item4("2", "Desk", Decimal(25), "Bob", "Moe")
            await items(old).update("1", {"name": "Lamps"})
            await items(new).update("2", {"first": "Eve"})
            await items(new).delete("3")
            for device in (new, old, new):
                await settle(device)
            wanted = {
                "1": Item4("1", "Lamps", Decimal("12.55"), "Ann", "Lee", "a note"),  # nobody has touched its price
                "2": Item4("2", "Desk", Decimal(25), "Eve", "Moe"),
            }
            assert await rows(new) == wanted
            assert await rows(old) == {
                "1": Item1("1", "Lamps", 125, "Ann Lee"),
                "2": Item1("2", "Desk", 250, "Eve Moe"),
            }
        async with place.device("old", 2) as old:  # updated, and still behind
            await settle(old)
            await items(old).update("2", {"title": "Desks"})
            await settle(old)
            assert (await rows(old))["1"].price == 125
        async with place.device("old", 4) as old:
            await settle(old)
            assert await rows(old) == {**wanted, "2": replace(wanted["2"], title="Desks")}
    assert place.table("old") == place.table("hub")


async def test_a_conflict_comes_in_the_words_of_the_device(tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with place.hub(4), place.device("old", 1) as old, place.device("new", 4) as new:
        await items(old).insert(Item1("1", "Lamp", 10, "Ann Lee"))
        await settle(old)
        await settle(new)
        old.sync.pause()
        await items(new).update("1", {"title": "theirs", "price": Decimal("2.50"), "last": "Moe"})
        await settle(new)
        await items(old).update("1", {"name": "mine"})
        old.sync.resume()
        await settle(old)
        (refused,) = await old.inbox.entries()
        assert (refused.op.values, refused.theirs) == (
            {"name": "mine"},
            {"name": "theirs", "price": 25, "person": "Ann Moe", "color": None},
        )
        await old.inbox.keep_mine(refused)
        await settle(old)
        await settle(new)
        assert await rows(new) == {"1": Item4("1", "mine", Decimal("2.50"), "Ann", "Moe")}


async def test_a_snapshot_comes_in_the_words_of_the_device(tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with place.hub(4), place.device("new", 4) as new:
        await items(new).insert_many([Item4(f"{at}", f"item {at}", Decimal(at)) for at in range(5)])
        await settle(new)
        async with place.device("old", 3) as old:
            await settle(old)
            assert [item.person for item in (await rows(old)).values()] == ["Ann Lee"] * 5


@dataclass(frozen=True)
class Before:
    id: str
    name: str = ""
    secret: str = ""


@dataclass(frozen=True)
class After:
    id: str
    name: str = ""


async def test_a_version_to_which_no_way_leads_back_waits_and_keeps_everything(tmp_path: Path) -> None:
    old, new = StoreSpec("things", Before), StoreSpec("things", After)
    after = Schema(new, version=2, steps={2: [Drop("things.secret")]})
    network = MemoryNetwork()

    def opened(schema: Schema, store: StoreSpec[Any]) -> Any:
        plugins: list[Any] = [
            LocalExecution(SQLiteEngine(tmp_path / "a.db")),
            Remote(MemoryTransport(network, site="a")),
            Sync([store], ["main"]),
        ]
        return open_client(schema, plugins=plugins, policy="sync-queue", environment=seeded_environment(schema.version))

    hub_store = SQLiteHubStore(tmp_path / "hub.db")
    async with open_hub(after, hub_store, verifier=AllowLoopback(), environment=seeded_environment(9)) as hub:
        async with network.listen(hub):
            async with opened(Schema(old), old) as client:
                await client.store(old).insert(Before("1", "kept", "given up"))
                await trio.sleep(60)
                status = client.sync.status
                assert (status.state, status.error.code, status.pending) == ("stalled", "SCHEMA_TOO_OLD", 1)
                assert "Drop(field='things.secret'" in status.error.message
            async with opened(after, new) as client:
                await settle(client)
                assert client.sync.status.pending == 0
                assert list(await client.store(new).query(policy="direct-local")) == [After("1", "kept")]
