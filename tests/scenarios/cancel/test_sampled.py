"""Cancel at random points of every policy with a remote, over real sockets, threads and files."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.errors import AtomaError

pytestmark = pytest.mark.xdist_group("machine")

POINTS = 20
POINTS_IN_A_CAMPAIGN = 300
SEED = 20_260_801
POLICIES = ["direct-remote", "remote-first", "hybrid", "sync-queue", "volatile"]
CASES = [(policy, wire) for wire in ("websocket", "grpc", "http") for policy in POLICIES]
KEPT_ALIVE = {"http": 60}
"""Tasks that may be there afterwards: over HTTP a cancelled call closes its connection, and those that are open for others
are kept for the next call, each with a few tasks of the link and of the server. At the end none is left."""


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


class Subject:
    """One policy, as a query and as a write of one row; remembers what it wrote."""

    def __init__(self, house: Any, policy: str, notes: Any, pages: Any, make_note: Any) -> None:
        self.synced = policy == "sync-queue"
        self.store = house.client.store(notes if self.synced else pages)
        self.policy = policy
        self.make_note = make_note
        self.written: list[str] = []
        self.tried: list[str] = []

    async def write(self) -> None:
        note = self.make_note(text="x" * 200)
        self.tried.append(note.id)
        await self.store.insert(note, policy=self.policy, confirm="strict")
        self.written.append(note.id)

    async def query(self) -> None:
        await self.store.query(policy=self.policy)


async def typical(operation: Callable[[], Awaitable[None]]) -> float:
    """Seconds of a run in the middle of a few, the first of which connects."""
    taken = []
    for _ in range(8):
        begin = trio.current_time()
        await operation()
        taken.append(trio.current_time() - begin)
    return sorted(taken)[4]


@pytest.mark.parametrize("points", [POINTS, pytest.param(POINTS_IN_A_CAMPAIGN, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("policy", "wire"), CASES)
async def test_a_cancel_at_any_time_leaves_everything_in_order(
    open_house: Any, tmp_path: Path, notes: Any, pages: Any, make_note: Any, policy: str, wire: str, points: int
) -> None:
    print(f"seed {SEED}")
    source = random.Random(f"{SEED} {policy}" if wire == "websocket" else f"{SEED} {policy} {wire}")
    threads, tasks_outside = threading.active_count(), tasks()
    async with open_house(wire, tmp_path) as house:
        subject = Subject(house, policy, notes, pages, make_note)
        spans = {operation: await typical(operation) for operation in (subject.write, subject.query)}
        await house.until(lambda: house.is_idle)
        await trio.sleep(0.05)
        alive, cancelled = tasks() + KEPT_ALIVE.get(wire, 0), 0
        for number in range(points):
            operation = (subject.write, subject.write, subject.query)[number % 3]
            with trio.move_on_after(source.random() * spans[operation]) as scope:
                try:
                    await operation()
                except AtomaError as error:
                    raise AssertionError(f"a cancelled call ends by the cancel alone, not by {error!r}") from error
            cancelled += scope.cancelled_caught
            spans[operation] *= 1.1 if scope.cancelled_caught else 0.9  # the machine is not always as quick
            assert await house.until(lambda: house.is_idle and tasks() <= alive) < 20
            with trio.fail_after(60):
                await subject.write()
        assert cancelled >= points // 10, f"{cancelled} of {points} were hit"
        await check_rows(house, subject)
    assert threading.active_count() <= threads  # one of the pool may have ended by itself
    assert tasks() == tasks_outside
    for file in ("client.db", "hub.db"):
        with closing(sqlite3.connect(tmp_path / file, timeout=0)) as other:
            other.execute("BEGIN EXCLUSIVE")
            other.rollback()


async def check_rows(house: Any, subject: Subject) -> None:
    """Every write that returned is there once, nothing is there that was not written, and both ends agree."""
    with trio.fail_after(60):
        if subject.synced:
            await house.client.sync.wait_idle()
        near = {note.id for note in (await subject.store.query(policy="direct-local")).items}
        far = {note.id for note in (await subject.store.query(policy="direct-remote")).items}
    assert near | far <= set(subject.tried)
    assert set(subject.written) <= near
    if subject.synced:
        assert near == far
    else:
        assert set(subject.written) <= far
