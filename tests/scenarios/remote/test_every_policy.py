"""The same programs under every policy, against a real hub: reading and writing mean the same everywhere (A74)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

from atoma import Client, Hub, Schema, StaticTokenVerifier, StoreSpec, Sync, col, open_client, open_hub, select
from atoma.contracts.events import Event, WriteDispatched, WriteSettled
from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.errors import ConflictError, NotFoundError, TopologyError, UnknownPolicy, ValidationError
from atoma.kernel import local_first
from atoma.kernel.policy import KNOWN_REMOTES, REMOTE_PREFIX, ready_policies
from atoma.plugins import Plugin
from atoma.ports import Principal, seeded_environment
from atoma.ports.tasks import single_error
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    rank: int = 0


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)

REMOTE = f"{REMOTE_PREFIX}memory"
VOLATILE = local_first(REMOTE, name="volatile", volatile=True)
READY = [policy for policy in ready_policies([REMOTE]) if policy.name not in {f"direct-{far}" for far in KNOWN_REMOTES}]
POLICIES = {(policy.query, policy.write): policy for policy in (VOLATILE, *reversed(READY))}.values()
"""What a client with one remote and a policy of its own has, each once: there are two names for the one to that remote."""
REFUSED = {
    ("direct-local", True): "SYNCED_WITHOUT_OUTBOX",
    ("direct-remote", True): "SYNCED_WITHOUT_OUTBOX",
    ("sync-queue", False): "POLICY_UNAVAILABLE",
    ("local-first", False): "WRITES_REFUSED",
}
"""What cannot be a store's policy, by whether the store replicates, and the code that says so at the start."""
# policy, whether the store replicates, how writes are confirmed
WAYS = [
    (policy.name, synced, confirm)
    for policy in POLICIES
    for synced in (False, True)
    for confirm in ("optimistic", "strict")
    if policy.write is not None and (policy.name, synced) not in REFUSED
]
WRITTEN_BY = {"cache-only": "direct-local", "network-only": "direct-remote", "cache-and-network": "volatile"}
"""Policies for reading alone, and by which one it is written what they read where the store does not replicate."""
every_way = pytest.mark.parametrize(
    ("policy", "synced", "confirm"), WAYS, ids=[f"{p}{' synced' if s else ''} {c}" for p, s, c in WAYS]
)


class Volatile:
    """Registers the policy that an application has to ask for."""

    id = "volatile"
    provides = ()
    needs = ()

    @asynccontextmanager
    async def open(self, context: Any) -> AsyncGenerator[None]:
        context.register_policy(VOLATILE)
        yield


@dataclass
class Suite:
    """One client under one policy.

    Attributes:
        undecided: What is written is shown, lies in no outbox, and its call returns before the hub has answered.
        heard: The events.
    """

    client: Client
    hub: Hub
    confirm: Any
    undecided: bool
    heard: list[Event] = field(default_factory=list)

    @property
    def notes(self) -> Any:
        return self.client.store(NOTES)

    async def elsewhere(self, id: str) -> None:
        """Somebody else inserts a row at the hub."""
        entry = Op("create", "notes", id, {"text": "theirs", "rank": 0}, scope="main")
        request = WriteRequest((entry,), WriteOptions(), OperationContext("t"), f"elsewhere {id}")
        assert (await self.hub.service(Principal("bob")).write(request)).status == "confirmed"

    async def rest(self, *handles: Any) -> None:
        """Wait for the verdicts: what a read that asks the hub needs to see."""
        for handle in handles:
            await handle.accepted()


@asynccontextmanager
async def open_suite(tmp_path: Path, policy: str, synced: bool, confirm: str) -> AsyncGenerator[Suite]:
    network = MemoryNetwork()
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(tmp_path / "client.db")),
        Remote(MemoryTransport(network, token="token")),
        Volatile(),
    ]
    if synced:
        plugins.append(Sync([NOTES]))
    verifier = StaticTokenVerifier({"token": "ann"})
    hub_store = SQLiteHubStore(tmp_path / "hub.db")
    async with (
        open_hub(SCHEMA, hub_store, verifier=verifier, environment=seeded_environment(2)) as hub,
        network.listen(hub),
        open_client(SCHEMA, plugins=plugins, policy=policy, environment=seeded_environment(1)) as client,
    ):
        with trio.fail_after(600):
            far = policy != "direct-local" and not synced
            suite = Suite(client, hub, confirm, undecided=far and confirm == "optimistic")
            client.listen(suite.heard.append)
            yield suite


async def test_no_policy_of_a_client_is_left_out(tmp_path: Path) -> None:
    async with open_suite(tmp_path, "remote-first", True, "optimistic") as suite:
        there = {each.name for each in suite.client.topology().policies if not each.unavailable}
    tried = {policy for policy, _, _ in WAYS}
    assert there - {"direct-memory"} == tried | WRITTEN_BY.keys()
    assert {(policy, synced) for policy in tried for synced in (False, True)} == {
        way[:2] for way in WAYS
    } | REFUSED.keys()


