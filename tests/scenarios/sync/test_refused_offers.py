"""An offer that is refused says all the same that whoever makes it did not see the row deleted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atoma.errors import RemoteError
from atoma.hub import AllowLoopback, Hub, open_hub
from tests.scenarios.sync.conftest import World
from tests.scenarios.sync.kit import back_up_with, inbox, open_restored, put_in, unplug
from tests.unit.hub.conftest import STORES
from tests.unit.hub.homes import Home, home_of


def small(request: Any) -> Any:
    if sum(len(mutation.body) for mutation in request.mutations) > 2_000:
        raise RemoteError("request entity too large", remote_code="TOO_LARGE")
    return request


@pytest.mark.virtual_time
@pytest.mark.paths
@pytest.mark.parametrize("code", ["CONSTRAINT", "TOO_LARGE"])
async def test_a_row_that_an_older_witness_brought_stays_where_a_better_ones_is_refused(world: Any, code: str) -> None:
    """The hub and every device lost it: the better witness had said that everything is in, and the row was not from it."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await back_up_with(world, a, b)
        labels = a.store(world.LABELS)
        async with world.open_hub():
            await labels.insert(world.Note(id="1", text="older"))
            for device in (a, b):
                await put_in(device)
            await unplug(b)
            await labels.update("1", text="taken", color="x" * (3_000 if code == "TOO_LARGE" else 1))
            await a.settle()
            await unplug(a)
        async with open_restored(world):
            if code == "CONSTRAINT":
                async with world.open_device("other") as other:
                    await other.store(world.LABELS).insert(world.Note(id="2", text="taken"))
                    await other.settle()
            else:
                a.wire.tamper["push request"] = small
            for device in (b, a, b):
                await put_in(device)
            assert await inbox(a) == [(code, "1")] and await inbox(b) == []
            for device in (a, b):
                assert (await device.rows(world.LABELS))["1"].text == "older"


async def part(world: Any, a: Any, b: Any, c: Any) -> None:
    """Two rows come to all, and then ``b`` and ``c`` leave one after the other: each has seen another version of the one than ``a``,
    and neither has seen the other one deleted."""
    labels = a.store(world.LABELS)
    await labels.insert(world.Note(id="1", text="older"))
    await labels.insert(world.Note(id="2", text="deleted"))
    for device in (a, b, c):
        await put_in(device)
    await unplug(b)
    await labels.update("1", text="between")
    for device in (a, c):
        await put_in(device)
    await unplug(c)
    await labels.update("1", text="taken")
    await labels.delete("2")
    await a.settle()
    await unplug(a)


@pytest.mark.virtual_time
@pytest.mark.paths
@pytest.mark.parametrize("order", ["abc", "acb", "bac", "bca", "cab", "cba"])
async def test_the_best_offer_that_is_not_refused_is_taken_in_any_order(world: Any, order: str) -> None:
    """The refused one is in an inbox, and not at the hub: where it came first, older ones were passed over, and the row was nowhere."""
    names = {name: world.open_device(name, down=True) for name in "abc"}
    async with names["a"] as a, names["b"] as b, names["c"] as c:
        devices = {"a": a, "b": b, "c": c}
        await back_up_with(world, a, b, c)
        async with world.open_hub():
            await part(world, a, b, c)
        async with open_restored(world):
            async with world.open_device("other") as other:
                await other.store(world.LABELS).insert(world.Note(id="3", text="taken"))
                await other.settle()
        for name in order:
            async with world.open_hub():
                await put_in(devices[name])
                await unplug(devices[name])
        async with world.open_hub():
            for device in (a, b, c):
                await put_in(device)
                assert {id: row.text for id, row in (await device.rows(world.LABELS)).items()} == {
                    "1": "between",
                    "3": "taken",
                }
                assert await inbox(device) == ([("CONSTRAINT", "1")] if device is a else [])


@dataclass
class WorldOfHome(World):
    """The same, with the hub in a home."""

    home: Home | None = None

    @asynccontextmanager
    async def open_hub(self, **options: Any) -> AsyncGenerator[Hub]:
        assert self.home is not None
        store = self.home.store(self.hub_file.removesuffix(".db"))
        async with open_hub(self.schema, store, verifier=AllowLoopback(), **options) as hub:
            self.hub = hub
            yield hub


@pytest.mark.xdist_group("machine")
@pytest.mark.parametrize("kind", STORES)
async def test_a_repair_that_began_at_a_hub_of_before_goes_on(kind: str, tmp_path: Path) -> None:
    """What offers have left there is not told in full; from then on it is, and every offer finds its place."""
    with home_of(kind, tmp_path) as home:
        world = WorldOfHome(tmp_path, home=home)
        async with (
            world.open_device("a", down=True) as a,
            world.open_device("b", down=True) as b,
            world.open_device("c", down=True) as c,
        ):
            async with world.open_hub():
                for device in (a, b, c):
                    await put_in(device)
                await unplug(a, b, c)
            home.copy("hub", "backup")
            async with world.open_hub():
                await put_in(a)
                await part(world, a, b, c)
            async with open_restored(world):
                async with world.open_device("other") as other:
                    await other.store(world.LABELS).insert(world.Note(id="3", text="taken"))
                    await other.settle()
                await put_in(b)
                await unplug(b)
            for column in ("refused", "survivor"):
                home.ask(f"ALTER TABLE {{trace}} DROP COLUMN {column}", "backup")
            assert home.ask("SELECT count(*) FROM {trace}", "backup") != [(0,)]
            async with world.open_hub():
                for device in (a, c, a, b, c):
                    await put_in(device)
                    assert await inbox(device) == ([("CONSTRAINT", "1")] if device is a else [])
                for device in (a, b, c):
                    rows = await device.rows(world.LABELS)
                    assert {id: row.text for id, row in rows.items()} == {"1": "between", "3": "taken"}
