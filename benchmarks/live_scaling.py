"""How the cost of a commit grows with the rows and with the subscriptions, measured and drawn for the documentation.

``python -m benchmarks.live_scaling measure FILE`` writes what it measures to FILE, in one run over Atoma, raw apsw that asks again, a
lower bound by hand, and TanStack DB and RxDB where node is there; ``python -m benchmarks.live_scaling draw FILE`` draws it into
``docs/images``. Everything goes from the call that writes to the new result at its reader, the durable commit of SQLite included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw
import trio

from atoma import Client, col, open_client, select
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from benchmarks import peers
from benchmarks.live_cases import ALL, ALL_SQL, NEWEST, TOP, TOP_SQL, UPDATE
from benchmarks.measure import machine
from benchmarks.models import INSERT, SCHEMA, TODOS, raw_connection, todo, values
from benchmarks.plots import Chart, Line, draw

ROWS = (10_000, 100_000, 1_000_000)
SUBSCRIPTIONS = (10, 1_000, 10_000, 100_000)
PEERS = {"TanStack DB": "tanstack", "RxDB": "rxdb"}
PEER_ROWS, PEER_SUBSCRIPTIONS = 100_000, 1_000
"""Beyond these a peer takes minutes to begin."""
KEYED_SQL = "SELECT * FROM todos WHERE user=? ORDER BY id"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
SHAPES = {"top": "the newest 50 of a status", "all": "every row, sorted"}


@dataclass(frozen=True, slots=True)
class Point:
    """The median seconds of one write with its result: of whom, of what, with how many rows and subscriptions."""

    who: str
    what: str
    rows: int
    subscriptions: int
    seconds: float
    setup: float = 0.0


@dataclass(slots=True)
class Rows:
    """The same rows behind raw apsw and a client, and the number of the next write."""

    count: int
    raw: apsw.Connection
    client: Client
    turn: int = 0

    def next(self) -> tuple[int, str]:
        self.turn += 1
        return self.turn, f"todo-{self.turn * 291 % self.count:09}"


@asynccontextmanager
async def open_rows(folder: Path, count: int) -> AsyncIterator[Rows]:
    """Two files of ``count`` rows each."""
    raw = raw_connection(folder / "raw.db", "normal")
    path = folder / "atoma.db"
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path))]) as client:
        for start in range(0, count, 50_000):
            part = [todo(number) for number in range(start, min(start + 50_000, count))]
            with raw:
                raw.executemany(INSERT, map(values, part))
            await client.store(TODOS).insert_many(part)
        yield Rows(count, raw, client)
    raw.close()


async def median(writes: int, one: Callable[[], Awaitable[object]]) -> float:
    taken: list[float] = []
    for _ in range(writes):
        began = time.perf_counter()
        await one()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def by_rows(rows: Rows) -> list[Point]:
    """One subscription, by how many rows there are."""
    store, raw, points = rows.client.store(TODOS), rows.raw, []

    def written(sign: int) -> tuple[int, str]:
        turn, id = rows.next()
        at = NEWEST + 100_000_000 + turn if sign < 0 else 1_700_000_000 - turn
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("UPDATE todos SET title=?, status='open', created_at=? WHERE id=?", (f"changed {turn}", at, id))
        raw.execute("COMMIT")
        return at, id

    for shape, query, sql, sign in (("top", TOP, TOP_SQL, -1), ("all", ALL, ALL_SQL, 1)):
        held = {str(row[0]): sign * int(str(row[6])) for row in raw.execute(sql)}
        keys = sorted((at, id) for id, at in held.items())

        async def again(sql: str = sql, sign: int = sign) -> None:
            written(sign)
            raw.execute(sql).fetchall()

        async def least(held: dict[str, int] = held, keys: list[tuple[int, str]] = keys, sign: int = sign) -> None:
            at, id = written(sign)
            if id in held:
                del keys[bisect_left(keys, (held[id], id))]
            insort(keys, (sign * at, id))
            held[id] = sign * at

        async with rows.client.live(query) as batches:
            await anext(batches)

            async def ours(sign: int = sign, batches: AsyncIterator[Any] = batches) -> None:
                turn, id = rows.next()
                at = NEWEST + 100_000_000 + turn if sign < 0 else 1_700_000_000 - turn
                await store.update(id, title=f"changed {turn}", status="open", created_at=at)
                await anext(batches)

            few = 3 if sign > 0 else 100
            for who, writes, one in (
                ("raw apsw, asked again", few, again),
                ("lower bound", 200, least),
                ("Atoma", 200, ours),
            ):
                points.append(Point(who, shape, rows.count, 1, await median(writes, one)))
    return points


async def by_subscriptions(rows: Rows) -> list[Point]:
    """One of many subscriptions is concerned, by how many there are."""
    store, points = rows.client.store(TODOS), []

    async def again() -> None:
        turn, id = rows.next()
        rows.raw.execute("BEGIN IMMEDIATE")
        rows.raw.execute(UPDATE, (f"changed {turn}", NEWEST + turn, id))
        rows.raw.execute("COMMIT")
        rows.raw.execute(KEYED_SQL, (f"user-{int(id[5:]) % 1000}",)).fetchall()

    for count in SUBSCRIPTIONS:
        async with AsyncExitStack() as stack:
            began = time.perf_counter()
            readers = []
            for number in range(count):
                query = select(TODOS).where(col("user") == f"user-{number}")
                readers.append(await stack.enter_async_context(store.live(query)))
            for reader in readers:
                await anext(reader)
            setup = time.perf_counter() - began

            async def ours(readers: list[AsyncIterator[Any]] = readers) -> None:
                turn, _ = rows.next()
                number = turn % min(len(readers), 1000)
                await store.update(f"todo-{number:09}", title=f"changed {turn}")
                await anext(readers[number])

            points.append(Point("Atoma", "user", rows.count, count, await median(200, ours), setup))
        points.append(Point("raw apsw, asked again", "user", rows.count, count, await median(200, again)))
    return points


def of_peer(name: str, program: str, modules: Path) -> list[Point]:
    """What a peer takes, in a process of its own for each number of rows."""
    points: list[Point] = []
    for count in [count for count in ROWS if count <= PEER_ROWS]:
        orders = [{"shape": shape, "rows": count, "subscriptions": 1, "writes": 200} for shape in SHAPES]
        if count == PEER_ROWS:
            few = [each for each in SUBSCRIPTIONS if each <= PEER_SUBSCRIPTIONS]
            orders += [{"shape": "user", "rows": count, "subscriptions": each, "writes": 200} for each in few]
        with peers.running(modules, program) as ask:
            for order in orders:
                told = ask(order)
                shape, subscriptions = str(order["shape"]), int(order["subscriptions"])
                points.append(Point(name, shape, count, subscriptions, told["seconds"], told["setup"]))
    return points


async def measure() -> str:
    """Measure everything, and tell it as JSON."""
    points: list[Point] = []
    modules = peers.installed()
    for count in ROWS:
        with tempfile.TemporaryDirectory(prefix="atoma-scaling-") as folder:
            async with open_rows(Path(folder), count) as rows:
                points += await by_rows(rows)
                if count == PEER_ROWS:
                    points += await by_subscriptions(rows)
        print(f"{count:,} rows are done", file=sys.stderr)
    for name, program in PEERS.items():
        if modules is None:
            break
        try:
            points += of_peer(name, program, modules)
        except (RuntimeError, subprocess.SubprocessError) as error:
            print(f"{name}: {error}", file=sys.stderr)
    told = {"machine": machine(), "peers": peers.PACKAGES, "points": [asdict(point) for point in points]}
    return json.dumps(told, indent=1) + "\n"


def charts(file: Path) -> dict[str, Chart]:
    """The pictures, by their names."""
    points = [Point(**each) for each in json.loads(file.read_text(encoding="utf-8"))["points"]]

    def lines(what: str, x: str, y: str = "seconds") -> list[Line]:
        found: dict[str, list[tuple[float, float]]] = {}
        for point in points:
            if point.what == what and getattr(point, y):
                found.setdefault(point.who, []).append((getattr(point, x), 1e3 * getattr(point, y)))
        return [Line(who, sorted(each)) for who, each in found.items()]

    unit = "milliseconds to the new result"
    return {
        "live-rows-top": Chart(
            "A live query of the newest 50: one row becomes the newest", "rows in the store", unit, lines("top", "rows")
        ),
        "live-rows-all": Chart(
            "A live list of every row, sorted: one row moves", "rows in the store", unit, lines("all", "rows")
        ),
        "live-subscriptions": Chart(
            "Live queries of one shape over 100,000 rows: a write concerns one",
            "subscriptions",
            unit,
            lines("user", "subscriptions"),
        ),
    }


def main() -> None:
    """Measure or draw, as asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_scaling", description=__doc__)
    parser.add_argument("act", choices=["measure", "draw"])
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    if options.act == "measure":
        options.file.write_text(trio.run(measure), encoding="utf-8")
    else:
        for name, chart in charts(options.file).items():
            (IMAGES / f"{name}.svg").write_text(draw(chart), encoding="utf-8")


if __name__ == "__main__":
    main()
