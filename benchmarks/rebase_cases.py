"""What it takes to rebase a thousand pending writes over a page of ten thousand rows, and what can be seen meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import trio

from atoma import Client, Sync, col, open_client, select
from atoma.contracts.mutations import Op
from atoma.contracts.sync import Limits, PullReply, PullRequest
from atoma.contracts.understood import Understood
from atoma.ports import Channel, Transport, apply_batch
from atoma.ports.channel import Announced
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from benchmarks.measure import Row, watch_stalls
from tests.unit.hub.kit import CARDS, SCHEMA, Card, card, hub_on
from tests.unit.hub.kit import Client as Other

PAGE, PENDING, ROUNDS = 10_000, 1_000, 5
LIMITS = Limits(page_changes=PAGE, page_bytes=4 << 20)
PART = 1_000
"""Rows in a mutation."""
MINE = "mine"
BAR = "S6 ≤ 250 ms"


class Noted:
    """A transport that asks for pages of ten thousand rows, and knows when the last one with rows has come.

    A device by itself begins with two thousand, and asks for as many as it applies in fifty milliseconds.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.name = inner.name
        self.came = self.cpu = 0.0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Channel]:
        async with self._inner.connect() as channel:
            yield _NotedChannel(self, channel)


class _NotedChannel:
    def __init__(self, noted: Noted, inner: Channel) -> None:
        self._noted, self._inner = noted, inner

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        if isinstance(message, PullRequest):
            message = msgspec.structs.replace(message, max_changes=PAGE, max_bytes=LIMITS.page_bytes)
        reply = await self._inner.call(method, message)
        if isinstance(reply, PullReply) and reply.stores:
            self._noted.came, self._noted.cpu = time.perf_counter(), time.process_time()
        return reply

    def stream(
        self, method: str, message: msgspec.Struct
    ) -> AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]:
        return self._inner.stream(method, message)

    async def understood(self) -> Understood | None:
        return await self._inner.understood() if isinstance(self._inner, Announced) else None


async def rebase(folder: Path) -> list[Row]:
    """From the arrival of the page until a live query shows it, with the pending writes on top; the commit is in it.

    The page is one push of somebody else's. A device that only pulls keeps its writes pending.
    """
    network = MemoryNetwork()
    noted = Noted(MemoryTransport(network))
    async with hub_on(folder / "hub.db", limits=LIMITS) as hub, network.listen(hub):
        other = Other.of(hub, "other")
        await _write(other, lambda at: Op("create", "cards", f"card-{at:05}", card("theirs")))
        plugins = [
            LocalExecution(SQLiteEngine(folder / "device.db")), Remote(noted), Sync(stores=["cards"], mode="pull-only"),
        ]  # fmt: skip
        async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
            while await client.store(CARDS).count() < PAGE:
                await trio.sleep(0.01)
            for at in range(PENDING):
                await client.store(CARDS).update(f"card-{at * 7:05}", title=MINE, durability="normal")
            async with watch_stalls() as stall:
                rounds = [await _round(client, other, noted, number) for number in range(1, ROUNDS + 1)]
    taken, cpu = zip(*rounds, strict=True)
    case = f"rebase of {PENDING:,} pending over a page of {PAGE:,} rows"
    return [
        Row(case, f"median of {ROUNDS}", statistics.median(taken) * 1e3, "ms", bar=BAR),
        Row(case, "longest", max(taken) * 1e3, "ms"),
        Row(case, "CPU of the process, median", statistics.median(cpu) * 1e3, "ms"),
        Row(case, "loop's longest stall, the hub's work included", stall.longest_s * 1e3, "ms"),
    ]


async def _round(client: Client, other: Other, noted: Noted, number: int) -> tuple[float, float]:
    """Seconds until the page is seen, and of CPU; and nothing of it is seen before all of it."""
    async with client.store(CARDS).live(select(CARDS).where(col("rank") == float(number))) as batches:
        shown: tuple[Card, ...] = apply_batch((), await anext(batches))
        assert shown == ()
        await _write(other, lambda at: Op("patch", "cards", f"card-{at:05}", {"rank": float(number)}))
        while not shown:  # a batch may also say that the answer is more or less complete
            shown = apply_batch(shown, await anext(batches))
        seconds, cpu = time.perf_counter() - noted.came, time.process_time() - noted.cpu
    assert len(shown) == PAGE, f"{len(shown):,} of {PAGE:,} rows could be seen by themselves"
    assert sum(item.title == MINE for item in shown) == PENDING
    return seconds, cpu


async def _write(other: Other, op: Callable[[int], Op]) -> None:
    """All rows, in one push."""
    first = len(other.mutations) + 1
    for start in range(0, PAGE, PART):
        other.write(*(op(at) for at in range(start, start + PART)))
    reply = await other.push(first)
    assert reply.error is None, reply.error
    assert {outcome.status for outcome in reply.outcomes} <= {"applied", "merged"}, reply.outcomes[0]
