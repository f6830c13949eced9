"""A device and a hub that declare a field differently exchange nothing of it; two versions of one program go on."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, make_dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NewType

import pytest
import trio

from atoma.client import Client, open_client
from atoma.contracts.events import CallServed, HubEvent
from atoma.contracts.understood import UNDERSTOOD, Understood
from atoma.errors import SchemaMismatch
from atoma.hub import Hub, StaticTokenVerifier, open_hub
from atoma.ports import Peer, SyncService, Transport
from atoma.ports.service import Principal
from atoma.schema import Scale, Schema, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.hub_files import read_schema
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport

Cents = Annotated[Decimal, Scale(2)]
Mills = Annotated[Decimal, Scale(3)]
Named = NewType("Named", str)


@dataclass(frozen=True, kw_only=True)
class Note:
    id: str
    text: str = ""


NOTES = StoreSpec("notes", Note)


def bills(hint: Any, **more: tuple[Any, Any]) -> StoreSpec[Any]:
    """A store whose ``total`` is of that type; ``more`` are fields with their defaults."""
    fields: list[Any] = [("id", str), ("total", hint), *((name, kind, first) for name, (kind, first) in more.items())]
    return StoreSpec("bills", make_dataclass("Bill", fields, frozen=True))


CENTS, MILLS = bills(Cents), bills(Mills)
PAIRS = [
    pytest.param(CENTS, MILLS, Decimal("9.50"), "decimal(2)", "decimal(3)", id="scales"),
    pytest.param(bills(Decimal), CENTS, Decimal("9.5"), "decimal", "decimal(2)", id="bare decimal"),
    pytest.param(bills(int), bills(timedelta), 5, "int", "duration", id="count and duration"),
    pytest.param(bills(int), bills(bool), 5, "int", "bool", id="count and switch"),
]
NAMED = pytest.param(bills(Named), bills(str), Named("a"), "a NewType of text", "text", id="name and text")


class Silent:
    """A hub that is older: it says nothing of its columns.

    Args:
        hub: The hub.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    @property
    def understood(self) -> Understood:
        return UNDERSTOOD

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return await self._hub.authenticate(token, peer)

    def service(self, principal: Principal) -> SyncService:
        return self._hub.service(principal)


class Place:
    """A folder with hubs and devices, one way between them, and the calls that arrive.

    Args:
        folder: Where files lie.
        wire: What is spoken.
    """

    def __init__(self, folder: Path, wire: str) -> None:
        self.folder = folder
        self.wire = wire
        self.calls: list[str] = []
        self.transport: Transport | None = None

    def _listen(self, event: HubEvent) -> None:
        if isinstance(event, CallServed):
            self.calls.append(event.method)

    @asynccontextmanager
    async def hub(self, *stores: StoreSpec[Any], file: str = "hub", silent: bool = False) -> AsyncGenerator[Hub]:
        self.calls.clear()
        store, verifier = SQLiteHubStore(self.folder / f"{file}.db"), StaticTokenVerifier({"t": "ada"})
        async with open_hub(Schema(*stores), store, verifier=verifier, listener=self._listen) as hub:
            network, host = MemoryNetwork(), Silent(hub) if silent else hub
            async with network.listen(host), open_server(host, "127.0.0.1:0") as address:
                ways: dict[str, Transport] = {
                    "memory": MemoryTransport(network, token="t"),
                    "websocket": WebSocketTransport(f"ws://{address}/sync", token="t"),
                    "grpc": GrpcTransport(f"grpc://{address}", token="t"),
                    "http": HttpTransport(f"http://{address}", token="t"),
                }
                self.transport = ways[self.wire]
                yield hub

    @asynccontextmanager
    async def device(self, name: str, *stores: StoreSpec[Any], syncs: bool = True) -> AsyncGenerator[Client]:
        assert self.transport is not None
        plugins: list[Any] = [
            LocalExecution(SQLiteEngine(self.folder / f"{name}.db")),
            Remote(self.transport),
            *([Sync(stores, ["main"])] if syncs else []),
        ]
        policy = "sync-queue" if syncs else "direct-remote"
        async with open_client(Schema(*stores), plugins=plugins, policy=policy) as client:
            yield client


async def settle(client: Client) -> None:
    with trio.fail_after(30):
        await client.sync.wait_idle()


async def refused(client: Client) -> str:
    """Why sync does not go on."""
    with trio.fail_after(60):
        while client.sync.status.error is None:
            await trio.sleep(0.01)
    error = client.sync.status.error
    assert (client.sync.status.state, error.code) == ("stalled", "SCHEMA_MISMATCH")
    with pytest.raises(SchemaMismatch):
        await client.sync.sync_once()
    return error.message


@pytest.mark.parametrize(("here", "there", "value", "mine", "theirs"), [*PAIRS, NAMED])
@pytest.mark.parametrize("wire", ["memory", "websocket"])
async def test_sync_exchanges_nothing_where_a_field_is_read_otherwise(
    tmp_path: Path, wire: str, here: StoreSpec[Any], there: StoreSpec[Any], value: Any, mine: str, theirs: str
) -> None:
    place = Place(tmp_path, wire)
    written = here.model("1", value)
    async with place.hub(there, NOTES), place.device("a", here, NOTES) as a:
        await a.store(here).insert(written)
        told = await refused(a)
        assert f"store 'bills': field 'total' is {mine} here and {theirs} at the hub" in told
        assert set(place.calls) == {"open"}
        assert list(await a.store(here).query()) == [written]  # reading and writing on the device go on
    async with place.hub(here, NOTES, file="corrected"), place.device("a", here, NOTES) as a:
        await settle(a)
        async with place.device("b", here, NOTES) as b:
            await settle(b)
            assert list(await b.store(here).query()) == [written]


