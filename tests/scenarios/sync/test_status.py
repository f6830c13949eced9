"""The status is never older than what was committed, its last state reaches everybody, and it costs what has changed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

import pytest
import trio
import trio.lowlevel

from atoma.contracts.outbox import WaitingWrite
from atoma.sync import AlreadySent, NotPending, ScopeInUse, SyncStatus
from tests.scenarios.sync.conftest import CARDS, Card, Device, World
from tests.scenarios.sync.kit import SEEDS, put_in

pytestmark = pytest.mark.virtual_time

STEPS = 60
FEW, MANY = 2, 200
PRODUCT = Path(__file__).parents[3] / "atoma"


def of_the_file(tx: Any) -> dict[str, Any]:
    """What the status says of the file, read anew."""
    identity, names = tx.outbox.identity(), [each.scope for each in tx.scopes.brought()]
    found = {scope: tx.scopes.read(scope) for scope in sorted({"main", *names})}
    return {
        "pending": identity.next_mid - 1 - identity.confirmed_mid,
        "held": tx.outbox.held_count(),
        "scopes": {scope: (each.state, each.cursor.seq) for scope, each in found.items()},
    }


def shown(status: SyncStatus) -> dict[str, Any]:
    """The same of a status."""
    scopes = {progress.scope: (progress.state, progress.cursor) for progress in status.scopes}
    return {"pending": status.pending, "held": status.held, "scopes": scopes}


async def look(device: Device) -> None:
    """Compare the status with the file; nothing happens in between, as one thread does it all."""
    truth, now = await device.inspect(of_the_file), shown(device.sync.status)
    left = truth["scopes"].keys() - now["scopes"].keys()
    for scope in left:  # a scope that is being dropped is not shown any more
        del truth["scopes"][scope]
    assert now == truth


async def step(device: Device, other: Device, dice: Random) -> None:
    """Something that somebody does."""
    cards, outbox, scope = device.store(CARDS), device.sync.outbox, f"board:{dice.randrange(4)}"
    entries: list[WaitingWrite] = await outbox.entries()
    one = [dice.choice(entries)] if entries else []
    match dice.randrange(12):
        case 0 | 1 | 2:
            await cards.upsert(Card(id=str(dice.randrange(9)), title=str(dice.random())))
        case 3:
            await other.store(CARDS).upsert(Card(id=str(dice.randrange(9)), title=str(dice.random())))
        case 4:
            await outbox.hold(one)
        case 5:
            await outbox.release(one)
        case 6:
            await outbox.discard(one, dependents=True)
        case 7:
            async with device.sync.scope(scope):
                await look(device)
                await trio.sleep(dice.random())
        case 8:
            await device.sync.drop(scope)
        case 9:
            device.wire.cut()
        case 10:
            device.wire.repair()
            device.sync.poke()
        case _:
            await trio.sleep(dice.random() * 2)


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_status_says_at_any_time_what_the_file_says(world: World, seed: int) -> None:
    dice, looks, committed = Random(seed), 0, trio.Event()

    async def keep_looking() -> None:
        nonlocal looks, committed
        while True:
            await committed.wait()
            committed = trio.Event()
            await look(device)
            looks += 1

    async with world.open_hub(), world.open_device("a") as device, world.open_device("b") as other:
        other.wire.latency = device.wire.latency = lambda: dice.random() * 0.1
        await device.settle()
        device.database().subscribe_commits(lambda _: committed.set())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_looking)
            for _ in range(STEPS):
                try:
                    await step(device, other, dice)
                except (AlreadySent, NotPending, ScopeInUse):
                    pass
                await look(device)
            await device.sync.outbox.release(
                [each for each in await device.sync.outbox.entries() if each.state == "held"]
            )
            await put_in(device)
            nursery.cancel_scope.cancel()
        await look(device)
        assert shown(device.sync.status)["pending"] == 0
    assert looks > STEPS / 2


@pytest.mark.paths
async def test_a_write_is_in_the_status_when_it_returns(world: World) -> None:
    """Wherever it was committed, and whoever writes besides."""
    done = 0

    async def write(device: Device, id: str) -> None:
        nonlocal done
        await device.store(CARDS).insert(Card(id=id))
        done += 1
        assert device.sync.status.pending >= done

    async with world.open_hub(), world.open_device("a", down=True) as a:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(write, a, str(number))
        for number in range(40, 45):
            await a.store(CARDS).insert(Card(id=str(number)))
            assert a.sync.status.pending == number + 1
        entries = await a.sync.outbox.entries()
        await a.sync.outbox.hold(entries[:3])
        assert (a.sync.status.pending, a.sync.status.held) == (42, 3)
        await a.sync.outbox.discard(entries[:1])
        assert (a.sync.status.pending, a.sync.status.held) == (42, 2)


@pytest.mark.paths
async def test_everybody_who_follows_is_told_the_last_state_at_once_per_pass(world: World) -> None:
    told: list[SyncStatus] = []
    watched: list[SyncStatus] = []

    async def watch(device: Device) -> None:
        async with device.sync.watch() as values:
            async for status in values:
                watched.append(status)

    async with world.open_hub(), world.open_device("a", down=True) as a:
        a.sync.subscribe(told.append)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, a)
            await trio.testing.wait_all_tasks_blocked()
            del told[:], watched[:]
            (await a.store(CARDS).insert_many([Card(id=str(number)) for number in range(50)])).raise_for_errors()
            for number in range(50, 60):
                await a.store(CARDS).insert(Card(id=str(number)))
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert told[-1] == watched[-1] == a.sync.status
            assert told[-1].pending == 60
            assert len(told) <= 11, "a commit of fifty is told once"
            nursery.cancel_scope.cancel()
        await a.store(CARDS).insert(Card(id="last"))  # nobody else has his turn before the client is closed
    assert (told[-1].state, told[-1].pending) == ("stopped", 61)


@contextmanager
def counted() -> Iterator[dict[CodeType, int]]:
    """How often each function of the product is called."""
    calls: dict[CodeType, int] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and PRODUCT in Path(frame.f_code.co_filename).parents:
            calls[frame.f_code] = calls.get(frame.f_code, 0) + 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


async def test_a_write_costs_the_same_however_many_scopes_there_are(world: World) -> None:
    async def calls_of(count: int) -> dict[CodeType, int]:
        scopes = [f"board:{number}" for number in range(count)]
        told: list[int] = []
        async with world.open_device(f"of {count}", scopes=scopes, down=True) as a:
            a.sync.subscribe(lambda status: told.append(status.pending))
            for number in range(3):
                await a.store(CARDS).insert(Card(id=str(number), board="board:1"))
                await trio.testing.wait_all_tasks_blocked()
            with counted() as calls:
                await a.store(CARDS).insert(Card(id="3", board="board:1"))
                await trio.testing.wait_all_tasks_blocked()
            assert told[-1] == 4
        return calls

    async with world.open_hub():
        few, many = await calls_of(FEW), await calls_of(MANY)
    assert few
    assert {code.co_qualname: number for code, number in many.items() if few.get(code, 0) < number} == {}
