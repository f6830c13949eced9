"""``atoma migrate`` does what opening a file would do, and with ``--plan`` only says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoma.errors import StoreBusy
from atoma_stores.sqlite.migration_files import migrate_file
from tests.scenarios.cli.kit import atoma
from tests.scenarios.migrations.versions import VERSIONS, Item1, Place, items, rows, settle, today

pytestmark = pytest.mark.virtual_time
SCHEMA = "tests.scenarios.migrations.versions:NEWEST"


async def begin(place: Place) -> list[Item1]:
    made = [Item1(f"{at}", f"item {at}", at) for at in range(7)]
    async with place.hub(1), place.device("ann", 1) as ann:
        await items(ann).insert_many(made)
        await settle(ann)
        ann.sync.pause()
        await items(ann).update("1", {"name": "waits"})
        made[1] = Item1("1", "waits", 1)
    return made


async def test_a_plan_changes_nothing_and_says_what_comes(tmp_path: Path) -> None:
    place = Place(tmp_path)
    made = await begin(place)
    path = tmp_path / "ann.db"
    before = path.read_bytes()
    told = atoma("migrate", str(path), "--schema", SCHEMA, "--plan")
    assert told.code == 0
    assert path.read_bytes() == before and not list(tmp_path.glob("*version*"))
    for words in (
        "a device's file, version 1 → 4",
        "to 2: Rename(field='items.name', to='title')",
        "rows of items",
        "writes that wait",
        "Nothing was changed.",
    ):
        assert words in told.out
    done = atoma("migrate", str(path), "--schema", SCHEMA, "--json")
    found = json.loads(done.out)
    assert (found["since"], found["version"], found["rows"], found["pending"], found["copy"]) == (
        1, 4, {"items": 7}, 1, f"{path}.version-1"
    )  # fmt: skip
    async with place.hub(4), place.device("ann", 4) as ann:
        assert await rows(ann) == {item.id: today(item) for item in made}
        await settle(ann)
    assert place.table("ann") == place.table("hub")


async def test_a_hub_is_migrated_while_it_stands_still(tmp_path: Path) -> None:
    place = Place(tmp_path)
    made = await begin(place)
    path = str(tmp_path / "hub.db")
    async with place.hub(1):
        with pytest.raises(StoreBusy):
            migrate_file(path, VERSIONS[4], lambda *_: None, plan=True)
    told = atoma("migrate", path, "--schema", SCHEMA)
    assert (told.code, "a hub's file, version 1 → 4" in told.out, "Done." in told.out) == (0, True, True)
    assert "version 4 → 4" in atoma("migrate", path, "--schema", SCHEMA, "--plan").out
    async with place.hub(4), place.device("ann", 4) as ann:
        await settle(ann)
        assert await rows(ann) == {item.id: today(item) for item in made}


async def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await begin(place)
    path = str(tmp_path / "ann.db")
    for schema, words in (
        ("tests.scenarios.migrations.versions:UNEXPLAINED", 'Rename("items.name", "title")'),
        ("tests.scenarios.migrations.versions:Place", "not a Schema"),
    ):
        told = atoma("migrate", path, "--schema", schema)
        assert told.code == 1
        assert words in told.err
    assert atoma("migrate", str(tmp_path / "none.db"), "--schema", SCHEMA).code == 1
