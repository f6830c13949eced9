"""Where a file is in replication is never older than what its commits have said, however long a reading of it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from atoma import Schema
from atoma.contracts.events import Event, ScopeBrought, ScopeLeft
from atoma.contracts.replica import BroughtScope, ClientIdentity, Portion, ReplicaDelta, Subscription
from atoma.contracts.sync import Cursor
from atoma.contracts.values import ErrorInfo
from atoma.errors import StoreError
from atoma.ports.environment import Environment
from atoma.query.shapes import Shapes
from atoma.schema import StoreSpec
from atoma.sync.position import Position
from atoma.sync.replica import Replica
from atoma.sync.scopes import ReplicatedScopes
from atoma.sync.status import StatusBoard, SyncStatus
from atoma.sync.supervisor import Supervisor
from atoma.sync.wake import Bell
from atoma_stores.changes import CommitDelta

pytestmark = pytest.mark.virtual_time

WHO = ClientIdentity(b"client-1", 1, 1, b"", 0, b"hub", "ann")


@dataclass
class Card:
    id: str


class File:
    """As much of a database, and of its transaction, as is read."""

    def __init__(self) -> None:
        self.commit = 1
        self.who = WHO
        self.live = {"main": Subscription("main", "live", Cursor(b"e", 1))}
        self.used: list[BroughtScope] = []
        self.fails = 0
        self.slow: trio.Event | None = None
        self.begins: trio.Event | None = None
        self.outbox = self.scopes = self

    async def inspect(self, body: Callable[[Any], Any]) -> Any:
        if self.fails:
            self.fails -= 1
            raise StoreError("an I/O error")
        if self.begins is not None:
            await self.begins.wait()
        found = body(self)
        if self.slow is not None:  # in a thread, say
            await self.slow.wait()
        return found

    def identity(self) -> ClientIdentity:
        return self.who

    def held_count(self) -> int:
        return 0

    def hurries(self) -> int:
        return 0

    def every(self) -> list[str]:
        return sorted(self.live)

    def read(self, scope: str) -> Subscription:
        return self.live[scope]

    def brought(self) -> list[BroughtScope]:
        return self.used

    def write(self) -> CommitDelta:
        """One more mutation waits."""
        number = self.who.next_mid
        self.who = replace(self.who, next_mid=number + 1, tail_digest=bytes([number]))
        return self.told(identity=self.who)

    def told(self, **changed: Any) -> CommitDelta:
        self.commit += 1
        return CommitDelta(self.commit, {}, replica=ReplicaDelta(**changed))


def opened(
    file: File, told: list[Event] | None = None, replicated: ReplicatedScopes | None = None
) -> tuple[Position, StatusBoard]:
    replica = replica_of(file, told, replicated)
    return replica.position, replica.board


def replica_of(file: File, told: list[Event] | None = None, replicated: ReplicatedScopes | None = None) -> Replica:
    heard: list[Event] = [] if told is None else told
    bell, database = Bell(), cast("Any", file)
    board, schema = StatusBoard(SyncStatus(), bell), Schema(StoreSpec("cards", Card))
    replicated, shapes = replicated or ReplicatedScopes((Portion("main"),)), Shapes(schema)
    return Replica(
        database=database,
        apply=cast("Any", None),
        environment=Environment(),
        schema=schema,
        stores=frozenset({"cards"}),
        replicated=replicated,
        shapes=shapes,
        board=board,
        position=Position(database, replicated, shapes, board, heard.append),
        emit=heard.append,
        bell=bell,
    )


async def test_a_commit_during_a_reading_is_not_undone_by_what_was_read() -> None:
    file = File()
    position, board = opened(file)
    await position.read()
    file.slow = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(position.read)
        await trio.testing.wait_all_tasks_blocked()
        position.hear(file.write())
        assert board.current.pending == 1
        file.slow.set()
    assert board.current.pending == 1
    assert not position.is_stale


async def test_a_commit_that_was_read_before_it_was_told_takes_nothing_back() -> None:
    file = File()
    position, board = opened(file)
    await position.read()
    first, second = file.write(), file.write()
    await position.read()
    assert board.current.pending == 2
    for commit in (first, second):
        position.hear(commit)
        assert board.current.pending == 2
    assert not position.is_stale


async def test_a_commit_before_a_reading_has_begun_takes_nothing_back_of_what_is_read() -> None:
    file = File()
    position, board = opened(file)
    await position.read()
    file.begins = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(position.read)
        await trio.testing.wait_all_tasks_blocked()
        position.hear(file.write())
        second = file.write()
        file.begins.set()
    assert board.current.pending == 2
    position.hear(second)
    assert (board.current.pending, position.is_stale) == (2, False)


async def test_what_another_program_has_committed_is_read() -> None:
    file = File()
    position, board = opened(file)
    await position.read()
    file.write()
    position.hear(CommitDelta(file.commit, {}, before=file.commit - 1))
    assert position.is_stale
    await position.read()
    assert (position.is_stale, board.current.pending) == (False, 1)
    file.write()  # told by nobody
    position.hear(file.write())
    assert position.is_stale, "a number is missing"


async def test_a_reading_that_fails_leaves_it_to_the_next_one() -> None:
    file = File()
    position, _ = opened(file)
    file.slow = trio.Event()
    with trio.move_on_after(1):
        await position.read()
    assert position.is_stale


async def test_scopes_come_and_go_with_the_commit_that_says_so() -> None:
    file, told = File(), list[Event]()
    position, board = opened(file, told)
    await position.read()
    at = Subscription("team", "live", Cursor(b"e", 7))
    position.hear(file.told(scopes={"team": at}))
    assert [each.scope for each in board.current.scopes] == ["main"], "it does not replicate here"
    position.hear(file.told(brought=(BroughtScope(Portion("team"), 1, (1,)),)))
    assert [(each.scope, each.state, each.cursor) for each in board.current.scopes] == [
        ("main", "live", 1),
        ("team", "live", 7),
    ]
    position.hear(file.told(brought=(), scopes={"team": Subscription("team")}))
    assert [each.scope for each in board.current.scopes] == ["main"]
    assert told == [ScopeBrought("team"), ScopeLeft("team")]


async def test_a_scope_that_comes_during_a_reading_does_not_go_and_come_again() -> None:
    file, told, replicated = File(), list[Event](), ReplicatedScopes((Portion("main"),))
    position, board = opened(file, told, replicated)
    await position.read()
    file.slow = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(position.read)
        await trio.testing.wait_all_tasks_blocked()
        position.hear(file.told(brought=(BroughtScope(Portion("team"), 1, (1,)),)))
        schedule = replicated.schedule("team")
        position.show(replace(position.progress("team"), head=7, error=ErrorInfo("FORBIDDEN", "no")))
        file.slow.set()
    assert told == [ScopeBrought("team")]
    assert replicated.schedule("team") is schedule, "whoever waits for it would be woken no more"
    assert (board.current.scope("team").head, board.current.scope("team").error) == (7, ErrorInfo("FORBIDDEN", "no"))


async def test_what_another_program_wrote_wakes_the_lane_also_where_it_was_read_before_it_was_told() -> None:
    file = File()
    replica = replica_of(file)
    supervisor = Supervisor(replica, cast("Any", None), frozenset())
    await replica.refresh()
    supervisor.hear(file.write())
    await replica.push_wake.wait(0)
    file.write()
    await replica.refresh()  # by whoever keeps the scopes, say
    supervisor.hear(CommitDelta(file.commit, {}, before=file.commit - 1))
    assert await replica.push_wake.wait(0)


async def test_a_reading_that_the_file_refuses_is_made_again() -> None:
    file = File()
    replica = replica_of(file)
    supervisor = Supervisor(replica, cast("Any", None), frozenset())
    await replica.refresh()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await trio.testing.wait_all_tasks_blocked()
        file.fails = 2
        file.write()
        supervisor.hear(CommitDelta(file.commit, {}, before=file.commit - 1))
        await trio.sleep(60)
        assert (file.fails, replica.board.current.pending) == (0, 1)
        nursery.cancel_scope.cancel()
