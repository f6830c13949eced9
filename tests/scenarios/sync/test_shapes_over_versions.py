"""Parts of scopes where the hub, or both sides, are of a later version than the device was: what is the same, and what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from atoma.query import col, select
from atoma.schema import Convert, MigrationStep, Rename, Schema, Shape, StoreSpec, param
from tests.scenarios.sync.conftest import CARDS, Card, World
from tests.scenarios.sync.kit import put_in

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """A card whose lane is called a column."""

    id: str
    title: str = ""
    column: str = "todo"
    board: str = "main"


RENAMED = StoreSpec("cards", Renamed, scope="board")
UPPER = Convert("cards.lane", str.upper, was=str, back=str.lower)
MORE = Convert("cards.title", lambda text: str(int(text) + 1), was=str, back=lambda text: str(int(text) - 1))


def programs(world: World, *shapes: Shape, cards: StoreSpec[Any] = CARDS, step: MigrationStep | None = None) -> World:
    """Programs at the places of ``world``, of version 2 where a ``step`` leads there."""

    class Programs(World):
        schema = Schema(cards, shapes=shapes, version=1 if step is None else 2, steps={2: [step]} if step else {})
        SYNCED = (cards,)

    return Programs(world.folder)


async def fill(world: World) -> None:
    """Two cards in each of two lanes."""
    async with world.open_hub(), world.open_device("writer") as writer:
        await writer.store(CARDS).insert_many(
            [Card(id=f"{lane} {n}", title=f"{n}", lane=lane) for lane in ("todo", "done") for n in (1, 2)]
        )
        await writer.settle()


@pytest.mark.paths
@pytest.mark.parametrize("change", ["converted", "renamed"])
async def test_a_device_of_before_is_given_a_part_where_its_values_are_the_ones_that_the_hub_compares(
    world: World, change: str
) -> None:
    in_lane = Shape("in_lane", CARDS, col("lane") == param("lane", str))
    in_column = Shape("in_lane", RENAMED, col("column") == param("lane", str))
    old, later = programs(world, in_lane), programs(world, in_lane, step=UPPER)
    if change == "renamed":
        later = programs(world, in_column, cards=RENAMED, step=Rename("cards.lane", "column"))
    await fill(old)
    async with later.open_hub() as hub:
        old.hub = hub
        async with old.open_device("a", scopes=("other", in_lane.of("main", lane="todo"))) as a:
            await put_in(a)
            query = select(CARDS).where(col("board") == "main", col("lane") == "todo")
            state = (await a.client.query(query)).meta.completeness.state
            (found,) = a.sync.status.scope("main").parts
            error = None if found.error is None else found.error.code
            if change == "renamed":
                assert (set(await a.rows()), state, error) == ({"todo 1", "todo 2"}, "complete", None)
            else:
                assert (set(await a.rows()), state, error) == (set(), "partial", "SHAPE_UNKNOWN")


@pytest.mark.parametrize(("step", "snapshots"), [(MORE, 1), (UPPER, 0)], ids=["what is compared", "something else"])
async def test_what_both_sides_convert_while_they_are_apart_is_fetched_anew_where_a_shape_compares_it(
    world: World, step: Convert, snapshots: int
) -> None:
    titled = Shape("titled", CARDS, col("title") >= param("title", str))
    old, later = programs(world, titled), programs(world, titled, step=step)
    await fill(old)
    async with old.open_hub(), old.open_device("a", scopes=(titled.of("main", title="2"),)) as a:
        await put_in(a)
        assert set(await a.rows()) == {"todo 2", "done 2"}
    async with later.open_hub(), later.open_device("a", scopes=(titled.of("main", title="2"),)) as a:
        await put_in(a)
        query = select(CARDS).where(col("board") == "main", col("title") >= "2")
        found = await a.client.query(query)
        assert found.meta.completeness.state == "complete"
        assert len(found) == (4 if step is MORE else 2)
        assert a.wire.count("snapshot") == snapshots, "nothing is fetched anew that has stayed what it was"
