"""Real questions about flights: the answers are those of the same question in SQL on the same file, and in DuckDB."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoma import Client, avg, count, open_client, select
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.flights import (
    AIRLINE,
    AIRLINES,
    AIRPORTS,
    DEST,
    FLIGHTS,
    FLIGHTS_BY,
    FLIGHTS_OF,
    FLIGHTS_TO,
    PLANE,
    PLANES,
    SCHEMA,
    WEATHER,
    WEATHER_AT,
    airlines,
    airports,
    fill,
    flights,
    planes,
    weather,
)
from tests.outsiders import Tables, compare, turn
from tests.scenarios.flights.questions import QUESTIONS, airline_id, arr_delay, dest, id_, month
from tests.unit.stores.test_statements import statements

FILE = "flights.db"
SAMPLE = 100
"""One of so many flights is in the tests of every change; all of them are in the soak."""


@asynccontextmanager
async def open_flights(path: Path, every: int) -> AsyncGenerator[Client]:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path / FILE))]) as client:
        await fill(client, every)
        yield client


def tables(every: int) -> Tables:
    """The rows, read from the package again."""
    return {
        AIRLINES: airlines(), AIRPORTS: airports(), PLANES: planes(), FLIGHTS: flights(every),
        WEATHER: weather(max(1, every // 20)),
    }  # fmt: skip


async def look_into(client: Client) -> None:
    """Children with their parents are those of the same join, regrouped."""
    every = list(await client.query(select(FLIGHTS)))
    known = {row.id: row for row in await client.query(select(PLANES))}
    at = {(row.origin, row.hour_of): row for row in await client.query(select(WEATHER))}
    late = lambda row: (row.arr_delay is None, -(row.arr_delay or 0), row.id)  # noqa: E731
    lines = select(AIRLINES).include(
        FLIGHTS_BY, lambda f: f.where(arr_delay > 30).order_by("-arr_delay").limit(3).include(PLANE).include(WEATHER_AT)
    )
    seen = 0
    for line, worst in await client.query(lines):
        own = [row for row in every if row.carrier == line.id and (row.arr_delay or 0) > 30]
        top = sorted(own, key=late)[:3]
        assert [row for row, _, _ in worst] == top
        assert [plane for _, plane, _ in worst] == [known.get(row.tailnum or "") for row in top]
        assert [sky for _, _, sky in worst] == [at.get((row.origin, row.hour_of)) for row in top]
        seen += sum(sky is not None for _, _, sky in worst)
    assert seen > 0
    monthly = (
        select(AIRLINES)
        .columns(airline_id)
        .include(FLIGHTS_BY, lambda f: f.columns(month, count(), avg(arr_delay)).group_by(month))
    )
    for code, months in await client.query(monthly):
        own = [row for row in every if row.carrier == code]
        assert [number for number, _, _ in months] == sorted({row.month for row in own})
        for number, many, mean in months:
            late_by = [row.arr_delay for row in own if row.month == number and row.arr_delay is not None]
            assert many == sum(row.month == number for row in own)
            assert mean == (pytest.approx(sum(late_by) / len(late_by)) if late_by else None)
    flown = select(PLANES).include(FLIGHTS_OF, lambda f: f.where(month == 7)).limit(200)
    for plane, july in await client.query(flown):
        assert july == tuple(row for row in every if row.tailnum == plane.id and row.month == 7)


@pytest.mark.xdist_group("machine")
async def test_questions_about_a_sample_of_the_flights(tmp_path: Path) -> None:
    async with open_flights(tmp_path, SAMPLE) as client:
        await compare(client, tmp_path / FILE, QUESTIONS, tables(SAMPLE))
        await turn(client, QUESTIONS)
        await look_into(client)


async def test_an_include_is_one_statement_for_each_level(tmp_path: Path) -> None:
    with statements() as told:
        async with open_flights(tmp_path, SAMPLE * 4) as client:
            for query, levels in (
                (select(AIRLINES), 1),
                (select(AIRLINES).include(FLIGHTS_BY), 2),
                (
                    select(AIRLINES)
                    .columns(airline_id)
                    .include(FLIGHTS_BY, lambda f: f.columns(month, count()).group_by(month).limit(3))
                    .include(FLIGHTS_BY, lambda f: f.columns(avg(arr_delay))),
                    3,
                ),
                (select(AIRLINES).include(FLIGHTS_BY, lambda f: f.limit(2).include(PLANE)), 3),
                (
                    select(AIRPORTS).include(
                        FLIGHTS_TO, lambda f: f.include(AIRLINE).include(DEST).include(WEATHER_AT)
                    ),
                    5,
                ),
                (
                    select(FLIGHTS)
                    .where(dest == "BOS")
                    .order_by(id_)
                    .limit(50)
                    .include(PLANE, lambda p: p.include(FLIGHTS_OF)),
                    3,
                ),
            ):
                del told[:]
                assert len(await client.query(query)) > 10
                asked = [each for each in told if each.startswith("SELECT") and " AS t0" in each]
                # what takes longer than the loop has time for begins anew in another thread
                assert len(set(asked)) == levels, asked


async def test_what_the_flights_are_looked_up_by_is_indexed(tmp_path: Path) -> None:
    async with open_flights(tmp_path, SAMPLE * 20) as client:
        best = select(AIRLINES).include(FLIGHTS_BY, lambda f: f.order_by("-arr_delay").limit(3))
        assert (await client.explain(best)).warnings == ()
        far = select(AIRLINES).include(FLIGHTS_BY, lambda f: f.order_by("-distance").limit(3))
        assert (await client.explain(far)).warnings == (
            'flights: what was found is sorted; add Index("carrier", "-distance")',
        )


@pytest.mark.soak
@pytest.mark.xdist_group("machine")
async def test_questions_about_all_flights(tmp_path: Path) -> None:
    async with open_flights(tmp_path, 1) as client:
        assert await client.count(select(FLIGHTS)) == 336_776
        await compare(client, tmp_path / FILE, QUESTIONS, tables(1))
