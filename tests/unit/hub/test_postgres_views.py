"""What people's SQL reads on PostgreSQL: a view per store, its fields by name, in types that reports know."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest

from atoma.contracts.mutations import Op
from atoma.contracts.values import HIDDEN
from atoma.schema import Rename, Scale, Schema, StoreSpec
from tests.postgres import server
from tests.unit.hub.homes import PostgreSQLHome
from tests.unit.hub.kit import Client, hub_on

psycopg = pytest.importorskip("psycopg", reason="the extra postgres is not installed")


class Lane(enum.StrEnum):
    TODO = "todo"


@dataclass(frozen=True)
class Everything:
    id: str
    text: str = "it's"
    whole: int = -(2**63)
    real: float = 0.1
    truth: bool = True
    raw: bytes = b"\x00\xff"
    lane: Lane = Lane.TODO
    at: datetime = datetime(2026, 2, 3, 4, 5, 6, 7, UTC)
    on: date = date(1, 1, 1)
    clock: time = time(1, 2, 3)
    span: timedelta = timedelta(days=-1, microseconds=1)
    name: UUID = field(default_factory=lambda: UUID(int=5))
    price: Annotated[Decimal, Scale(2)] = Decimal("-92233720368547758.08")
    bare: Decimal = Decimal("1.5")
    document: dict[str, Any] = field(default_factory=lambda: {"a": [1, 1.5, None]})
    nothing: Annotated[Decimal, Scale(3)] | None = None


THINGS = StoreSpec("things", Everything, soft_delete=True)


async def test_every_type_is_shown_as_what_it_is_and_what_is_hidden_is_not(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store(), schema=Schema(THINGS)) as hub:
        client = Client.of(hub, "a")
        for id in ("1", "2"):
            await client.do(Op("create", "things", id, THINGS.encode(Everything(id))[1]))
        await client.do(Op("patch", "things", "2", {HIDDEN: "2026-01-01T00:00:00.000000Z"}), base=2)
    with psycopg.connect(pg.address()) as connection:
        cursor = connection.execute("SELECT * FROM atoma_views.things")
        names = [column.name for column in cursor.description or ()]
        (row,) = cursor.fetchall()
    wanted = {name: getattr(Everything("1"), name) for name in names}
    found = dict(zip(names, row, strict=True))
    assert found == wanted
    assert {name: type(value) for name, value in found.items() if name != "lane"} == {
        name: type(value) for name, value in wanted.items() if name != "lane"
    }


@dataclass(frozen=True)
class Note1:
    id: str
    title: str


@dataclass(frozen=True)
class Note2:
    id: str
    done: bool = False  # before one that is there
    title: str = ""


@dataclass(frozen=True)
class Note3:
    id: str
    name: str
    done: bool = False


async def test_a_view_that_somebody_has_dropped_is_there_again_at_the_next_opening(pg: PostgreSQLHome) -> None:
    for schema, dropped, shown in (
        (Schema(StoreSpec("notes", Note1)), "VIEW IF EXISTS atoma_views.none", ["id", "title"]),
        (Schema(StoreSpec("notes", Note1)), "VIEW atoma_views.notes", ["id", "title"]),
        (Schema(StoreSpec("notes", Note2), version=2), "SCHEMA atoma_views CASCADE", ["id", "done", "title"]),
    ):
        pg.ask(f"DROP {dropped}")
        async with hub_on(pg.store(), schema=schema):
            pass
        columns = "SELECT attname::text FROM pg_attribute WHERE attrelid='atoma_views.notes'::regclass ORDER BY attnum"
        assert [name for (name,) in pg.ask(columns)] == shown


async def test_a_role_that_only_reads_keeps_its_rights_when_fields_come_and_go(pg: PostgreSQLHome) -> None:
    steps: Any = {3: [Rename("notes.title", "name")]}
    schemas = [
        Schema(StoreSpec("notes", Note1)),
        Schema(StoreSpec("notes", Note2), version=2),
        Schema(StoreSpec("notes", Note3), version=3, steps=steps),
    ]
    where = server()
    ((name,),) = pg.ask("SELECT current_database()::text")
    where.sql("DROP ROLE IF EXISTS reports")
    where.sql("CREATE ROLE reports LOGIN")
    try:
        async with hub_on(pg.store(), schema=schemas[0]) as hub:
            await Client.of(hub, "a").do(Op("create", "notes", "1", {"title": "t"}))
        where.sql(
            "GRANT USAGE ON SCHEMA atoma_views TO reports; GRANT SELECT ON ALL TABLES IN SCHEMA atoma_views TO reports; "
            "ALTER DEFAULT PRIVILEGES IN SCHEMA atoma_views GRANT SELECT ON TABLES TO reports",
            str(name),
        )
        shown = [["id", "title"], ["id", "title", "done"], ["id", "name", "done"]]
        rows = [("1", "t"), ("1", "t", False), ("1", "t", False)]
        for schema, columns, row in zip(schemas, shown, rows, strict=True):
            for _ in range(2):
                async with hub_on(pg.store(), schema=schema):
                    pass
            with psycopg.connect(where.dsn(str(name), "reports"), autocommit=True) as connection:
                cursor = connection.execute("SELECT * FROM atoma_views.notes")
                assert [column.name for column in cursor.description or ()] == columns
                assert cursor.fetchall() == [row]
                for refused in (
                    "SELECT * FROM atoma.notes",
                    "UPDATE atoma_views.notes SET id='2'",
                    "SELECT * FROM atoma_hub.tx",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(refused)
    finally:
        where.sql("DROP OWNED BY reports; DROP ROLE reports", str(name))
