"""What functions make of texts has a bound, the same in SQLite as in Python."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from atoma import Schema, StoreSpec, open_client, select
from atoma.contracts.limits import REPLACED_MAX
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.query import bind
from atoma.query.evaluate import evaluate
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True)
class Note:
    id: str
    text: str


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)
TEXT = NOTES.col(lambda note: note.text)


async def test_what_replace_makes_has_a_bound_however_often_it_is_said() -> None:
    twice = TEXT
    for _ in range(10):
        twice = twice.replace("a", "aa")
    within, beyond = select(NOTES).columns(twice.length()), select(NOTES).columns(twice.replace("a", "aa").length())
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(":memory:"))]) as client:
        await client.store(NOTES).insert(Note("1", "a" * (REPLACED_MAX // 1024)))
        assert list(await client.query(within)) == [REPLACED_MAX // 1024 * 1024]
        with pytest.raises(QueryError, match="a text of more than 1,000,000 characters"):
            await client.query(beyond)
    row = StoredRow("1", 1, 0, "main", {"text": "a" * REPLACED_MAX})
    with pytest.raises(QueryError, match="a text of more than 1,000,000 characters"):
        list(evaluate(bind(beyond, SCHEMA), {"notes": [row]}))
