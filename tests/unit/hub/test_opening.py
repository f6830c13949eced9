"""Opening a hub, its file and its sessions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest
import trio

from atoma.contracts.mutations import Op
from atoma.contracts.sync import Hint, NotifyRequest, OpenRequest
from atoma.errors import AuthenticationError, ConfigurationError, MigrationError, RemoteError, StoreBusy, StoreCorrupt
from atoma.hub import AllowLoopback, StaticTokenVerifier, open_hub
from atoma.ports.environment import Environment
from atoma.ports.hub import HubDatabase
from atoma.ports.service import Peer, Principal, ServiceHost, SyncService
from atoma.schema import Schema, StoreSpec
from atoma_stores.sqlite.database import Database
from atoma_stores.sqlite.hub_store import SQLiteHubDatabase, SQLiteHubStore
from tests.unit.hub.homes import Home, is_sqlite
from tests.unit.hub.kit import SCHEMA, SCOPE, Client, card, hub_on, pull_all

HERE = Peer("127.0.0.1", True, "memory")
THERE = Peer("203.0.113.5", False, "websocket")


def create(id: str) -> Op:
    return Op("create", "cards", id, card("t"))


async def test_a_hub_without_a_verifier_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="StaticTokenVerifier"):
        async with open_hub(SCHEMA, SQLiteHubStore(tmp_path / "hub.db")):
            pass
    assert os.listdir(tmp_path) == []


async def test_a_hub_is_a_service_host(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        assert isinstance(hub, ServiceHost)
        assert isinstance(hub.service(Principal("x")), SyncService)


async def test_tokens_name_their_subjects() -> None:
    verifier = StaticTokenVerifier({"secret-a": "ann", "secret-b": "bob"})
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=verifier) as hub:
        assert (await hub.authenticate("secret-a", THERE)).subject == "ann"
        assert (await hub.authenticate("secret-b", HERE)).subject == "bob"
        for wrong in ("", "secret", "secret-a ", "sécret", "\ud800"):
            with pytest.raises(AuthenticationError):
                await hub.authenticate(wrong, HERE)
    assert "secret" not in repr(verifier)
    for tokens in ({}, {"": "ann"}, {"t": ""}):
        with pytest.raises(ConfigurationError):
            StaticTokenVerifier(tokens)


async def test_loopback_only_means_loopback_only() -> None:
    assert (await AllowLoopback().verify("", HERE)).subject == "local"
    with pytest.raises(AuthenticationError):
        await AllowLoopback().verify("any", THERE)


async def test_a_second_hub_on_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with hub_on(path):
        with pytest.raises(StoreBusy, match="another hub is running"):
            async with hub_on(path):
                pass
        link = tmp_path / "link.db"
        link.symlink_to(path)
        with pytest.raises(StoreBusy):
            async with hub_on(link):
                pass
    async with hub_on(path) as hub:
        assert hub.identity.hub_id


@pytest.mark.xdist_group("machine")
async def test_a_second_process_is_refused_and_a_killed_one_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    script = (
        "import sys, trio\n"
        "from tests.unit.hub.kit import *\n"
        "async def main():\n"
        "    async with hub_on(sys.argv[1]) as hub:\n"
        "        client = Client.of(hub, 'a')\n"
        "        for number in range(1, 100_000):\n"
        "            await client.do(Op('create', 'cards', str(number), card('t')))\n"
        "            print(number, flush=True)\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acked = 0
        while acked < 20:
            acked = int(child.stdout.readline())
        with pytest.raises(StoreBusy):
            async with hub_on(path):
                pass
        child.send_signal(signal.SIGKILL)
        acked = max([acked, *(int(line) for line in child.stdout.read().split("\n")[:-1])])
    async with hub_on(path) as hub:
        client = Client.of(hub, "a")
        rows, end = await pull_all(client)
        reply = await client.open(tail=10**6)
        assert acked <= end.seq == len(rows) == reply.last_mid
        assert {id for _, id in rows} == {str(number) for number in range(1, end.seq + 1)}


async def test_the_hub_stays_the_same_and_an_epoch_can_begin(home: Home) -> None:
    store = home.store()
    async with hub_on(store) as hub:
        before = hub.identity
        client = Client.of(hub, "a")
        await client.do(create("1"))
        cursor = (await client.pull()).end
    async with hub_on(store) as hub:
        assert hub.identity == before
        assert (await hub.new_epoch()).epoch != before.epoch
        with pytest.raises(RemoteError) as changed:
            await client.on(hub).pull(cursor)
        assert changed.value.remote_code == "EPOCH_CHANGED"
    async with hub_on(store) as hub:
        assert hub.identity.hub_id == before.hub_id
        assert hub.identity.epoch != before.epoch


async def test_a_newer_database_is_refused(home: Home) -> None:
    async with hub_on(home.store()):
        pass
    home.ask("UPDATE {info} SET format=99")
    with pytest.raises(MigrationError, match="newer"):
        async with hub_on(home.store()):
            pass
    async with hub_on(home.store("two"), schema=Schema(*SCHEMA.stores.values(), version=2)):
        pass
    with pytest.raises(MigrationError):
        async with hub_on(home.store("two")):
            pass


async def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"not a database, but long enough to look at" * 200)
    foreign = tmp_path / "foreign.db"
    connection = apsw.Connection(str(foreign))
    connection.execute("CREATE TABLE cards(x)")
    connection.close()
    for path in (noise, foreign):
        with pytest.raises(StoreCorrupt):
            async with hub_on(path):
                pass


@dataclass(frozen=True, slots=True)
class _Before:
    id: str
    title: str


@dataclass(frozen=True, slots=True)
class _After:
    id: str
    title: str
    colour: str = "blue"


async def test_a_new_column_reaches_old_rows_old_log_entries_and_old_clients(home: Home) -> None:
    store = home.store()
    async with hub_on(store, schema=Schema(StoreSpec("notes", _Before))) as hub:
        client = Client.of(hub, "a")
        await client.do(Op("create", "notes", "1", {"title": "old"}))
    async with hub_on(store, schema=Schema(StoreSpec("notes", _After), version=2)) as hub:
        client = client.on(hub)
        assert (await client.do(Op("create", "notes", "2", {"title": "from an old client"}))).status == "applied"
        assert (await client.do(Op("patch", "notes", "1", {"colour": "red"}), base=1)).status == "applied"
        rows, _ = await pull_all(client)
        assert rows == {
            ("notes", "1"): {"title": "old", "colour": "red"},
            ("notes", "2"): {"title": "from an old client", "colour": "blue"},
        }
        assert (await client.pull(max_changes=1)).stores[0].rows == ((1, "1", "old", "blue"),)


async def test_a_session_opens_with_versions_and_heads(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.do(create("1"))
        reply = await client.open(SCOPE, "empty")
        assert (reply.hub_id, reply.epoch) == (hub.identity.hub_id, hub.identity.epoch)
        assert (reply.principal, reply.last_mid, reply.last_digest) == ("local", 1, client.digests[1])
        assert [(s.scope, s.head, s.floor, s.error) for s in reply.scopes] == [
            (SCOPE, 1, 0, None),
            ("empty", 0, 0, None),
        ]
        for change, code in (
            ({"proto_min": 5, "proto_max": 6}, "PROTO_UNSUPPORTED"),
            ({"proto_min": 0, "proto_max": 0}, "PROTO_UNSUPPORTED"),
            ({"hub_id": b"another hub"}, "HUB_MISMATCH"),
            ({"schema_version": 2}, "SCHEMA_TOO_NEW"),
            ({"scopes": ("s",) * 201}, "TOO_LARGE"),
            ({"scopes": ("",)}, "INVALID"),
            ({"client_id": b""}, "MALFORMED"),
        ):
            facts = {"client_id": client.client_id, "incarnation": 1, "schema_version": 1, "schema_hash": SCHEMA.hash,
                     "scopes": (SCOPE,), "tail_mid": 1}  # fmt: skip
            with pytest.raises(RemoteError) as refused:
                await client.service.open(OpenRequest(**{**facts, **change}))  # type: ignore[arg-type]
            assert refused.value.remote_code == code


class Watched:
    """A hub store whose file the test can reach."""

    def __init__(self, path: Path) -> None:
        self._store = SQLiteHubStore(path)
        self.file: Database

    @asynccontextmanager
    async def open_hub_database(self, schema: Schema, environment: Environment) -> AsyncGenerator[HubDatabase]:
        async with self._store.open_hub_database(schema, environment) as database:
            self.file = database.database
            yield database


async def test_a_full_disk_is_transient_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Watched(tmp_path / "hub.db")
    async with hub_on(store) as hub:
        client = Client.of(hub, "a")
        pages = await store.file.transact(lambda connection: connection.pragma("page_count"))
        assert isinstance(pages, int)
        await store.file.transact(lambda connection: connection.pragma("max_page_count", pages + 20))
        acked = 0
        with pytest.raises(RemoteError) as full:
            for number in range(1, 1000):
                client.write(Op("create", "cards", str(number), card("x" * 3000)))
                outcome = (await client.push(number)).outcomes[0]
                assert outcome.status == "applied"
                acked = number
        assert (full.value.remote_code, full.value.remote_retryable) == ("UNAVAILABLE", True)
        assert full.value.retry_after_s is not None
        assert 0 < full.value.retry_after_s <= 1, "whoever is sent away comes back soon"
        assert str(tmp_path) not in str(full.value)
        told = [record.getMessage() for record in caplog.records if record.name == "atoma.hub"]
        assert any("push" in text for text in told), "whoever runs the hub finds the reason in its log"
        assert 0 < acked < 999
        assert (await client.open()).last_mid == acked
        await store.file.transact(lambda connection: connection.pragma("max_page_count", 1_000_000))
        assert [o.seq for o in (await client.push(acked + 1)).outcomes] == [acked + 1]
        assert set(await client.query()) == {str(number) for number in range(1, acked + 2)}


async def test_a_closed_hub_answers_that_it_is_closed(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
    client.write(create("1"))
    with pytest.raises(RemoteError) as closed:
        await client.push()
    assert (closed.value.remote_code, closed.value.remote_retryable) == ("UNAVAILABLE", True)


async def test_leaving_the_block_finishes_and_frees_the_file(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with hub_on(path) as hub:
        client = Client.of(hub, "a")
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(Client.of(hub, f"c{number}").do, create(str(number)))
    async with hub_on(path) as hub:
        assert len(await client.on(hub).query()) == 20
    assert not [name for name in os.listdir(tmp_path) if name.endswith(("-wal", "-shm"))]


async def test_the_epoch_that_is_told_is_the_one_of_the_transaction_that_answers(home: Home) -> None:
    """Another process may have ended the one that this process has seen."""
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        assert (await client.open()).epoch == hub.identity.epoch
        home.ask("UPDATE {info} SET epoch=" + ("x'616e6f74686572'" if is_sqlite(home) else "'another'"))
        assert (await client.open()).epoch == b"another"
        assert (await client.pull()).end.epoch == b"another"


async def test_heads_that_other_processes_commit_are_hinted_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listening: list[Callable[[Mapping[str, int]], None]] = []
    watching: list[Callable[[], Sequence[str]]] = []

    @asynccontextmanager
    async def follow(
        _database: SQLiteHubDatabase,
        listener: Callable[[Mapping[str, int]], None],
        watched: Callable[[], Sequence[str]],
    ) -> AsyncGenerator[None]:
        listening.append(listener)
        watching.append(watched)
        yield
        listening.clear()

    monkeypatch.setattr(SQLiteHubDatabase, "follow", follow)
    async with hub_on(tmp_path / "hub.db") as hub:
        async with Client.of(hub, "a").service.notify(NotifyRequest((SCOPE,))) as hints:
            assert await anext(hints) == Hint(SCOPE, 0)
            assert watching[0]() == (SCOPE,)
            listening[0]({SCOPE: 7, "elsewhere": 9})
            assert await anext(hints) == Hint(SCOPE, 7)
    assert listening == []
