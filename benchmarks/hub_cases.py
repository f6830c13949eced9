"""What hubs decide in a second, and for how much CPU: one on a file, and one to four processes over a PostgreSQL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

from benchmarks.hub_load import Load
from benchmarks.measure import Row
from benchmarks.programs import Program, running
from tests.postgres import NoPostgreSQL, Server

SECONDS = 2.5
SHAPES = {"256 clients × 1": (256, 1), "8 clients × 50": (8, 50)}
SCOPES = {"one scope": 1, "eight scopes": 8}
PROCESSES = (1, 2, 4)
BARS = {
    ("one scope", "256 clients × 1"): "S2 ≥ 2,500", ("one scope", "8 clients × 50"): "S2 ≥ 4,000",
    ("eight scopes", "256 clients × 1"): "S2 ≥ 2,500", ("eight scopes", "8 clients × 50"): "S2 ≥ 5,000",
}  # fmt: skip
FLAT = "S2 ≤ 1.25×"
HINTS = Load("", clients=4, size=10, scopes=8, seconds=4.0, rate=500.0)
"""Of each of four processes: 2,000 mutations a second together."""
HINTS_BAR = "S2 ≤ 100 ms"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a load came to, all processes together.

    Attributes:
        rate: Mutations in a second.
        hub_us: Microseconds of CPU for each in the hubs' processes, with the load, which is in them.
        server_us: The same in the database's.
        group: Mutations in a write group, on average.
    """

    rate: float
    hub_us: float
    server_us: float
    group: float


@contextlib.contextmanager
def a_server() -> Iterator[Server | None]:
    """A PostgreSQL that keeps what it promises, for the block; None where there is none."""
    try:
        server = Server(fsync="on", full_page_writes="on", synchronous_commit="on")
    except NoPostgreSQL:
        yield None
        return
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def hubs_at(where: str, count: int) -> Iterator[list[Program]]:
    """So many processes of hubs on one database, one after the other started."""
    with contextlib.ExitStack() as stack:
        found: list[Program] = []
        for _ in range(count):
            found.append(stack.enter_context(running("benchmarks.hub_program", where)))
            found[-1].hear()
        yield found


def cost(hubs: Sequence[Program], load: Load, server: Server | None = None) -> Cost:
    """What ``load`` costs, carried out by each of ``hubs`` at the same time."""
    before = _cpu_of(server)
    for number, hub in enumerate(hubs):
        hub.send({"do": "push", **asdict(load), "name": f"p{number}"})
    told = [hub.hear() for hub in hubs]
    mutations = sum(each["mutations"] for each in told)
    return Cost(
        sum(each["mutations"] / each["seconds"] for each in told),
        sum(each["cpu_s"] for each in told) / mutations * 1e6,
        (_cpu_of(server) - before) / sum(each["answered"] for each in told) * 1e6,  # from the beginning, as its CPU
        mutations / max(1, sum(each["groups"] for each in told)),
    )


def _cpu_of(server: Server | None) -> float:
    """Seconds of CPU of a server and of all its processes, those that have ended included; 0 where the system does not tell."""
    if server is None or server.pid is None:
        return 0.0
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(encoding="ascii", errors="replace").rpartition(") ")[2].split()
            if int(stat.parent.name) == server.pid:
                ticks += sum(map(int, fields[11:15]))  # its own, and of children that have ended
            elif int(fields[1]) == server.pid:
                ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


async def pushes(folder: Path) -> list[Row]:
    """Pushes of one and of fifty, into one scope and into eight: a file, and one to four processes on PostgreSQL.

    Each process has as many clients, so that groups are of equal size. Load, hubs and server share this machine; the load is in
    the hubs' processes, and so is its CPU.
    """
    return await trio.to_thread.run_sync(_pushes, folder)


def _pushes(folder: Path) -> list[Row]:
    rows: list[Row] = []
    with a_server() as server:
        for shape, (clients, size) in SHAPES.items():
            for scopes, count in SCOPES.items():
                load = Load("", clients, size, count, SECONDS)
                rows += _case(
                    f"hub: {scopes}, {shape}", load, folder / f"{count}-{clients}.db", server, BARS[scopes, shape]
                )
        if server is not None:
            rows += _hints(server)
    return rows


def _case(case: str, load: Load, path: Path, server: Server | None, bar: str) -> list[Row]:
    with hubs_at(str(path), 1) as hubs:
        file = cost(hubs, load)
    rows = [
        Row(case, "SQLite", file.rate, "mutations/s"),
        Row(case, "SQLite: CPU with the load", file.hub_us, "µs a mutation"),
    ]
    first: Cost | None = None
    for number in PROCESSES if server is not None else ():
        assert server is not None
        with hubs_at(server.dsn(server.new_database()), number) as hubs:
            found = cost(hubs, load, server)
        name = f"PostgreSQL, {number} process{'es' if number > 1 else ''}"
        whole = found.hub_us + found.server_us
        told = f"{name}: CPU, {found.server_us:.0f} of it the server's, groups of {found.group:.0f}"
        rows.append(Row(case, name, found.rate, "mutations/s", found.rate / file.rate, "SQLite", bar))
        if first is None:
            first = found
            rows.append(Row(case, told, whole, "µs a mutation", whole / file.hub_us, "SQLite"))
        else:
            ratio = whole / (first.hub_us + first.server_us)
            rows.append(Row(case, told, whole, "µs a mutation", ratio, "one process", FLAT))
    return rows


def _hints(server: Server) -> list[Row]:
    """From the answer that a process gives until every other one has heard that a scope has come so far."""
    with hubs_at(server.dsn(server.new_database()), 4) as hubs:
        for number, hub in enumerate(hubs):
            hub.send({"do": "hear", **asdict(HINTS), "name": f"p{number}"})
        told = [hub.hear() for hub in hubs]
    delays: list[float] = []
    for writer, of in enumerate(told):
        for reader, other in enumerate(told):
            if reader != writer:
                delays += delays_of(of["told"], other["hints"])
    delays.sort()
    rate = sum(each["mutations"] / each["seconds"] for each in told)
    case = f"hints of other processes, 4 × 8 scopes, {rate:,.0f} mutations/s"
    return [
        Row(case, f"p50 of {len(delays):,}", delays[len(delays) // 2] * 1e3, "ms"),
        Row(case, "p99", delays[len(delays) * 99 // 100] * 1e3, "ms", bar=HINTS_BAR),
        Row(case, "longest", delays[-1] * 1e3, "ms"),
    ]


def delays_of(told: list[tuple[str, int, float]], hints: list[tuple[str, int, float]]) -> list[float]:
    """How long after each answer the first hint came that says as much."""
    heard: dict[str, list[tuple[int, float]]] = {}
    for scope, head, at in hints:
        heard.setdefault(scope, []).append((head, at))
    found: list[float] = []
    for scope, head, at in told:
        first = next((when for reached, when in heard.get(scope, ()) if reached >= head), None)
        assert first is not None, f"{scope} has reached {head}, and another process never heard of it"
        found.append(max(0.0, first - at))
    return found
