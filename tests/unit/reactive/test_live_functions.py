"""A function of reads is followed by what it has read: stores, columns, keys; at one state, an equal value once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing

from atoma.bindings.blocking import open_client as open_blocking
from atoma.client import Client, open_client
from atoma.errors import QueryError
from atoma.query import col, select
from atoma.runtime.functions import Reads
from atoma.schema import Schema, StoreSpec
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True)
class Card:
    id: str
    lane: str = "todo"
    rank: int = 0


@dataclass(frozen=True)
class Lane:
    id: str
    limit: int = 0


CARDS, LANES = StoreSpec("cards", Card), StoreSpec("lanes", Lane)
SCHEMA = Schema(CARDS, LANES)
runs: list[str] = []


def on_device() -> LocalExecution:
    return LocalExecution(SQLiteEngine(":memory:"))


async def overfull(reads: Reads) -> tuple[str, ...]:
    """Lanes that have more cards than they may."""
    runs.append("overfull")
    found: list[str] = []
    for lane in await reads.query(select(LANES).where(col("limit") > 0).order_by("id")):
        if await reads.count(select(CARDS).where(col("lane") == lane.id)) > lane.limit:
            found.append(lane.id)
    return tuple(found)


async def first_of(reads: Reads) -> int | None:
    runs.append("first_of")
    card = await reads.get(CARDS, "a")
    return None if card is None else card.rank


async def is_quiet(values: AsyncIterator[object]) -> None:
    with trio.move_on_after(5) as scope:
        raise AssertionError(f"a value was told: {await anext(values)!r}")
    assert scope.cancelled_caught


@pytest.mark.virtual_time
async def test_a_function_is_followed_by_what_it_has_read() -> None:
    runs.clear()
    async with open_client(SCHEMA, plugins=[on_device()]) as client:
        cards, lanes = client.store(CARDS), client.store(LANES)
        await lanes.insert(Lane("todo", 1))
        async with client.live(overfull) as values:
            assert await anext(values) == ()
            await cards.insert(Card("a"))
            await is_quiet(values)  # it was carried out, and says the same
            assert len(runs) == 2
            await cards.insert(Card("b"))
            assert await anext(values) == ("todo",)
            await cards.insert(Card("c", "done"))
            await lanes.insert(Lane("done"))
            await is_quiet(values)
            assert len(runs) == 3, "rows and lanes that it has not asked for do not concern it"
            await lanes.update("done", limit=0)
            await cards.update("a", rank=7)
            await is_quiet(values)
            await lanes.update("todo", limit=2)
            assert await anext(values) == ()
            await lanes.update("done", limit=1)
            await is_quiet(values)
            await cards.insert(Card("d", "done"))
            with trio.fail_after(5):
                assert await anext(values) == ("done",), "the first of its reads of cards counts as the last one does"


@pytest.mark.virtual_time
async def test_a_key_that_it_has_read_is_what_concerns_it() -> None:
    runs.clear()
    async with open_client(SCHEMA, plugins=[on_device()]) as client:
        cards = client.store(CARDS)
        async with client.live(first_of) as values, client.live(first_of) as shared:
            assert (await anext(values), await anext(shared)) == (None, None)
            assert len(runs) == 1, "who follows the same function shares it"
            await cards.insert(Card("b", rank=3))
            await is_quiet(values)
            assert len(runs) == 1
            await cards.insert(Card("a", rank=4))
            assert (await anext(values), await anext(shared)) == (4, 4)
            assert len(runs) == 2


async def test_all_of_its_reads_see_one_state(tmp_path: Path) -> None:
    async def both(reads: Reads) -> tuple[int, int]:
        return await reads.count(select(CARDS)), await reads.count(select(LANES))

    async def write(client: Client) -> None:
        for number in range(150):
            async with client.transaction() as tx:
                await tx.store(CARDS).insert(Card(f"{number}"))
                await tx.store(LANES).insert(Lane(f"{number}"))

    plugins = [LocalExecution(SQLiteEngine(tmp_path / "a.db"))]
    async with open_client(SCHEMA, plugins=plugins) as client, trio.open_nursery() as nursery:
        nursery.start_soon(write, client)
        told = 0
        with trio.fail_after(30):
            async with client.live(both) as values:
                async for cards, lanes in values:
                    assert cards == lanes
                    told += 1
                    if cards == 150:
                        break
        assert told > 1


@pytest.mark.virtual_time
async def test_what_it_raises_ends_it_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(reads: Reads) -> int:
        if await reads.exists(select(CARDS)):
            raise ZeroDivisionError("of mine")
        return 1

    async def sleeps(reads: Reads) -> None:
        await trio.sleep(1)

    async def asks_nonsense(reads: Reads) -> None:
        await reads.query(select(CARDS).where(col("colour") == 1))

    async with open_client(SCHEMA, plugins=[on_device()]) as client:
        async with client.live(fails) as failing, client.live(first_of) as good:
            assert (await anext(failing), await anext(good)) == (1, None)
            await client.store(CARDS).insert(Card("a", rank=2))
            with pytest.raises(ZeroDivisionError):
                await anext(failing)
            assert await anext(good) == 2
        for function, told in ((sleeps, "awaits its reads, and nothing else"), (asks_nonsense, "colour")):
            async with client.live(function) as values:
                with pytest.raises(QueryError, match=told):
                    await anext(values)


def test_a_program_without_a_loop_follows_it_too() -> None:
    with open_blocking(SCHEMA, plugins=[on_device()]) as client:
        with client.live(first_of) as values:
            assert next(values) is None
            client.store(CARDS).insert(Card("a", rank=9))
            assert next(values) == 9
