"""What a client says of a query before it asks: read off SQLite, with the index to add."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoma.client import Client, open_client
from atoma.contracts.explanation import Access
from atoma.contracts.query import (
    Agg,
    Branch,
    Call,
    Col,
    Exists,
    Include,
    Join,
    Lit,
    Named,
    Order,
    Plan,
    Store,
)
from atoma.errors import QueryError
from atoma.query import col, select
from atoma.query.advice import wanted_indexes
from atoma.query.normal import bind as bind_plan
from atoma.schema import Index, Schema, StoreSpec
from atoma.testing.queries import written
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite.engine import SQLiteEngine


@dataclass(frozen=True)
class Card:
    id: str
    lane: str
    size: int
    title: str


@dataclass(frozen=True)
class Remark:
    id: str
    card: str
    made: int


CARDS = StoreSpec("cards", Card, indexes=[Index("lane", "size")])
REMARKS = StoreSpec("remarks", Remark)
SCHEMA = Schema(CARDS, REMARKS)
ID = Col(0, "id")
OF_CARD = Call("eq", (Col(0, "card"), Col(-1, "id")))
REMARKS_OF = Include(
    "remarks",
    False,
    (("id", "card"),),
    (Branch(None, Plan(Store("remarks"), order=(Order(Col(0, "made")),), limit=3)),),
)


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[Client]:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(folder / "a.db"))]) as client:
        yield client


async def test_a_query_with_its_index_is_searched_and_not_sorted(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        query = select(CARDS).where(col("lane") == "todo").order_by("size").limit(20)
        found = await client.explain(query)
    line = "SEARCH cards USING INDEX _atoma_index_cards__lane__size (lane=?)"
    assert found.sources == (Access("cards", "", line, "_atoma_index_cards__lane__size", scans=False, sorts=False),)
    assert (found.hub, found.warnings) == ("ok", ())
    assert str(found).splitlines() == [
        "FROM cards WHERE lane = 'todo' ORDER BY size, id LIMIT 20",
        f"  SQLite   {line}; no sort; ≤ 20 rows",
        "  live     tier 0: follows the changed rows in Python; 20 rows and a few behind them are kept; found by lane",
        "  hub      ok",
    ]
    assert query.text() == "FROM cards WHERE lane = 'todo' ORDER BY size LIMIT 20"


MISSING: dict[str, tuple[Plan, tuple[str, ...]]] = {
    "equal": (
        Plan(Store("cards"), where=Call("eq", (Col(0, "title"), Lit("text", "a")))),
        ('cards: every row is read; add Index("title")',),
    ),
    "a range": (
        Plan(Store("cards"), where=Call("gt", (Col(0, "size"), Lit("int", 1)))),
        (),
    ),
    "equal and sorted": (
        Plan(Store("remarks"), where=Call("eq", (Col(0, "card"), Lit("text", "a"))), order=(Order(Col(0, "made")),)),
        ('remarks: every row is read; add Index("card", "made")',),
    ),
    "sorted otherwise": (
        Plan(Store("cards"), where=Call("eq", (Col(0, "lane"), Lit("text", "a"))), order=(Order(Col(0, "title")),)),
        ('cards: what was found is sorted; add Index("lane", "title")',),
    ),
    "an include": (
        Plan(Store("cards"), include=(REMARKS_OF,)),
        ('remarks: every row is read; add Index("card", "made")',),
    ),
    "whether others exist": (
        Plan(Store("cards"), where=Exists(Plan(Store("remarks"), where=OF_CARD))),
        ('remarks: every row is read; add Index("card")',),
    ),
    "by its id": (Plan(Store("cards"), where=Call("eq", (ID, Lit("text", "a")))), ()),
    "every row": (Plan(Store("cards")), ()),
    "by a function of a column": (
        Plan(Store("cards"), where=Call("eq", (Call("lower", (Col(0, "title"),)), Lit("text", "a")))),
        ('cards: every row is read; add Index(col("title").lower())',),
    ),
    "sorted both ways": (
        Plan(Store("cards"), order=(Order(Col(0, "title")), Order(Col(0, "size"), True)), limit=5),
        ('cards: every row is read; add Index("title", "-size")',),
    ),
    "the last ones first": (
        Plan(Store("cards"), order=(Order(Col(0, "size"), True), Order(ID, True)), limit=5),
        ('cards: every row is read; add Index("size")',),
    ),
    "by what no index has": (
        Plan(Store("cards"), where=Call("eq", (Call("abs", (Col(0, "size"),)), Lit("int", 5)))),
        (),
    ),
}


NOT_HELPED = ("every row", "by what no index has", "a range")
"""What is read whole, in the order of ids, and no index that is advised changes that."""


@pytest.mark.parametrize("name", MISSING)
async def test_a_missing_index_is_told_with_the_line_to_add(name: str, tmp_path: Path) -> None:
    plan, warnings = MISSING[name]
    async with opened(tmp_path) as client:
        found = await client.explain(written(plan, SCHEMA))
    assert found.warnings == warnings
    assert all(warning in str(found) for warning in warnings)
    helped = any(each.scans or each.sorts for each in found.sources) and name not in NOT_HELPED
    assert bool(warnings) == helped


async def test_the_index_that_is_advised_is_used_once_it_is_there(tmp_path: Path) -> None:
    for number, (name, (plan, _)) in enumerate(MISSING.items()):
        wanted = list(wanted_indexes(bind_plan(plan, SCHEMA.store).plan))
        stores = [
            StoreSpec(
                spec.name,
                spec.model,
                indexes=[*spec.indexes, *(index for of, index in wanted if of == spec.name)],
            )
            for spec in (CARDS, REMARKS)
        ]
        plugins = [LocalExecution(SQLiteEngine(tmp_path / f"{number}.db"))]
        async with open_client(Schema(*stores), plugins=plugins) as client:
            found = await client.explain(written(plan, Schema(*stores)))
        assert found.warnings == (), name
        for each in found.sources:
            assert not each.sorts, name
            assert not (each.scans and not each.index and each.store in dict(wanted)), name


async def test_every_source_is_told_and_how_it_is_followed(tmp_path: Path) -> None:
    join = Join("inner", Store("remarks"), Call("eq", (Col(1, "card"), ID)))
    async with opened(tmp_path) as client:
        found = await client.explain(written(Plan(Store("cards"), joins=(join,)), SCHEMA))
        assert sorted(each.store for each in found.sources) == ["cards", "remarks"]
        assert found.live == (
            "tier 1: reads again what is made of changed rows: its rows are made of more than one; all rows are kept; "
            "found in cards by every row of the store, remarks by every row of the store"
        )
        assert found.hub == "ok"
        found = await client.explain(written(Plan(Store("cards"), include=(REMARKS_OF,)), SCHEMA))
        assert [(each.store, each.level) for each in found.sources] == [
            ("cards", ""),
            ("remarks", "include remarks (limit 3 for each)"),
            ("remarks", "include remarks (limit 3 for each)"),
        ]
        found = await client.explain(written(Plan(Store("cards"), columns=(Named("n", Agg("count")),)), SCHEMA))
        assert found.hub == "ok"
        with pytest.raises(QueryError, match="no field 'nope'"):
            await client.explain(select(CARDS).where(col("nope") == 1))
    assert "policy direct-local" in client.explain("direct-local")
