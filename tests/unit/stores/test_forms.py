"""Files from before columns had forms are brought up to date as they are opened, and what would misread numbers is refused."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType

import pytest

from atoma.contracts.values import RowImage
from atoma.errors import MigrationError
from atoma.ports import Environment, LocalTx
from atoma.query import bind, col, select
from atoma.schema import Index, Scale, Schema, StoreSpec
from atoma_stores.sqlite.device_files import read_sync
from atoma_stores.sqlite.engine import SQLiteEngine
from tests.unit.stores.kit import insert, opened
from tests.unit.stores.older import make_older

Name = NewType("Name", str)
Count = NewType("Count", int)
Weight = NewType("Weight", float)
Switch = NewType("Switch", bool)
Raw = NewType("Raw", bytes)
At = NewType("At", datetime)
Price = NewType("Price", Decimal)
if TYPE_CHECKING:
    Word = NewType("Word", str)
else:
    Word = NewType("Word", Literal["a", '"a"'])


class Color(Enum):
    RED = "red"
    BLUE = "blue"


Tone = NewType("Tone", Color)
NO_PRICE, BEGINNING, PLAIN_TONE = Price(Decimal(0)), At(datetime(2026, 1, 1, tzinfo=UTC)), Tone(Color.RED)
FIRST_WORD = Word("a")


@dataclass(frozen=True)
class Thing:
    id: str
    key: uuid.UUID
    name: Name
    alarm: time = time(12)
    lasts: timedelta = timedelta(0)
    price: Decimal | None = None
    named_price: Price = NO_PRICE
    count: Count = Count(0)
    weight: Weight = Weight(0.5)
    flag: Switch = Switch(False)
    raw: Raw | None = None
    since: At = BEGINNING
    tone: Tone = PLAIN_TONE
    word: Word = FIRST_WORD
    plain: str = ""


THINGS = StoreSpec(
    "things", Thing, indexes=[Index("key", unique=True), Index("name"), Index("alarm", "lasts"), Index("price")]
)
OTHERS = StoreSpec("others", Thing)
SCHEMA = Schema(THINGS, OTHERS)
NAMES = ["a", "b", '"a"', '"', '""', '"b', "null", "1", '"\\"a\\""', "é", "\U0001f600", "", "\\", 'the "one"']
LONGEST = timedelta(microseconds=2**63 - 1)


def some_things() -> list[Thing]:
    """Rows whose values are near the bounds and near one another's packed forms."""
    made = [Thing(f"{at:02}", uuid.UUID(int=at * 2**100 + 10 - at), Name(name)) for at, name in enumerate(NAMES)]
    made[0] = replace(
        made[0], price=Decimal("1.50"), named_price=Price(Decimal("-0.10")), lasts=LONGEST, count=Count(-(2**63))
    )
    made[1] = replace(
        made[1], price=Decimal(100), lasts=timedelta(microseconds=-1), count=Count(2**63 - 1), word=Word('"a"')
    )
    made[2] = replace(made[2], price=Decimal("0.001"), alarm=time(0, 0, 0, 1), raw=Raw(b"\x00\xff"), flag=Switch(True))
    made[3] = replace(
        made[3], alarm=time(23, 59, 59, 999_999), weight=Weight(1e300), tone=Tone(Color.BLUE), plain='"a"'
    )
    return made


def put(store: StoreSpec[Any], rows: Sequence[Any]) -> Any:
    def body(tx: LocalTx) -> None:
        for id, image in zip(*store.encode_many(rows), strict=True):
            tx.rows.put(store.name, id, "main", image)

    return body


async def make_file(path: Path, rows: Sequence[Thing], synced: frozenset[str] = frozenset()) -> None:
    """A file of before with these rows in both stores."""
    async with opened(path, schema=SCHEMA, synced=synced) as device:
        for store in (THINGS, OTHERS):
            await device.db.apply(put(store, rows))
    make_older(path, SCHEMA)


def columns(path: Path, *names: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT {', '.join(names)} FROM things ORDER BY id").fetchall()


def schema_number(path: Path) -> int:
    """Moves whenever a table, an index, a trigger or a view is made or dropped."""
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("PRAGMA schema_version").fetchone()[0])


