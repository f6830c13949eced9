"""What stands beside the rows of a live result: kept up from the changes, and read where that is not enough."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from atoma import Schema, StoreSpec, belongs_to, count_of, has_many, select
from atoma.contracts.execution import QueryResult
from atoma.contracts.values import StoredRow
from atoma.ports import LocalTx, apply_batch
from atoma.ports.environment import seeded_environment
from atoma.query import bind
from atoma.query.builder import Query
from atoma.query.normal import with_values
from atoma.schema import Index
from atoma_stores.live.dispatch import LocalLiveQueries, open_live_queries
from atoma_stores.live.links import links_of
from atoma_stores.live.operators.assembled import Assembled
from atoma_stores.live.operators.children import Children
from atoma_stores.sqlite.engine import SQLiteEngine, SQLiteLocalDatabase

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Person:
    id: str
    name: str


@dataclass(frozen=True)
class Card:
    id: str
    owner: str
    rank: int


@dataclass(frozen=True)
class Remark:
    id: str
    card: str
    made: int


PEOPLE = StoreSpec("people", Person)
CARDS = StoreSpec("cards", Card, indexes=[Index("rank")])
REMARKS = StoreSpec("remarks", Remark, indexes=[Index("card", "-made")])
SCHEMA = Schema(PEOPLE, CARDS, REMARKS)
OWNER = belongs_to(CARDS, PEOPLE, on=CARDS.col(lambda card: card.owner))
REMARKS_OF = has_many(CARDS, REMARKS, on=REMARKS.col(lambda remark: remark.card))
ID = CARDS.col(lambda card: card.id)
TOP = select(CARDS).order_by("rank").limit(3)
LATEST = TOP.include(REMARKS_OF, lambda found: found.order_by("-made").limit(2))
STORE_OF = {"p": ("people", ("name",)), "c": ("cards", ("owner", "rank")), "r": ("remarks", ("card", "made"))}


def put(**rows: Sequence[object] | None) -> Callable[[LocalTx], None]:
    """Write rows by their ids; None deletes one."""

    def body(tx: LocalTx) -> None:
        for id, values in rows.items():
            store, columns = STORE_OF[id[0]]
            image: Any = None if values is None else dict(zip(columns, values, strict=True))
            tx.rows.put(store, id, "main", image)

    return body


@dataclass
class Followed:
    """A live query with its rows, as its reader has them."""

    database: SQLiteLocalDatabase
    live: LocalLiveQueries
    batches: Any
    rows: tuple[Any, ...] = ()
    told: list[str] = field(default_factory=list[str])

    async def write(self, **rows: Sequence[object] | None) -> tuple[Any, ...]:
        """What the result is behind a commit that changes it."""
        await self.database.apply(put(**rows))
        with trio.fail_after(5):
            batch = await anext(self.batches)
        self.told = [type(change).__name__ for change in batch.changes]
        self.rows = apply_batch(self.rows, batch)
        return self.rows

    @property
    def reads(self) -> int:
        """How often it was read, the first time among them."""
        (stats,) = self.live.stats()
        return stats.reads


@asynccontextmanager
async def followed(query: Query[Any], memory: int = 1 << 20) -> AsyncIterator[Followed]:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as database:
        await database.apply(put(p1=["Ann"], p2=["Bob"], c1=["p1", 1], c2=["p1", 2], c3=["p2", 3], c4=["p2", 4]))
        await database.apply(put(r1=["c1", 1], r2=["c1", 2], r3=["c1", 3], r4=["c2", 4]))
        async with open_live_queries(database, SCHEMA, memory=memory) as live:
            async with live.open_live(bind(query, SCHEMA)) as batches:
                found = Followed(database, live, batches)
                found.rows = apply_batch((), await anext(batches))
                yield found


def ids(rows: Sequence[Any]) -> list[Any]:
    """The rows by their ids, each with those beside it."""

    def shown(part: Any) -> Any:
        return [shown(each) for each in part] if isinstance(part, tuple) else getattr(part, "id", part)

    return [shown(row) for row in rows]


async def test_a_remark_is_told_beside_its_card_without_a_read() -> None:
    async with followed(LATEST) as found:
        assert ids(found.rows) == [["c1", ["r3", "r2"]], ["c2", ["r4"]], ["c3", []]]
        kept = found.rows[1]
        assert ids(await found.write(r5=["c1", 9]))[0] == ["c1", ["r5", "r3"]]
        assert found.told == ["Update"]
        assert ids(await found.write(r5=None))[0] == ["c1", ["r3", "r2"]]  # what it pushed out was kept
        assert ids(await found.write(r4=["c3", 4]))[1:] == [["c2", []], ["c3", ["r4"]]]
        assert ids(await found.write(c1=["p2", 7])) == [["c2", []], ["c3", ["r4"]], ["c4", []]]
        assert kept is not found.rows[0]
        assert kept[0] is found.rows[0][0], "of a row that has changed the rest is the same object"
        assert found.reads == 1


async def test_the_remarks_of_one_card_are_read_where_too_few_are_known_and_then_a_few_more_of_them() -> None:
    async with followed(LATEST) as found:
        for first in (10, 16):
            await found.database.apply(put(**{f"r{number}": ["c1", -number] for number in range(first, first + 6)}))
        assert found.reads == 1
        for gone in ("r3", "r2", "r1", *[f"r{number}" for number in range(10, 16)]):
            await found.write(**{gone: None})
        assert ids(found.rows)[0] == ["c1", ["r16", "r17"]]
        assert found.reads == 2
        for number in range(16, 21):
            await found.write(**{f"r{number}": None})
        assert ids(found.rows)[0] == ["c1", ["r21"]]  # there were more than had been read
        assert found.reads == 3


def test_children_that_were_let_go_are_known_to_be_there() -> None:
    def child(number: int) -> StoredRow:
        return StoredRow(f"r{number:02}", 1, 0, "main", {})

    found = Children([], [], 1, whole=True)
    for number in range(30, 0, -1):
        found.change(None, (number,), child(number))
        assert (found.shown, found.lacks) == ((child(number),), False)
    kept = len(found)
    assert kept < 30
    for number in range(1, kept + 1):
        assert not found.lacks
        found.change((number,), None, None)
    assert found.lacks


async def test_a_card_that_comes_in_is_read_with_its_remarks() -> None:
    async with followed(LATEST) as found:
        assert ids(await found.write(c9=["p1", 0], r9=["c9", 1]))[0] == ["c9", ["r9"]]
        assert found.reads == 2
        assert ids(await found.write(c9=None))[0] == ["c1", ["r3", "r2"]]
        assert found.reads == 2


async def test_what_is_kept_beside_a_card_goes_with_it() -> None:
    async with followed(LATEST) as found:
        assert found.live.stats()[0].held == 4
        await found.write(r5=["c1", 9])
        assert found.live.stats()[0].held == 4 + 3
        await found.write(c1=None)
        assert found.live.stats()[0].held == 3


async def test_how_many_remarks_there_are_is_counted_from_the_changes() -> None:
    async with followed(TOP.columns(ID, CARDS.col(lambda card: card.rank), count_of(REMARKS_OF))) as found:
        assert found.rows == (("c1", 1, 3), ("c2", 2, 1), ("c3", 3, 0))
        assert (await found.write(r8=["c3", 1], r1=None))[0::2] == (("c1", 1, 2), ("c3", 3, 1))
        assert (await found.write(r2=["c3", 1], c3=["p1", 2]))[2] == ("c3", 2, 2)
        assert found.reads == 1


async def test_an_owner_is_told_beside_each_of_its_cards() -> None:
    async with followed(TOP.include(OWNER)) as found:
        assert ids(await found.write(c0=["p2", 0])) == [["c0", "p2"], ["c1", "p1"], ["c2", "p1"]]
        assert ids(await found.write(c0=None)) == [["c1", "p1"], ["c2", "p1"], ["c3", "p2"]]
        assert ids(found.rows) == [["c1", "p1"], ["c2", "p1"], ["c3", "p2"]]
        rows = await found.write(p1=["Anna"])
        assert [row[1].image["name"] for row in rows] == ["Anna", "Anna", "Bob"]
        assert rows[0][1] is rows[1][1]
        assert ids(await found.write(p2=None))[2] == ["c3", None]
        assert found.reads == 1
        assert ids(await found.write(c1=["p2", 1]))[0] == ["c1", None]
        assert found.reads == 2


async def test_a_card_that_has_to_be_read_lends_its_owner_to_no_other_one() -> None:
    def stored(id: str, version: int = 1, **image: Any) -> StoredRow:
        return StoredRow(id, version, 0, "main", image)

    query = bind(TOP.include(OWNER), SCHEMA)
    found = Assembled(query, links_of(with_values(query)), SCHEMA, keep=True)
    card, ann = stored("c1", owner="p1", rank=1), stored("p1", name="Ann")
    found.load([QueryResult((), ((card, ann),))])
    # three commits are taken before anything is read
    found.apply({"cards": {"c1": (card, stored("c1", 2, owner="p2", rank=1))}})
    found.apply({"people": {"p1": (ann, stored("p1", 2, name="Anna"))}})
    found.apply({"cards": {"c0": (None, stored("c0", owner="p1", rank=0))}})
    (asked,) = found.reads()
    assert {"c0", "c1"} <= set(asked.params)


@pytest.mark.parametrize(
    ("query", "how"),
    [
        (LATEST, "tier 0: follows the changed rows in Python, those beside them too"),
        (TOP.columns(ID, CARDS.col(lambda card: card.rank), count_of(REMARKS_OF)), "tier 0: follows the changed rows"),
        (
            TOP.include(OWNER, lambda found: found.columns(PEOPLE.col(lambda person: person.name))),
            "tier 1: reads again",
        ),
    ],
)
async def test_it_is_said_what_is_kept(query: Query[Any], how: str) -> None:
    async with followed(query) as found:
        assert found.live.explain(bind(query, SCHEMA)).startswith(how)


async def test_remarks_count_for_the_memory_that_live_queries_have() -> None:
    every = select(CARDS).where(ID == "c1").include(REMARKS_OF)
    async with followed(every, memory=5_000) as found:
        assert found.live.stats()[0].tier == 0
        for first in range(10, 50, 8):
            await found.write(**{f"r{number}": ["c1", number] for number in range(first, first + 8)})
        (stats,) = found.live.stats()
        assert stats.tier == 2
        assert "memory" in stats.reason
        assert len(ids(await found.write(r4=["c1", 1]))[0][1]) == 44


@dataclass(frozen=True)
class Room:
    id: str
    house: str


@dataclass(frozen=True)
class Lamp:
    id: str
    room: str
    house: str


ROOMS, LAMPS = StoreSpec("rooms", Room, scope="house"), StoreSpec("lamps", Lamp, scope="house", indexes=[Index("room")])
HOUSES = Schema(ROOMS, LAMPS)
LAMPS_OF = has_many(ROOMS, LAMPS, on=LAMPS.col(lambda lamp: lamp.room))
ROOM_ID, HOUSE = ROOMS.col(lambda room: room.id), ROOMS.col(lambda room: room.house)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (select(ROOMS).include(LAMPS_OF), [["l1", "l3"], ["l1"], []]),
        (select(ROOMS).columns(ROOM_ID, HOUSE, count_of(LAMPS_OF)), [2, 1, 0]),
    ],
)
async def test_what_is_of_another_scope_stands_beside_no_row(query: Query[Any], shown: list[Any]) -> None:
    async with SQLiteEngine(":memory:").open_database(HOUSES, seeded_environment(1), frozenset()) as database:

        def lamp(id: str, house: str | None) -> Callable[[LocalTx], None]:
            image: Any = None if house is None else {"room": "r", "house": house}

            def body(tx: LocalTx) -> None:
                tx.rows.put("lamps", id, house or "a", image)

            return body

        await database.apply(lambda tx: tx.rows.put("rooms", "r", "a", {"house": "a"}))
        await database.apply(lamp("l1", "a"))
        asked = bind(query, HOUSES)
        async with open_live_queries(database, HOUSES) as live, live.open_live(asked) as batches:
            rows: tuple[Any, ...] = apply_batch((), await anext(batches))
            for write, part in zip((lamp("l3", "a"), lamp("l3", None), lamp("l1", None)), shown, strict=True):
                await database.apply(lamp("l2", "b"))
                await database.apply(write)
                rows = apply_batch(rows, await anext(batches))
                found = await database.read(asked)
                assert rows == found.tuples
                assert [ids([rows[0][-1]])[0] if isinstance(part, list) else rows[0][-1]] == [part]
            (stats,) = live.stats()
            assert (stats.tier, stats.reads) == (0, 1)
