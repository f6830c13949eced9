"""The relations of a schema are checked when a client or a hub is opened, and say which index they lack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from atoma import AllowLoopback, Index, Schema, StoreSpec, belongs_to, has_many, open_client, open_hub, variants
from atoma.errors import SchemaError
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore


@dataclass(frozen=True)
class Card:
    id: str
    lane: str
    size: int


@dataclass(frozen=True)
class Remark:
    id: str
    card: str
    number: int


CARDS = StoreSpec("cards", Card)
REMARKS = StoreSpec("remarks", Remark)
INDEXED = StoreSpec("remarks", Remark, indexes=[Index("card", "-number")])
OF_CARD = has_many(CARDS, REMARKS, on=REMARKS.col(lambda r: r.card))
CARD = belongs_to(REMARKS, CARDS, on=REMARKS.col(lambda r: r.card))
BY_NUMBER = has_many(CARDS, REMARKS, on=REMARKS.col(lambda r: r.card) == CARDS.col(lambda c: c.lane), name="by lane")
WRONG: dict[str, tuple[Schema, str]] = {
    "types differ": (
        Schema(CARDS, REMARKS, relations=[has_many(CARDS, REMARKS, on=REMARKS.col(lambda r: r.number))]),
        "relation 'remarks.number' of store 'cards': .*id and number cannot be compared",
    ),
    "a store is not declared": (Schema(CARDS, relations=[OF_CARD]), "does not declare this store 'remarks'"),
    "another store of the name": (Schema(CARDS, INDEXED, relations=[OF_CARD]), "does not declare this store 'remarks'"),
    "no kind like this": (
        Schema(
            CARDS, REMARKS,
            relations=[
                variants(
                    REMARKS, (1, CARDS), ("two", REMARKS),
                    on=REMARKS.col(lambda r: r.card), kind=REMARKS.col(lambda r: r.number),
                )
            ],
        ),
        "relation 'card' of store 'remarks': ",
    ),
    "no relation": (Schema(CARDS, REMARKS, relations=["remarks"]), "takes relations"),  # type: ignore[list-item]
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
async def test_a_relation_that_does_not_fit_is_refused_at_the_start(what: str) -> None:
    schema, why = WRONG[what]
    with pytest.raises(SchemaError, match=why):
        async with open_client(schema, plugins=[LocalExecution(SQLiteEngine(":memory:"))]):
            pass
    with pytest.raises(SchemaError, match=why):
        async with open_hub(schema, SQLiteHubStore(":memory:"), verifier=AllowLoopback()):
            pass


async def told(caplog: pytest.LogCaptureFixture, *stores: StoreSpec[Any], relations: list[Any]) -> list[str]:
    async with open_client(Schema(*stores, relations=relations), plugins=[LocalExecution(SQLiteEngine(":memory:"))]):
        return [record.getMessage() for record in caplog.records if record.name == "atoma.query"]


async def test_an_index_that_a_relation_lacks_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert await told(caplog, CARDS, REMARKS, relations=[OF_CARD, CARD, BY_NUMBER]) == [
        "relation 'remarks.card' of store 'cards' reads every row of 'remarks'; add Index(\"card\") to it",
        "relation 'by lane' of store 'cards' reads every row of 'remarks'; add Index(\"card\") to it",
    ]
    caplog.clear()
    of_card = has_many(CARDS, INDEXED, on=INDEXED.col(lambda r: r.card))
    assert await told(caplog, CARDS, INDEXED, relations=[of_card]) == []
