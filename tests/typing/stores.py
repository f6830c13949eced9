"""What a type checker must infer, and what it must refuse, in an application. Checked, never run.

An expectation that no longer fails is an unused `type: ignore`, which mypy reports as an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_type

from atoma.query import Condition, Rows, col, select
from atoma.runtime.results import ManyResult, Page, WriteHandle
from atoma.runtime.store import Store
from atoma.schema import Index, Schema, StoreSpec, new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str = field(default_factory=new_id)
    title: str
    lane: str = "todo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    id: str = field(default_factory=new_id)
    name: str


CARDS = StoreSpec("cards", Card, indexes=[Index("lane")], conflict="lww")
PEOPLE = StoreSpec("people", Person)


def declarations() -> None:
    assert_type(CARDS, StoreSpec[Card])
    assert_type(Schema(CARDS, PEOPLE, version=1), Schema)
    StoreSpec("cards", Card, conflict="newest")  # type: ignore[arg-type]
    StoreSpec("cards", Card(title="a value, not a model"))  # type: ignore[arg-type]
    StoreSpec(Card)  # type: ignore[call-arg, arg-type]


def queries() -> None:
    assert_type(col("lane") == "done", Condition)
    assert_type((col("lane") != "done") & ~col("title").is_null(), Condition)
    assert_type(select(CARDS).where(col("lane") == "done").order_by("-id").limit(50), Rows[Card])
    select(CARDS).where("lane = 'done'")  # type: ignore[arg-type]
    select(CARDS).limit("50")  # type: ignore[arg-type]


async def reads(cards: Store[Card]) -> None:
    assert_type(await cards.get("1"), Card | None)
    assert_type(await cards.query(select(cards.spec)), Page[Card])
    assert_type(await cards.first(select(cards.spec)), Card | None)
    assert_type(await cards.count(), int)
    await cards.query(col("lane") == "done")  # type: ignore[arg-type]


async def writes(cards: Store[Card]) -> None:
    handle = await cards.insert(Card(title="a"))
    assert_type(handle, WriteHandle[Card])
    assert_type(handle.value, Card)
    assert_type(await cards.insert_many([Card(title="a")]), ManyResult[Card])
    await cards.insert(Person(name="p"))  # type: ignore[arg-type]
