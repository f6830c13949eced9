"""Query cases: the best three children of each of 500 parents among 336,776, and the floor under it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import apsw

from atoma import Index, Schema, StoreSpec, has_many, open_client, select
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from benchmarks.measure import Row

FLIGHTS, PLANES, SHOWN, BEST, ROUNDS = 336_776, 4_043, 500, 3, 9


@dataclass(frozen=True, slots=True)
class Plane:
    """A parent."""

    id: str
    seats: int


@dataclass(frozen=True, slots=True)
class Flight:
    """A child."""

    id: str
    plane: str
    delay: int | None
    miles: int


PLANE = StoreSpec("planes", Plane)
FLIGHT = StoreSpec("flights", Flight, indexes=[Index("plane", "-delay")])
FLIGHTS_OF = has_many(PLANE, FLIGHT, on=FLIGHT.col(lambda flight: flight.plane))


async def queries(folder: Path) -> list[Row]:
    """Both by one client on one file, and 500 statements of bare SQLite on it."""
    drawn = random.Random(1)
    path = folder / "flights.db"
    async with open_client(Schema(PLANE, FLIGHT), plugins=[LocalExecution(SQLiteEngine(path))]) as client:
        await client.store(PLANE).insert_many([Plane(f"p{number:04}", 180) for number in range(PLANES)])
        for start in range(0, FLIGHTS, 20_000):
            rows = [
                Flight(
                    f"f{number:06}",
                    f"p{drawn.randrange(PLANES):04}",
                    None if drawn.random() < 0.03 else drawn.randrange(-60, 1_300),
                    drawn.randrange(17, 4_983),
                )
                for number in range(start, min(FLIGHTS, start + 20_000))
            ]
            await client.store(FLIGHT).insert_many(rows)
        query = select(PLANE).limit(SHOWN).include(FLIGHTS_OF, lambda flight: flight.order_by("-delay").limit(BEST))
        took: list[float] = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            page = await client.query(query)
            took.append((time.perf_counter() - began) * 1e3)
            assert len(page) == SHOWN
            assert all(len(best) == BEST for _, best in page)
    bare = _bare(path)
    ours = sorted(took)[ROUNDS // 2]
    case = f"best {BEST} of {SHOWN} parents, {FLIGHTS:,} rows"
    return [
        Row(case, f"{SHOWN} statements of bare SQLite", bare, "ms"),
        Row(case, "include with a limit", ours, "ms", ours / bare, "bare SQLite", "≤ 20 ms"),
    ]


def _bare(path: Path) -> float:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    ids = [row[0] for row in connection.execute("SELECT id FROM planes ORDER BY id LIMIT ?", (SHOWN,))]
    took: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for plane in ids:
            connection.execute(
                "SELECT * FROM flights WHERE plane = ? ORDER BY delay DESC, id LIMIT ?", (plane, BEST)
            ).fetchall()
        took.append((time.perf_counter() - began) * 1e3)
    connection.close()
    return sorted(took)[ROUNDS // 2]
