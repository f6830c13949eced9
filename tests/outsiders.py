"""Questions compared with others: the same in SQL on the same file, and in DuckDB over the same rows."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from atoma import Client, Query, StoreSpec

duckdb = pytest.importorskip("duckdb", reason="the test group has it")
Questions: TypeAlias = "Mapping[str, tuple[Query[Any], str]]"
Tables: TypeAlias = "Mapping[StoreSpec[Any], Iterable[object]]"
COLUMNS = {"INTEGER": "BIGINT", "REAL": "DOUBLE", "TEXT": "VARCHAR"}


def outsider(folder: Path, tables: Tables) -> Any:
    """DuckDB with the same rows, as columns hold them."""
    connection = duckdb.connect()
    connection.execute("SET default_null_order='nulls_first_on_asc_last_on_desc'")
    for spec, rows in tables.items():
        columns = ", ".join(f'"{name}" {COLUMNS[field.sql_type]}' for name, field in spec.fields.items())
        connection.execute(f"CREATE TABLE {spec.name} ({columns})")
        file = folder / f"{spec.name}.csv"
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            for row in rows:
                id, image = spec.encode(row)
                values = [id if name == "id" else image[name] for name in spec.fields]
                writer.writerow(["\\N" if value is None else value for value in values])
        connection.execute(f"COPY {spec.name} FROM '{file}' (FORMAT csv, HEADER false, NULLSTR '\\N')")
    return connection


def stored(value: object) -> object:
    """A value as its column has it; decimals have two places."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, Decimal):
        return int(value.scaleb(2))
    return value.isoformat() if isinstance(value, date) else value


def as_tuple(row: object) -> tuple[object, ...]:
    return tuple([stored(value) for value in (row if isinstance(row, tuple) else (row,))])


def close(left: Sequence[object], right: Sequence[object]) -> bool:
    """Whether two rows are equal; a mean of DuckDB is not rounded once."""
    return len(left) == len(right) and all(
        a == b if not isinstance(a, float) or not isinstance(b, (int, float)) else a == pytest.approx(b, rel=1e-12)
        for a, b in zip(left, right, strict=True)
    )


async def compare(client: Client, file: Path, questions: Questions, tables: Tables) -> None:
    """Each question has the same answer here, in SQL on the same file, and in DuckDB."""
    found = 0
    with closing(sqlite3.connect(file)) as same, closing(outsider(file.parent, tables)) as other:
        for name, (query, sql) in questions.items():
            rows = [as_tuple(row) for row in await client.query(query)]
            for told in (same.execute(sql).fetchall(), other.execute(sql).fetchall()):
                assert len(rows) == len(told), name
                assert [pair for pair in zip(rows, told, strict=True) if not close(*pair)][:3] == [], name
            found += bool(rows)
    assert found >= 0.9 * len(questions), "most questions have an answer"


async def turn(client: Client, questions: Questions) -> None:
    """Pages of every question, both ways, put together are its answer."""
    for name, (query, _) in questions.items():
        if query.parts.limit is not None:
            continue
        whole = list(await client.query(query))
        size = max(1, len(whole) // 5)
        page = await client.query(query.limit(size))
        pages = [list(page)]
        while page.has_next:
            page = await client.query(query.limit(size).after(page.end))
            pages.append(list(page))
        assert [row for each in pages for row in each] == whole, name
        back = [list(page)]
        while page.has_previous:
            page = await client.query(query.limit(size).before(page.start))
            back.append(list(page))
        assert [row for each in reversed(back) for row in each] == whole, name
