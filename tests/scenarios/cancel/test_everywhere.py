"""Cancel at every step of every built-in policy, over the in-memory transport, with a real hub and a real engine."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing

from atoma.ports.environment import seeded_environment

pytestmark = pytest.mark.xdist_group("machine")

CASES = [
    (policy, store, side)
    for policy, stores in {
        "direct-local": ["pages"],
        "direct-remote": ["pages"],
        "direct-memory": ["pages"],
        "remote-first": ["pages", "notes"],
        "local-first": ["pages", "notes"],
        "volatile": ["pages"],
        "sync-queue": ["notes"],
        "hybrid": ["pages", "notes"],
    }.items()
    for store in stores
    for side in ("query", "write", "strict")
    if (policy, store, side) not in (("local-first", "pages", "write"), ("local-first", "pages", "strict"))  # refused
]


def awaits_the_hub(policy: str, side: str) -> bool:
    """Whether the caller waits for an answer of the hub, so that there are many points to be cancelled at."""
    if side == "strict":
        return policy != "direct-local"
    if side == "write":
        return False
    return policy in ("direct-remote", "direct-memory", "remote-first", "hybrid")


DECIDED_THERE = {"direct-remote", "direct-memory", "remote-first", "volatile", "hybrid"}
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
        local = self.policy == "local-first" and not self.synced  # it refuses writes
        await self.store.insert(note, policy=None if local else self.policy, confirm="strict")
        self.done.add(note.id)

    async def check_rows(self) -> None:
        """What was acknowledged is there, nothing else is, and a replicated store is the same at both ends."""
        if self.synced:
            await self.house.client.sync.wait_idle()
        near = {note.id for note in (await self.store.query(policy="direct-local")).items}
        assert self.done <= near <= self.tried
        if self.synced or self.policy in DECIDED_THERE:
            far = {note.id for note in (await self.store.query(policy="direct-remote")).items}
            assert near == far if self.synced else near <= far, "a write is shown that nobody carries out"


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("case", "connected"),
    [
        pytest.param(case, connected, id="-".join([*case, "connected" if connected else "connecting"]))
        for case in CASES
        for connected in (True, False)
        if connected or awaits_the_hub(case[0], case[2])
    ],
)
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
        assert step > (10 if awaits_the_hub(case[0], case[2]) else 0), (
            f"{step} points were hit before the end was reached"
        )
