"""Columns and groups of children, on both databases of a hub: limited for each parent, within the fence, and counted as what they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from atoma import AllowLoopback, Query, Schema, StoreSpec, count, count_of, has_many, max_, open_hub, select, sum_
from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.mutations import Op
from atoma.contracts.query import Branch, Col, Include, Named, Plan, Store
from atoma.contracts.sync import Limits
from atoma.errors import RemoteError
from atoma.ports.service import Principal, SyncService
from atoma.query.normal import bind
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import direct


@dataclass(frozen=True)
class Card:
    id: str
    title: str = ""


@dataclass(frozen=True)
class Remark:
    id: str
    card: str
    made: int
    open: bool = True


@dataclass(frozen=True)
class Vote:
    id: str
    remark: str


CARDS, REMARKS, VOTES = StoreSpec("cards", Card), StoreSpec("remarks", Remark), StoreSpec("votes", Vote)
SCHEMA = Schema(CARDS, REMARKS, VOTES)
made, is_open = REMARKS.col(lambda r: r.made), REMARKS.col(lambda r: r.open)
title = CARDS.col(lambda c: c.title)
vote_id = VOTES.col(lambda v: v.id)
REMARKS_OF = has_many(CARDS, REMARKS, on=REMARKS.col(lambda r: r.card))
VOTES_OF = has_many(REMARKS, VOTES, on=VOTES.col(lambda v: v.remark))
TITLE = "x" * 6_000
CONTEXT = OperationContext("trace")


@asynccontextmanager
async def asked(home: Home, **options: Any) -> AsyncIterator[SyncService]:
    """What bob is answered of two cards, the first with three remarks; ann sees everything."""

    rules = {
        "remarks": lambda caller: (made < 3) | (caller.subject == "ann"),
        "votes": lambda caller: (vote_id != "v1") | (caller.subject == "ann"),
    }
    async with open_hub(SCHEMA, home.store(), verifier=AllowLoopback(), row_rules=rules, **options) as hub:
        rows = [
            *[("cards", CARDS.encode(Card(id, TITLE))) for id in ("c1", "c2")],
            *[
                ("remarks", REMARKS.encode(Remark(f"r{n}", "c1" if n < 4 else "c2", n, n % 2 == 0)))
                for n in range(1, 5)
            ],
            *[("votes", VOTES.encode(Vote(f"v{n}", "r2" if n else "r1"))) for n in range(3)],
        ]
        written = await hub.service(Principal("ann")).write(
            direct(*[Op("create", store, id, image) for store, (id, image) in rows], idem="k")
        )
        assert written.status == "confirmed"
        yield hub.service(Principal("bob"))


def told(answer: Any) -> list[tuple[str, Any]]:
    return [(row.id, children) for row, children in answer.tuples]


SHOWN = select(CARDS).include(REMARKS_OF, lambda r: r.columns(made, is_open, count_of(VOTES_OF)).order_by("-made"))
ONE = select(CARDS).include(REMARKS_OF, lambda r: r.columns(made, count_of(VOTES_OF)).order_by("-made").limit(1))


async def test_they_are_of_the_rows_that_may_be_seen(home: Home) -> None:
    async with asked(home) as bob:
        answer = await bob.query(QueryRequest(bind(SHOWN.plan, SCHEMA.store), CONTEXT))
        assert told(answer) == [("c1", ((2, 1, 1), (1, 0, 1))), ("c2", ())]
        answer = await bob.query(QueryRequest(bind(ONE.plan, SCHEMA.store), CONTEXT))
        assert told(answer) == [("c1", ((2, 1),)), ("c2", ())]


async def test_groups_are_of_the_rows_that_may_be_seen(home: Home) -> None:
    of_title = select(CARDS).columns(title.length())
    groups = of_title.include(
        REMARKS_OF, lambda r: r.columns(is_open, count(), sum_(made)).group_by(is_open).order_by(count().desc())
    )
    some = of_title.include(
        REMARKS_OF, lambda r: r.columns(is_open, max_(made)).group_by(is_open).order_by(max_(made).desc()).limit(1)
    )
    numbers = of_title.include(REMARKS_OF, lambda r: r.columns(count(), max_(made)))
    different = of_title.include(REMARKS_OF, lambda r: r.columns(made > 0).distinct())
    expected: list[tuple[Query[Any], list[Any]]] = [
        (groups, [((0, 1, 1), (1, 1, 2)), ()]),
        (some, [((1, 2),), ()]),
        (numbers, [((2, 2),), ((0, None),)]),
        (different, [((1,),), ()]),
    ]
    async with asked(home) as bob:
        for query, seen in expected:
            answer = await bob.query(QueryRequest(bind(query.plan, SCHEMA.store), CONTEXT))
            assert [row for row, _ in answer.tuples] == [(6_000, "c1"), (6_000, "c2")]
            assert [children for _, children in answer.tuples] == seen


async def test_what_is_computed_of_a_value_makes_groups(home: Home) -> None:
    """To PostgreSQL two parameters are not one for having the same value."""
    asked_for: list[tuple[Query[Any], list[Any]]] = [
        (select(REMARKS).columns(made + 1, count()).group_by(made + 1), [(2, 1), (3, 1)]),
        (select(REMARKS).columns((made > 1).is_null(), made > 1).group_by(made > 1), [(0, 0), (0, 1)]),
        (select(REMARKS).columns(made > 0).distinct(), [(1,)]),
        (select(REMARKS).columns(made + 1).distinct().order_by((made + 1).desc()), [(3,), (2,)]),
    ]
    async with asked(home) as bob:
        for query, expected in asked_for:
            answer = await bob.query(QueryRequest(bind(query.plan, SCHEMA.store), CONTEXT))
            assert list(answer.tuples) == expected, query.text()


TITLES = Plan(Store("cards"), columns=(Named("title", Col(0, "title")),))
TWINS = Plan(Store("cards"), include=(Include("twins", False, (("title", "title"),), (Branch(None, TITLES),)),))


@pytest.mark.parametrize(("page_bytes", "fits"), [(50_000, True), (30_000, False)])
async def test_their_values_count_for_every_parent_that_has_them(home: Home, page_bytes: int, fits: bool) -> None:
    """Both cards have both as children: their titles travel six times, however often they are read."""
    async with asked(home, limits=Limits(page_bytes=page_bytes)) as bob:
        request = QueryRequest(bind(TWINS, SCHEMA.store), CONTEXT)
        if fits:
            assert told(await bob.query(request)) == [(id, ((TITLE,),) * 2) for id in ("c1", "c2")]
            return
        with pytest.raises(RemoteError) as refused:
            await bob.query(request)
        assert refused.value.remote_code == "TOO_LARGE"
