"""``python3 dev.py bench``: every figure from one run, with the machine, the versions and the floor under them."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import msgspec
import trio
from rich.console import Console
from rich.table import Table

from benchmarks import (
    attack_cases,
    binding_cases,
    cancel_cases,
    crowd_cases,
    first_sync_cases,
    hub_cases,
    live_cases,
    local_cases,
    opening_cases,
    peer_cases,
    query_cases,
    rebase_cases,
    relation_cases,
    replication_cases,
    sync_cases,
    window_cases,
    wire_cases,
)
from benchmarks.measure import Row, bare_fsync, filesystem, machine

PACKAGES = (
    "trio",
    "apsw",
    "msgspec",
    "trio-websocket",
    "grpclib",
    "grpcio",
    "websockets",
    "uvicorn",
    "starlette",
    "aiosqlite",
)


async def local(folder: Path) -> list[Row]:
    """Every local case over one set of files."""
    rows: list[Row] = []
    async with local_cases.open_local(folder) as files:
        rows += await local_cases.point_get(files)
        rows += await local_cases.single_write(files, "normal", local_cases.NORMAL_WRITES)
        rows += await local_cases.single_write(files, "full", local_cases.FULL_WRITES)
        rows += await local_cases.concurrent_writes(files)
    return rows + await local_cases.concurrent_writes_on_a_slow_disk(folder)


GROUPS: dict[str, Callable[[Path], Awaitable[list[Row]]]] = {
    "local": local,
    "bulk": local_cases.bulk,
    "opening": opening_cases.opening,
    "live": live_cases.live,
    "relations": relation_cases.relations,
    "queries": query_cases.queries,
    "peers": peer_cases.peers,
    "outbox": sync_cases.write_with_sync,
    "propagation": crowd_cases.propagation,
    "idle": crowd_cases.idle,
    "airports": sync_cases.airports,
    "first-sync": first_sync_cases.first_sync,
    "rebase": rebase_cases.rebase,
    "replication": replication_cases.replication,
    "bindings": binding_cases.bindings,
    "windows": window_cases.windows,
    "cancel": cancel_cases.cancel,
    "hub": hub_cases.pushes,
    "wires": wire_cases.wires,
    "attacks": attack_cases.attacks,
}
MET = {None: "", True: "yes", False: "[bold red]NO"}


def main() -> int:
    """Run the groups that were asked for, print tables, write JSON where asked to; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="which groups (default: all)")
    parser.add_argument("--json", type=Path, default=None, help="also write the rows to this file")
    parser.add_argument("--only", default="", help="of the attacks, those whose name holds this text")
    parser.add_argument("--dir", type=Path, default=None, help="where the files go (default: the temporary folder)")
    options = parser.parse_args()
    console = Console(width=118, soft_wrap=True)
    rows: list[Row] = []
    under_attack: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="atoma-bench-", dir=options.dir) as place:
        root = Path(place)
        versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        console.print(f"{machine()}; {versions}", highlight=False)
        floor = bare_fsync(root)
        console.print(f"files on {filesystem(root)}, a bare 4 KiB write + fsync takes {floor * 1e6:.0f} µs\n")
        for name in options.groups or GROUPS:
            folder = root / name
            folder.mkdir()
            with console.status(f"measuring {name} …"):
                if name == "attacks":
                    under_attack = trio.run(attack_cases.attacks, folder, options.only)
                else:
                    rows += trio.run(GROUPS[name], folder)
    if rows:
        console.print(_table(rows))
    if under_attack:
        console.print(attack_cases.table(under_attack))
    rows += under_attack
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(json.dumps([msgspec.to_builtins(row) for row in rows]).encode()))
    missed = [row for row in rows if row.met is False]
    for row in missed:
        console.print(f"MISSED  {row.case}, {row.variant}: {row.bar}", style="bold red")
    return int(bool(missed))


def _table(rows: list[Row]) -> Table:
    table = Table(title="Medians of rounds that take turns; read the ratios", title_justify="left")
    for heading in ("case", "variant", "value", "ratio", "bar", "met"):
        table.add_column(heading, justify="right" if heading in ("value", "ratio") else "left")
    last = ""
    for row in rows:
        ratio = f"{row.ratio:.2f}× {row.against}" if row.ratio is not None else ""
        table.add_row(
            "" if row.case == last else row.case,
            row.variant,
            f"{row.value:,.1f} {row.unit}",
            ratio,
            row.bar,
            MET[row.met],
        )
        last = row.case
    return table


if __name__ == "__main__":
    sys.exit(main())
