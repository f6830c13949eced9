"""An offer that is refused says all the same that whoever makes it did not see the row deleted."""

from __future__ import annotations

from typing import Any

import pytest

from atoma.errors import RemoteError
from tests.scenarios.sync.kit import back_up_with, inbox, open_restored, put_in, unplug

pytestmark = pytest.mark.virtual_time


def small(request: Any) -> Any:
    if sum(len(mutation.body) for mutation in request.mutations) > 2_000:
        raise RemoteError("request entity too large", remote_code="TOO_LARGE")
    return request


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


@pytest.mark.paths
@pytest.mark.parametrize("order", ["abc", "acb", "bac", "bca", "cab", "cba"])
async def test_the_best_offer_that_is_not_refused_is_taken_in_any_order(world: Any, order: str) -> None:
    """The refused one is in an inbox, and not at the hub: where it came first, older ones were passed over, and the row was nowhere."""
    names = {name: world.open_device(name, down=True) for name in "abc"}
    async with names["a"] as a, names["b"] as b, names["c"] as c:
        devices = {"a": a, "b": b, "c": c}
        await back_up_with(world, a, b, c)
        labels = a.store(world.LABELS)
        async with world.open_hub():
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