@pytest.mark.paths
@pytest.mark.parametrize("synced", [frozenset[str](), frozenset({"things"})], ids=["local", "synced"])
async def test_a_file_of_before_is_read_by_value_and_answers_by_its_indexes(
    tmp_path: Path, synced: frozenset[str]
) -> None:
    path, rows = tmp_path / "a.db", some_things()
    await make_file(path, rows, synced)
    assert columns(path, "name", "count", "price", "lasts")[0] == (
        '"a"',
        str(-(2**63)),
        "1.50",
        '"P106751991DT14454.775807S"',
    )
    for _ in range(2):
        async with opened(path, schema=SCHEMA, synced=synced) as device:
            for store in (THINGS, OTHERS):
                found = (await device.db.read(bind(select(store), SCHEMA))).rows
                assert [store.decode(row.id, row.image) for row in found] == rows

            async def ask(condition: Any) -> list[str]:
                asked = select(THINGS) if condition is None else select(THINGS).where(condition)
                return [row.id for row in (await device.db.read(bind(asked.order_by("name"), SCHEMA))).rows]

            for row in rows:
                assert await ask(col("key") == row.key) == [row.id]
                assert await ask(col("name") == row.name) == [row.id]
            assert await ask(col("price") == Decimal("1.5")) == ["00"]
            assert await ask(col("lasts") < timedelta(0)) == ["01"]
            assert await ask(col("alarm") > time(12)) == ["03"]
            assert await ask(None) == [row.id for row in sorted(rows, key=lambda row: row.name)]
            image = THINGS.encode(replace(rows[0], id="again"))[1]
            assert not (await device.write(insert("again", image, store="things"))).items[0].ok, "a key is taken"
    assert columns(path, "name", "count", "price", "lasts")[0] == ("a", -(2**63), "1.5", 2**63 - 1)
    with closing(sqlite3.connect(path)) as database:
        kinds = database.execute(
            "SELECT count(*) FROM sqlite_schema WHERE name GLOB '_atoma_guard_things_*'"
        ).fetchone()
        assert kinds == (3 if synced else 0,)


async def test_a_file_that_is_up_to_date_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await make_file(path, some_things())
    older = schema_number(path)
    numbers: list[int] = []
    for _ in range(2):
        async with opened(path, schema=SCHEMA):
            pass
        numbers.append(schema_number(path))
    assert older < numbers[0] == numbers[1]


KILLED = """
import os, signal, sys, trio
from msgspec.structs import force_setattr
from atoma.ports import Environment
from atoma_stores.sqlite.engine import SQLiteEngine
from tests.unit.stores.test_forms import SCHEMA

left, packed = int(sys.argv[2]), SCHEMA.stores["others"].fields["name"].packed
unpack = packed.unpack

def until(value):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return unpack(value)

force_setattr(packed, "unpack", until)

async def main():
    async with SQLiteEngine(sys.argv[1]).open_database(SCHEMA, Environment(), frozenset()):
        raise AssertionError("it lives")

trio.run(main)
"""