@pytest.mark.parametrize("wire", ["memory", "websocket", "grpc", "http"])
@pytest.mark.parametrize(("here", "there", "value", "mine", "theirs"), PAIRS[:1])
async def test_direct_calls_are_not_sent_where_a_field_is_read_otherwise(
    tmp_path: Path, wire: str, here: StoreSpec[Any], there: StoreSpec[Any], value: Any, mine: str, theirs: str
) -> None:
    place = Place(tmp_path, wire)
    async with place.hub(there, NOTES), place.device("a", here, NOTES, syncs=False) as a:
        for attempt in (
            a.store(here).query(),
            a.store(here).get("1"),
            a.store(here).insert(here.model("1", value), confirm="strict"),
            a.store(here).delete("1", confirm="strict"),
        ):
            with pytest.raises(SchemaMismatch) as caught:
                await attempt
            assert (caught.value.store, caught.value.field) == ("bills", "total")
            assert (caught.value.here, caught.value.there) == (mine, theirs)
        assert place.calls == []
        await a.store(NOTES).insert(Note(id="n"), confirm="strict")  # a store that both read alike
        assert [note.id for note in await a.store(NOTES).query()] == ["n"]
        assert place.calls == ["write", "query"]


@pytest.mark.parametrize("wire", ["memory", "websocket"])
async def test_a_name_for_text_is_text_in_direct_calls(tmp_path: Path, wire: str) -> None:
    """Values are named there as columns hold them; only what sync exchanges would be read with its quotes."""
    here, there = bills(Named), bills(str)
    place = Place(tmp_path, wire)
    async with place.hub(there), place.device("a", here, syncs=False) as a:
        await a.store(here).insert(here.model("1", Named('"x"')), confirm="strict")
        async with place.device("b", there, syncs=False) as b:
            assert [bill.total for bill in await b.store(there).query()] == ['"x"']


class Kind(Enum):
    OPEN = "open"
    PAID = "paid"


@pytest.mark.paths
@pytest.mark.parametrize("wire", ["memory", "websocket"])
async def test_two_versions_of_a_program_go_on_side_by_side(tmp_path: Path, wire: str) -> None:
    before = bills(Cents, kind=(str, "open"), gone=(int, 0))
    later = bills(Cents, kind=(Kind, Kind.OPEN), gone=(int, 0), paid=(bool, False), notes=(str | None, None))
    place = Place(tmp_path, wire)
    async with place.hub(later, NOTES), place.device("a", before) as a, place.device("b", later, NOTES) as b:
        await a.store(before).insert(before.model("1", Decimal("9.50"), "paid"))
        await settle(a)
        await settle(b)
        assert await b.store(later).get("1") == later.model("1", Decimal("9.50"), Kind.PAID, 0)
        await b.store(later).update("1", total=Decimal("0.01"), paid=True)
        await settle(b)
        await settle(a)
        assert await a.store(before).get("1") == before.model("1", Decimal("0.01"), "paid", 0)
        async with place.device("c", before, syncs=False) as c:
            assert [bill.total for bill in await c.store(before).query()] == [Decimal("0.01")]


async def test_a_hub_that_says_nothing_of_its_columns_is_asked_as_ever(tmp_path: Path) -> None:
    place = Place(tmp_path, "websocket")
    async with place.hub(MILLS, silent=True), place.device("a", CENTS, syncs=False) as a:
        await a.store(CENTS).insert(CENTS.model("1", Decimal("9.50")), confirm="strict")
        assert place.calls == ["write"]


async def test_what_a_hub_has_lost_is_not_offered_to_one_that_reads_it_otherwise(tmp_path: Path) -> None:
    place = Place(tmp_path, "memory")
    text, named = bills(str), bills(Named)
    async with place.hub(text), place.device("a", text) as a:
        await settle(a)
    shutil.copy(tmp_path / "hub.db", tmp_path / "backup.db")
    async with place.hub(text), place.device("a", text) as a:
        await a.store(text).insert(text.model("1", "lost"))
        await settle(a)
    shutil.copy(tmp_path / "backup.db", tmp_path / "hub.db")
    async with place.hub(named), place.device("a", text) as a:
        assert "'total' is text here and a NewType of text at the hub" in await refused(a)
        assert set(place.calls) == {"open"}
        assert await a.sync.repairs() == []
    async with place.hub(text), place.device("a", text) as a:
        await settle(a)
        async with place.device("b", text) as b:
            await settle(b)
            assert list(await b.store(text).query()) == [text.model("1", "lost")]


async def test_a_hub_made_of_a_file_alone_says_what_the_file_says(tmp_path: Path) -> None:
    store = bills(Cents, name=(Named, Named("")), kind=(Kind, Kind.OPEN), more=(list[int], ()))
    place = Place(tmp_path, "memory")
    async with place.hub(store, NOTES) as hub:
        assert hub.schema.forms["bills"] == {
            "total": "decimal(2)", "name": "text json", "kind": "text", "more": "json",
        }  # fmt: skip
        assert hub.understood.forms == hub.schema.forms
        declared = hub.schema.forms
    assert read_schema(str(tmp_path / "hub.db")).forms == declared


async def test_types_that_do_not_fit_into_a_greeting_are_not_told_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    many = bills(Cents, **{f"a_column_with_a_long_name_{number}": (int, 0) for number in range(1_200)})
    place = Place(tmp_path, "websocket")
    async with place.hub(many) as hub:
        assert hub.understood.forms == {}
        assert "direct calls of a client that declares one otherwise are not refused, sync is" in caplog.text
        async with place.device("a", MILLS) as a:
            await refused(a)
