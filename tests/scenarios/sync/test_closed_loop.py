"""Random writes, broken links, losses and crashes on two devices and a hub; every invariant after every step.

The same story is told with planted bugs, to show that each of them is noticed.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from atoma.contracts.codec import decode
from atoma.contracts.execution import WriteRequest
from atoma.contracts.mutations import MutationBody, PendingMutation
from atoma.contracts.sync import Cursor, Hint, Outcome, PullReply, PullRequest
from atoma.errors import AtomaError
from atoma.ports.keys import LOCAL_DATABASE
from atoma.ports.local import LocalTx
from atoma.ports.service import Principal
from atoma.ports.tasks import open_tasks
from atoma.sync.notify import NotifyLane
from atoma.sync.outbox import OutboxNode
from atoma.sync.pull import PullLane
from atoma.sync.settle import Settlement
from tests.scenarios.sync.kit import SEEDS

Image = dict[str, Any]
State = dict[tuple[str, str], Image]

STEPS = 60
IDS = [str(number) for number in range(6)]


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass
class HubLog:
    """The hub's state after every transaction, read from its log one transaction at a time."""

    world: Any
    cursor: Cursor = field(default_factory=Cursor)
    states: list[State] = field(default_factory=lambda: [{}])

    async def catch_up(self) -> None:
        service = self.world.running_hub().service(Principal("ann"))
        while True:
            page = await service.pull(PullRequest("main", self.cursor, b"observer", max_changes=1))
            if page.end.seq == self.cursor.seq:
                return
            assert page.end.seq == self.cursor.seq + 1, "pages are cut between transactions"
            state = dict(self.states[-1])
            for changes in page.stores:
                for row in changes.rows:
                    state[changes.store, str(row[1])] = dict(zip(changes.columns[1:], row[2:], strict=True))
                for _, id in changes.deletes:
                    state.pop((changes.store, id), None)
            self.states.append(state)
            self.cursor = page.end


def predicted(tx: Any, pending: list[PendingMutation], base: State) -> State:
    """Base with everything pending on it, computed another way than the product does: mutation by mutation."""
    state = dict(base)
    for item in sorted(pending, key=lambda item: item.lsn):
        for op in decode(item.body, MutationBody).ops:
            key = (op.store, op.id)
            if op.kind == "delete":
                state.pop(key, None)
            elif op.kind in ("create", "replace"):
                state[key] = dict(op.values)
            elif key in state:
                state[key] = {**state[key], **op.values}
            elif op.kind == "upsert":
                state[key] = {**op.defaults, **op.values}
    return state


@dataclass
class Story:
    """One seeded run."""

    world: Any
    random: random.Random
    log: HubLog
    cursors: dict[str, int] = field(default_factory=dict)
    seen: dict[tuple[str, int], int] = field(default_factory=dict)

    async def check(self, device: Any) -> None:
        """I1, I8, I9, I10, I12, I14 on one device."""
        await self.log.catch_up()

        def read(tx: Any) -> Any:
            identity, subscription = tx.outbox.identity(), tx.scopes.read("main")
            pending = [tx.outbox.by_mid(mid) for mid in range(1, identity.next_mid)]
            shadows = {key: tx.base.read(*key).image for key in tx.base.shadowed("main")}
            keys = [(spec.name, id) for spec in (self.world.CARDS, self.world.MANUAL) for id in IDS]
            rows = {key: tx.rows.read(*key) for key in keys}
            visible = {key: dict(row.image) for key, row in rows.items() if row is not None}
            inbox = {entry.mid for entry in tx.inbox.entries()}
            left = [mid for mid, item in enumerate(pending, 1) if item is None]
            live = [item for item in pending if item is not None]
            return identity, subscription, live, left, shadows, visible, inbox, predicted

        identity, subscription, pending, left, shadows, visible, inbox, _ = await device.inspect(read)
        cursor = subscription.cursor.seq
        if cursor < self.cursors.get(device.name, 0):
            raise Violation("I9: the cursor moved back")
        self.cursors[device.name] = cursor
        base = {key: image for key, image in {**visible, **shadows}.items() if image is not None}
        if subscription.state == "live" and base != self.log.states[cursor]:
            raise Violation(f"I8: base is not the hub's state at {cursor}")
        if visible != predicted(None, pending, base):
            raise Violation("I10: visible is not base with pending")
        for mid, outcome in device.wire.outcomes.items():
            seen = self.seen.get((device.name, mid), 0)
            merged_or_refused = outcome.error is None or outcome.error.code == "CONFLICT"
            if merged_or_refused and any(0 < conflict.current_seq <= seen for conflict in outcome.conflicts):
                raise Violation(f"mutation {mid} conflicts with what its author had seen at {seen}: {outcome}")
        for mid in left:
            outcome = device.wire.outcomes.get(mid)
            if outcome is None:
                raise Violation(f"I1: mutation {mid} is gone without a verdict")
            if outcome.status == "rejected" and mid not in inbox:
                raise Violation(f"I14: rejected mutation {mid} is not in the inbox")
            if outcome.status != "rejected" and outcome.seq > cursor:
                raise Violation(f"I12: own mutation {mid} is invisible until page {outcome.seq}")
        if any(item.mid <= identity.confirmed_mid for item in pending):
            raise Violation("confirmed_mid has passed a pending mutation")

    async def act(self, device: Any) -> None:
        """One random write, and what its author had seen."""
        before = await device.inspect(lambda tx: (tx.outbox.identity().next_mid, tx.scopes.read("main").cursor.seq))
        await self._write(device)
        after = await device.inspect(lambda tx: tx.outbox.identity().next_mid)
        for mid in range(before[0], after):
            self.seen[device.name, mid] = before[1]

    async def _write(self, device: Any) -> None:
        """Refused ones are part of life."""
        spec = self.random.choice([self.world.CARDS, self.world.CARDS, self.world.MANUAL])
        name = "title" if spec is self.world.CARDS else "text"
        model = self.world.Card if spec is self.world.CARDS else self.world.Note
        id, value = self.random.choice(IDS), f"{device.name}{self.random.randrange(1000)}"
        store = device.store(spec)
        try:
            match self.random.randrange(6):
                case 0:
                    await store.insert(model(id=id, **{name: value}))
                case 1 | 2:
                    await store.update(id, **{name: value})
                case 3:
                    await store.upsert(model(id=id, **{name: value}))
                case 4:
                    await store.delete(id)
                case _:
                    other = self.random.choice(IDS)
                    async with device.client.transaction() as tx:
                        await tx.store(spec).upsert(model(id=id, **{name: value}))
                        await tx.store(spec).upsert(model(id=other, **{name: value}))
        except AtomaError:
            pass

    async def disturb(self, device: Any) -> None:
        match self.random.randrange(5):
            case 0:
                device.wire.cut()
            case 1 | 2:
                device.wire.repair()
                device.sync.poke()
            case 3:
                device.wire.lose[self.random.choice(["open", "push", "pull", "snapshot"])] = 1
            case _:
                await self.log.catch_up()
                await device.sync_hub().compact(keep=2 + self.random.randrange(4))


