"""A condition divides the rows of a query in three, and finds as many as it is true of: what an optimiser must keep, asked of SQLite alone.

Nothing here knows what a plan means: one answer is held against others of the same device, and of the same hub.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import pytest
from msgspec.structs import replace

from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.query import BoundQuery, Call, Expr, Lit, Named, Plan
from atoma.errors import QueryError
from atoma.query.normal import bind
from atoma.query.walk import is_grouped
from tests.leaks.plans import SCHEMA, PlanMaker
from tests.leaks.worlds import CONTEXT, open_device_and_hub, plain, random_tables

PLANS = 90
Answer = Callable[[BoundQuery], Awaitable[QueryResult]]


def divided(plan: Plan) -> tuple[Plan, Expr] | None:
    """A plan of rows without its condition, and the condition; None where its rows are not divided by one."""
    if plan.where is None or plan.distinct or is_grouped(plan):
        return None
    return replace(plan, where=None, order=(), limit=None, offset=0), plan.where


async def rows_of(answer: Answer, plan: Plan) -> Sequence[str]:
    result = await answer(bind(plan, SCHEMA.store))
    return sorted(map(repr, plain(result.rows or result.tuples)))


async def check(answer: Answer, every: Plan, condition: Expr, seen: Counter[str]) -> None:
    parts = {"true": condition, "false": Call("not", (condition,)), "unknown": Call("is_null", (condition,))}
    found = {name: await rows_of(answer, replace(every, where=part)) for name, part in parts.items()}
    whole = await rows_of(answer, every)
    assert sorted([row for rows in found.values() for row in rows]) == whole, "each row is in one of the three parts"
    number = Named("kept", Call("if", (condition, Lit("int", 1), Lit("int", 0))))
    looked_at = await answer(bind(replace(every, columns=(number,), include=()), SCHEMA.store))
    assert sum(row[0] for row in looked_at.tuples if isinstance(row[0], int)) == len(found["true"]), (
        "an index finds no others"
    )
    seen.update({"asked": 1, "divided": len([rows for rows in found.values() if rows]) > 1})
    seen.update({name: bool(rows) for name, rows in found.items()})


@pytest.mark.parametrize("seed", range(2))
async def test_a_condition_divides_rows_in_three_and_finds_those_it_is_true_of(seed: int) -> None:
    random = Random(seed)
    tables, maker = random_tables(random, 7), PlanMaker(random)
    near, far = Counter[str](), Counter[str]()
    async with open_device_and_hub(SCHEMA, tables) as (device, hub):
        for _ in range(PLANS):
            plan = maker.plan()
            parts = divided(plan)
            if parts is None:
                continue
            try:
                bind(plan, SCHEMA.store)
            except QueryError:
                continue
            try:
                await check(device.read, *parts, near)
                await check(lambda query: hub.query(QueryRequest(query, CONTEXT)), *parts, far)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {plan}") from error
    for seen in (near, far):
        assert seen["asked"] >= 15, seen
        assert seen["divided"] > 0.3 * seen["asked"], seen
        assert min(seen["true"], seen["false"], seen["unknown"]) >= 3, seen
