"""Ids that a hub draws for new rows: once for each write, past every id that was there, and on every store of hubs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from atoma import Index, Schema, StoreSpec, open_hub
from atoma.contracts.execution import OperationContext, ResolveRequest, WriteItemResult
from atoma.contracts.mutations import Op
from atoma.errors import ConfigurationError, SchemaError
from atoma.hub import AllowLoopback, Hub
from atoma.hub.setting import HubField, HubFields, Setting
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import Client, direct, pull_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    id: str = ""
    company: str
    text: str = ""
    number: int | None = None


INVOICES = StoreSpec(
    "invoices", Invoice, scope="company", hub_fields=["id", "number"], indexes=[Index("text", unique=True)]
)
OLD = StoreSpec("invoices", Invoice, scope="company")


def drawn(of: Setting) -> str:
    return f"{of.row.company}-{of.counter():03}"


FUNCTIONS: Mapping[str, Mapping[str, HubField]] = {
    "invoices": {"id": drawn, "number": lambda of: int(of.row.id[-3:]) if "-" in of.row.id else None}
}


@asynccontextmanager
async def hub_at(home: Home, id: HubField = drawn, **options: Any) -> AsyncIterator[Hub]:
    functions = {"invoices": {**FUNCTIONS["invoices"], "id": id}}
    async with open_hub(
        Schema(INVOICES), home.store(), verifier=AllowLoopback(), hub_fields=functions, **options
    ) as hub:
        yield hub


def create(text: str = "", id: str = "", company: str = "a", **values: Any) -> Op:
    return Op("create", "invoices", id, {"text": text or f"{trio.current_time()}", **values}, scope=company)


async def write(client: Client, *ops: Op, idem: str, atomic: bool = False) -> tuple[WriteItemResult, ...]:
    return (await client.service.write(direct(*ops, idem=idem, atomic=atomic))).items


async def rows(client: Client, company: str = "a") -> dict[str, Any]:
    found, _ = await pull_all(client, company)
    return {id: row for (_, id), row in found.items()}


async def test_a_write_draws_one_id_however_often_it_comes(home: Home) -> None:
    async with hub_at(home) as hub:
        ann = Client.of(hub, "a", "ann")
        (first,) = await write(ann, create("one"), idem="k1")
        assert first.ok and first.id == "a-001"
        assert first.row == {"company": "a", "text": "one", "number": 1}, "the row comes back, with what is set in it"
        (again,) = await write(ann, create("one"), idem="k1")
        assert again == first
        (other,) = await write(ann, create("two"), idem="k2")
        assert other.id == "a-002"
    async with hub_at(home) as hub:
        ann = Client.of(hub, "a", "ann")
        assert (await write(ann, create("one"), idem="k1"))[0].id == "a-001", "also after a restart"
        resolved = await ann.service.resolve(ResolveRequest("k2", OperationContext("trace")))
        assert resolved.result is not None and resolved.result.items[0].id == "a-002"
        assert (await ann.service.resolve(ResolveRequest("k3", OperationContext("trace")))).abandoned
        assert not (await write(ann, create("three"), idem="k3"))[0].ok, "what was given up makes no row"
        assert list(await rows(ann)) == ["a-001", "a-002"]
        assert (await write(ann, create("four"), idem="k4"))[0].id == "a-003"


async def test_ids_are_counted_by_scope_and_dense_whoever_writes(home: Home) -> None:
    async with hub_at(home) as hub:
        clients = [Client.of(hub, f"c{n}", f"user {n}") for n in range(4)]

        async def fill(client: Client, name: int) -> None:
            for n in range(5):
                company = "ab"[n % 2]
                await write(client, create(f"{name} {n}", company=company), idem=f"{name} {n}")

        async with trio.open_nursery() as nursery:
            for name, client in enumerate(clients):
                nursery.start_soon(fill, client, name)
        assert sorted(await rows(clients[0], "a")) == [f"a-{n:03}" for n in range(1, 13)]
        assert sorted(await rows(clients[0], "b")) == [f"b-{n:03}" for n in range(1, 9)]


async def test_many_and_all_or_none(home: Home) -> None:
    async with hub_at(home) as hub:
        client = Client.of(hub, "a")
        many = await write(client, *(create(f"{n}") for n in range(60)), idem="many")
        assert [item.id for item in many] == [f"a-{n:03}" for n in range(1, 61)]
        unit = await write(client, *(create(f"u{n}") for n in range(3)), idem="unit", atomic=True)
        assert [item.id for item in unit] == ["a-061", "a-062", "a-063"]
        refused = await write(client, create("x"), create("u1"), idem="no", atomic=True)
        assert [item.ok for item in refused] == [False, False]
        partly = await write(client, create("u1"), create("y"), idem="partly")
        assert [(item.ok, item.id) for item in partly] == [(False, ""), (True, "a-064")], "what is refused draws none"


async def test_ids_that_rows_have_or_had_are_passed_over(home: Home) -> None:
    """From before the hub drew them; and of rows that were removed for good."""
    async with open_hub(Schema(OLD), home.store(), verifier=AllowLoopback()) as hub:
        client = Client.of(hub, "a")
        for n in (*range(1, 41), 43):
            await write(client, create(f"{n}", id=f"a-{n:03}"), idem=f"{n}")
        await write(client, Op("delete", "invoices", "a-040", scope="a"), idem="gone")
    async with hub_at(home) as hub:
        client = Client.of(hub, "a")
        made = await write(client, *(create(f"new {n}") for n in range(3)), idem="made")
        assert [item.id for item in made] == ["a-041", "a-042", "a-044"]
        await write(client, Op("delete", "invoices", "a-044", scope="a"), idem="gone 2")
        assert (await write(client, create("next"), idem="next"))[0].id == "a-045"


async def test_a_function_that_comes_to_nothing_new_refuses_the_write(home: Home) -> None:
    count = 0

    def other_each_time(of: Setting) -> str:
        nonlocal count
        count += 1
        return f"{count}"

    for function in (lambda of: "same", other_each_time):
        async with hub_at(home, function) as hub:
            client = Client.of(hub, "a")
            items = [await write(client, create(f"{function} {n}"), idem=f"{function} {n}") for n in range(2)]
            ((refused,),) = items[1:]
            assert not refused.ok and refused.error is not None
            assert (refused.error.code, refused.id) == ("INVALID", "")
            assert "finds no free id: it must advance with each of.counter()" in refused.error.message


async def test_an_id_of_the_callers_own_makes_no_row_but_changes_one_and_brings_one_back(home: Home) -> None:
    async with hub_at(home) as hub:
        client = Client.of(hub, "a")
        await write(client, create("one"), idem="1")
        for n, op in enumerate(
            (create("x", id="own"), Op("upsert", "invoices", "own", {"text": "x"}, scope="a"),
             Op("replace", "invoices", "own", {"text": "x"}, scope="a"))
        ):  # fmt: skip
            (item,) = await write(client, op, idem=f"own {n}")
            assert item.error is not None and item.error.code == "INVALID"
            assert "the hub draws the ids of its new rows: insert it without an id" in item.error.message
            outcome = await client.do(op, scope="a")
            assert outcome.status == "rejected" and outcome.error is not None and outcome.error.code == "INVALID"
        for n, op in enumerate((Op("upsert", "invoices", "a-001", {"text": "up"}, scope="a"),
                                Op("patch", "invoices", "a-001", {"text": "patched"}, scope="a"),
                                Op("delete", "invoices", "a-001", scope="a"),
                                create("back", id="a-001"))):  # fmt: skip
            assert (await write(client, op, idem=f"known {n}"))[0].ok, op
        assert (await rows(client))["a-001"]["text"] == "back", "it was there once, so it may come again"
        pushed = await client.do(create("pushed"), scope="a")
        assert pushed.status == "rejected" and pushed.error is not None
        assert "only a direct write can make a row without an id" in pushed.error.message
        for op in (Op("upsert", "invoices", "", {"text": "x"}, scope="a"), Op("delete", "invoices", "", scope="a")):
            (item,) = await write(client, op, idem=op.kind)
            assert item.error is not None and item.error.code == "INVALID"


async def test_row_rules_judge_the_row_that_is_made(home: Home) -> None:
    rules = {"invoices": lambda user: INVOICES.col(lambda invoice: invoice.text) == user.subject}
    async with hub_at(home, row_rules=rules) as hub:
        ann, bob = Client.of(hub, "a", "ann"), Client.of(hub, "b", "bob")
        assert (await write(ann, create("ann"), idem="1"))[0].id == "a-001"
        (denied,) = await write(bob, create("ann 2"), idem="2")
        assert denied.error is not None and denied.error.code == "DENIED"
        assert (await write(bob, create("bob"), idem="3"))[0].id == "a-002", "past the one that is not to be seen"


def test_what_declares_it_and_what_gives_it_belong_together() -> None:
    with pytest.raises(SchemaError, match="named twice"):
        StoreSpec("invoices", Invoice, scope="company", hub_fields=["id", "id"])
    for functions, schema in (({}, INVOICES), ({"invoices": {"id": drawn}}, OLD)):
        with pytest.raises(ConfigurationError, match=r"hub_fields: invoices\.id"):
            HubFields(Schema(schema).stores, functions)
