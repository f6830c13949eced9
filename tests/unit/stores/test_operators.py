"""An operator that nobody knows is refused at every door, with a typed error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from atoma import Environment, Schema, StoreSpec
from atoma.contracts.codec import decode, encode
from atoma.contracts.query import Compare, CompareOp, QuerySpec
from atoma.contracts.values import StoredRow
from atoma.errors import ProtocolError, QueryError
from atoma.query.evaluate import evaluate
from atoma_stores.reactive.live import open_live_queries
from atoma_stores.sqlite import SQLiteEngine
from tests.paths import memory


@dataclass(frozen=True)
class Note:
    id: str
    rank: int = 0


SCHEMA = Schema(StoreSpec("notes", Note))
UNKNOWN = QuerySpec(where=Compare(cast("CompareOp", "between"), "rank", 1))


@pytest.mark.paths
async def test_the_engine_and_its_live_queries_refuse_it() -> None:
    async with SQLiteEngine(memory()).open_database(SCHEMA, Environment(executor="inline"), frozenset()) as database:
        with pytest.raises(QueryError, match="between"):
            await database.read("notes", UNKNOWN)
        async with open_live_queries(database, SCHEMA) as live:
            with pytest.raises(QueryError, match="between"):
                async with live.open_live("notes", UNKNOWN):
                    pytest.fail("it must not open")


def test_plain_evaluation_refuses_it() -> None:
    with pytest.raises(QueryError, match="between"):
        evaluate(UNKNOWN, [StoredRow("a", 1, 0, "main", {"rank": 1})])


def test_it_does_not_come_in_over_the_wire() -> None:
    with pytest.raises(ProtocolError, match="between"):
        decode(encode(UNKNOWN), QuerySpec)
