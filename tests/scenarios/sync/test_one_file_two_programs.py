"""Two programs sync one file: neither holds a lock that it could lose; the transaction decides whose step counts."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from atoma.errors import WriteRejected
from tests.scenarios.sync.kit import SEEDS

pytestmark = pytest.mark.virtual_time
EACH = 30


async def write(device: Any, world: Any, source: random.Random) -> None:
    for number in range(EACH):
        written = await device.store(world.CARDS).insert(world.Card(id=f"{device.name}-{number}", title=device.name))
        if number % 5 == 4 and not device.wire.down:
            with trio.fail_after(60):
                await written.accepted()  # also when the other program has pushed it, and settled it in the file
        await trio.sleep(source.random() * 0.2)


async def follow_cursor(device: Any, task_status: trio.TaskStatus[None]) -> None:
    """The cursor never goes back, whoever moves it."""
    last = 0
    task_status.started()
    while True:
        seen = await device.inspect(lambda tx: tx.scopes.read("main").cursor.seq)
        assert seen >= last
        last = seen
        await trio.sleep(0.003)


def waves(seed: int) -> Any:
    source = random.Random(seed)
    return lambda: source.random() * 0.05


async def check_all_is_there(world: Any, *devices: Any) -> None:
    """Nothing is pending, nothing was lost or doubled, and a device with a file of its own sees the same."""
    for device in devices:
        await device.settle()
        assert await device.outbox() == []
    verdicts: dict[int, Any] = {}
    for device in devices:
        for mid, outcome in device.wire.outcomes.items():
            assert verdicts.setdefault(mid, outcome).seq == outcome.seq, "one verdict for ever, whoever asks"
    async with world.open_device("other") as other:
        await other.settle()
        rows = await other.rows()
        assert len(rows) == 2 * EACH
        for device in devices:
            assert await device.rows() == rows


@pytest.mark.parametrize("seed", SEEDS)
async def test_both_write_and_both_sync(world: Any, seed: int) -> None:
    async with world.open_hub():
        async with world.open_device("p", file="shared.db") as p, world.open_device("q", file="shared.db") as q:
            p.wire.latency, q.wire.latency = waves(seed), waves(seed + 100)
            async with trio.open_nursery() as following:
                await following.start(follow_cursor, p)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write, p, world, random.Random(seed))
                    nursery.start_soon(write, q, world, random.Random(seed + 1))
                await check_all_is_there(world, p, q)
                following.cancel_scope.cancel()


@pytest.mark.paths
@pytest.mark.parametrize("seed", SEEDS)
async def test_another_goes_on_where_one_was_stopped(world: Any, seed: int) -> None:
    """In the middle of a push whose reply is lost, with writes of both in the outbox."""
    async with world.open_hub():
        async with world.open_device("q", file="shared.db", down=True) as q:
            async with world.open_device("p", file="shared.db") as p:
                p.wire.latency = waves(seed)
                p.wire.lose["push"] = 1
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write, p, world, random.Random(seed))
                    nursery.start_soon(write, q, world, random.Random(seed + 1))
                await p.store(world.CARDS).update("p-0", title="last words")
            q.wire.repair()
            q.sync.poke()
            await check_all_is_there(world, q)
            assert (await q.rows())["p-0"].title == "last words"


@pytest.mark.paths
async def test_a_refusal_that_the_other_program_has_settled_is_heard(world: Any) -> None:
    """Its push came first, so there is nothing left to settle here but what somebody waits for."""
    async with world.open_hub(), world.open_device("other") as other:
        await other.store(world.MANUAL).insert(world.Note(id="n", text="first"))
        await other.settle()
        async with world.open_device("p", file="shared.db") as p, world.open_device("q", file="shared.db") as q:
            await p.settle()
            await q.settle()
            p.wire.cut()
            q.wire.cut()
            written = await p.store(world.MANUAL).update("n", text="ours")
            await other.store(world.MANUAL).update("n", text="theirs")
            await other.settle()
            q.wire.repair()
            q.sync.poke()
            await q.settle()
            assert [(entry.id, entry.mine["text"]) for entry in await q.inspect(lambda tx: tx.inbox.entries())] == [
                ("n", "ours")
            ]
            assert written.state in ("queued", "sent")
            p.wire.repair()
            p.sync.poke()
            with trio.fail_after(60), pytest.raises(WriteRejected):
                await written.accepted()
            assert written.state == "rejected"
