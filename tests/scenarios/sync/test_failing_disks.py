"""The disk of a device fails at one I/O of a story, now at this one, now at another: what was answered is there, and everything ends whole."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from typing import Any

import pytest
import trio

from atoma.errors import StoreError
from atoma_stores.sqlite.faults import DiskFailure, Operation, fault_vfs
from tests.scenarios.sync.kit import inbox, put_in, unplug
from tests.scenarios.sync.ways import device_with

pytestmark = pytest.mark.virtual_time
STEP = {"write": 11, "sync": 2}
"""At every so many of its writes, or syncs."""
FILES = ("hub.db", "a.db")


async def prepare(world: Any) -> None:
    """The device has a row, of which the hub has a later version, and another one that is new to it."""
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b", down=True) as b:
        await a.store(world.CARDS).insert_many([world.Card(id="there"), world.Card(id="gone")])
        await put_in(a)
        await put_in(b)
        await unplug(a)
        await b.store(world.CARDS).update("there", lane="done")
        await b.store(world.CARDS).insert(world.Card(id="foreign"))
        await put_in(b)
    for name in FILES:
        shutil.copy(world.folder / name, world.folder / f"kept-{name}")


async def live(world: Any, a: Any) -> dict[str, set[str]]:
    """Write, sync; which titles each row may have in the end: what was answered last, or what was not answered behind that."""
    cards = a.store(world.CARDS)
    may: dict[str, set[str]] = {"there": {""}, "gone": {""}, "new": {"absent"}, "left": {"absent"}, "right": {"absent"}}

    async def write(outcomes: dict[str, str], call: Any) -> None:
        try:
            await call()
        except StoreError:
            for row, title in outcomes.items():
                may[row].add(title)
        else:
            may.update({row: {title} for row, title in outcomes.items()})

    async def both() -> None:
        await cards.insert_many([world.Card(id="left", title="x"), world.Card(id="right", title="x")], atomic=True)

    await write({"new": "1"}, lambda: cards.insert(world.Card(id="new", title="1")))
    await write({"there": "2"}, lambda: cards.update("there", title="2"))
    await write({"left": "x", "right": "x"}, both)
    await write({"gone": "absent"}, lambda: cards.delete("gone"))
    a.wire.repair()
    a.sync.poke()
    with trio.move_on_after(300):
        await a.sync.wait_idle()
    await write({"there": "3"}, lambda: cards.update("there", title="3"))
    return may


def check_file(world: Any) -> None:
    """The file is whole, and each pending write has its row."""
    with closing(sqlite3.connect(world.folder / "a.db")) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("SELECT count(*) FROM cards WHERE id IN ('left', 'right')").fetchone()[0] in (0, 2)


@pytest.mark.parametrize(("operation", "failure"), [("write", "full"), ("write", "io"), ("sync", "io")])
async def test_a_disk_that_fails_once_loses_nothing_that_was_answered(
    world: Any, operation: Operation, failure: DiskFailure
) -> None:
    await prepare(world)
    name, at, reached = f"failing-{operation}-{failure}", 0, True
    with fault_vfs(name) as plan:
        while reached:
            for file in FILES:
                for suffix in ("-wal", "-shm"):
                    (world.folder / f"{file}{suffix}").unlink(missing_ok=True)
                shutil.copy(world.folder / f"kept-{file}", world.folder / file)
            (world.folder / "hub.db.hub-lock").unlink(missing_ok=True)
            async with world.open_hub():
                may: dict[str, set[str]] = {}
                with suppress(StoreError):
                    async with device_with(world, vfs=name) as a:
                        a.wire.cut()
                        plan.fail(operation, failure, skip=at, once=True)
                        may = await live(world, a)
                reached = plan.operation is None
                plan.heal()
                check_file(world)
                async with world.open_device("a") as a, world.open_device(f"c{at}") as c:
                    for device in (a, c):
                        await put_in(device)
                    rows = await a.rows()
                    assert rows == await c.rows()
                    assert await inbox(a) == []
                    assert {row.lane for row in rows.values() if row.id in ("there", "foreign")} == {"done", "todo"}
                    found = {row: rows[row].title if row in rows else "absent" for row in may}
                    assert all(found[row] in titles for row, titles in may.items()), (at, found, may)
            at += STEP[operation]
            assert at < 500
    assert at > 3 * STEP[operation]