@pytest.mark.parametrize(("policy", "synced"), REFUSED)
async def test_what_cannot_be_a_policy_of_a_store_is_refused_at_the_start(
    tmp_path: Path, policy: str, synced: bool
) -> None:
    with pytest.raises((TopologyError, ExceptionGroup)) as refused:
        async with open_suite(tmp_path, policy, synced, "optimistic"):
            raise AssertionError("it has started")
    error = refused.value
    told = single_error(error) if isinstance(error, BaseExceptionGroup) else error
    assert isinstance(told, TopologyError)
    assert REFUSED[policy, synced] in str(told)


@pytest.mark.parametrize("synced", [False, True], ids=["", "synced"])
@pytest.mark.parametrize("policy", WRITTEN_BY)
async def test_a_policy_for_reading_alone_reads_what_is_written(tmp_path: Path, policy: str, synced: bool) -> None:
    async with open_suite(tmp_path, "sync-queue" if synced else WRITTEN_BY[policy], synced, "optimistic") as suite:
        notes = suite.notes
        with pytest.raises(UnknownPolicy, match="no write graph"):
            await notes.insert(Note(id="1"), policy=policy)
        await suite.rest(await notes.insert(Note(id="1", text="a", rank=1)), await notes.insert(Note(id="2", rank=2)))
        await suite.rest(
            await notes.update("1", {"text": "b"}), await notes.delete("2"), await notes.insert(Note(id="3"))
        )
        assert await notes.get("1", policy=policy) == Note(id="1", text="b", rank=1)
        assert await notes.get_many(["2", "1"], policy=policy) == [None, Note(id="1", text="b", rank=1)]
        assert [note.id for note in await notes.query(select(notes.spec).where(col("rank") > 0), policy=policy)] == [
            "1"
        ]
        assert {note.id for note in await notes.query(policy=policy)} == {"1", "3"}
        assert await notes.count(policy=policy) == 2
        assert not await notes.exists("2")


@every_way
async def test_what_is_written_is_read(tmp_path: Path, policy: str, synced: bool, confirm: str) -> None:
    async with open_suite(tmp_path, policy, synced, confirm) as suite:
        notes = suite.notes
        inserted = await notes.insert(Note(id="1", text="a", rank=1), confirm=confirm)
        assert inserted.value == Note(id="1", text="a", rank=1)
        updated = await notes.update("1", {"text": "b"}, confirm=confirm)
        assert updated.value == Note(id="1", text="b", rank=1)
        added = await notes.upsert({"id": "2", "rank": 7}, confirm=confirm)
        merged = await notes.upsert({"id": "1", "rank": 2}, confirm=confirm)
        replaced = await notes.upsert(Note(id="2", text="new"), apply="replace", confirm=confirm)
        gone = await notes.insert(Note(id="3"), confirm=confirm)
        deleted = await notes.delete("3", confirm=confirm)
        assert deleted.value is None
        await suite.rest(inserted, updated, added, merged, replaced, gone, deleted)
        assert await notes.get("1") == Note(id="1", text="b", rank=2)
        assert await notes.get_many(["2", "3", "1"]) == [Note(id="2", text="new"), None, Note(id="1", text="b", rank=2)]
        assert [note.id for note in await notes.query(select(notes.spec).where(col("rank") > 1))] == ["1"]
        assert {note.id for note in await notes.get_all()} == {"1", "2"}
        assert await notes.exists("1")


@every_way
async def test_what_cannot_be_written_says_why(tmp_path: Path, policy: str, synced: bool, confirm: str) -> None:
    async with open_suite(tmp_path, policy, synced, confirm) as suite:
        notes = suite.notes
        await suite.rest(await notes.insert(Note(id="1", text="a"), confirm=confirm))
        with pytest.raises(ConflictError):
            await notes.insert(Note(id="1", text="b"), confirm=confirm)
        with pytest.raises(NotFoundError):
            await notes.update("2", {"text": "b"}, confirm=confirm)
        with pytest.raises(NotFoundError):
            await notes.delete("2", confirm=confirm)
        with pytest.raises(ValidationError):
            await notes.update("1", {"text": 1}, confirm=confirm)
        version = await notes.version("1")
        with pytest.raises(ConflictError):
            await notes.update("1", {"text": "b"}, base_version=version + 1000, confirm=confirm)
        await suite.rest(await notes.update("1", {"text": "c"}, base_version=version, confirm=confirm))
        assert await notes.get("1") == Note(id="1", text="c")


