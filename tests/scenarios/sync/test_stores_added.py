"""A file that takes rows of other stores than before: what was passed over is fetched, and what was here is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from atoma.query import select
from atoma.schema import Schema, ScopePart, Shape
from tests.scenarios.sync.conftest import CARDS, MANUAL, SCHEMA, Card, Device, Note, World
from tests.scenarios.sync.kit import put_in

pytestmark = pytest.mark.virtual_time
LANES, NOTES = Shape("cards", CARDS), Shape("notes", MANUAL)


class Shaped(World):
    """Programs that take every store."""

    schema = Schema(*SCHEMA.stores.values(), shapes=[LANES, NOTES])


class Fewer(Shaped):
    """Programs that take cards only; they have notes of their own."""

    SYNCED = (CARDS,)


async def told(device: Device) -> tuple[set[str], str]:
    """The notes that are here, and how complete they are called."""
    found = await device.client.query(select(MANUAL))
    return {note.id for note in found}, found.meta.completeness.state


@pytest.mark.paths
@pytest.mark.parametrize("scopes", [("main",), (LANES.of("main"), NOTES.of())], ids=["whole", "in parts"])
async def test_a_store_that_is_taken_from_now_on_is_fetched(tmp_path: Path, scopes: Sequence[str | ScopePart]) -> None:
    world = Shaped(tmp_path)
    async with world.open_hub() as hub, world.open_device("writer") as writer:
        fewer = Fewer(world.folder, hub=hub)
        await writer.store(CARDS).insert(Card(id="card"))
        await writer.store(MANUAL).insert(Note(id="theirs"))
        await writer.settle()
        async with fewer.open_device("a", scopes=scopes) as a:
            await put_in(a)
            await a.store(MANUAL).insert(Note(id="own"))
            assert set(await a.rows()) == {"card"}
        async with world.open_device("a", scopes=scopes, down=True) as a:
            assert await told(a) == ({"own"}, "stale")
            await put_in(a)
            await put_in(writer)
            assert await told(a) == ({"own", "theirs"}, "complete")
            assert (await told(writer))[0] == {"own", "theirs"}, "what was here before is the hub's as well"
        async with world.open_device("a", scopes=scopes) as a:
            await put_in(a)
            assert (await told(a), a.wire.count("snapshot")) == (({"own", "theirs"}, "complete"), 0)
        async with fewer.open_device("a", scopes=scopes) as a:
            await writer.store(MANUAL).insert(Note(id="meanwhile"))
            await put_in(writer)
            await put_in(a)
            assert a.wire.count("snapshot") == 0, "one store less is nothing that is missing"
        async with world.open_device("a", scopes=scopes) as a:
            await put_in(a)
            assert await told(a) == ({"own", "theirs", "meanwhile"}, "complete")
