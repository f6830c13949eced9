"""How the cost of a mutation at the hub grows with processes, scopes and clients, measured and drawn for the documentation.

``python -m benchmarks.hub_scaling FILE`` measures in one run, writes what it measured to FILE and draws it into ``docs/images``; with
``--draw`` it draws what FILE holds. The cost is CPU of the hubs and of the database's server together, with the load, which is in
the hubs' processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.hub_cases import Cost, a_server, cost, hubs_at
from benchmarks.hub_load import Load
from benchmarks.measure import machine
from benchmarks.plots import Chart, Line, draw
from tests.postgres import Server

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SECONDS = 4.0
PROCESSES = (1, 2, 3, 4)
SCOPES = (1, 4, 16, 64)
CLIENTS = (1, 4, 16, 64, 256)
OF_PROCESSES = {"pushes of 50": Load("", 8, 50, 1, SECONDS), "pushes of 1": Load("", 256, 1, 1, SECONDS)}
"""By each process: groups are of equal size then, however many there are."""
FILE, SERVER = "hub on a file", "hub on PostgreSQL"


@dataclass(frozen=True, slots=True)
class Point:
    """A cost: of whom, by what, and how much of that."""

    who: str
    by: str
    count: int
    cost: Cost


def measured(folder: Path, server: Server | None) -> Iterator[Point]:
    """Every point."""
    if server is not None:
        for name, load in OF_PROCESSES.items():
            for count in PROCESSES:
                with hubs_at(server.dsn(server.new_database()), count) as hubs:
                    yield Point(name, "processes", count, cost(hubs, load, server))
    loads = [("scopes", count, Load("", 64, 10, count, SECONDS)) for count in SCOPES]
    loads += [("clients", count, Load("", count, 10, 1, SECONDS)) for count in CLIENTS]
    for by, count, load in loads:
        with hubs_at(str(folder / f"{by}-{count}.db"), 1) as hubs:
            yield Point(FILE, by, count, cost(hubs, load))
        if server is not None:
            with hubs_at(server.dsn(server.new_database()), 1) as hubs:
                yield Point(SERVER, by, count, cost(hubs, load, server))


def measure() -> str:
    """Measure everything, and tell it as JSON."""
    points: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="atoma-scaling-") as folder, a_server() as server:
        for point in measured(Path(folder), server):
            points.append(point)
            print(point, file=sys.stderr)
    return json.dumps({"machine": machine(), "points": [asdict(point) for point in points]}, indent=1) + "\n"


def charts(file: Path) -> dict[str, Chart]:
    """The pictures, by their names; none of what was not measured."""
    told = json.loads(file.read_text(encoding="utf-8"))["points"]
    points = [Point(each["who"], each["by"], each["count"], Cost(**each["cost"])) for each in told]

    def chart(by: str, title: str, x: str) -> Chart:
        found: dict[str, list[tuple[float, float]]] = {}
        for point in points:
            if point.by == by:
                found.setdefault(point.who, []).append((point.count, point.cost.hub_us + point.cost.server_us))
        return Chart(title, x, "microseconds of CPU for a mutation", [Line(who, each) for who, each in found.items()])

    made = {
        "hub-processes": chart(
            "processes", "One scope, hubs over one PostgreSQL", "processes, each with as many clients"
        ),
        "hub-scopes": chart("scopes", "64 clients, pushes of 10", "scopes"),
        "hub-clients": chart("clients", "One scope, pushes of 10", "clients"),
    }
    return {name: chart for name, chart in made.items() if chart.lines}


def main() -> None:
    """Measure and draw, or draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub_scaling", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if not options.draw:
        options.file.write_text(measure(), encoding="utf-8")
    for name, chart in charts(options.file).items():
        (IMAGES / f"{name}.svg").write_text(draw(chart), encoding="utf-8")


if __name__ == "__main__":
    main()
