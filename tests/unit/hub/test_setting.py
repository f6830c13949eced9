"""What a hub sets in the rows that it decides: the same whoever writes, and on every store of hubs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from atoma import Index, Schema, StoreSpec, open_hub
from atoma.contracts.mutations import MutationBody, Op
from atoma.errors import RemoteError
from atoma.hub import AllowLoopback, Hub
from atoma.hub.setting import HubField, Setting
from atoma.schema.bodies import decode_body
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import Client, direct, pull_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    id: str
    text: str = ""
    made: datetime = field(default_factory=lambda: datetime(2001, 1, 1, tzinfo=UTC))
    number: int | None = None
    by: str | None = None


ORDERS = StoreSpec(
    "orders",
    Order,
    scope="main",
    created_at="made",
    by="hub",
    hub_fields=["number", "by"],
    indexes=[Index("number", unique=True)],
)
SCHEMA = Schema(ORDERS)


def number(of: Setting) -> int:
    return of.counter() if of.previous is None else of.previous.number


def by(of: Setting) -> str:
    return f"{of.principal.subject} {of.seq} {of.row.text} {'' if of.previous is None else of.previous.text}".strip()


FUNCTIONS: Mapping[str, Mapping[str, HubField]] = {"orders": {"number": number, "by": by}}


@asynccontextmanager
async def hub_at(home: Home, functions: Mapping[str, Mapping[str, HubField]] = FUNCTIONS) -> AsyncIterator[Hub]:
    async with open_hub(SCHEMA, home.store(), verifier=AllowLoopback(), hub_fields=functions) as hub:
        yield hub


def create(id: str, text: str = "t", **values: Any) -> Op:
    return Op("create", "orders", id, {"text": text, **values})


async def orders(client: Client) -> dict[str, dict[str, Any]]:
    rows, _ = await pull_all(client, "main")
    return {id: row for (_, id), row in rows.items()}


async def test_pushed_and_direct_writes_are_set_alike_and_keep_what_is_set_once(home: Home) -> None:
    async with hub_at(home) as hub:
        ann, bob = Client.of(hub, "a", "ann"), Client.of(hub, "b", "bob")
        assert (await ann.do(create("1"), scope="main")).status == "applied"
        told = await bob.service.write(direct(create("2", number=99, made="1999-01-01T00:00:00.000000Z"), idem="k"))
        assert told.items[0].row is not None and told.items[0].row["number"] == 2, "the answer has what was set"
        before = await orders(ann)
        assert [(row["number"], row["by"]) for row in before.values()] == [(1, "ann 1 t"), (2, "bob 2 t")]
        assert min(row["made"] for row in before.values()) > "2020"
        patch = Op("patch", "orders", "1", {"text": "new", "number": 7, "made": "1999-01-01T00:00:00.000000Z"})
        assert (await bob.do(patch, base=2, scope="main")).status == "applied"
        assert (await bob.do(Op("replace", "orders", "2", {"text": "whole"}), base=3, scope="main")).status == "applied"
        after = await orders(ann)
        assert {id: row["made"] for id, row in after.items()} == {id: row["made"] for id, row in before.items()}
        assert {id: (row["number"], row["by"]) for id, row in after.items()} == {
            "1": (1, "bob 3 new t"), "2": (2, "bob 4 whole t")
        }  # fmt: skip
        same = await bob.do(Op("patch", "orders", "1", {"text": "new", "number": 8}), base=4, scope="main")
        assert (same.status, same.seq) == ("applied", 4), "what differs only in what nobody writes is no change"
        assert await orders(ann) == after


async def test_numbers_are_dense_whoever_writes_at_the_same_time_and_go_on_after_a_restart(home: Home) -> None:
    async with hub_at(home) as hub:
        clients = [Client.of(hub, f"c{n}", f"user {n}") for n in range(6)]

        async def write(client: Client, name: int) -> None:
            for n in range(5):
                if n % 2:
                    await client.service.write(direct(create(f"{name} {n}"), idem=f"{name} {n}"))
                else:
                    await client.do(create(f"{name} {n}"), scope="main")

        async with trio.open_nursery() as nursery:
            for name, client in enumerate(clients):
                nursery.start_soon(write, client, name)
        assert sorted(row["number"] for row in (await orders(clients[0])).values()) == list(range(1, 31))
    async with hub_at(home) as hub:
        client = Client.of(hub, "later")
        ops = [create("x"), create("y")]
        assert (await client.do(*ops, scope="main")).status == "applied"
        rows = await orders(client)
        assert (rows["x"]["number"], rows["y"]["number"]) == (31, 32)


async def test_what_is_refused_draws_no_number(home: Home) -> None:
    async with hub_at(home) as hub:
        client = Client.of(hub, "a")
        await client.do(create("1"), scope="main")
        assert (await client.do(create("2"), create("1", "other"), scope="main")).status == "rejected"
        told = await client.service.write(direct(create("3"), create("1"), idem="k", atomic=True))
        assert told.status == "rejected"
        await client.do(create("4"), scope="main")
        assert {id: row["number"] for id, row in (await orders(client)).items()} == {"1": 1, "4": 2}


async def test_a_function_that_fails_decides_nothing_and_the_write_comes_again(home: Home) -> None:
    def broken(of: Setting) -> object:
        raise LookupError("no such tariff")

    async with hub_at(home, {"orders": {"number": number, "by": broken}}) as hub:
        client = Client.of(hub, "a")
        mutation = client.write(create("1"), scope="main")
        with pytest.raises(RemoteError, match="INTERNAL: the hub failed in push"):
            await client.push(mutation.mid)
        assert await orders(client) == {}
    async with hub_at(home) as hub:
        client = client.on(hub)
        assert [outcome.status for outcome in (await client.push(1)).outcomes] == ["applied"]
        assert (await orders(client))["1"]["number"] == 1
        body: MutationBody = decode_body(client.mutations[0].body, SCHEMA)
        assert "number" not in body.ops[0].values


async def test_a_row_that_was_created_alike_keeps_what_the_hub_has_set(home: Home) -> None:
    async with hub_at(home) as hub:
        ann, bob = Client.of(hub, "a", "ann"), Client.of(hub, "b", "bob")
        await ann.do(create("1"), scope="main")
        before = await orders(ann)
        alike = await bob.do(create("1", made="1999-01-01T00:00:00.000000Z"), scope="main")
        assert (alike.status, alike.seq, await orders(bob)) == ("applied", 1, before)
        assert (await bob.do(create("2"), scope="main")).seq == 2
        assert (await orders(bob))["2"]["number"] == 2, "no number was spent on it"