class Unit:
    """A device that can be killed and started again on the same file."""

    def __init__(self, world: Any, name: str, randomness: random.Random, nursery: trio.Nursery) -> None:
        self.world = world
        self.name = name
        self.random = randomness
        self.nursery = nursery
        self.device: Any = None
        self.outcomes: dict[int, Outcome] = {}
        self.scope = trio.CancelScope()

    async def start(self) -> None:
        self.scope = trio.CancelScope()
        self.device = await self.nursery.start(self._run)

    async def _run(self, task_status: Any) -> None:
        with self.scope:
            async with self.world.open_device(self.name) as device:
                device.wire.latency = lambda: self.random.choice([0.0, 0.01, 0.2])
                device.wire.outcomes = self.outcomes
                device.sync_hub = self.world.running_hub
                task_status.started(device)
                await trio.sleep_forever()

    async def crash(self) -> None:
        self.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await self.start()


@asynccontextmanager
async def fleet(world: Any, randomness: random.Random) -> AsyncGenerator[list[Unit]]:
    async with world.open_hub(), open_tasks() as nursery:
        units = [Unit(world, name, random.Random(randomness.random()), nursery) for name in "ab"]
        for unit in units:
            await unit.start()
        yield units
        nursery.cancel_scope.cancel()


async def tell(world: Any, seed: int) -> HubLog:
    """Run one story to its quiet end; raises ``Violation``."""
    randomness = random.Random(seed)
    world.seed = seed
    story = Story(world, randomness, HubLog(world))
    async with fleet(world, randomness) as units:
        for _ in range(STEPS):
            unit = randomness.choice(units)
            kind = randomness.random()
            if kind < 0.6:
                await story.act(unit.device)
            elif kind < 0.75:
                await story.disturb(unit.device)
            elif kind < 0.78:
                await unit.crash()
            else:
                for _ in range(randomness.choice([1, 5, 25])):
                    await trio.sleep(0.02)
                    for each in units:
                        await story.check(each.device)
            await story.check(unit.device)
        for unit in units * 2:
            unit.device.wire.lose.clear()
            unit.device.wire.repair()
            unit.device.sync.poke()
            with trio.move_on_after(900) as limit:
                await unit.device.sync.wait_idle()
            if limit.cancelled_caught:
                raise Violation(f"I15: no rest: {unit.device.sync.status}")
        for unit in units:
            await story.check(unit.device)
            if await unit.device.outbox():
                raise Violation("I15: something is left in the outbox")
            if story.cursors[unit.name] != story.log.cursor.seq:
                raise Violation("I15: not at the head")
        applied = [item.seq for unit in units for item in unit.outcomes.values() if item.status != "rejected"]
        if len(story.log.states) - 1 > len(applied):
            raise Violation("I3: the hub has more transactions than verdicts")
    return story.log


