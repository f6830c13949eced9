"""Columns through the versions of a schema: which are what they were, and which are called the same and hold other values."""

from __future__ import annotations

from dataclasses import dataclass

from atoma.schema import Convert, Drop, MigrationSteps, Rename, Schema, Split, StoreSpec


@dataclass
class Item:
    id: str
    title: str
    first: str
    last: str
    size: int
    price: int
    plain: str


STEPS: MigrationSteps = {
    2: [Rename("items.name", "label"), Drop("items.color")],
    3: [Convert("items.cost", int, was=str), Convert("items.size", abs, was=int)],
    5: [Rename("items.label", "title"), Rename("items.cost", "price"), Convert("items.size", abs, was=int)],
    6: [Split("items.person", ("first", "last"), str.split, was=str)],
}


def test_a_column_is_called_by_what_it_came_as_and_by_what_converted_it_last() -> None:
    schema = Schema(StoreSpec("items", Item), StoreSpec("others", Item), version=6, steps=STEPS)
    origins = {name: schema.origin("items", name) for name in ("id", *schema.store("items").columns)}
    assert origins == {
        "id": "id",
        "title": "name",
        "first": "first@6",
        "last": "last@6",
        "size": "size@5",
        "price": "cost@3",
        "plain": "plain",
    }
    assert {schema.origin("others", name) == name for name in origins} == {True}