@every_way
async def test_many_rows_are_told_one_by_one(tmp_path: Path, policy: str, synced: bool, confirm: str) -> None:
    async with open_suite(tmp_path, policy, synced, confirm) as suite:
        notes = suite.notes
        await suite.rest(await notes.insert(Note(id="1"), confirm=confirm))
        some = await notes.insert_many([Note(id="2"), Note(id="1"), Note(id="3")], confirm=confirm)
        assert (some.status, [item.ok for item in some]) == ("partial", [True, False, True])
        assert isinstance(some.items[1].error, ConflictError)
        await suite.rest(*(item.handle for item in some if item.ok))
        none = await notes.insert_many([Note(id="4"), Note(id="1")], atomic=True, confirm=confirm)
        assert none.status == "rejected"
        every = await notes.update_many({"1": {"rank": 1}, "2": {"rank": 2}}, atomic=True, confirm=confirm)
        assert every.status == ("undecided" if suite.undecided else "confirmed")
        await suite.rest(*(item.handle for item in every))
        assert {note.id: note.rank for note in await notes.get_all()} == {"1": 1, "2": 2, "3": 0}


@every_way
async def test_read_modify_write_and_transactions(tmp_path: Path, policy: str, synced: bool, confirm: str) -> None:
    async with open_suite(tmp_path, policy, synced, confirm) as suite:
        notes = suite.notes
        await suite.rest(await notes.insert(Note(id="1"), confirm=confirm))
        for _ in range(3):
            handle = await notes.update("1", lambda note: Note(id=note.id, rank=note.rank + 1), confirm=confirm)
            await suite.rest(handle)
        assert (await notes.get("1")).rank == 3
        transaction = suite.client.transaction()
        transaction.confirm = suite.confirm
        async with transaction as tx:
            before = await tx.store(NOTES).get("1")
            assert before is not None
            await tx.store(NOTES).update("1", rank=before.rank + 1)
            await tx.store(NOTES).insert(Note(id="2"))
        await suite.rest(await notes.update("1", {"text": "after"}, confirm=confirm))
        assert await notes.get("1") == Note(id="1", text="after", rank=4)
        await suite.rest(await notes.update("2", {"text": "after"}, confirm=confirm))
        assert await notes.get("2") == Note(id="2", text="after")


@every_way
async def test_every_write_is_told_once_and_whole(tmp_path: Path, policy: str, synced: bool, confirm: str) -> None:
    """A62: one event for each write that is dispatched, with its entries, its context and its policy."""
    async with open_suite(tmp_path, policy, synced, confirm) as suite:
        notes = suite.notes
        one = await notes.insert(Note(id="1", text="a"), confirm=confirm)
        await suite.rest(one)
        many = await notes.insert_many([Note(id="2", rank=2), Note(id="1")], confirm=confirm)
        await suite.rest(*(item.handle for item in many if item.ok))
        await suite.rest(await notes.update("1", {"rank": 5}, confirm=confirm))
        async with suite.client.transaction() as tx:
            await tx.store(NOTES).update("2", text="b")
            await tx.store(NOTES).insert(Note(id="3"))
        await trio.sleep(1)  # it has no handle, and what is undecided is sent behind it
        await suite.rest(await notes.delete("1", confirm=confirm))
        await trio.sleep(1)  # listeners hear a little later
    told = [event for event in suite.heard if isinstance(event, WriteDispatched)]
    assert [[(entry.store, entry.kind, entry.id) for entry in event.entries] for event in told] == [
        [("notes", "create", "1")],
        [("notes", "create", "2"), ("notes", "create", "1")],
        [("notes", "patch", "1")],
        [("notes", "patch", "2"), ("notes", "create", "3")],
        [("notes", "delete", "1")],
    ]
    assert told[0].entries[0].values == {"text": "a", "rank": 0}
    assert told[2].entries[0].values == {"rank": 5}
    assert {event.policy for event in told} == {event.request.context.policy for event in told} == {policy}
    assert {event.request.options.confirm for event in told[:3]} == {confirm}
    assert [event.request.options.atomic for event in told] == [False, False, False, True, False]
    assert told[0].trace_id == one.meta.trace_id
    assert len({event.idem for event in told}) == len(told)
    assert {event.idem for event in suite.heard if isinstance(event, WriteSettled)} == {event.idem for event in told}


@pytest.mark.parametrize("policy", ["sync-queue", "local-first", "remote-first", "hybrid"])
async def test_what_the_hub_brings_is_neither_dispatched_nor_queued(tmp_path: Path, policy: str) -> None:
    async with open_suite(tmp_path, policy, True, "optimistic") as suite:
        await suite.client.sync.wait_idle()
        await suite.elsewhere("1")
        while not await suite.notes.exists("1"):
            await trio.sleep(0.1)
        await suite.client.sync.wait_idle()
        await trio.sleep(1)
        assert [event for event in suite.heard if isinstance(event, WriteDispatched)] == []
        with closing(apsw.Connection(str(tmp_path / "client.db"))) as file:
            assert file.execute("SELECT count(*) FROM _atoma_pending").fetchone() == (0,)
