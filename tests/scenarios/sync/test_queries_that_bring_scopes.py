"""A query may bring along the scopes that it looks at: for as long as it is followed, or until they age out."""

from __future__ import annotations

import pytest
import reactivex as rx
import trio

from atoma.errors import ConfigurationError, QueryError
from atoma.ports.live import LiveBatch, apply_batch
from atoma.query import col, count, select
from atoma.runtime.functions import Reads
from atoma.sync import IdleScopes, ScopeInUse, ScopesNotNamed
from tests.scenarios.sync.boards import BOARD, ids, open_boards, told
from tests.scenarios.sync.conftest import CARDS, Card, Device, World

pytestmark = pytest.mark.virtual_time


def scopes(device: Device) -> list[str]:
    return [each.scope for each in device.sync.status.scopes]


@pytest.mark.paths
async def test_a_live_query_brings_its_scope_and_tells_how_far_it_is(world: World) -> None:
    async with open_boards(world) as writer, world.open_device("a", idle=IdleScopes(seconds=60)) as a:
        await a.settle()
        a.wire.hold["snapshot"] = trio.Event()
        rows: tuple[Card, ...] = ()
        seen: list[tuple[int, str]] = []
        async with a.client.live(BOARD, bring=True) as batches:

            async def read(until: str) -> None:
                nonlocal rows
                batch: LiveBatch[Card]
                with trio.fail_after(60):
                    async for batch in batches:
                        rows = apply_batch(rows, batch)
                        seen.append((len(rows), batch.completeness.state))
                        if batch.completeness.state == until:
                            return

            await read("partial")
            await trio.sleep(30)
            a.wire.hold.pop("snapshot").set()
            await read("complete")
            assert [row.id for row in rows] == ["of board:7"]
            assert (0, "complete") not in seen
            a.wire.cut()
            await read("stale")
            a.wire.repair()
            a.sync.poke()
            await read("complete")
            await writer.store(CARDS).insert(Card(id="news", board="board:7"))
            await writer.settle()
            await trio.sleep(600)
            with pytest.raises(ScopeInUse):
                await a.sync.drop("board:7")
            assert await ids(a) == {"of main", "of board:7", "news"}
        await trio.sleep(59)
        assert scopes(a) == ["main", "board:7"]
        await trio.sleep(2)
        assert (scopes(a), await ids(a)) == (["main"], {"of main"})


async def test_a_fetch_brings_its_scope_and_tells_that_its_rows_are_on_their_way(world: World) -> None:
    async with open_boards(world), world.open_device("a") as a:
        await a.settle()
        page = await a.store(CARDS).query(BOARD, bring=True)
        assert (len(page), page.meta.completeness.state) == (0, "partial")
        await trio.sleep(5)
        assert await told(a) == "complete"
        counted = await a.client.query(select(CARDS).where(col("board") == "board:9").columns(count()), bring=True)
        assert counted.meta.completeness.state == "partial"
        assert scopes(a) == ["main", "board:7", "board:9"]


async def test_what_cannot_be_brought_is_said(world: World) -> None:
    async def number(reads: Reads) -> int:
        return await reads.count(select(CARDS))

    async with world.open_hub(), world.open_device("a") as a, world.open_device("l", plugins=[]) as alone:
        await a.settle()
        for refused in (select(CARDS), select(CARDS).where(col("lane") == "todo")):
            with pytest.raises(ScopesNotNamed, match="any scope") as told_so:
                await a.client.query(refused, bring=True)
            assert told_so.value.code == "SCOPES_NOT_NAMED" and isinstance(told_so.value, QueryError)
            with pytest.raises(ScopesNotNamed):
                async with a.client.live(refused, bring=True):
                    pytest.fail("it was let in")
        with pytest.raises(ConfigurationError, match="what is on this device"):
            a.client.live(number, bring=True)
        with pytest.raises(ConfigurationError, match="Sync"):
            await alone.client.query(BOARD, bring=True)
        page = await a.client.query(select(world.SECRETS), bring=True)
        assert len(page) == 0, "it looks at nothing that replicates"
        assert scopes(a) == ["main"]


async def test_an_observable_brings_its_scope_until_it_is_disposed(world: World) -> None:
    results: list[tuple[Card, ...]] = []
    async with open_boards(world), world.open_device("a", idle=IdleScopes(count=0)) as a:
        await a.settle()
        observed: rx.Observable[tuple[Card, ...]] = a.store(CARDS).observe(BOARD, bring=True)
        subscription = observed.subscribe(results.append)
        await trio.sleep(5)
        assert [len(rows) for rows in results] == [0, 1]
        assert scopes(a) == ["main", "board:7"]
        subscription.dispose()
        await trio.sleep(5)
        assert scopes(a) == ["main"]
