"""Queries of several stores that a device asks a hub: the same rows as on the device itself, over every transport."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from atoma import AllowLoopback, Client, Hub, Schema, StoreSpec, open_client, open_hub
from atoma.contracts.limits import Bounds
from atoma.contracts.query import (
    Agg,
    Branch,
    Call,
    Col,
    Derived,
    Exists,
    Include,
    Join,
    Lit,
    Named,
    Order,
    Plan,
    Scalar,
    Store,
)
from atoma.errors import QueryError, RemoteError
from atoma.hub import ReadBudget
from atoma.plugins import Plugin
from atoma.ports import Transport
from atoma.testing.queries import written
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport

WIRES = ["memory", "websocket", "grpc", "http"]


@dataclass(frozen=True, slots=True)
class Card:
    id: str
    lane: str | None
    size: int
    weight: float
    raw: bytes


@dataclass(frozen=True, slots=True)
class Remark:
    id: str
    card: str | None
    text: str


CARDS, REMARKS = StoreSpec("cards", Card), StoreSpec("remarks", Remark)
SCHEMA = Schema(CARDS, REMARKS)
ID, LANE, SIZE = Col(0, "id"), Col(0, "lane"), Col(0, "size")
OF_CARD = Call("eq", (Col(1, "card"), ID))
LANES = Derived(Plan(Store("cards"), group=(LANE,), columns=(Named("lane", LANE), Named("most", Agg("max", SIZE)))))
REMARKS_OF = Plan(Store("remarks"), order=(Order(ID, True),), limit=1)
MANY = Scalar(
    Plan(Store("remarks"), where=Call("eq", (Col(0, "card"), Col(-1, "card"))), columns=(Named("n", Agg("count")),))
)
SHOWN = Plan(Store("remarks"), columns=(Named("many", MANY), Named("text", Col(0, "text"))), order=(Order(ID, True),))
RAW = Plan(Store("cards"), columns=(Named("raw", Col(0, "raw")),))
PLANS: dict[str, Plan] = {
    "a join of rows": Plan(Store("cards"), joins=(Join("left", Store("remarks"), OF_CARD),)),
    "a join of columns": Plan(
        Store("cards"), joins=(Join("inner", Store("remarks"), OF_CARD),),
        columns=(Named("raw", Col(0, "raw")), Named("weight", Col(0, "weight")), Named("text", Col(1, "text"))),
    ),
    "groups": Plan(Store("cards"), group=(LANE,), columns=(Named("lane", LANE), Named("n", Agg("count")))),
    "rows that have others": Plan(
        Store("cards"), where=Exists(Plan(Store("remarks"), where=Call("eq", (Col(0, "card"), Col(-1, "id")))))
    ),
    "rows with their children": Plan(
        Store("cards"), include=(Include("remarks", False, (("id", "card"),), (Branch(None, REMARKS_OF),)),)
    ),
    "rows with columns of their children": Plan(
        Store("cards"), include=(Include("remarks", False, (("id", "card"),), (Branch(None, SHOWN),)),)
    ),
    "rows with a column of a child": Plan(
        Store("remarks"), include=(Include("card", True, (("card", "id"),), (Branch(None, RAW),)),)
    ),
    "rows beside a derived table": Plan(
        Store("cards"), joins=(Join("inner", LANES, Call("eq", (SIZE, Col(1, "c1")))),)
    ),
    "the rows of a derived table": Plan(LANES),
    "a page": Plan(Store("cards"), joins=(Join("inner", Store("remarks"), OF_CARD),), limit=1),
}  # fmt: skip


@asynccontextmanager
async def device_and_hub(wire: str, reads: ReadBudget | None = None) -> AsyncGenerator[tuple[Client, Hub]]:
    network = MemoryNetwork()
    async with (
        open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback(), reads=reads) as hub,
        network.listen(hub),
        open_server(hub, "127.0.0.1:0") as address,
    ):
        roads: dict[str, Transport] = {
            "memory": MemoryTransport(network),
            "websocket": WebSocketTransport(f"ws://{address}/sync"),
            "grpc": GrpcTransport(f"grpc://{address}"),
            "http": HttpTransport(f"http://{address}"),
        }
        plugins: list[Plugin] = [LocalExecution(SQLiteEngine(":memory:")), Remote(roads[wire])]
        async with open_client(SCHEMA, plugins=plugins, policy="direct-remote") as client:
            cards = [Card(f"c{n}", "todo" if n % 2 else None, n, n / 3, bytes([n])) for n in range(4)]
            remarks = [Remark(f"r{n}", f"c{n % 3}" if n else None, f"text {n}") for n in range(6)]
            for policy in ("direct-remote", "direct-local"):
                await client.store(CARDS).insert_many(cards, policy=policy, confirm="strict")
                await client.store(REMARKS).insert_many(remarks, policy=policy, confirm="strict")
            yield client, hub


@pytest.mark.parametrize("wire", WIRES)
async def test_a_hub_gives_what_the_device_would(wire: str) -> None:
    async with device_and_hub(wire) as (client, _):
        for name, plan in PLANS.items():
            query = written(plan, SCHEMA)
            far = await client.query(query, policy="direct-remote")
            near = await client.query(query, policy="direct-local")
            assert far.items == near.items != (), name
            assert (far.meta.source, near.meta.source) == ("remote", "local")
            assert far.has_next == near.has_next, name
            assert await client.count(query, policy="direct-remote") == await client.count(query, policy="direct-local")
            assert await client.first(query, policy="direct-remote") == near.items[0]
        page = await client.query(written(PLANS["a page"], SCHEMA), policy="direct-remote")
        following = await client.query(written(PLANS["a page"], SCHEMA).after(page.end), policy="direct-remote")
        assert page.has_next
        assert following.items != page.items


async def test_sides_are_not_merged_where_the_other_side_may_have_the_partner() -> None:
    async with device_and_hub("memory") as (client, _):
        for name, plan in PLANS.items():
            with pytest.raises(QueryError, match="query one side"):
                await client.query(written(plan, SCHEMA), policy="hybrid")
            page = await client.query(written(plan, SCHEMA), policy="local-first")
            assert page.items, name


async def test_what_a_hub_does_not_take_is_answered_by_the_device_where_the_policy_says_so() -> None:
    async with device_and_hub("memory", ReadBudget(bounds=Bounds(sources=1))) as (client, _):
        query = written(PLANS["a join of rows"], SCHEMA)
        with pytest.raises((RemoteError, QueryError), match="at most 1 stores"):
            await client.query(query, policy="direct-remote")
        page = await client.query(query, policy="remote-first")
        assert page.items
        assert page.meta.source == "local"
        assert "UNSUPPORTED" in [step.error for step in page.meta.path]


async def test_an_answer_with_too_much_in_it_is_refused_and_not_cut() -> None:
    """Children that many rows share are read once, and would travel with each of them."""
    async with device_and_hub("memory") as (client, _):
        await client.store(CARDS).insert_many([Card(f"d{n}", None, n, 0.0, b"") for n in range(130)], confirm="strict")
        crossed = Plan(
            Store("cards"), joins=(Join("inner", Store("cards"), Lit("bool", True)),), columns=(Named("id", ID),)
        )
        with pytest.raises(RemoteError) as refused:
            await client.query(written(crossed, SCHEMA), policy="direct-remote")
        assert refused.value.remote_code == "TOO_LARGE"
        same = Include("beside", False, (("lane", "lane"),), (Branch(None, Plan(Store("cards"))),))
        full = [Card(f"e{n}", "full", n, 0.0, b"") for n in range(130)]
        await client.store(CARDS).insert_many(full, confirm="strict")
        with pytest.raises(RemoteError) as many:
            await client.query(written(Plan(Store("cards"), include=(same,)), SCHEMA), policy="direct-remote")
        assert many.value.remote_code == "TOO_LARGE"
