"""What a query computes by the methods of an expression, on a file: each gives what the same words say of Python's values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from atoma import Schema, StoreSpec, case, col, open_client, select
from atoma.schema.expressions import Condition, Expression
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = "  Two Words "
    number: int = 7
    real: float = 2.5
    nothing: int | None = None
    day: date = date(2026, 2, 3)
    at: datetime = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    clock: time = time(4, 5, 6)


NOTES = StoreSpec("notes", Note)
TEXT, NUMBER, REAL, NOTHING = col("text"), col("number"), col("real"), col("nothing")

VALUES: dict[str, tuple[Expression[Any], object]] = {
    "trim": (TEXT.trim(), "Two Words"),
    "ltrim": (TEXT.ltrim(), "Two Words "),
    "rtrim": (TEXT.rtrim(), "  Two Words"),
    "lower": (TEXT.lower(), "  two words "),
    "upper": (TEXT.upper(), "  TWO WORDS "),
    "length": (TEXT.length(), 12),
    "substr": (TEXT.substr(3, 3), "Two"),
    "replace": (TEXT.replace("Two", "2"), "  2 Words "),
    "concat": (TEXT.concat("!"), "  Two Words !"),
    "to_text": (NUMBER.to_text(), "7"),
    "to_text of a day": (col("day").to_text(), "2026-02-03"),
    "to_int": (REAL.to_int(), 2),
    "to_real": (NUMBER.to_real(), 7.0),
    "to_date": (col("at").to_date(), date(2026, 2, 3)),
    "year": (col("day").year(), 2026),
    "month": (col("at").month(), 2),
    "day": (col("at").day(), 3),
    "hour": (col("clock").hour(), 4),
    "minute": (col("clock").minute(), 5),
    "minute of a moment": (col("at").minute(), 5),
    "second": (col("at").second(), 6),
    "coalesce": (NOTES.col(lambda note: note.nothing).coalesce(9), 9),
    "round": (round(REAL), 3.0),
    "abs": (abs(-NUMBER), 7),
    "case": (case((NUMBER > 9, "large"), otherwise="small"), "small"),
}

CONDITIONS: dict[str, tuple[Condition, bool]] = {
    "is_same of two values": (NUMBER.is_same(7), True),
    "is_same of two that are missing": (NOTHING.is_same(None), True),
    "is_same of one that is missing": (NUMBER.is_same(None), False),
    "not_in": (NUMBER.not_in([1, 2]), True),
    "starts": (TEXT.trim().starts("two"), True),
    "starts, exactly": (TEXT.trim().starts("two", exact=True), False),
    "ends": (TEXT.trim().ends("WORDS"), True),
    "contains": (TEXT.contains("o w"), True),
}


@pytest.mark.parametrize("name", VALUES)
async def test_a_method_computes_a_value(name: str, tmp_path: Path) -> None:
    expression, expected = VALUES[name]
    async with open_client(Schema(NOTES), plugins=[LocalExecution(SQLiteEngine(tmp_path / "a.db"))]) as client:
        await client.store(NOTES).insert(Note(id="1"))
        (found,) = await client.query(select(NOTES).columns(expression))
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize("name", CONDITIONS)
async def test_a_method_is_a_condition(name: str, tmp_path: Path) -> None:
    condition, expected = CONDITIONS[name]
    async with open_client(Schema(NOTES), plugins=[LocalExecution(SQLiteEngine(tmp_path / "a.db"))]) as client:
        await client.store(NOTES).insert(Note(id="1"))
        assert await client.count(select(NOTES).where(condition)) == expected
