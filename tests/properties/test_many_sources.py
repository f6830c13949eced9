"""A plan of several sources means the same in Python, on a device and at a hub whose every row may be seen."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from atoma.contracts.execution import QueryRequest
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from tests.leaks.plans import SCHEMA, PlanMaker
from tests.leaks.worlds import CONTEXT, open_device_and_hub, plain, random_tables

PLANS = 60


@pytest.mark.parametrize("seed", range(4))
async def test_python_a_device_and_a_hub_agree(seed: int) -> None:
    random = Random(seed)
    tables, maker, seen = random_tables(random, 7), PlanMaker(random), Counter[str]()
    rows = {name: [StoredRow(id, 1, 1, scope, image) for id, scope, image in of] for name, of in tables.items()}
    scoped = frozenset(name for name, store in SCHEMA.stores.items() if store.scope_field)
    async with open_device_and_hub(SCHEMA, tables) as (device, hub):
        for _ in range(PLANS):
            plan = maker.plan()
            try:
                query = bind(plan, SCHEMA.store)
            except QueryError:
                continue
            expected = plain(evaluate(query, rows, scoped=scoped))
            near = await device.read(query)
            far = await hub.query(QueryRequest(query, CONTEXT))
            assert plain(near.rows or near.tuples) == expected, f"the device, seed {seed}: {plan}"
            assert plain(far.rows or far.tuples) == expected, f"the hub, seed {seed}: {plan}"
            seen["asked"] += 1
            seen["not empty"] += bool(expected)
            seen["several sources"] += bool(plan.joins or plan.include)
    assert seen["not empty"] > 0.6 * seen["asked"], seen
    assert seen["several sources"] > 0.4 * seen["asked"], seen
