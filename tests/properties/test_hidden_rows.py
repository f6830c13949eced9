"""A row that was deleted softly is as one that is not there, for every plan, in Python, on a device and at a hub."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from atoma import Schema, StoreSpec
from atoma.contracts.execution import QueryRequest
from atoma.contracts.values import HIDDEN, RowImage, StoredRow, is_hidden
from atoma.errors import QueryError
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind, with_values
from tests.leaks.plans import CARDS, LABELS, PEOPLE_STORE, REMARKS, SCHEMA, TAGGED, PlanMaker
from tests.leaks.worlds import CONTEXT, EVERYBODY, Tables, open_device_and_hub, plain, random_tables

PLANS = 60
SOFT = Schema(
    *[
        StoreSpec(
            store.name, store.model, scope=store.scope_field or EVERYBODY, indexes=store.indexes, soft_delete=True
        )
        for store in (CARDS, REMARKS, TAGGED, LABELS, PEOPLE_STORE)
    ]
)
DELETED = "2026-01-01T00:00:00.000000Z"


def partly_hidden(random: Random, tables: Tables) -> Tables:
    """``tables`` with a third of the rows hidden."""

    def marked(image: RowImage) -> RowImage:
        return {**image, HIDDEN: DELETED if random.random() < 0.33 else None}

    return {name: [(id, scope, marked(image)) for id, scope, image in of] for name, of in tables.items()}


def seen(answer: Any) -> Any:
    """An answer without the column of the mark."""
    if isinstance(answer, dict):
        return {name: value for name, value in answer.items() if name != HIDDEN}  # pyright: ignore[reportUnknownVariableType]
    return [seen(each) for each in answer] if isinstance(answer, list) else answer  # pyright: ignore[reportUnknownVariableType]


@pytest.mark.parametrize("seed", range(3))
async def test_no_plan_finds_a_row_that_is_hidden(seed: int) -> None:
    random = Random(seed)
    tables, maker, counts = partly_hidden(random, random_tables(random, 12)), PlanMaker(random), Counter[str]()
    every = {name: [StoredRow(id, 1, 1, scope, image) for id, scope, image in of] for name, of in tables.items()}
    shown = {name: [row for row in rows if not is_hidden(row.image)] for name, rows in every.items()}
    scoped = frozenset(name for name, store in SCHEMA.stores.items() if store.scope_field)
    async with open_device_and_hub(SOFT, tables) as (device, hub):
        for _ in range(PLANS):
            plan = maker.plan()
            try:
                query, without = bind(plan, SOFT.store), bind(plan, SCHEMA.store)
            except QueryError:
                continue
            assert bind(with_values(query), SOFT.store).plan == query.plan, "a plan that is checked twice is the same"
            expected = seen(plain(evaluate(without, shown, scoped=scoped)))
            assert seen(plain(evaluate(query, every, scoped=scoped))) == expected, f"Python, seed {seed}: {plan}"
            near = await device.read(without)
            assert seen(plain(near.rows or near.tuples)) == expected, f"the device, seed {seed}: {plan}"
            far = await hub.query(QueryRequest(without, CONTEXT))
            assert seen(plain(far.rows or far.tuples)) == expected, f"the hub, seed {seed}: {plan}"
            counts["asked"] += 1
            counts["not empty"] += bool(expected)
            counts["hidden"] += seen(plain(evaluate(without, every, scoped=scoped))) != expected
    assert counts["not empty"] > 0.5 * counts["asked"] > 0, counts
    assert counts["hidden"] > 0.4 * counts["asked"], counts
