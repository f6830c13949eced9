"""The kit for authors of applications: worlds of devices and a hub on virtual time, and what ``check`` notices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.errors import ClosedError, ConfigurationError
from atoma.schema import Schema, StoreSpec
from atoma.testing import open_world, virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    id: str
    place: str = ""
    stars: int | None = None


VISITS = StoreSpec("visits", Visit)
MANUAL = StoreSpec("manual", Visit, conflict="manual")
SCHEMA = Schema(VISITS, MANUAL)


@virtual_time
async def test_a_day_offline_takes_no_time(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub(), world.device("a") as a, world.device("b") as b:
        a.unplug()
        for hour in range(6):
            await a.store(VISITS).insert(Visit(id=str(hour)))
            await trio.sleep(3600)
        assert await b.store(VISITS).count() == 0
        a.plug_in()
        await world.settle()
        assert await b.store(VISITS).count() == 6
        await world.check()
        assert trio.current_time() >= 6 * 3600


@virtual_time
@pytest.mark.parametrize("word", ["offer", "ask", "forget", None])
async def test_a_restored_hub_gets_back_what_the_word_allows(tmp_path: Path, word: Any) -> None:
    async with (
        open_world(SCHEMA, tmp_path) as world,
        world.hub() as hub,
        world.device("a") as a,
        world.device("b") as b,
    ):
        await a.store(VISITS).insert(Visit(id="kept"))
        await world.settle()
        backup = await hub.backup()
        await b.store(VISITS).insert(Visit(id="lost"))
        await world.settle()
        await world.restore_hub(backup, devices=word)
        assert len(await hub.hub.epochs()) == 1
        await world.settle()
        back = word in ("offer", None)
        for device in (a, b):
            assert await device.store(VISITS).count() == (2 if back else 1)
            assert len(await device.sync.lost.entries()) == (0 if back else 1)
        await world.check(allow=[] if back else ["lost"])


@virtual_time
async def test_files_are_put_back_and_copied(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub(), world.device("a") as a:
        await a.store(VISITS).insert(Visit(id="1"))
        copy = a.snapshot_file()
        await world.settle()
        await a.store(VISITS).insert(Visit(id="2"))
        await world.settle()
        await world.restore_file(a, copy)
        assert await a.store(VISITS).count() == 1
        async with world.clone(a, "twin") as twin:
            await twin.store(VISITS).insert(Visit(id="3"))
            await a.store(VISITS).insert(Visit(id="4"))
            await world.settle()
            for device in (a, twin):
                assert await device.store(VISITS).count() == 4
            await world.check()
            assert [report.cause for report in await twin.sync.repairs()] == ["CLIENT_FORKED"]


@virtual_time
async def test_a_killed_device_goes_on_from_what_lay_on_the_disk(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub() as hub, world.device("a", plugged=False) as a:
        await a.store(VISITS).insert(Visit(id="1"))
        await a.kill()
        with pytest.raises(ClosedError, match="await its start"):
            _ = a.client
        await hub.kill()
        await hub.start()
        await a.start()
        a.plug_in()
        await world.settle()
        await world.check()
        async with world.device("b") as b:
            await world.settle()
            assert await b.store(VISITS).count() == 1


@virtual_time
async def test_what_waits_for_a_person_is_told(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub(), world.device("a") as a, world.device("b") as b:
        await a.store(MANUAL).insert(Visit(id="1"))
        await world.settle()
        a.unplug()
        await a.store(MANUAL).update("1", place="mine")
        await b.store(MANUAL).update("1", place="theirs")
        await world.settle()
        a.plug_in()
        await world.settle()
        with pytest.raises(AssertionError, match="a: 1 entries wait in its inbox"):
            await world.check()
        await world.check(allow=["inbox"])


@virtual_time
async def test_who_does_not_come_to_rest_is_named(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.device("a") as a:
        await a.store(VISITS).insert(Visit(id="1"))
        with pytest.raises(
            AssertionError, match=r"not settled after 60 s:\n  a: offline, 1 pending, main new at 0 of 0: no host"
        ):
            await world.settle(within_s=60)
        with pytest.raises(ConfigurationError, match="no hub to compare with"):
            await world.check()


@virtual_time
async def test_rights_and_stores_are_the_authors_own(tmp_path: Path) -> None:
    class Readers:
        def scope_access(self, principal: Any, scope: str) -> Any:
            return "write" if principal.subject == "ann" else "read"

    async with open_world(SCHEMA, tmp_path) as world, world.hub(rules=Readers()) as hub:
        async with world.device("a") as a, world.device("b", user="bob", stores=[VISITS]) as b:
            await a.store(VISITS).insert(Visit(id="1"))
            await a.store(MANUAL).insert(Visit(id="1"))
            await world.settle()
            assert await b.store(VISITS).count() == 1 and await b.store(MANUAL).count() == 0
            await world.check()
            backup = await hub.backup()
            await a.store(VISITS).insert(Visit(id="2"))
            await world.settle()
            await a.stop()
            await world.restore_hub(backup)
            await world.settle()
            with pytest.raises(AssertionError, match="1 rows wait in its lost"):
                await world.check()
            await world.check(allow=["lost"])


def damage(path: Path, sql: str) -> None:
    import apsw

    connection = apsw.Connection(str(path))
    connection.create_scalar_function("atoma_write_goes_through_the_client", lambda *_: 1, 0)
    connection.execute(sql)
    connection.close()


@virtual_time
@pytest.mark.parametrize(
    ("sql", "file", "told"),
    [
        (
            "UPDATE visits SET place='other' WHERE id='1'",
            "a.db",
            r"visits '1' is \('other', None\) here, \('', None\) at the hub",
        ),
        ("DELETE FROM visits WHERE id='1'", "a.db", "visits '1' is None here"),
        ("UPDATE _atoma_hub_scope SET head=head+1", "hub.db", "scope 'main' is at 3, the hub at 4"),
    ],
)
async def test_a_difference_is_noticed(tmp_path: Path, sql: str, file: str, told: str) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub(), world.device("a") as a:
        for number in range(3):
            await a.store(VISITS).insert(Visit(id=str(number)))
        await world.settle()
        a.unplug()
        damage(tmp_path / file, sql)
        a.plugged = True
        with pytest.raises(AssertionError, match=told):
            await world.check()


@virtual_time
async def test_what_a_restore_loses_for_good_is_noticed(tmp_path: Path) -> None:
    """Both agree that the row is gone, and yet nobody has deleted it."""
    async with open_world(SCHEMA, tmp_path) as world, world.hub() as hub, world.device("a") as a:
        await a.store(VISITS).insert(Visit(id="1"))
        await world.settle()
        backup = await hub.backup()
        for id in ("2", "3", "4"):
            await a.store(VISITS).insert(Visit(id=id))
        await world.settle()
        await world.restore_hub(backup)
        await a.store(VISITS).update("2", place="since")
        await a.store(VISITS).delete("4")
        await world.settle()
        await world.check()
        await a.stop()
        for file in ("a.db", "hub.db"):
            damage(tmp_path / file, "DELETE FROM visits WHERE id='3'")
        a.unplug()
        await a.start()
        a.plugged = True
        with pytest.raises(
            AssertionError, match="did not come back as a had seen it before the restore: visits '3' is"
        ):
            await world.check()


@virtual_time
async def test_the_kit_is_used_one_thing_at_a_time(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub(), world.device("a"):
        with pytest.raises(ConfigurationError, match="one hub"):
            async with world.hub():
                pass
        with pytest.raises(ConfigurationError, match="'a' is open"):
            async with world.device("a"):
                pass


@virtual_time
async def test_the_block_tells_the_error_itself(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_world(SCHEMA, tmp_path) as world, world.hub(), world.device("a"):
            _ = 1 / 0


def test_equal_seeds_are_equal_worlds(tmp_path: Path) -> None:
    found: list[tuple[str, float]] = []

    @virtual_time
    async def story(folder: Path, seed: int) -> None:
        folder.mkdir()
        async with open_world(SCHEMA, folder, seed=seed) as world, world.hub(), world.device("a", plugged=False) as a:
            await trio.sleep(1000)
            a.plug_in()
            await a.store(VISITS).insert(Visit(id="1"))
            await world.settle()
            found.append(((await a.sync.repairs(), a.sync.status)[1].principal, trio.current_time()))

    for number, seed in enumerate((1, 1, 2)):
        story(tmp_path / str(number), seed)
    assert found[0] == found[1] and found[0][0] == "ann"
