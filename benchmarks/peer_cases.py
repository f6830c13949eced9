"""Queries beside peers, in one run over the same rows: the indexed top 50 of 100,000, and a join with groups over all of them.

Each gets its rows from a file of its own, in the form in which it is used: Atoma, SQLAlchemy and peewee make objects of a class,
DuckDB and bare SQLite tuples. The first question takes a tenth of a millisecond, so each is asked it some times in its turn, and
before that as often without being timed: else it would be measured whose turn it was before.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw
import duckdb
import peewee
import sqlalchemy
from sqlalchemy import orm

from atoma import Client, Index, Schema, StoreSpec, count, open_client, select, sum_
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from benchmarks.measure import Row, Samples

CARDS, LANES, TOP = 100_000, 1_000, 50
ROUNDS, TIMES = (60, 9), (10, 1)
"""Of either question: the number of rounds, and how often each is asked in its turn."""
SQL = (
    "CREATE TABLE lanes(id TEXT PRIMARY KEY, name TEXT NOT NULL)",
    "CREATE TABLE cards(id TEXT PRIMARY KEY, title TEXT NOT NULL, lane TEXT NOT NULL, priority INTEGER NOT NULL, due INTEGER)",
    "CREATE INDEX by_lane ON cards(lane, priority DESC)",
)
TOP_SQL = f"SELECT id, title, lane, priority, due FROM cards WHERE lane = ? ORDER BY priority DESC, id LIMIT {TOP}"
GROUPS_SQL = "SELECT l.name, count(*), sum(c.priority) FROM cards c JOIN lanes l ON c.lane = l.id GROUP BY l.name ORDER BY l.name"
Operation = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Lane:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Card:
    id: str
    title: str
    lane: str
    priority: int
    due: int | None


LANE = StoreSpec("lanes", Lane)
CARD = StoreSpec("cards", Card, indexes=[Index("lane", "-priority")])
lane_of, priority = CARD.col(lambda card: card.lane), CARD.col(lambda card: card.priority)
lane_id, lane_name = LANE.col(lambda lane: lane.id), LANE.col(lambda lane: lane.name)
GROUPS = (
    select(CARD)
    .join(LANE, lane_of == lane_id)
    .columns(lane_name, count(), sum_(priority))
    .group_by(lane_name)
    .order_by(lane_name)
)


@lru_cache(maxsize=1)
def _lanes() -> list[tuple[Any, ...]]:
    return [(f"l{number:04}", f"lane {number}") for number in range(LANES)]


@lru_cache(maxsize=1)
def _cards() -> list[tuple[Any, ...]]:
    return [
        (f"c{number:06}", f"Card {number}", f"l{number * 7919 % LANES:04}", number * 31 % 1_000, number % 3 or None)
        for number in range(CARDS)
    ]


def _file(path: Path) -> str:
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    with connection:
        for statement in SQL:
            connection.execute(statement)
        connection.executemany("INSERT INTO lanes VALUES(?, ?)", _lanes())
        connection.executemany("INSERT INTO cards VALUES(?, ?, ?, ?, ?)", _cards())
    connection.close()
    return str(path)


async def peers(folder: Path) -> list[Row]:
    """Both questions, asked of each in turn."""
    path = folder / "atoma.db"
    with ExitStack() as stack:
        async with open_client(Schema(LANE, CARD), plugins=[LocalExecution(SQLiteEngine(path))]) as client:
            await client.store(LANE).insert_many([Lane(*row) for row in _lanes()])
            for start in range(0, CARDS, 20_000):
                await client.store(CARD).insert_many([Card(*row) for row in _cards()[start : start + 20_000]])
            asked = [
                _bare(folder, stack),
                _atoma(client),
                _sqlalchemy(folder, stack),
                _peewee(folder, stack),
                _duckdb(stack),
            ]
            kept = "Atoma, a query that is kept", (_kept(client), asked[1][1][1])
            return [
                *await _rows("W4: top 50 of a lane", 0, [*asked[:2], kept, *asked[2:]], "≤ 1.4×"),
                *await _rows("W7a: a join in 1,000 groups", 1, asked, "≤ 1.3×"),
            ]


Asked = tuple[str, tuple[Operation, Operation]]


async def _rows(case: str, at: int, asked: list[Asked], bar: str) -> list[Row]:
    samples = Samples()
    for _ in range(ROUNDS[at]):
        for name, operations in asked:
            for _ in range(TIMES[at]):
                await operations[at]()
            began = time.perf_counter()
            for _ in range(TIMES[at]):
                found = await operations[at]()
                assert found == (TOP, LANES)[at], (name, found)
            samples.add(name, (time.perf_counter() - began) / TIMES[at])
    return samples.rows(case, "bare SQLite", 1e3, "ms", {"Atoma": bar})


def _bare(folder: Path, stack: ExitStack) -> Asked:
    connection = apsw.Connection(_file(folder / "bare.db"), flags=apsw.SQLITE_OPEN_READONLY)
    stack.callback(connection.close)

    async def top() -> int:
        return len(connection.execute(TOP_SQL, ("l0007",)).fetchall())

    async def groups() -> int:
        return len(connection.execute(GROUPS_SQL).fetchall())

    return "bare SQLite", (top, groups)


def _atoma(client: Client) -> Asked:
    async def top() -> int:
        return len(await client.query(select(CARD).where(lane_of == "l0007").order_by("-priority").limit(TOP)))

    async def groups() -> int:
        return len(await client.query(GROUPS))

    return "Atoma", (top, groups)


def _kept(client: Client) -> Operation:
    query = select(CARD).where(lane_of == "l0007").order_by("-priority").limit(TOP)

    async def top() -> int:
        return len(await client.query(query))

    return top


def _sqlalchemy(folder: Path, stack: ExitStack) -> Asked:
    class Base(orm.DeclarativeBase):
        pass

    class Lanes(Base):
        __tablename__ = "lanes"
        id: orm.Mapped[str] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str]

    class Cards(Base):
        __tablename__ = "cards"
        id: orm.Mapped[str] = orm.mapped_column(primary_key=True)
        title: orm.Mapped[str]
        lane: orm.Mapped[str]
        priority: orm.Mapped[int]
        due: orm.Mapped[int | None]

    engine = sqlalchemy.create_engine(f"sqlite:///{_file(folder / 'sqlalchemy.db')}")
    stack.callback(engine.dispose)

    async def top() -> int:
        query = (
            sqlalchemy.select(Cards).where(Cards.lane == "l0007").order_by(Cards.priority.desc(), Cards.id).limit(TOP)
        )
        with orm.Session(engine) as session:
            return len(session.scalars(query).all())

    async def groups() -> int:
        sums = sqlalchemy.func.count(), sqlalchemy.func.sum(Cards.priority)
        query = sqlalchemy.select(Lanes.name, *sums).join(Cards, Cards.lane == Lanes.id).group_by(Lanes.name)
        with orm.Session(engine) as session:
            return len(session.execute(query.order_by(Lanes.name)).all())

    return f"SQLAlchemy {sqlalchemy.__version__}", (top, groups)


def _peewee(folder: Path, stack: ExitStack) -> Asked:
    database = peewee.SqliteDatabase(_file(folder / "peewee.db"))
    stack.callback(database.close)
    meta = type("Meta", (), {"database": database, "table_name": "lanes"})
    key, text, whole = peewee.CharField(primary_key=True), peewee.CharField, peewee.IntegerField
    lanes: Any = type("Lanes", (peewee.Model,), {"id": key, "name": text(), "Meta": meta})
    meta = type("Meta", (), {"database": database, "table_name": "cards"})
    fields = {
        "id": peewee.CharField(primary_key=True),
        "title": text(),
        "lane": text(),
        "priority": whole(),
        "due": whole(null=True),
    }
    cards: Any = type("Cards", (peewee.Model,), {**fields, "Meta": meta})

    async def top() -> int:
        query = cards.select().where(cards.lane == "l0007").order_by(cards.priority.desc(), cards.id).limit(TOP)
        return len(list(query))

    async def groups() -> int:
        columns = lanes.name, peewee.fn.count(), peewee.fn.sum(cards.priority)
        query = lanes.select(*columns).join(cards, on=cards.lane == lanes.id).group_by(lanes.name).order_by(lanes.name)
        return len(list(query.tuples()))

    return f"peewee {version('peewee')}", (top, groups)


def _duckdb(stack: ExitStack) -> Asked:
    connection = stack.enter_context(duckdb.connect())
    for statement in SQL:
        connection.execute(statement.replace("priority DESC", "priority"))
    connection.execute("INSERT INTO lanes SELECT 'l' || format('{:04d}', i), 'lane ' || i FROM range(?) t(i)", [LANES])
    connection.execute(
        "INSERT INTO cards SELECT 'c' || format('{:06d}', i), 'Card ' || i, 'l' || format('{:04d}', i * 7919 % ?), "
        "i * 31 % 1000, CASE WHEN i % 3 > 0 THEN i % 3 END FROM range(?) t(i)",
        [LANES, CARDS],
    )

    async def top() -> int:
        return len(connection.execute(TOP_SQL, ["l0007"]).fetchall())

    async def groups() -> int:
        return len(connection.execute(GROUPS_SQL).fetchall())

    return f"DuckDB {duckdb.__version__}, in memory", (top, groups)
