"""A plan of any shape means at a hub on PostgreSQL what it means in plain Python: several sources, subqueries, groups, children."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from atoma import AllowLoopback, open_hub
from atoma.contracts.execution import QueryRequest
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.ports.service import Principal
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.query.walk import has_subquery, is_grouped
from tests.leaks.plans import SCHEMA, PlanMaker
from tests.leaks.worlds import CONTEXT, fill, plain, random_tables
from tests.postgres import database

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

from atoma_stores.postgres import PostgreSQLHubStore

PLANS = 250


async def test_python_and_a_hub_on_postgresql_agree() -> None:
    random = Random(4)
    tables, maker, seen = random_tables(random, 7), PlanMaker(random), Counter[str]()
    rows = {name: [StoredRow(id, 1, 1, scope, image) for id, scope, image in of] for name, of in tables.items()}
    scoped = frozenset(name for name, store in SCHEMA.stores.items() if store.scope_field)
    with database() as dsn:
        async with open_hub(SCHEMA, PostgreSQLHubStore(dsn), verifier=AllowLoopback()) as hub:
            await fill(hub, {name: [(id, image) for id, _, image in of] for name, of in tables.items()})
            service = hub.service(Principal("ann"))
            for _ in range(PLANS):
                try:
                    query = bind(maker.plan(), SCHEMA.store)
                except QueryError:
                    continue
                plan = query.plan
                expected = plain(evaluate(query, rows, scoped=scoped))
                answer = await service.query(QueryRequest(query, CONTEXT))
                assert plain(answer.rows or answer.tuples) == expected, plan
                below = [branch.query for include in plan.include for branch in include.branches]
                seen["asked"] += 1
                seen["not empty"] += bool(expected)
                seen["groups of children"] += any(each.distinct or is_grouped(each) for each in below)
                seen["columns beside children"] += bool(plan.include and plan.columns)
                seen["different rows of subqueries"] += plan.distinct and any(
                    has_subquery(named.expr) for named in plan.columns or ()
                )
    assert seen["not empty"] > 0.5 * seen["asked"], seen
    assert min(seen.values()) >= 3, seen
