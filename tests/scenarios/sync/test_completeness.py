"""Every answer and every batch says whether it has every row, and that is judged from the lanes, never from the rows."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from atoma import Page
from atoma.contracts.completeness import COMPLETE, Completeness
from atoma.contracts.sync import Limits
from atoma.ports.live import Insert, LiveBatch, Reset, apply_batch
from atoma.query import Rows, col, count, select
from tests.scenarios.sync.conftest import CARDS, Card, Device, World

pytestmark = pytest.mark.virtual_time

MAIN = select(CARDS).where(col("board") == "main")
PARTIAL = Completeness("partial", ("main",))


async def told(device: Device, query: Rows[Card] = MAIN) -> Completeness:
    """How complete the answer to ``query`` is."""
    page: Page[Card] = await device.store(CARDS).query(query)
    return page.meta.completeness


@asynccontextmanager
async def followed(device: Device, query: Rows[Card] = MAIN) -> AsyncIterator[list[LiveBatch[Card]]]:
    """Every batch of a live query as it comes."""
    batches: list[LiveBatch[Card]] = []

    async def read() -> None:
        async with device.store(CARDS).live(query) as live:
            async for batch in live:
                batches.append(batch)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        yield batches
        nursery.cancel_scope.cancel()


def states(batches: list[LiveBatch[Card]]) -> list[str]:
    return [batch.completeness.state for batch in batches]


async def test_rows_of_a_first_sync_are_partial_until_the_last_of_them_is_here(world: World) -> None:
    async with world.open_hub(limits=Limits(page_changes=2)), world.open_device("a") as a:
        await a.store(CARDS).insert_many([Card(id=str(number)) for number in range(7)])
        await a.settle()
        async with world.open_device("b", down=True) as b, followed(b) as batches:
            await b.store(CARDS).insert(Card(id="own"))
            assert await told(b) == PARTIAL  # one row that is here says nothing about those that are not
            b.wire.hold["pull"] = trio.Event()
            b.wire.repair()
            b.sync.poke()
            await trio.sleep(100)
            assert b.sync.status.scope("main").state == "tail", "every page of the snapshot is here"
            assert await told(b) == PARTIAL
            assert states(batches) == ["partial", "partial"]
            b.wire.hold.pop("pull").set()
            await b.settle()
            assert await told(b) == COMPLETE
            await trio.testing.wait_all_tasks_blocked()
            rows: tuple[Card, ...] = ()
            for batch in batches:
                rows = apply_batch(rows, batch)
                assert batch.completeness == PARTIAL or len(rows) == 8, "complete, and a row is missing"
            assert batches[-1].completeness == COMPLETE


@pytest.mark.paths
async def test_that_there_is_nothing_is_told_when_it_is_known(world: World) -> None:
    """The first answer is empty because nothing has come yet, the second one because nothing is there."""
    async with world.open_hub(), world.open_device("a", down=True) as a, followed(a) as batches:
        assert batches == [LiveBatch(0, (Reset(()),), PARTIAL)]
        a.wire.repair()
        await a.settle()
        await trio.testing.wait_all_tasks_blocked()
        assert [(batch.changes, batch.completeness) for batch in batches[1:]] == [((), COMPLETE)]
        assert await told(a) == COMPLETE


async def test_batches_of_a_statement_say_it_too(world: World) -> None:
    async with world.open_hub(), world.open_device("b") as b:
        await b.store(CARDS).insert(Card(id="1"))
        await b.settle()
        async with world.open_device("a", down=True) as a:
            counted = a.client.live_sql(int, "SELECT count(*) FROM cards")
            async with counted as cards, a.client.live_sql(int, "SELECT 1") as constant:
                assert (await anext(cards)).completeness == PARTIAL, "it may read rows of any scope"
                assert (await anext(constant)).completeness == COMPLETE, "it reads no store"
                a.wire.repair()
                await a.settle()
                with trio.fail_after(60):
                    while (batch := await anext(cards)).completeness != COMPLETE:
                        pass
                assert batch.changes == () or batch.changes[-1] == Insert(0, 1)
                assert await a.client.sql(int, "SELECT count(*) FROM cards") == (1,)


async def test_without_the_hub_an_answer_is_stale_since_it_was_complete_last(world: World) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        await trio.sleep(10)
        async with followed(a) as batches:
            assert a.probe.context is not None
            a.wire.cut()
            cut_ms = a.probe.context.environment.wall_ms()
            await trio.sleep(0.5)
            assert await told(a) == COMPLETE, "a moment without the hub is not told: every other answer would say so"
            await trio.sleep(5)
            stale = await told(a)
            assert (stale.state, stale.scopes) == ("stale", ("main",))
            assert abs(stale.since_ms - cut_ms) < 100
            assert states(batches) == ["complete", "stale"]
            a.wire.repair()
            await a.settle()
            await trio.testing.wait_all_tasks_blocked()
            assert states(batches) == ["complete", "stale", "complete"]
    async with world.open_device("a", down=True) as a:
        await trio.sleep(2)
        assert await told(a) == Completeness("stale", ("main",), 0), "it was complete before the client was opened"


async def test_news_that_does_not_come_makes_an_answer_stale_and_news_on_its_way_does_not(world: World) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.settle()
        await b.settle()
        await trio.sleep(10)
        async with followed(b) as batches:
            await a.store(CARDS).insert(Card(id="1"))
            await a.settle()
            await b.settle()
            await trio.testing.wait_all_tasks_blocked()
            assert states(batches) == ["complete", "complete"], "a page that comes at once is one batch and no more"
            b.wire.hold["pull"] = trio.Event()
            await a.store(CARDS).insert(Card(id="2"))
            await a.settle()
            await trio.sleep(5)
            progress = b.sync.status.scope("main")
            assert (b.sync.status.state, progress.cursor, progress.head) == ("online", 1, 2)
            assert (await told(b)).state == "stale"
            b.wire.hold.pop("pull").set()
            await b.settle()
            await trio.testing.wait_all_tasks_blocked()
            assert (states(batches)[:3], states(batches)[-1]) == (["complete", "complete", "stale"], "complete")
            assert [len(batch.changes) for batch in batches if batch.changes or batch.completeness != COMPLETE] == [
                1,
                1,
                0,
                1,
            ]


async def test_a_query_is_judged_by_the_scopes_that_it_looks_at(world: World) -> None:
    async with world.open_hub(), world.open_device("a", scopes=("main", "other")) as a:
        other, strange = (select(CARDS).where(col("board") == name) for name in ("other", "strange"))
        await a.settle()
        await trio.sleep(10)

        assert await told(a, other) == COMPLETE
        assert await told(a, strange) == Completeness("partial", ("strange",)), "nobody brings its rows here"
        assert await told(a, select(CARDS)) == COMPLETE
        a.sync.pause()
        await trio.sleep(5)
        assert (await told(a, select(CARDS))).scopes == ("main", "other")
        assert (await told(a, other)).scopes == ("other",)
        page = await a.client.query(select(CARDS).where(col("board") == "strange").columns(count()))
        assert page.meta.completeness.state == "partial"
        assert (await a.client.query(select(world.SECRETS))).meta.completeness == COMPLETE, "it is this device's own"


async def test_who_hears_of_nothing_is_never_complete(world: World) -> None:
    async with world.open_hub(), world.open_device("p", mode="push-only") as p:
        await p.settle()
        await trio.sleep(10)
        assert p.sync.status.state == "online"
        assert await told(p) == PARTIAL
    async with world.open_hub(), world.open_device("m", mode="manual") as m:
        await m.sync.sync_once()
        assert await told(m) == COMPLETE
        await trio.sleep(10)
        assert (await told(m)).state == "stale"


async def test_a_restored_hub_with_a_shorter_log_is_caught_up_with(world: World) -> None:
    async with world.open_device("a", down=True, on_hub_loss="drop") as a:

        async def session() -> None:
            a.wire.repair()
            a.sync.poke()
            await a.settle()
            await trio.sleep(5)
            assert await told(a) == COMPLETE
            a.wire.cut()
            await trio.sleep(5)

        async with world.open_hub():
            await a.store(CARDS).insert(Card(id="1"))
            await session()
        shutil.copy(world.folder / world.hub_file, world.folder / "backup.db")
        async with world.open_hub():
            await a.store(CARDS).insert_many([Card(id="2"), Card(id="3")])
            await session()
        assert a.sync.status.scope("main").head == 3
        world.hub_file = "backup.db"
        async with world.open_hub() as hub:
            await hub.new_epoch()
            await session()
            assert a.sync.status.scope("main").cursor < 3
