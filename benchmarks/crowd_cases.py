"""A hub with many clients: what ten thousand that wait cost, and how soon a change is with all of those that follow it."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path

import trio

from atoma import Client, Sync, col, open_client, select
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.remote import Remote
from atoma_transports.websocket import WebSocketTransport
from benchmarks.hub_load import Load
from benchmarks.measure import Row
from benchmarks.programs import Program, running
from tests.unit.hub.kit import CARDS, SCHEMA, Card

IDLE, IDLE_PROGRAMS, IDLE_BAR = 10_000, 4, "S5 ≤ 600 MB"
CONNECT_S = 300.0
CROWDS = {1: "S3 ≤ 5 ms", 100: "S3 ≤ 20 ms", 500: "S3 ≤ 50 ms"}
BUSY_BAR = "S3 ≤ 100 ms"
EDITS, BETWEEN_S, LATEST_S = 100, 0.02, 5.0
BUSY = Load("load", clients=4, size=10, scopes=4, seconds=0.0, rate=1_000.0)


@contextmanager
def crowd(ports: Sequence[str], count: int, programs: int, *more: str) -> Iterator[list[Program]]:
    """Programs with ``count`` connections together, all of them made, to these ports of a hub in turns."""
    with ExitStack() as stack:
        parts = [count // programs + (number < count % programs) for number in range(programs)]
        found = [
            stack.enter_context(
                running("benchmarks.idle_program", ports[number % len(ports)], f"crowd{number}", str(part), *more)
            )
            for number, part in enumerate(parts)
        ]
        until = time.monotonic() + CONNECT_S
        while (there := sum(program.ask(0)["connected"] for program in found)) < count:
            assert time.monotonic() < until, f"{there:,} of {count:,} connections after {CONNECT_S:.0f} s"
            time.sleep(0.2)
        yield found


async def idle(folder: Path) -> list[Row]:
    """Ten thousand connections of as many users, each listening for hints: the memory of the hub's process."""
    return await trio.to_thread.run_sync(_idle, folder)


def _idle(folder: Path) -> list[Row]:
    with running("benchmarks.hub_program", str(folder / "hub.db")) as hub:
        there = hub.hear()
        alone = hub.ask({"do": "look"})
        with crowd([str(there["port"]), str(there["second"])], IDLE, IDLE_PROGRAMS):
            full = hub.ask({"do": "look"})
            time.sleep(5.0)
            later = hub.ask({"do": "look"})
    assert full["sessions"] == later["sessions"] == IDLE
    case = f"{IDLE:,} idle WebSockets at one hub process, on two ports"
    return [
        Row(case, "resident memory", later["resident"] / 1e6, "MB", bar=IDLE_BAR),
        Row(case, "of each", (later["resident"] - alone["resident"]) / IDLE / 1024, "KiB"),
        Row(case, "CPU to let one in", (full["cpu_s"] - alone["cpu_s"]) / IDLE * 1e6, "µs"),
        Row(case, "CPU while they wait", (later["cpu_s"] - full["cpu_s"]) / 5.0 * 100, "%"),
    ]


async def propagation(folder: Path) -> list[Row]:
    """One edit on device A until device B's live query shows it, and until the others that follow the scope have pulled it.

    B and A are whole devices in this process; the others are connections that pull when they are hinted at, in another. The hub is
    a process of its own and, where it is busy, decides 1,000 mutations a second of other scopes besides.
    """
    rows: list[Row] = []
    for count, bar in CROWDS.items():
        place = folder / str(count)
        place.mkdir()
        with running("benchmarks.hub_program", str(place / "hub.db")) as hub:
            port = str(hub.hear()["port"])
            with crowd([port], count - 1, 1, "pull") as others:
                async with device(place / "a.db", port) as a, device(place / "b.db", port) as b:
                    rows += await _edited(count, bar, a, b, hub, others)
    return rows


@asynccontextmanager
async def device(path: Path, port: str) -> AsyncIterator[Client]:
    """A device that replicates the cards."""
    transport = WebSocketTransport(f"ws://127.0.0.1:{port}/sync", token="device")
    plugins = [LocalExecution(SQLiteEngine(path)), Remote(transport), Sync(stores=["cards"])]
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
        yield client


async def _edited(count: int, bar: str, a: Client, b: Client, hub: Program, others: Sequence[Program]) -> list[Row]:
    await a.store(CARDS).insert(Card("card", "first"))
    await a.sync.wait_idle()
    await b.sync.wait_idle()
    rows: list[Row] = []
    head = 1
    for name, load in (("", None), (", hub busy", BUSY)):
        if load is not None:
            hub.send({"do": "push", **asdict(load), "seconds": EDITS * (BETWEEN_S + 0.1)})
            await trio.sleep(load.warm_s)
        delays, began = await _edits(a, b)
        await trio.sleep(1.0)
        told = [program.ask(0)["pulled"] for program in others]
        if load is not None:
            rate = await trio.to_thread.run_sync(hub.hear)
            name += f" with {rate['mutations'] / rate['seconds']:,.0f} mutations/s"
        case = f"propagation, {count} client{'s' if count > 1 else ''}{name}"
        rows += _told(case, "device B", delays, bar if load is None else "")
        if count > 1:
            pulled = [at - began[seq - head - 1] for each in told for seq, at in each if seq > head]
            share = len(pulled) / ((count - 1) * EDITS)
            assert share >= 0.5, f"{len(pulled)} pulls of {count - 1} clients"
            rows += _told(case, "the other clients", pulled, bar if load is None else "")
            # who is still pulling when the next hint comes gets both edits with one more pull, and tells the later one
            rows.append(Row(case, "of the edits, pulled by themselves", share * 100, "%"))
        head += EDITS
    return rows


def _told(case: str, who: str, delays: Sequence[float], bar: str) -> list[Row]:
    ordered = sorted(delays)
    p99 = ordered[len(ordered) * 99 // 100] * 1e3
    return [
        Row(case, f"{who}: p50", statistics.median(ordered) * 1e3, "ms", bar=bar),
        Row(case, f"{who}: p99", p99, "ms", bar="" if bar else BUSY_BAR),
    ]


async def _edits(a: Client, b: Client) -> tuple[list[float], list[float]]:
    """Delays until B shows each edit, and when each was begun by the machine's clock."""
    delays: list[float] = []
    began: list[float] = []
    async with b.store(CARDS).live(select(CARDS).where(col("id") == "card")) as batches:
        await anext(batches)
        for number in range(EDITS):
            began.append(time.monotonic())
            await a.store(CARDS).update("card", title=f"edit {time.monotonic()} {number}")
            with trio.fail_after(LATEST_S):
                await anext(batches)
            delays.append(time.monotonic() - began[-1])
            await trio.sleep(BETWEEN_S)
    return delays, began
