"""Cancel at every step of every built-in policy, over the in-memory transport, with a real hub and a real engine."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing

from atoma.ports.environment import seeded_environment

CASES = [
    ("direct-local", "pages", "query"),
    ("direct-local", "pages", "write"),
    ("direct-remote", "pages", "query"),
    ("direct-remote", "pages", "write"),
    ("direct-memory", "pages", "write"),
    ("remote-first", "pages", "query"),
    ("remote-first", "pages", "write"),
    ("remote-first", "notes", "write"),
    ("local-first", "pages", "query"),
    ("local-first", "notes", "query"),
    ("local-first", "notes", "write"),
    ("volatile", "pages", "query"),
    ("volatile", "pages", "write"),
    ("sync-queue", "notes", "query"),
    ("sync-queue", "notes", "write"),
    ("sync-queue", "notes", "strict"),
    ("hybrid", "pages", "query"),
    ("hybrid", "pages", "write"),
    ("hybrid", "notes", "write"),
]
STEPS_MAX = 1_000
SETTLED_S = 5.0
"""Virtual time after which what was detached, or queued for the hub, has ended."""


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the n-th step of any task from now on; 0 leaves it alone."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self.left = at
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


class Sweep:
    """One policy over one house, again and again."""

    def __init__(self, house: Any, case: tuple[str, str, str], stores: dict[str, Any], make_note: Any) -> None:
        self.house = house
        self.policy, store, self.side = case
        self.store = house.client.store(stores[store])
        self.synced = store == "notes"
        self.make_note = make_note
        self.tried: set[str] = set()
        self.done: set[str] = set()

    async def operation(self) -> None:
        if self.side == "query":
            await self.store.query(policy=self.policy)
            return
        note = self.make_note(text="x")
        self.tried.add(note.id)
        confirm = "strict" if self.side == "strict" else "optimistic"
        await self.store.insert(note, policy=self.policy, confirm=confirm)
        self.done.add(note.id)

    async def cancelled_at(self, step: int) -> bool:
        """Run once, cancelled at this step (0: before it begins); False when it ended before."""
        scope = trio.CancelScope()
        if step == 0:
            scope.cancel()
        instrument = CancelAt(step, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            with scope:
                try:
                    await self.operation()
                except trio.Cancelled:
                    raise
                except BaseException as error:
                    raise AssertionError(f"step {step}: what came out was {error!r}") from error
                instrument.left = 0
        finally:
            trio.lowlevel.remove_instrument(instrument)
        return scope.cancel_called

    async def check(self, tasks: int) -> None:
        """Nothing runs, nothing is held, and the next write succeeds."""
        await trio.sleep(SETTLED_S)
        assert self.house.is_idle
        assert self.house.client_file.statistics.reading == 0
        living = trio.lowlevel.current_statistics().tasks_living
        assert living == tasks, f"{living} tasks are alive, there were {tasks}"
        assert all(guard.waiting == 0 for guard in self.house.client.topology().guards)
        note = self.make_note(text="after")
        self.tried.add(note.id)
        await self.store.insert(note, policy=self.policy if self.policy != "local-first" or self.synced else None)
        self.done.add(note.id)

    async def check_rows(self) -> None:
        """What was acknowledged is there, nothing else is, and a replicated store is the same at both ends."""
        if self.synced:
            await self.house.client.sync.wait_idle()
        near = {note.id for note in (await self.store.query(policy="direct-local")).items}
        assert self.done <= near <= self.tried
        if self.synced:
            assert near == {note.id for note in (await self.store.query(policy="direct-remote")).items}


@pytest.mark.virtual_time
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "connecting"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
async def test_cancelling_at_any_step_leaves_everything_in_order(
    open_house: Any, notes: Any, pages: Any, make_note: Any, case: tuple[str, str, str], connected: bool
) -> None:
    random.seed(1)  # the order in which Trio runs what is ready
    async with open_house("memory", None, seeded_environment(1)) as house:
        sweep = Sweep(house, case, {"notes": notes, "pages": pages}, make_note)
        await sweep.store.query(policy="direct-remote")
        await sweep.operation()
        await trio.sleep(SETTLED_S)
        tasks = trio.lowlevel.current_statistics().tasks_living
        step = 0
        while True:
            if not connected:
                house.wire.cut()
                await trio.testing.wait_all_tasks_blocked()
            hit = await sweep.cancelled_at(step)
            if not connected:
                await sweep.store.query(policy="direct-remote")  # who was cancelled may have left nobody to connect
            await sweep.check(tasks)
            if not hit:
                break
            step += 1
            assert step < STEPS_MAX
        await sweep.check_rows()
        far = (case[0], case[2]) not in (("direct-local", "query"), ("sync-queue", "query"), ("local-first", "query"))
        assert step > (3 if far and case[0] != "volatile" else 0), "points were hit, and the end was reached"
