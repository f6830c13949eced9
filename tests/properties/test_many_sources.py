"""A plan of several sources means the same in Python, on a device and at a hub whose every row may be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

import pytest

from atoma.contracts.execution import QueryRequest
from atoma.contracts.values import RowImage, StoredRow
from atoma.errors import QueryError
from atoma.hub import AllowLoopback, open_hub
from atoma.ports import LocalTx, seeded_environment
from atoma.ports.service import Principal
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from tests.leaks.plans import BOARDS, PEOPLE, SCHEMA, PlanMaker
from tests.leaks.worlds import CONTEXT, EVERYBODY, fill, plain, random_row

PLANS = 60


def random_tables(random: Random) -> Mapping[str, list[tuple[str, str, RowImage]]]:
    """Rows of every store with the scope of each; no id is in two scopes, as on a device."""
    tables: dict[str, list[tuple[str, str, RowImage]]] = {}
    for name, spec in SCHEMA.stores.items():
        for id in PEOPLE if name == "people" else [f"x{number}" for number in range(7)]:
            scope = random.choice(BOARDS[:2]) if spec.scope_field else EVERYBODY
            tables.setdefault(name, []).append((id, scope, random_row(random, SCHEMA, name, scope)))
    return tables


@pytest.mark.parametrize("seed", range(4))
async def test_python_a_device_and_a_hub_agree(seed: int) -> None:
    random = Random(seed)
    tables, maker, seen = random_tables(random), PlanMaker(random), Counter[str]()
    rows = {name: [StoredRow(id, 1, 1, scope, image) for id, scope, image in of] for name, of in tables.items()}
    scoped = frozenset(name for name, store in SCHEMA.stores.items() if store.scope_field)

    def put(tx: LocalTx) -> None:
        for name, of in tables.items():
            for id, scope, image in of:
                tx.base.put_many(name, scope, [(id, image, 1)])

    async with (
        SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as device,
        open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub,
    ):
        await device.apply(put)
        await fill(hub, {name: [(id, image) for id, _, image in of] for name, of in tables.items()})
        for _ in range(PLANS):
            plan = maker.plan()
            try:
                query = bind(plan, SCHEMA.store)
            except QueryError:
                continue
            expected = plain(evaluate(query, rows, scoped=scoped))
            near = await device.read(query)
            far = await hub.service(Principal("ann")).query(QueryRequest(query, CONTEXT))
            assert plain(near.rows or near.tuples) == expected, f"the device, seed {seed}: {plan}"
            assert plain(far.rows or far.tuples) == expected, f"the hub, seed {seed}: {plan}"
            seen["asked"] += 1
            seen["not empty"] += bool(expected)
            seen["several sources"] += bool(plan.joins or plan.include)
    assert seen["not empty"] > 0.6 * seen["asked"], seen
    assert seen["several sources"] > 0.4 * seen["asked"], seen
