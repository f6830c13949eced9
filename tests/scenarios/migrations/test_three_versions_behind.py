"""A device three versions behind, with edits that wait, opens with the newest code, keeps everything and syncs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.client import Client
from tests.scenarios.migrations.versions import Item1, Item4, Place, items, rows, settle, today

pytestmark = pytest.mark.virtual_time
EDITS = 200


async def begin(place: Place) -> dict[str, Item1]:
    """A hub and two devices of the first version, and edits that wait on one of them; its rows as they are shown."""
    async with place.hub(1), place.device("ann", 1) as ann, place.device("ben", 1) as ben:
        await items(ann).insert_many([Item1(f"{at:03}", f"item {at}", at, f"Ann{at} Lee") for at in range(60)])
        await settle(ann)
        await settle(ben)
        ann.sync.pause()
        await items(ben).update("000", {"name": "ben's"})  # meets a rename that waits: the hub's rule refuses ann's
        await items(ben).update("001", {"price": 777})  # another field than ann's
        await items(ben).delete("059")
        await settle(ben)
        await _edit(ann)
        await trio.sleep(1)
        assert ann.sync.status.pending == EDITS
        return await rows(ann)


async def _edit(ann: Client) -> None:
    await items(ann).update("000", {"name": "ann's"})
    await items(ann).update("001", {"person": "Eve Moe"})
    for at in range(2, 50):
        await items(ann).update(f"{at:03}", {"name": f"renamed {at}"})
        await items(ann).update(f"{at:03}", {"price": 1000 + at})
        await items(ann).update(f"{at:03}", {"color": "red", "person": f"Bob{at} Lee"})
    for at in range(60, 110):
        await items(ann).insert(Item1(f"{at:03}", f"new {at}", at * 3, color="blue"))
    for at in range(50, 54):
        await items(ann).delete(f"{at:03}")


def expected(shown: dict[str, Item1]) -> dict[str, Item4]:
    return {id: today(item) for id, item in shown.items()}


async def check(place: Place, shown: dict[str, Item1], device: Client) -> None:
    """Everything has come to the hub and to a device that is new."""
    await settle(device)
    wanted = expected(shown)
    wanted["000"] = replace(wanted["000"], title="ben's")
    wanted["001"] = replace(wanted["001"], price=today(Item1("", "", 777)).price)
    del wanted["059"]
    (refused,) = await device.inbox.entries()
    assert (refused.id, refused.op.values) == ("000", {"title": "ann's"})
    assert [image and image["title"] for image in (refused.base, refused.mine, refused.theirs)] == [
        "item 0", "ann's", "ben's",
    ]  # fmt: skip
    async with place.device("new", 4) as new:
        await settle(new)
        assert await rows(new) == wanted
    assert await rows(device) == wanted
    await device.inbox.keep_mine(refused)
    await items(device).update("002", {"note": "written today"})
    await settle(device)
    wanted["000"] = replace(wanted["000"], title="ann's")
    wanted["002"] = replace(wanted["002"], note="written today")
    assert await rows(device) == wanted


async def test_the_hub_was_migrated_before(tmp_path: Path) -> None:
    place = Place(tmp_path)
    shown = await begin(place)
    async with place.hub(4), place.device("ann", 4) as ann:
        await check(place, shown, ann)
    assert place.table("ann") == place.table("hub")
    assert place.count("ann", "_atoma_shadow") == place.count("ann", "_atoma_quarantine") == 0
    assert (tmp_path / "ann.db.version-1").exists()
    assert (tmp_path / "hub.db.version-1").exists()


async def test_the_hub_is_migrated_after(tmp_path: Path) -> None:
    place = Place(tmp_path)
    shown = await begin(place)
    async with place.device("ann", 4) as ann:  # nobody answers
        assert await rows(ann) == expected(shown)
        assert ann.sync.status.pending == EDITS
    async with place.hub(1), place.device("ann", 4) as ann:
        await trio.sleep(120)
        assert await rows(ann) == expected(shown)
        assert ann.sync.status.pending == EDITS
    async with place.hub(4), place.device("ann", 4) as ann:
        await check(place, shown, ann)
    assert place.table("ann") == place.table("hub")


async def test_the_hub_is_never_migrated(tmp_path: Path) -> None:
    place = Place(tmp_path)
    shown = await begin(place)
    wanted = expected(shown)
    async with place.hub(1), place.device("ann", 4) as ann:
        await trio.sleep(120)
        await items(ann).update("002", {"note": "written today"})
        await items(ann).insert(Item4("zzz", "written today"))
        wanted["002"] = replace(wanted["002"], note="written today")
        wanted["zzz"] = Item4("zzz", "written today")
        assert await rows(ann) == wanted
        await trio.sleep(1)
        status: Any = ann.sync.status
        assert (status.state, status.pending, status.error.code) == ("stalled", EDITS + 2, "SCHEMA_TOO_NEW")
    async with place.device("ann", 4) as ann:
        assert await rows(ann) == wanted
        assert ann.sync.status.pending == EDITS + 2
