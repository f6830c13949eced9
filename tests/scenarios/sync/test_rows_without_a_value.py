"""A row for which a rule or a shape has no value, as a number in it does not fit: nobody sees it by them, and all else goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoma import Schema, Shape, StoreSpec, col
from atoma.hub import RowRule
from atoma.testing import Device, open_world

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Thing:
    id: str
    count: int = 0


THINGS = StoreSpec("things", Thing)
DOUBLED = Shape("doubled", THINGS, col("count") * 2 > 3)
FEW = Shape("few", THINGS, col("count") < 3)
SCHEMA = Schema(THINGS, shapes=[DOUBLED, FEW])
PART, BEYOND = DOUBLED.of("main"), 2**62


async def here(device: Device) -> set[str]:
    return {thing.id for thing in await device.store(THINGS).query()}


@pytest.mark.paths
async def test_it_is_in_no_part_and_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub(), world.device("writer") as writer:
        async with world.device("a", scopes=(PART,)) as a:  # by the log
            await writer.store(THINGS).insert_many([Thing("few", 1), Thing("some", 2), Thing("leaves", 5)])
            await world.settle()
            await writer.store(THINGS).insert_many([Thing("beyond", BEYOND), Thing("more", 3)])
            await writer.store(THINGS).update("leaves", count=BEYOND)
            await world.settle()
            assert await here(a) == {"some", "more"}
            await writer.store(THINGS).update("beyond", count=4)
            await world.settle()
            assert await here(a) == {"some", "more", "beyond"}
        await writer.store(THINGS).update("beyond", count=BEYOND)
        await world.settle()
        async with world.device("b", scopes=(PART,)) as b:  # by a snapshot
            await world.settle()
            assert await here(b) == {"some", "more"}
            await b.store(THINGS).insert(Thing("own", BEYOND))
            await world.settle()
            assert (await here(b), "own" in await here(writer)) == ({"some", "more"}, True)
            await world.check()


async def test_a_part_is_dropped_while_it_waits(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub(), world.device("a", scopes=("other",)) as a:
        sync = a.client.sync
        async with sync.scope(FEW.of("main")):
            async with sync.scope(PART):
                await sync.pull([PART])
                a.unplug()
                await a.store(THINGS).insert(Thing("own", BEYOND))
            await sync.drop(PART)
            assert [part.title for part in sync.status.scope("main").parts] == ["few()"]
        a.plug_in()
        await world.settle()
        assert await a.client.inbox.entries() == []


RULES: Mapping[str, RowRule] = {"things": lambda _caller: col("count") * 2 < 10}


async def test_by_a_rule_it_is_refused_as_others_are(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub(row_rules=RULES), world.device("a") as a:
        for id, count in (("fits", 1), ("not", 9), ("beyond", BEYOND), ("fits, too", 2)):
            await a.store(THINGS).insert(Thing(id, count))
        await world.settle()
        assert await here(a) == {"fits", "fits, too"}
        assert [(entry.id, entry.code) for entry in await a.client.inbox.entries()] == [
            ("not", "DENIED"),
            ("beyond", "DENIED"),
        ]
