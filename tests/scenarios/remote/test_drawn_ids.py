"""Rows whose ids the hub draws, from a device: over every transport, past the outbox, once for each write."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import pytest
import trio

from atoma import (
    Client,
    Hub,
    Schema,
    StaticTokenVerifier,
    StoreSpec,
    Sync,
    WriteHandle,
    open_client,
    open_hub,
)
from atoma.errors import (
    AtomaError,
    ConflictError,
    PolicyNotAllowed,
    TransportError,
    UnknownPolicy,
    ValidationError,
    WriteError,
    WriteUnknown,
)
from atoma.hub.setting import Setting
from atoma.ports import Principal, seeded_environment
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine, SQLiteHubStore
from atoma_transports.calls import ChannelLimits
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.conformance.sites import SITES
from tests.scenarios.remote.conftest import Road


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    id: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    id: str = ""
    text: str = ""


INVOICES = StoreSpec("invoices", Invoice, hub_fields=["id"], confirm="strict", soft_delete=True)
EAGER = StoreSpec("eager", Invoice, hub_fields=["id"])
ITEMS = StoreSpec("items", Item)
SCHEMA = Schema(INVOICES, EAGER, ITEMS)


def drawn(of: Setting) -> str:
    return f"R-{of.counter():03}"


FUNCTIONS: Any = {"invoices": {"id": drawn}, "eager": {"id": drawn}}


@asynccontextmanager
async def at(folder: Path) -> AsyncGenerator[Hub]:
    verifier, store = StaticTokenVerifier({"token": "ann"}), SQLiteHubStore(folder / "hub.db")
    environment = seeded_environment(2)
    async with open_hub(SCHEMA, store, verifier=verifier, hub_fields=FUNCTIONS, environment=environment) as hub:
        yield hub


@dataclass
class Place:
    client: Client
    hub: Hub
    road: Road
    network: MemoryNetwork

    async def there(self) -> list[str]:
        result = await self.hub.service(Principal("ann")).query(_everything())
        return sorted(row.id for row in result.rows)


def _everything() -> Any:
    from atoma.contracts.execution import OperationContext, QueryRequest
    from atoma.testing.queries import rows_of

    return QueryRequest(rows_of("invoices"), OperationContext("t"))


@asynccontextmanager
async def device(folder: Path, *, synced: bool = True, policy: str | None = None) -> AsyncGenerator[Place]:
    network, road = MemoryNetwork(), Road()
    plugins: list[Any] = [
        LocalExecution(SQLiteEngine(folder / "client.db", history=History(days=1))),
        Remote(MemoryTransport(network, token="token", site="here", faults=road)),
        *([Sync([INVOICES, EAGER, ITEMS])] if synced else []),
    ]
    async with (
        at(folder) as hub,
        network.listen(hub),
        open_client(SCHEMA, plugins=plugins, policy=policy, environment=seeded_environment(1)) as client,
    ):
        yield Place(client, hub, road, network)


@pytest.mark.parametrize("name", SITES)
async def test_over_every_transport(name: str, tmp_path: Path) -> None:
    async with SITES[name].open_site(ChannelLimits()) as ground, at(tmp_path) as hub, ground.serve(hub):
        plugins: list[Any] = [
            LocalExecution(SQLiteEngine(tmp_path / "client.db")),
            Remote(ground.transport("token", ChannelLimits())),
            Sync([INVOICES, ITEMS]),
        ]
        async with open_client(SCHEMA, plugins=plugins) as client:
            invoices = client.store(INVOICES)
            handle = await invoices.insert(Invoice(text="tea"))
            assert_type(handle, WriteHandle[Invoice])
            assert (handle.id, handle.value, handle.state) == ("R-001", Invoice(id="R-001", text="tea"), "accepted")
            many = await invoices.insert_many([Invoice(text=f"{n}") for n in range(3)])
            assert [item.id for item in many] == ["R-002", "R-003", "R-004"]
            unit = await invoices.insert_many([Invoice(text="a"), Invoice(text="b")], atomic=True)
            assert [item.handle.value for item in unit if item.handle] == [
                Invoice(id="R-005", text="a"), Invoice(id="R-006", text="b")
            ]  # fmt: skip
            async with client.transaction() as tx:
                await tx.store(INVOICES).insert(Invoice(text="c"))
                await tx.store(INVOICES).insert(Invoice(text="d"))
            assert tx.drawn == ("R-007", "R-008")
            assert await invoices.get("R-008", policy="network-only") == Invoice(id="R-008", text="d")
            assert await invoices.count() == 8
            assert (await client.sync.outbox.entries()) == []


@pytest.mark.virtual_time
async def test_what_was_made_is_a_row_like_any_other(tmp_path: Path) -> None:
    """Changed, compared, deleted softly, brought back and removed for good through the outbox; its id is not given again."""
    async with device(tmp_path) as here:
        invoices = here.client.store(INVOICES)
        id = (await invoices.insert(Invoice(text="one"))).id
        await here.client.sync.wait_idle()
        await invoices.get(id, policy="network-only")
        version = await invoices.version(id)
        await invoices.update(id, text="two", base_version=version)
        with pytest.raises(ConflictError):
            await invoices.upsert(
                Invoice(id=id, text="three"), conflict="cas", base_version=version, confirm="optimistic"
            )
        await invoices.upsert({"id": id, "text": "three"})
        await invoices.delete(id)
        assert await invoices.get(id) is None
        assert (await invoices.restore(id)).value == Invoice(id=id, text="three")
        await invoices.purge(id)
        assert (await invoices.insert(Invoice(text="next"))).id == "R-002"
        with here.client.undo.group("Make"):
            grouped = await invoices.insert(Invoice(text="in a group"))
        await invoices.get(grouped.id, policy="network-only")
        assert not await here.client.undo.steps(), "what the hub made is not this device's to take back"


@pytest.mark.virtual_time
async def test_what_cannot_be_is_said_before_anything_is_written(tmp_path: Path) -> None:
    async with device(tmp_path) as here:
        client, invoices, eager = here.client, here.client.store(INVOICES), here.client.store(EAGER)

        async def refused(expected: type[AtomaError], message: str, write: Any) -> None:
            with pytest.raises(expected, match=message):
                await write()

        await refused(ValidationError, 'say confirm="strict", or declare', lambda: eager.insert(Invoice()))
        await refused(ValidationError, 'say confirm="strict"', lambda: eager.insert_many([Invoice()], atomic=True))
        own = Invoice(id="mine")
        await refused(ValidationError, "insert it with the id left empty", lambda: invoices.insert(own))
        result = await invoices.insert_many([own, Invoice(text="ok")])
        assert [(item.ok, item.id) for item in result] == [(False, "mine"), (True, "R-001")]
        await refused(ValidationError, "an upsert names its row", lambda: invoices.upsert(Invoice()))
        await refused(ValidationError, "an upsert names its row", lambda: invoices.upsert({"id": ""}, apply="replace"))
        for policy in ("sync-queue", "remote-first", "hybrid", "direct-local"):
            message = "this policy writes on this device as well; name none, or 'direct-remote'"
            await refused(PolicyNotAllowed, message, lambda policy=policy: invoices.insert(Invoice(), policy=policy))
        await refused(UnknownPolicy, "needs", lambda: invoices.insert(Invoice(), policy="direct-http"))

        async def mixed() -> None:
            async with client.transaction() as tx:
                await tx.store(INVOICES).insert(Invoice())
                await tx.store(ITEMS).insert(Item(id="1"))

        await refused(PolicyNotAllowed, "write the rest in one of its own", mixed)

        async def read_first() -> None:
            async with client.transaction() as tx:
                await tx.store(INVOICES).get("R-001")
                await tx.store(INVOICES).insert(Invoice())

        await refused(PolicyNotAllowed, "read before", read_first)
        with pytest.raises(WriteError) as said:  # what only the hub knows
            await invoices.upsert(Invoice(id="mine"))
        assert "the hub draws the ids of its new rows" in str(said.value)
        here.network.partition("here")
        for write in (lambda: invoices.insert(Invoice()), lambda: invoices.insert_many([Invoice()])):
            with pytest.raises(TransportError):
                await write()
        here.network.heal("here")
        await trio.sleep(1)
        assert (await invoices.insert(Invoice())).id == "R-002", "nothing of it was written"
        assert await here.there() == ["R-001", "R-002"]
        assert [entry.store for entry in await client.sync.inbox.entries()] == ["invoices"]


@pytest.mark.virtual_time
@pytest.mark.parametrize("synced", [True, False], ids=["synced", "cached"])
async def test_an_answer_that_is_lost_is_found_by_its_key(tmp_path: Path, synced: bool) -> None:
    async with device(tmp_path, synced=synced, policy=None if synced else "direct-remote") as here:
        invoices = here.client.store(INVOICES)
        await invoices.insert(Invoice(text="one"))
        here.road.break_replies = 1
        with pytest.raises(WriteUnknown) as lost:
            await invoices.insert(Invoice(text="two"))
        found = await here.client.resolve(lost.value)
        assert found.result is not None and found.result.items[0].id == "R-002"
        again = await here.client.resolve(lost.value.idem, policy="direct-remote")
        assert again.result is not None and again.result.items == found.result.items
        assert await here.there() == ["R-001", "R-002"]
        assert (await invoices.insert(Invoice(text="three"))).id == "R-003"
        if not synced:
            await trio.sleep(60)
            assert {row.id for row in await invoices.query(policy="direct-local")} == {"R-001", "R-002", "R-003"}


@pytest.mark.virtual_time
async def test_in_a_cache_they_go_together_with_other_writes(tmp_path: Path) -> None:
    async with device(tmp_path, synced=False, policy="direct-remote") as here:
        client, invoices = here.client, here.client.store(INVOICES)
        await client.store(ITEMS).insert(Item(id="1", text="a"), confirm="strict")
        async with client.transaction() as tx:
            await tx.store(INVOICES).insert(Invoice(text="one"))
            await tx.store(ITEMS).update("1", text="b")
            await tx.store(INVOICES).insert(Invoice(text="two"))
        assert tx.drawn == ("R-001", "R-002")
        here_now = {row.id: row.text for row in await invoices.query(policy="direct-local")}
        assert here_now == {"R-001": "one", "R-002": "two"}
        made: list[str] = []

        async def one(n: int) -> None:
            made.append((await invoices.insert(Invoice(text=f"{n}"))).id)

        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(one, n)
        assert sorted(made) == [f"R-{n:03}" for n in range(3, 13)]
