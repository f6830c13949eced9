"""Import goes through the store's own writes, tells what it refused, and can be repeated; export is whole or not there."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import trio

from atoma import Client, Index, Schema, StoreSpec, col, open_client, select
from atoma.errors import AtomaError, ConfigurationError, QueryError, ValidationError
from atoma.runtime.transfer import AT_ONCE
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True)
class Bill:
    id: str
    customer: Annotated[str, msgspec.Meta(min_length=1)]
    cents: int = 0
    note: str | None = None
    tags: tuple[str, ...] = ()
    made: datetime | None = None


def capital(bill: Bill) -> Bill:
    return Bill(bill.id, bill.customer.title(), bill.cents, bill.note, bill.tags, bill.made)


BILLS = StoreSpec("bills", Bill, before_save=capital, indexes=[Index("customer", "cents", unique=True)])
wrong: Any = lambda value: value  # noqa: E731


def opened() -> Any:
    return open_client(Schema(BILLS), plugins=[LocalExecution(SQLiteEngine(":memory:"))])


async def rows(client: Client) -> list[tuple[str, str, int]]:
    return [(bill.id, bill.customer, bill.cents) for bill in await client.query(select(BILLS).order_by("id"))]


MIXED = '''\
id,customer,cents,note
1,ann,5,
2,,6,nobody
3,bob,many,
4,carl
5,"dora, of ""Essen""",7,"two
lines"
1,ann,5,
1,eve,5,
6,ann,5,the same as 1
'''


async def test_what_is_refused_is_told_by_its_line_and_the_rest_is_written(tmp_path: Path) -> None:
    source, refused = tmp_path / "bills.csv", tmp_path / "refused.ndjson"
    source.write_bytes(b"\xef\xbb\xbf" + MIXED.replace("\n", "\r\n").encode())
    async with opened() as client:
        store = client.store(BILLS)
        report = await store.import_(source, rejected=refused)
        assert await rows(client) == [("1", "Ann", 5), ("5", 'Dora, Of "Essen"', 7)]
        found = await store.get("5")
        assert found is not None and found.note == "two\r\nlines"
        told = [(each.line, each.id, each.code) for each in report.first]
        assert told == [
            (3, "2", "INVALID"), (4, "", "INVALID"), (5, "", "INVALID"), (8, "1", "CONFLICT"), (9, "1", "CONFLICT"),
            (10, "6", "CONFLICT"),
        ]  # fmt: skip
        assert [json.loads(line)["line"] for line in refused.read_text().splitlines()] == [3, 4, 5, 8, 9, 10]
        assert "wants int, got str: 'many'" in report.first[1].message
        assert (report.lines, report.written, report.present) == (8, 2, 0)
        with pytest.raises(ConfigurationError, match="exists"):
            await store.import_(source, rejected=refused)


async def test_an_import_is_repeated_or_overwrites_as_is_asked(tmp_path: Path) -> None:
    source = tmp_path / "bills.json"
    async with opened() as client:
        store = client.store(BILLS)
        bills = [
            Bill(f"{n}", f"C{n}", n, tags=("a",), made=datetime(2026, 1, 1, tzinfo=UTC)) for n in range(AT_ONCE + 7)
        ]
        await store.insert_many(bills)
        assert await store.export(source) == len(bills)
        again = await store.import_(source)
        assert (again.written, again.present, again.rejected) == (0, len(bills), 0)
        source.write_text('[{"id": "1", "cents": 9, "customer": "x"}, {"id": "new", "customer": "y"}]')
        report = await store.import_(source, conflict="upsert")
        assert report.written == 2
        assert await store.get("1") == Bill("1", "X", 9, tags=("a",), made=datetime(2026, 1, 1, tzinfo=UTC))
        assert await store.get("new") == Bill("new", "Y")
        part = tmp_path / "part.csv"
        assert await store.export(part, select(BILLS).where(col("cents") >= 500).order_by("-cents")) == 7
        assert part.read_text().splitlines()[1].startswith("506,C506,506,,")


async def test_an_empty_text_is_told_from_none(tmp_path: Path) -> None:
    source = tmp_path / "bills.csv"
    async with opened() as client:
        store = client.store(BILLS)
        await store.insert_many([Bill("1", "A", 1, note=""), Bill("2", "A", 2, note=None), Bill("3", "A", 3, note='"')])
        await store.export(source)
        await store.delete_many(["1", "2", "3"])
        await store.import_(source)
        assert [bill.note for bill in await store.query()] == ["", None, '"']


BROKEN: list[tuple[str, bytes, type[AtomaError], str]] = [
    ("csv", b"id,customer,owner\n1,a,b\n", ValidationError, "no field 'owner'; there are: id, customer"),
    ("csv", b"customer\nann\n", ValidationError, "the id is needed"),
    ("csv", b"", ValidationError, "the id is needed"),
    ("csv", b'id,customer\n1,"ann\n' + b"x\n" * 9, ValidationError, "a quote in line 2 is never closed"),
    ("json", b'{"id": "1"}\n{"id": "2"}', ValidationError, "with a row in each line it is ndjson"),
    ("json", b'[{"id": "1", "customer": "a"}, {"id": ', ValidationError, "ends within its JSON array"),
    ("json", b"[" * 100_000, ValidationError, "ends within its JSON array"),
    ("parquet", b"PAR1 and nothing else", ValidationError, "cannot be read"),
    ("arrow", b"ARROW1 and nothing else", ValidationError, "cannot be read"),
    ("txt", b"", ConfigurationError, "give format=, one of csv, ndjson"),
]


@pytest.mark.parametrize(("format", "data", "error", "told"), BROKEN, ids=range(len(BROKEN)))
async def test_a_file_that_is_something_else_is_one_error(
    tmp_path: Path, format: str, data: bytes, error: type[AtomaError], told: str
) -> None:
    source = tmp_path / f"bills.{format}"
    source.write_bytes(data)
    async with opened() as client:
        with pytest.raises(error, match=told):
            await client.store(BILLS).import_(source)


async def test_a_line_that_cannot_be_read_concerns_itself_alone(tmp_path: Path) -> None:
    source = tmp_path / "bills.ndjson"
    lines = [
        b'{"id": "1", "customer": "a", "cents": 1.5}', b'{"id": "2", "customer": ["a"]}', b"[]", b"{", b"\xff",
        b'{"id": "3", "customer": "\\ud800"}', b'{"id": "4", "customer": "a", "x": 1}', b'{"id": 5, "customer": "a"}',
        b'{"id": "6", "customer": "ok", "tags": ["\xc3\xa9"]}', b"", b'{"id": "7", "customer": "a", "tags": {}}',
        b'{"id": "8", "customer": "a", "cents": 9223372036854775808}', b'{"id": "9"}',
    ]  # fmt: skip
    source.write_bytes(b"\n".join(lines))
    async with opened() as client:
        report = await client.store(BILLS).import_(source)
        assert (report.written, report.rejected) == (1, 11), report.first
        assert await client.store(BILLS).get("6") == Bill("6", "Ok", tags=("é",))


async def test_an_export_that_does_not_end_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "bills.csv"
    async with opened() as client:
        store = client.store(BILLS)
        await store.insert_many([Bill(f"{n}", f"C{n}", n) for n in range(2 * AT_ONCE)])
        with trio.CancelScope() as scope:
            await store.export(target, progress=lambda _done, _of: scope.cancel())
        assert scope.cancelled_caught and list(tmp_path.iterdir()) == []
        target.write_text("mine")
        with pytest.raises(ConfigurationError, match="exists"):
            await store.export(target)
        with pytest.raises(QueryError, match="every row of a query"):
            await store.export(tmp_path / "x.csv", select(BILLS).limit(5))
        with pytest.raises(ValidationError, match="one of insert, upsert"):
            await store.import_(target, conflict=wrong("replace"))
        assert [file.name for file in tmp_path.iterdir()] == ["bills.csv"] and target.read_text() == "mine"


async def test_only_a_part_of_a_file_is_in_memory(tmp_path: Path) -> None:
    source = tmp_path / "bills.csv"
    text = "x" * 4_000
    with source.open("w") as stream:
        stream.write("id,customer,cents,note\n")
        stream.writelines(f"{n},c,{n},{text}\n" for n in range(6_000))
    told: list[tuple[int, int]] = []
    async with opened() as client:
        store = client.store(BILLS)
        tracemalloc.start()
        try:
            await store.import_(source, progress=lambda done, of: told.append((done, of)))
            await store.export(tmp_path / "again.json")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert await store.count() == 6_000
    size = source.stat().st_size
    assert told[-1] == (size, size) and len(told) == 12
    assert peak < size / 2, f"{peak / 1e6:.1f} of {size / 1e6:.1f} MB"