@pytest.mark.paths
@pytest.mark.virtual_time
@pytest.mark.parametrize("seed", SEEDS)
async def test_everything_holds_whatever_happens(world: Any, seed: int) -> None:
    print(f"seed {seed}")
    log = await tell(world, seed)
    assert len(log.states) > 5, "the story has to be about something"


# planted bugs


def dropped_at_ack(monkeypatch: pytest.MonkeyPatch) -> None:
    def covered(tx: LocalTx, outcome: Outcome, page: PullReply | None, work: Settlement) -> bool:
        return True

    monkeypatch.setattr("atoma.sync.settle.is_covered", covered)


def hint_moves_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    async def heed(lane: Any, hint: Hint) -> None:
        def move(tx: LocalTx) -> None:
            at = tx.scopes.read(hint.scope).cursor
            if hint.head > at.seq:
                tx.scopes.advance(hint.scope, at, replace(at, seq=hint.head))

        await lane._replica.database.apply(move)
        lane._replica.poke_pull([hint.scope])

    monkeypatch.setattr(NotifyLane, "heed", heed)


def cursor_before_page(monkeypatch: pytest.MonkeyPatch) -> None:
    original = PullLane._commit

    async def commit(lane: Any, page: PullReply, **staged: bool) -> None:
        await lane._replica.database.apply(lambda tx: tx.scopes.advance(page.scope, page.start, page.end))
        await trio.sleep(0.05)
        monkeypatch.setattr("atoma.sync.staging.move_cursor", lambda tx, page: True)
        await original(lane, page, **staged)

    monkeypatch.setattr(PullLane, "_commit", commit)


def pages_without_cas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply a page whatever the cursor; a second, late copy of it comes with the next one."""

    def move(tx: LocalTx, page: PullReply) -> bool:
        at = tx.scopes.read(page.scope).cursor
        return tx.scopes.advance(page.scope, at, page.end)

    original = PullLane._commit
    last: dict[str, PullReply] = {}

    async def commit(lane: Any, page: PullReply, **staged: bool) -> None:
        await original(lane, page, **staged)
        late = last.get(lane._replica.database.database)
        if late is not None:
            await original(lane, late, **staged)
        last[lane._replica.database.database] = page

    monkeypatch.setattr("atoma.sync.staging.move_cursor", move)
    monkeypatch.setattr(PullLane, "_commit", commit)


def outbox_from_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation is recorded by a task of its own after the commit."""
    original = OutboxNode.stage
    waiting: list[tuple[OutboxNode, WriteRequest, Any]] = []

    def stage(node: OutboxNode, tx: LocalTx, request: WriteRequest) -> None:
        effects = [effect for effect in tx.unit.effects if effect.op.store in node._stores]
        if effects:
            waiting.append((node, request, effects))

    monkeypatch.setattr(OutboxNode, "stage", stage)
    act = Story.act

    async def act_then_mirror(story: Story, device: Any) -> None:
        await act(story, device)
        await story.check(device)
        database = device.probe.context.require(LOCAL_DATABASE)
        for node, request, effects in waiting:
            await database.apply(lambda tx, node=node, r=request, e=effects: node.enqueue(tx, r, e))
        waiting.clear()

    monkeypatch.setattr(Story, "act", act_then_mirror)
    assert original is not OutboxNode.stage


def rejects_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoma.sync.settle.keep_refused", lambda tx, pending, outcome, work: None)


def no_rebase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoma.runtime.applying.rebase_rows", lambda tx, rows: None)


def confirmed_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confirm what is still pending."""

    def confirm(tx: LocalTx, removed: set[int]) -> None:
        identity = tx.outbox.identity()
        tx.outbox.save_identity(replace(identity, confirmed_mid=identity.next_mid - 1))

    monkeypatch.setattr("atoma.sync.staging.confirm", confirm)


def row_version_as_base(monkeypatch: pytest.MonkeyPatch) -> None:
    def position(tx: LocalTx, effects: Any, cursors: object) -> Cursor:
        row = tx.base.read(effects[0].op.store, effects[0].op.id)
        return replace(tx.scopes.read(effects[0].scope).cursor, seq=row.seq)

    monkeypatch.setattr("atoma.sync.outbox.base_position", position)


PLANTED = {
    dropped_at_ack: 0,
    hint_moves_cursor: 0,
    cursor_before_page: 0,
    pages_without_cas: 0,
    outbox_from_events: 0,
    rejects_are_kept: 0,
    no_rebase: 1,
    confirmed_too_early: 0,
    row_version_as_base: 0,
}
"""Each bug with the seed that shows it."""


@pytest.mark.virtual_time
@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
async def test_a_planted_bug_is_noticed(world: Any, monkeypatch: pytest.MonkeyPatch, bug: Callable[..., None]) -> None:
    bug(monkeypatch)
    with pytest.raises(Violation) as seen:
        await tell(world, PLANTED[bug])
    print(seen.value)
