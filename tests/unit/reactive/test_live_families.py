"""Live queries of one shape: what a commit costs, and what one more of them costs, told by the calls that are made."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest
import trio.testing

from atoma import Client, Index, Query, Schema, StoreSpec, count_of, has_many, open_client, select
from atoma_stores.live import dispatch
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True)
class Card:
    id: str
    lane: str
    points: int = 0


@dataclass(frozen=True)
class Remark:
    id: str
    card: str


CARDS = StoreSpec("cards", Card, indexes=[Index("lane")])
REMARKS = StoreSpec("remarks", Remark, indexes=[Index("card")])
SCHEMA = Schema(CARDS, REMARKS)
lane, card_id, points = (
    CARDS.col(lambda card: card.lane),
    CARDS.col(lambda card: card.id),
    CARDS.col(lambda card: card.points),
)
REMARKS_OF = has_many(CARDS, REMARKS, on=REMARKS.col(lambda remark: remark.card))
FOLDER = Path(dispatch.__file__).parent
PAUSES = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
FEW, MANY = 10, 150
Shape = Callable[[int], Query[object]]
SHAPES: dict[str, Shape] = {
    "whole rows": lambda number: select(CARDS).where(lane == f"l{number}"),
    "a page": lambda number: select(CARDS).where(lane == f"l{number}").order_by("-points").limit(3),
    "a range": lambda number: select(CARDS).where(points.between(10 * number, 10 * number + 9)),
    "columns": lambda number: select(CARDS).where(lane == f"l{number}").columns(card_id, points),
    "with children": lambda number: select(CARDS).where(lane == f"l{number}").include(REMARKS_OF),
    "with a count": lambda number: (
        select(CARDS).where(lane == f"l{number}").columns(card_id, points, count_of(REMARKS_OF))
    ),
}


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """How often each function of live queries is called; what may pause is left out, since it is called again to go on."""
    calls: dict[str, int] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and FOLDER in Path(code.co_filename).parents and not code.co_flags & PAUSES:
            calls[code.co_qualname] = calls.get(code.co_qualname, 0) + 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


async def told(reader: AsyncIterator[object]) -> None:
    """Wait for a batch, and until nobody does anything any more."""
    await anext(reader)
    await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def followed(shape: Shape, count: int) -> AsyncIterator[tuple[Client, Sequence[AsyncIterator[object]]]]:
    """A client whose cards ``0`` to ``count`` are each the result of a live query of their own."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(":memory:"))])
        )
        cards = client.store(CARDS)
        await cards.insert_many([Card(f"c{number}", f"l{number}", 10 * number) for number in range(count)])
        readers = [await stack.enter_async_context(client.live(shape(number))) for number in range(count)]
        for reader in readers:
            await anext(reader)
        yield client, readers


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_a_commit_costs_the_same_however_many_queries_of_its_shape_are_followed(shape: Shape) -> None:
    async def calls_of(count: int) -> dict[str, int]:
        async with followed(shape, count) as (client, readers):
            cards, remarks = client.store(CARDS), client.store(REMARKS)
            beside = "remarks" in (await client.explain(shape(0))).live
            await cards.update("c0", points=1)  # the first one may have something to tidy
            await told(readers[0])
            with counted() as calls:
                await cards.update("c0", points=2)
                await told(readers[0])
                await remarks.insert(Remark("r1", "c0"))
                if beside:
                    await told(readers[0])
        return calls

    assert await calls_of(MANY) == await calls_of(FEW)


async def test_a_large_commit_costs_what_it_changes_and_not_what_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "ROWS_AT_ONCE", 4)

    async def calls_of(count: int) -> dict[str, int]:
        async with followed(SHAPES["a page"], count) as (client, readers):
            with counted() as calls:
                await client.store(CARDS).insert_many([Card(f"new{number}", "l0") for number in range(20)])
                await told(readers[0])
        return calls

    assert await calls_of(MANY) == await calls_of(FEW)


async def test_who_comes_while_nobody_has_looked_at_a_large_commit_gets_what_it_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "ROWS_AT_ONCE", 4)
    async with followed(SHAPES["a page"], 2) as (client, _):
        await client.store(CARDS).insert_many([Card(f"new{number}", "l5") for number in range(20)])
        async with client.live(SHAPES["a page"](1)) as batches:  # followed already, and not concerned
            first = await anext(batches)
            assert first.commit == (await client.query(select(CARDS))).meta.commit


@pytest.mark.parametrize("name", ["whole rows", "a page", "a range", "columns"])
async def test_one_more_query_of_a_shape_is_not_planned_anew(name: str) -> None:
    async with followed(SHAPES[name], 3) as (client, _):
        with counted() as calls:
            async with client.live(SHAPES[name](99)) as batches:
                await anext(batches)
    assert not {"checked", "plan_view", "Shape.__init__", "Sorting.__init__"} & calls.keys()
    assert calls["Listing.__init__"] == 1
