"""Columns, groups and aggregates through ``client.query`` on a file: what comes back, decoded, page by page."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import pytest

from atoma import Client, Query, Scale, Schema, StoreSpec, avg, col, count, max_, min_, open_client, select, sum_
from atoma.errors import QueryError
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


class Lane(enum.StrEnum):
    TODO = "todo"
    DONE = "done"


@dataclass(frozen=True)
class Size:
    x: int
    y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    lane: Lane | None = None
    hours: int | None = None
    weight: float | None = None
    price: Annotated[Decimal, Scale(2)] = Decimal(0)
    rate: Decimal = Decimal(0)
    made: datetime
    due: date | None = None
    took: timedelta | None = None
    key: UUID
    open: bool
    size: Size


def card(number: int, lane: Lane | None, hours: int | None, price: str) -> Card:
    return Card(
        id=f"c{number}",
        lane=lane,
        hours=hours,
        weight=None if hours is None else hours / 2,
        price=Decimal(price),
        rate=Decimal("1.50"),
        made=datetime(2026, 1, number + 1, 12, tzinfo=UTC),
        due=None if number % 2 else date(2026, 2, number + 1),
        took=None if hours is None else timedelta(hours=hours),
        key=UUID(int=number),
        open=number % 2 == 0,
        size=Size(number, 2),
    )


CARDS = StoreSpec("cards", Card)
SCHEMA = Schema(CARDS)
ROWS = [
    card(0, Lane.TODO, 3, "1.10"),
    card(1, Lane.TODO, None, "2.20"),
    card(2, Lane.DONE, 5, "0.05"),
    card(3, None, 8, "9.99"),
    card(4, None, 1, "0.01"),
    card(5, Lane.DONE, 5, "7.00"),
]
LANE = CARDS.col(lambda row: row.lane)
HOURS = CARDS.col(lambda row: row.hours)
PRICE = CARDS.col(lambda row: row.price)
MADE = CARDS.col(lambda row: row.made)
OPEN = CARDS.col(lambda row: row.open)
DUE = CARDS.col(lambda row: row.due)
TOOK = CARDS.col(lambda row: row.took)
ID = CARDS.col(lambda row: row.id)


class Stat(NamedTuple):
    lane: Lane | None
    cards: int
    hours: int | None


@asynccontextmanager
async def cards(path: Path) -> AsyncGenerator[Client]:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path / "cards.db"))]) as client:
        await client.store(CARDS).insert_many(ROWS)
        yield client


BY_LANE = select(CARDS).into(Stat, LANE, count(), sum_(HOURS)).group_by(LANE)

ANSWERS: dict[str, tuple[Query[Any], list[object]]] = {
    "one column": (select(CARDS).columns(HOURS).order_by("-hours").limit(2), [8, 5]),
    "decoded": (
        select(CARDS).columns(*map(col, Card.__dataclass_fields__)).where(ID == "c2"),
        [tuple(getattr(ROWS[2], name) for name in Card.__dataclass_fields__)],
    ),
    "nothing decoded": (select(CARDS).columns(ID, HOURS).limit(2), [("c0", 3), ("c1", None)]),
    "a class": (select(CARDS).into(Size, HOURS.coalesce(0), HOURS.coalesce(1)).where(ID == "c1"), [Size(0, 1)]),
    "conditions are bools": (
        select(CARDS).columns(ID, HOURS > 4).limit(3),
        [("c0", False), ("c1", None), ("c2", True)],
    ),
    "distinct": (select(CARDS).columns(LANE).distinct(), [None, Lane.DONE, Lane.TODO]),
    "distinct pairs": (
        select(CARDS).columns(LANE, HOURS).distinct().order_by(HOURS.desc()).limit(2),
        [(None, 8), (Lane.DONE, 5)],
    ),
    "groups": (BY_LANE, [Stat(None, 2, 9), Stat(Lane.DONE, 2, 10), Stat(Lane.TODO, 2, 3)]),
    "groups that are sorted": (BY_LANE.order_by(sum_(HOURS).desc()).limit(1), [Stat(Lane.DONE, 2, 10)]),
    "having": (BY_LANE.having(sum_(HOURS) > 9), [Stat(Lane.DONE, 2, 10)]),
    "having a member": (
        select(CARDS).columns(OPEN, max_(LANE)).group_by(OPEN).having(max_(LANE) == Lane.TODO),
        [(False, Lane.TODO), (True, Lane.TODO)],
    ),
    "a filter of an aggregate": (
        select(CARDS).columns(LANE, count(where=HOURS > 4), count(HOURS), count(HOURS, distinct=True)).group_by(LANE),
        [(None, 1, 2, 2), (Lane.DONE, 2, 2, 1), (Lane.TODO, 0, 1, 1)],
    ),
    "aggregates are decoded": (
        select(CARDS).columns(sum_(PRICE), min_(MADE), max_(DUE), sum_(TOOK), min_(PRICE), avg(HOURS)),
        [(Decimal("20.35"), ROWS[0].made, date(2026, 2, 5), timedelta(hours=22), Decimal("0.01"), 4.4)],
    ),
    "over nothing": (select(CARDS).columns(count(), sum_(HOURS), max_(LANE)).where(HOURS > 100), [(0, None, None)]),
    "by an expression": (
        select(CARDS).columns(HOURS.coalesce(0) > 4, count()).group_by(HOURS.coalesce(0) > 4),
        [(False, 3), (True, 3)],
    ),
    "made of others": (
        select(CARDS).columns(ID.upper(), ID.length(), HOURS.coalesce(7)).where(HOURS.is_null()),
        [("C1", 2, 7)],
    ),
    "by text": (select(CARDS).columns(col("open"), max_(col("due"))).group_by("open").limit(1), [(False, None)]),
}


@pytest.mark.paths
async def test_an_answer_has_the_columns_that_were_asked_for(tmp_path: Path) -> None:
    async with cards(tmp_path) as client:
        for name, (query, expected) in ANSWERS.items():
            await compare(client, name, query, expected)


async def compare(client: Client, name: str, query: Query[object], expected: list[object]) -> None:
    page = await client.query(query)
    assert list(page) == expected, name
    assert [type(each) for each in page] == [type(each) for each in expected], name
    assert await client.first(query) == expected[0]
    assert await client.exists(query)
    assert page.versions == ()
    whole = await client.query(query.limit(10_000).with_total())
    assert await client.count(query) == whole.total == len(whole) > 0


PAGED = [name for name, (query, _) in ANSWERS.items() if name not in ("aggregates are decoded", "over nothing")]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.paths
async def test_pages_lead_through_every_answer_and_back(size: int, tmp_path: Path) -> None:
    async with cards(tmp_path) as client:
        for name in PAGED:
            await check_pages(client, ANSWERS[name][0].limit(10_000), size)


async def check_pages(client: Client, query: Query[object], size: int) -> None:
    whole = list(await client.query(query))
    page = await client.query(query.limit(size))
    there = [list(page)]
    while page.has_next:
        page = await client.query(query.limit(size).after(page.end))
        there.append(list(page))
        assert len(there) <= len(whole)
    assert [row for each in there for row in each] == whole
    back = [list(page)]
    while page.has_previous:
        page = await client.query(query.limit(size).before(page.start))
        back.append(list(page))
        assert len(back) <= len(whole)
    assert [row for each in reversed(back) for row in each] == whole
    assert list(await client.query(query.limit(size).before(""))) == whole[-size:]


async def test_a_result_of_one_row_has_no_pages(tmp_path: Path) -> None:
    async with cards(tmp_path) as client:
        query = select(CARDS).columns(count())
        page = await client.query(query)
        assert not page.has_next
        assert not page.has_previous
        with pytest.raises(QueryError, match="a query with one row has no pages"):
            await client.query(query.before(""))


REFUSED: dict[str, tuple[Query[Any], str]] = {
    "a bare column beside an aggregate": (
        select(CARDS).columns(LANE, count()),
        r"lane has many values in a group(.|\n)*group_by\(lane\)",
    ),
    "an aggregate in where": (select(CARDS).where(count() > 1), r"use having\(\)"),
    "groups of whole rows": (select(CARDS).group_by(LANE), "say which columns"),
    "whole rows that are distinct": (select(CARDS).distinct(), "whole rows are distinct by themselves"),
    "a sum of texts": (select(CARDS).columns(sum_(col("id"))), r"sum\(\) takes int or real"),  # type: ignore[arg-type]
    "a sort key that is not a column of distinct rows": (
        select(CARDS).columns(LANE).distinct().order_by("hours"),
        "distinct rows are sorted by their columns",
    ),
    "a column of another store": (
        select(StoreSpec("others", Card)).columns(LANE),
        "this query reads 'others', and that is a column of 'cards'",
    ),
    "a member of no enumeration": (
        select(CARDS).columns(OPEN, max_(LANE)).group_by(OPEN).having(max_(LANE) == "todo"),
        "wants a Lane",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_makes_no_sense_is_refused(name: str, tmp_path: Path) -> None:
    query, message = REFUSED[name]
    async with cards(tmp_path) as client:
        with pytest.raises(QueryError) as caught:
            await client.query(query)
    assert caught.match(message) or caught.value.hint


def test_what_cannot_be_built_is_refused_at_once() -> None:
    query = select(CARDS)
    for build, message in (
        (lambda: query.columns(), "at least one column"),  # type: ignore[call-overload]
        (lambda: query.columns("lane"), "takes columns"),  # type: ignore[call-overload]
        (lambda: query.into(Stat, LANE), "into\\(\\) gives Stat 1 values"),  # type: ignore[arg-type]
        (lambda: query.into("Stat", LANE), "takes a class or a function first"),  # type: ignore[call-overload]
        (lambda: query.group_by(3), "group_by\\(\\) takes columns"),  # type: ignore[arg-type]
        (lambda: query.having("x"), "a condition is made with"),  # type: ignore[arg-type]
        (lambda: sum_("hours"), "sum\\(\\) takes a column"),  # type: ignore[call-overload]
    ):
        with pytest.raises(QueryError, match=message):
            build()


async def test_a_cursor_of_other_groups_is_refused(tmp_path: Path) -> None:
    async with cards(tmp_path) as client:
        page = await client.query(BY_LANE.limit(1))
        with pytest.raises(QueryError, match="the cursor belongs to a query of cards ordered by lane"):
            await client.query(select(CARDS).columns(OPEN, count()).group_by(OPEN).after(page.end))


async def test_a_store_answers_with_its_own_rows_only(tmp_path: Path) -> None:
    async with cards(tmp_path) as client:
        with pytest.raises(QueryError, match="makes something else of its rows"):
            await client.store(CARDS).query(BY_LANE)  # type: ignore[arg-type]


async def test_the_words_of_a_query_with_columns(tmp_path: Path) -> None:
    async with cards(tmp_path) as client:
        told = await client.explain(BY_LANE.having(count() > 1))
        assert told.query == (
            "SELECT lane, count(*), sum(hours) FROM cards GROUP BY lane HAVING count(*) > 1 ORDER BY lane"
        )
        assert told.hub == "ok"