@pytest.mark.xdist_group("machine")
async def test_a_program_that_is_killed_in_between_leaves_a_file_that_opens(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.db", some_things()
    await make_file(path, rows)
    for after in (1, len(rows)):  # the first store is rebuilt, and the second one is on its way
        command = [sys.executable, "-c", KILLED, str(path), str(after)]
        ended = subprocess.run(
            command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert columns(path, "name")[:2] == [('"a"',), ('"b"',)], "nothing of it has happened"
    async with opened(path, schema=SCHEMA) as device:
        found = (await device.db.read(bind(select(OTHERS), SCHEMA))).rows
        assert [OTHERS.decode(row.id, row.image) for row in found] == rows


async def test_a_value_that_no_column_of_today_holds_is_named_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await make_file(path, some_things())
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE things SET lasts='\"P999999999D\"' WHERE id='03'")
    before = columns(path, "*")
    with pytest.raises(MigrationError, match=r"row '03' holds '.P999999999D.' in 'lasts', which is not a timedelta"):
        async with opened(path, schema=SCHEMA):
            raise AssertionError("opened")
    assert columns(path, "*") == before
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE things SET lasts='\"P9D\"', alarm='\"12:00:00+02:00\"' WHERE id='03'")
    async with opened(path, schema=SCHEMA) as device:
        row = await device.get("03", store="things")
        assert row is not None
        thing = THINGS.decode(row.id, row.image)
        assert (thing.lasts, thing.alarm.utcoffset()) == (timedelta(days=9), timedelta(hours=2)), (
            "an older rule let it in"
        )


@dataclass(frozen=True)
class Bill:
    id: str
    total: Annotated[Decimal, Scale(2)]
    tip: Annotated[Decimal, Scale(0)] | None = None
    note: str = ""


BILLS = StoreSpec("bills", Bill, indexes=[Index("total")])


def declared(hint: Any) -> Schema:
    """The same store with another type of ``total``."""
    hints: dict[str, Any] = {**Bill.__annotations__, "id": str, "total": hint, "tip": int | None, "note": str}
    model = type("Bill", (), {"__annotations__": hints})
    return Schema(StoreSpec("bills", dataclass(frozen=True)(model)))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (Decimal, Annotated[Decimal, Scale(2)], r"'total' is decimal in the file and decimal\(2\) in the code; its values become others: .*Convert\(.bills\.total"),
        (int, Annotated[Decimal, Scale(2)], r"is int in the file and decimal\(2\) in the code; its values"),
        (Annotated[Decimal, Scale(2)], Annotated[Decimal, Scale(3)], r"is decimal\(2\) in the file and decimal\(3\) in the code"),
        (Annotated[Decimal, Scale(2)], int, r"is decimal\(2\) in the file and int in the code; its values become others"),
        (Annotated[Decimal, Scale(2)], Decimal, r"is decimal\(2\) in the file and decimal in the code"),
        (int, timedelta, "is int in the file and duration in the code"),
        (timedelta, int, "is duration in the file and int in the code"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("older", [False, True], ids=["today's", "of before"])
async def test_what_would_be_read_as_other_numbers_is_refused(
    tmp_path: Path, before: Any, after: Any, told: str, older: bool
) -> None:
    path = tmp_path / "a.db"
    async with opened(path, schema=declared(before)):
        pass
    if older:
        if before not in (int, Decimal):
            return  # there was none
        make_older(path, declared(before))
        told = told.replace("is decimal in", "is TEXT in").replace("is int in", "is INTEGER in")
    with pytest.raises(MigrationError, match=told):
        async with opened(path, schema=declared(after)):
            raise AssertionError("opened")
    async with opened(path, schema=declared(before)):
        pass


async def test_a_text_that_becomes_a_decimal_is_told_apart_by_value(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, schema=declared(str)) as device:
        image: RowImage = {"total": "1.50", "tip": None, "note": ""}
        await device.write(insert("1", image, store="bills"))
    schema = declared(Decimal)
    async with opened(path, schema=schema) as device:
        asked = bind(select(schema.store("bills")).where(col("total") == Decimal("1.5")), schema)
        assert len((await device.db.read(asked)).rows) == 1


UNITS = [0, 1, -1, 5, -5, 99, -99, 100, -100, 12345, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("places", [0, 1, 2, 18])
async def test_other_tools_read_decimals_in_a_view(tmp_path: Path, places: int) -> None:
    path, schema = tmp_path / "a.db", declared(Annotated[Decimal, Scale(places)])
    bills = schema.store("bills")
    values = {f"{at:02}": Decimal(f"{units}E-{places}") for at, units in enumerate(UNITS)}
    async with opened(path, schema=schema) as device:
        await device.db.apply(put(bills, [bills.model(id, value, None, "n") for id, value in values.items()]))
    with closing(sqlite3.connect(path)) as database:
        shown = database.execute("SELECT id, total, tip, note FROM bills_readable ORDER BY id").fetchall()
        stored = database.execute("SELECT total FROM bills ORDER BY id").fetchall()
    assert shown == [(id, format(value, "f"), None, "n") for id, value in values.items()]
    assert [units for (units,) in stored] == UNITS


async def test_the_view_follows_its_store_and_takes_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, schema=Schema(BILLS)):
        pass
    made = schema_number(path)
    async with opened(path, schema=Schema(BILLS)):
        pass
    assert schema_number(path) == made

    @dataclass(frozen=True)
    class Longer(Bill):
        more: str = "x"

    async with opened(path, schema=Schema(StoreSpec("bills", Longer, indexes=[Index("total")]))) as device:
        await device.db.apply(put(StoreSpec("bills", Longer), [Longer("1", Decimal("-0.05"), Decimal(7))]))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT * FROM bills_readable").fetchall() == [("1", "-0.05", "7", "", "x")]
    with closing(sqlite3.connect(tmp_path / "b.db")) as database, database:
        pass
    async with opened(tmp_path / "b.db", schema=Schema(OTHERS)):
        pass
    with closing(sqlite3.connect(tmp_path / "b.db")) as database, database:
        database.execute("CREATE VIEW bills_readable AS SELECT 1")
    with pytest.raises(MigrationError, match="'bills_readable' is in the way"):
        async with opened(tmp_path / "b.db", schema=Schema(OTHERS, BILLS)):
            raise AssertionError("opened")


@pytest.mark.parametrize("older", [False, True], ids=["today's", "of before"])
async def test_a_file_opened_by_its_own_schema_is_read_and_left_as_it_is(tmp_path: Path, older: bool) -> None:
    path, rows = tmp_path / "a.db", some_things()
    await make_file(path, rows)
    if not older:
        async with opened(path, schema=SCHEMA):
            pass
    number, kept = schema_number(path), columns(path, "*")
    known = read_sync(str(path)).schema
    async with SQLiteEngine(path).open_database(known, Environment(), frozenset()) as database:
        found = (await database.read(bind(select(known.store("things")), known))).rows
        sent = [known.store("things").pack(row.image) for row in found]
    assert [THINGS.unpack(image) for image in sent] == [THINGS.encode(row)[1] for row in rows]
    assert all(str(image["name"]).startswith('"') for image in sent), "and a program of before reads it, too"
    assert (schema_number(path), columns(path, "*")) == (number, kept)
    async with opened(path, schema=SCHEMA) as device:
        found = (await device.db.read(bind(select(THINGS), SCHEMA))).rows
        assert [THINGS.decode(row.id, row.image) for row in found] == rows
