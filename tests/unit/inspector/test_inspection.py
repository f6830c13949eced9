"""What the inspector says about a client, against clients that do known things."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from atoma.client import Client, open_client
from atoma.contracts.mutations import Op
from atoma.contracts.policy import Policy
from atoma.contracts.replica import InboxEntry
from atoma.errors import ClosedError, ConnectFailed, UnknownStore
from atoma.inspector import Inspected, Inspection
from atoma.inspector.asking import look_at_rows
from atoma.inspector.conflicts import conflict_fields
from atoma.inspector.graph import graph_view
from atoma.inspector.plugin import LOG_MAX, TRAILS_MAX, took_us
from atoma.inspector.snapshot import INBOX_SHOWN, take_snapshot
from atoma.inspector.views import GraphView, StepView
from atoma.kernel import atomic, fallback, node, sequence, timeout, when_synced
from atoma.plugins import Plugin, PluginContext
from atoma.ports import SYNC_LINK, LocalTx, PortKey, SyncService
from atoma.query import col, select
from atoma.schema import Schema, StoreSpec, new_id
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str
    photo: bytes = b""


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


class Nowhere:
    """A plugin that offers a link to a hub that is never there."""

    id = "nowhere"
    provides: tuple[PortKey[Any], ...] = (SYNC_LINK,)
    needs: tuple[PortKey[Any], ...] = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.provide(SYNC_LINK, self)
        yield

    def connect(self) -> AbstractAsyncContextManager[SyncService]:
        raise ConnectFailed("nobody is there")


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[tuple[Client, Inspected]]:
    eye = Inspection()
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(path)), Nowhere(), Sync([NOTES]), eye]
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
        yield client, Inspected("one", "One", client, eye, path)


async def test_stores_outbox_and_trails_are_what_was_done(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        notes = client.store(NOTES)
        first = await notes.insert(Note(id="n1", text="one"))
        await notes.update(first.id, text="two")
        await notes.query(select(NOTES).where(col("text") == "two"))
        with trio.fail_after(60):
            while len(target.eye.trails) < 3:
                await target.eye.wait_event()
        state = await take_snapshot(target, [target])
    assert [(store.name, store.rows, store.synced) for store in state.stores] == [("notes", 1, True)]
    assert [column.name for column in state.stores[0].columns] == ["id", "text", "photo"]
    assert [(item.mid, item.state, [op.kind for op in item.ops]) for item in state.outbox] == [
        (1, "queued", ["create"]),
        (2, "queued", ["patch"]),
    ]
    assert [trail.title for trail in state.trails] == ["query notes", "patch notes", "create notes"]
    assert [step.node for step in state.trails[1].steps] == ["local-write", "outbox"]
    assert state.nodes["local-write"].runs == 2
    assert state.policies[0].name == "sync-queue"
    assert state.policies[0].default
    assert {policy.name for policy in state.policies if policy.missing} >= {"direct-http", "direct-grpc"}
    assert state.database.bytes + state.database.wal_bytes > 0


async def test_a_held_write_is_shown_with_why_it_is_held(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        for id in ("n1", "n2"):
            await client.store(NOTES).insert(Note(id=id, text=id))
        await client.sync.outbox.hold((await client.sync.outbox.entries())[:1], why="not today")
        state = await take_snapshot(target, [target])
    assert [(item.state, item.last_error, item.ops[0].id) for item in state.outbox] == [
        ("held", "not today", "n1"),
        ("queued", "", "n2"),
    ]


async def test_an_unreachable_hub_is_shown_with_its_error(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        with trio.fail_after(60):
            async with client.sync.watch() as changes:
                async for status in changes:
                    if status.error is not None:
                        break
        state = await take_snapshot(target, [target])
    connection, scope = state.lanes
    assert (connection.name, scope.name, scope.cursor, scope.head) == ("Connection", "Scope main", 0, 0)
    assert connection.last_error.startswith("CONNECT_FAILED: ")
    assert "nobody is there" in connection.last_error
    assert int(connection.facts["failed attempts"]) >= 1


async def test_rows_are_shown_as_json_can_hold_them(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        await client.store(NOTES).insert(Note(id="n1", text="x", photo=bytes(range(40))))
        rows = await look_at_rows(target, "notes")
        with pytest.raises(UnknownStore):
            await look_at_rows(target, "sqlite_master")
    assert rows.columns == ("id", "text", "photo", "_ver", "_seq")
    assert rows.rows[0][:3] == ("n1", "x", bytes(range(16)).hex() + "…")


async def test_the_past_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        notes = client.store(NOTES)
        for _ in range(TRAILS_MAX + LOG_MAX):
            await notes.count()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(target.eye.trails) == TRAILS_MAX
        assert len(target.eye.log) == LOG_MAX


async def test_a_closed_client_cannot_be_looked_at(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (_, target):
        pass
    with pytest.raises(ClosedError):
        await look_at_rows(target, "notes")


def test_a_graph_is_drawn_as_it_is_written() -> None:
    policy = Policy(
        "mine",
        fallback(timeout(node("far"), 2), node("near")),
        when_synced(atomic("near", "outbox"), sequence(node("near"), node("far"))),
    )
    assert policy.query is not None
    assert policy.write is not None
    leaf = {name: GraphView("node", name, (name,)) for name in ("far", "near", "outbox")}
    assert graph_view(policy.query) == GraphView(
        "fallback", "fallback", (), (GraphView("timeout", "timeout 2 s", (), (leaf["far"],)), leaf["near"])
    )
    assert graph_view(policy.write) == GraphView(
        "synced",
        "synced store?",
        (),
        (
            GraphView("atomic", "atomic: one transaction", (), (leaf["near"], leaf["outbox"]), "yes"),
            GraphView("sequence", "sequence", (), (leaf["near"], leaf["far"]), "no"),
        ),
    )


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "fields"),
    [
        ({"a": 1, "b": 2}, {"a": 5, "b": 2}, {"a": 6, "b": 2}, [("a", 1, 5, 6, True)]),
        ({"a": 1, "b": 2}, {"a": 5, "b": 2}, {"a": 1, "b": 3}, [("a", 1, 5, 1, True), ("b", 2, 2, 3, True)]),
        ({"a": 1}, {"a": 7}, {"a": 7}, [("a", 1, 7, 7, False)]),
        ({"a": 1}, None, {"a": 2}, [("a", 1, None, 2, True)]),
        (None, {"a": 1}, {"a": 2}, [("a", None, 1, 2, True)]),
        ({"a": 1}, {"a": 2}, None, [("a", 1, 2, None, True)]),
    ],
)
def test_a_conflict_lists_the_fields_that_moved(
    base: dict[str, object] | None,
    mine: dict[str, object] | None,
    theirs: dict[str, object] | None,
    fields: list[tuple[object, ...]],
) -> None:
    entry = InboxEntry(1, "notes", "n", "main", "CONFLICT", "", Op("patch", "notes", "n"), base, mine, theirs, 3, 0)  # type: ignore[arg-type]
    found = [(view.name, view.base, view.mine, view.theirs, view.differs) for view in conflict_fields(entry, SCHEMA)]
    assert found == fields


async def test_a_boolean_is_shown_as_one(tmp_path: Path) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Task:
        id: str
        done: bool
        count: int = 1

    tasks = StoreSpec("tasks", Task)
    schema = Schema(tasks)
    eye = Inspection()
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(tmp_path / "t.db")), Nowhere(), Sync([tasks]), eye]
    async with open_client(schema, plugins=plugins, policy="sync-queue") as client:
        target = Inspected("one", "One", client, eye)
        await client.store(tasks).insert(Task(id="t", done=True))
        view = await look_at_rows(target, "tasks")
        assert repr(view.rows[0][:3]) == "('t', True, 1)"
        (waiting,) = (await take_snapshot(target, [target])).outbox
        assert waiting.ops[0].summary == "done = true, count = 1"
    op = Op("patch", "tasks", "t")
    entry = InboxEntry(1, "tasks", "t", "main", "CONFLICT", "", op, {"done": 0}, {"done": 1}, None, 3, 0)
    (shown,) = conflict_fields(entry, schema)
    assert repr((shown.base, shown.mine, shown.theirs)) == "(False, True, None)"


def test_a_transaction_is_counted_once() -> None:
    def step(name: str, us: float, note: str = "") -> StepView:
        return StepView(name, "ok", us, 1, "", note, None)

    assert took_us([step("a", 5.0), step("b", 7.0)]) == 12.0
    assert took_us([step("near", 5.0, "atomic"), step("outbox", 5.0, "atomic"), step("far", 2.0)]) == 7.0


def _keep(entry: InboxEntry, tx: LocalTx) -> None:
    tx.inbox.add(entry)


async def test_what_was_decided_takes_no_room_from_what_is_open(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (_, target):
        image: dict[str, Any] = {"text": "x"}
        entries = [
            InboxEntry(
                number, "notes", f"n{number}", "main", "CONFLICT", "", Op("patch", "notes", "n", {}), image, image, image, 1, 1,
                resolution="dismissed" if number > 3 else "", lsn=number,
            )
            for number in range(1, INBOX_SHOWN + 9)
        ]  # fmt: skip
        for entry in entries:
            await target.eye.database.apply(partial(_keep, entry))
        shown = (await take_snapshot(target, [target])).conflicts
        assert [entry.number for entry in shown if not entry.resolution] == [3, 2, 1]
        assert [entry.number for entry in shown] == sorted((entry.number for entry in shown), reverse=True)
        assert len(shown) == INBOX_SHOWN and shown[0].number == INBOX_SHOWN + 8
