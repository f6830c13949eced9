"""Searching texts, by words or by regular expressions, has one meaning, which PostgreSQL has no words for: there it is refused,
wherever it stands in a query.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atoma import AllowLoopback, Schema, StoreSpec, col, open_hub, select
from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.mutations import Op
from atoma.errors import RemoteError
from atoma.ports.service import Principal
from atoma.query.binding import bind
from tests.unit.hub.homes import home_of
from tests.unit.hub.kit import direct, hub_on

pytest.importorskip("psycopg", reason="the extra postgres is not installed")


@dataclass(frozen=True)
class Note:
    id: str
    title: str
    body: str = ""


NOTES = StoreSpec("notes", Note, search=["title", "body"])
SCHEMA = Schema(NOTES)
FOUND = NOTES.matches("tea")
SEARCHES: dict[str, tuple[Any, list[str]]] = {
    "as a condition": (select(NOTES).where(FOUND), ["1", "2"]),
    "negated": (select(NOTES).where(~FOUND), ["3"]),
    "within others": (select(NOTES).where((col("id") == "3") | FOUND), ["1", "2", "3"]),
    "of one field": (select(NOTES).where(col("title").matches("tea")), ["1"]),
    "a phrase": (select(NOTES).where(NOTES.matches('"green tea"')), ["1"]),
    "a beginning": (select(NOTES).where(NOTES.matches("caf*")), ["3"]),
    "by its rank": (select(NOTES).where(FOUND).order_by(NOTES.rank("tea").desc()), ["1", "2"]),
    "an order alone": (select(NOTES).order_by(NOTES.rank("tea").desc()), ["1", "2", "3"]),
    "a regular expression": (select(NOTES).where(col("title").regex("^[DG]r")), ["1", "2"]),
    "in a subquery": (select(NOTES).where(col("id").in_(select(NOTES).where(FOUND).columns(col("id")))), ["1", "2"]),
}
ROWS = [Note("1", "Green tea", "tea"), Note("2", "Drinks", "Téa"), Note("3", "Café")]


async def asked(kind: str, folder: Path, query: Any) -> list[str]:
    with home_of(kind, folder) as home:
        async with hub_on(home.store(), schema=SCHEMA) as hub:
            service = hub.service(Principal("local"))
            for row in ROWS:
                await service.write(direct(Op("create", "notes", *NOTES.encode(row)), idem=row.id))
            answer = await service.query(QueryRequest(bind(query, SCHEMA), OperationContext("t")))
            return [row.id for row in answer.rows]


@pytest.mark.parametrize("name", SEARCHES)
async def test_a_search_is_what_it_is_or_is_refused(name: str, tmp_path: Path) -> None:
    query, wanted = SEARCHES[name]
    found = await asked("sqlite", tmp_path, query)
    assert (found if query.plan.order else sorted(found)) == wanted
    with pytest.raises(RemoteError, match="this hub is on PostgreSQL, wh") as refused:
        await asked("postgres", tmp_path, query)
    assert refused.value.remote_code == "QUERY"
    assert not refused.value.remote_retryable


async def test_a_row_rule_that_searches_lets_nothing_through(tmp_path: Path) -> None:
    """What a rule cannot say there is no reason to show everything."""
    with home_of("postgres", tmp_path) as home:
        async with open_hub(
            SCHEMA, home.store(), verifier=AllowLoopback(), row_rules={"notes": lambda _: FOUND}
        ) as hub:
            ann = hub.service(Principal("ann"))
            asked = QueryRequest(bind(select(NOTES), SCHEMA), OperationContext("t"))
            with pytest.raises(RemoteError, match="texts are not searched by words"):
                await ann.query(asked)
