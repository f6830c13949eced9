"""``_many`` calls in several portions: every item has its own result at its own place."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio

from atoma import Schema, StoreSpec, open_client
from atoma.errors import ConflictError, ValidationError
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.paths import memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    id: str
    size: int


ROWS = StoreSpec("rows", Row)
SCHEMA = Schema(ROWS)
COUNT = 1_200
INVALID, TAKEN = 701, 30


def rows() -> list[Row]:
    made = [Row(id=f"{number:05}", size=number) for number in range(COUNT)]
    made[INVALID] = Row(id="bad", size=2**63)
    return made


@pytest.mark.paths
async def test_a_refused_item_keeps_its_place_among_many() -> None:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(memory()))]) as client:
        store = client.store(ROWS)
        await store.insert(Row(id=f"{TAKEN:05}", size=-1))
        result = await store.insert_many(rows())
        assert (result.status, len(result), [item.id for item in result]) == ("partial", COUNT, [r.id for r in rows()])
        assert [place for place, item in enumerate(result.items) if not item.ok] == [TAKEN, INVALID]
        assert isinstance(result.items[TAKEN].error, ConflictError)
        assert isinstance(result.items[INVALID].error, ValidationError)
        last = result.items[-1]
        assert last is result.items[COUNT - 1]
        assert last.handle is not None
        assert (last.handle.value, last.handle.changed) == (rows()[-1], True)
        assert last.handle.value is last.handle.value
        assert [item.id for item in result.items[700:703]] == ["00700", "bad", "00702"]
        with pytest.raises(ConflictError):
            result.raise_for_errors()
        assert await store.count() == COUNT - 1


@pytest.mark.paths
async def test_atomic_raises_the_first_error_and_writes_nothing() -> None:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(memory()))]) as client:
        store = client.store(ROWS)
        with pytest.raises(ValidationError, match=r"rows\.size"):
            await store.insert_many(rows(), atomic=True)
        assert await store.count() == 0


async def test_others_run_while_many_are_checked() -> None:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(memory()))]) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.store(ROWS).insert_many(rows())
        assert scope.cancelled_caught
        assert await client.store(ROWS).count() == 0
