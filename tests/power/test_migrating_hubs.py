"""A hub's file that is being migrated when the machine loses power is of one version or the other, and of the same history."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from atoma.contracts.codec import decode
from atoma.contracts.mutations import Op
from atoma.ports import seeded_environment
from atoma.testing.simulation.running import scratch
from atoma_stores.sqlite import SQLiteHubStore
from tests.power.disk import noted_disk
from tests.power.platter import Platter, Survivors, lay_down
from tests.power.promises import LOCK
from tests.scenarios.migrations.versions import VERSIONS, Item1, today
from tests.unit.hub.kit import Client, hub_on

VFS = "migrating-hub"
FILE = "hub/hub.db"
KINDS: tuple[Survivors, ...] = ("nothing", "everything", "some")
MADE = [Item1(f"{at:02}", f"item {at}", at, "Ann Lee") for at in range(12)]
LEFT = {item.id: item for item in MADE[2:]} | {"02": Item1("02", "renamed", 2, "Ann Lee")}


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that is possible: the syncs of a busy disk would take their time."""
    with TemporaryDirectory(prefix="atoma-migrating-", dir=scratch()) as name:
        yield Path(name)


def read(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute(sql).fetchall()


async def fill(path: Path) -> bytes:
    """A hub of the first version with rows, a log, tombstones, verdicts and answers; its epoch."""
    spec = VERSIONS[1].stores["items"]
    async with hub_on(SQLiteHubStore(path, vfs=VFS), schema=VERSIONS[1], environment=seeded_environment(1)) as hub:
        client = Client.of(hub, "ann")
        for item in MADE:
            id, image = spec.encode(item)
            assert (await client.do(Op("create", "items", id, image))).status == "applied"
        for op in (
            Op("delete", "items", "00"),
            Op("delete", "items", "01"),
            Op("patch", "items", "02", {"name": "renamed"}),
        ):
            assert (await client.do(op, base=len(MADE))).status == "applied"
        return hub.identity.epoch


async def test_a_cut_at_every_index_leaves_one_version_or_the_other(folder: Path) -> None:
    disk_folder = folder / "disk"
    (disk_folder / "hub").mkdir(parents=True)
    with noted_disk(VFS, disk_folder, beside=(LOCK,)) as disk:
        epoch = await fill(disk_folder / FILE)
        began = len(disk.notes)
        async with SQLiteHubStore(disk_folder / FILE, vfs=VFS).open_hub_database(VERSIONS[4], seeded_environment(2)):
            pass
    seen = {1: 0, 4: 0}
    platter, dice = Platter(disk.notes), random.Random(1)
    for at in range(began, len(disk.notes) + 1):
        platter.advance(at)
        for survivors in KINDS if at % 3 == 0 else KINDS[at % 3 : at % 3 + 1]:
            place = folder / f"{at}-{survivors}"
            lay_down(platter.cut("hub", dice, survivors), place)
            check(place / FILE, seen)
            if at % 25 == 0 or at == len(disk.notes):
                await goes_on(place / FILE, epoch)
    assert min(seen.values()) > 5, seen


def check(path: Path, seen: dict[int, int]) -> None:
    """Everything in the file is of the version that it says it is."""
    ((version,),) = read(path, "SELECT value FROM _atoma_meta WHERE key='schema_version'")
    seen[version] += 1
    assert read(path, "PRAGMA integrity_check") == [("ok",)]
    name = "name" if version == 1 else "title"
    assert read(path, f"SELECT count({name}) FROM items") == [(len(LEFT),)]
    images = [row[0] for row in read(path, "SELECT post FROM _atoma_hub_change WHERE post IS NOT NULL")]
    images += [row[0] for row in read(path, "SELECT last FROM _atoma_hub_tombstone")]
    assert len(images) == len(MADE) + 1 + 2
    assert all(name in decode(image, dict[str, object]) for image in images)


async def goes_on(path: Path, epoch: bytes) -> None:
    """The hub opens it in the newest version, in the history that it had, with every row and the log."""
    spec = VERSIONS[4].stores["items"]
    async with hub_on(path, schema=VERSIONS[4], environment=seeded_environment(3)) as hub:
        assert hub.identity.epoch == epoch
        client = Client.of(hub, "ben")
        rows = await client.query("items")
        assert {id: spec.decode(id, image) for id, image in rows.items()} == {
            id: today(item) for id, item in LEFT.items()
        }
        assert (await client.open()).scopes[0].head == len(MADE) + 3
        assert (await client.do(Op("create", "items", "new", spec.encode(today(Item1("new", "n", 1)))[1]))).seq == len(
            MADE
        ) + 4
