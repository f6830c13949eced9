"""A row for which an expression has no value, as a number does not fit: it ends the live query that asks, and no other one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from atoma import Schema, StoreSpec, col, open_client, select
from atoma.errors import QueryError
from atoma.ports import apply_batch
from atoma.query import Rows
from atoma_stores.live.dispatch import ROWS_AT_ONCE
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True)
class Thing:
    id: str
    count: int = 0


THINGS = StoreSpec("things", Thing)
DOUBLED = col("count") * 2
QUERIES: dict[str, Rows[Thing]] = {
    "a condition": select(THINGS).where(DOUBLED > 3),
    "an order": select(THINGS).order_by(DOUBLED),
    "the first of them": select(THINGS).where(DOUBLED > 3).order_by("count").limit(2),
}


@pytest.mark.parametrize("asks", QUERIES)
@pytest.mark.parametrize("rows", [1, ROWS_AT_ONCE + 1], ids=["one row", "many rows"])
async def test_it_ends_the_live_query_and_others_go_on(tmp_path: Path, asks: str, rows: int) -> None:
    plugins = [LocalExecution(SQLiteEngine(tmp_path / "a.db"))]
    async with open_client(Schema(THINGS), plugins=plugins) as client:
        things = client.store(THINGS)
        async with things.live(QUERIES[asks]) as doubled, things.live() as every:
            shown: tuple[Thing, ...] = ()
            with trio.fail_after(60):
                await anext(doubled)
                shown = apply_batch(shown, await anext(every))
                await things.insert_many([Thing(f"{number:05}", 2**62) for number in range(rows)])
                with pytest.raises(QueryError, match="64 bits"):
                    await anext(doubled)
                shown = apply_batch(shown, await anext(every))
                assert len(shown) == rows
                await things.delete("00000")
                shown = apply_batch(shown, await anext(every))
                assert len(shown) == rows - 1
