"""``atoma top``: shows what is happening in a file while programs use it, at regular intervals."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import trio

from atoma.cli import keys
from atoma.cli.files import WHOSE, add_file
from atoma.cli.numbers import seconds, whole_number
from atoma.cli.reports import Exit
from atoma.cli.screen import cell, console, print_table, table
from atoma.cli.sync import FileStatus, read_status
from atoma.cli.waiting import rows_of
from atoma.cli.words import as_json, count, moment, size
from atoma.ports import Environment
from atoma.sync.waiting import waiting_writes
from atoma_stores.sqlite.device_files import inspect_file
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.files import LATEST_MAX, FileSurvey, survey_file

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass(frozen=True, slots=True)
class WatchedWrite:
    """A write: its time, its place, and what it is."""

    at_ms: int
    state: str
    what: str


@dataclass(frozen=True, slots=True)
class Look:
    """A file at one moment, and what has changed since the previous look.

    Attributes:
        at_ms: The moment, in Unix milliseconds.
        seconds: Seconds since the previous look; 0 for the first.
        file: What the file is.
        commits: Commits since then; at a hub, sequences of all scopes.
        changed: By how many rows each store has grown since then.
        waiting: Of a device: the numbers of ``pending`` and ``held`` writes and of open entries of ``inbox`` and ``lost``.
        scopes: The progress of each scope: for a device its cursor and the hub's head, for a hub its head twice.
        latest: The last writes: for a device those that wait, for a hub those of its log.
    """

    at_ms: int
    seconds: float
    file: FileSurvey
    commits: int
    changed: Mapping[str, int]
    waiting: Mapping[str, int]
    scopes: Mapping[str, tuple[int, int]]
    latest: Sequence[WatchedWrite]


def add_command(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    command.description = (
        "Show what is happening in a file, until Ctrl-C: rows, commits, scopes, and what waits to be sent."
    )
    add_file(command)
    command.add_argument(
        "--interval",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="seconds between two looks (default %(default)g)",
    )
    command.add_argument(
        "--looks",
        type=whole_number,
        default=0,
        metavar="N",
        help="end after this many looks; 0: never (default %(default)s)",
    )
    command.add_argument("--json", action="store_true", help="print a line of JSON for each look")
    command.set_defaults(run=_top)


def _top(options: argparse.Namespace) -> Exit:
    screen = None if options.json else console(sys.stdout)
    trio.run(_watch, options, screen)
    return Exit.DONE


async def _watch(options: argparse.Namespace, screen: Console | None) -> None:
    looks = _looks(options.file, keys.key_of(options))
    if screen is None:
        await _follow(options, looks)
        return
    from rich.live import Live

    with Live(_drawn(next(looks)), console=screen, screen=True, auto_refresh=False) as live:
        done = 1
        while done != options.looks:
            live.refresh()
            await trio.sleep(options.interval)
            live.update(_drawn(next(looks)))
            done += 1
        last = live.get_renderable()
    screen.print(last)


async def _follow(options: argparse.Namespace, looks: Iterator[Look]) -> None:
    """Print every look below the previous one."""
    for done, look in enumerate(looks, 1):
        if options.json:
            print(msgspec.json.encode(as_json(look)).decode(), flush=True)
        else:
            _print(look)
        if done == options.looks:
            return
        await trio.sleep(options.interval)


def _looks(path: str, key: FileKey | None) -> Iterator[Look]:
    environment = Environment()
    before, began = None, environment.clock()
    while True:
        file, now = survey_file(path, key), environment.clock()
        yield _look(file, before, now - began if before else 0.0, environment, key)
        before, began = file, now


def _look(
    file: FileSurvey, before: FileSurvey | None, seconds: float, environment: Environment, key: FileKey | None
) -> Look:
    then = file if before is None else before
    changed = {name: rows - then.rows.get(name, 0) for name, rows in file.rows.items()}
    if file.layout == "hub":
        latest = [
            WatchedWrite(w.at_ms, f"{w.scope} {w.seq}", f"{count(w.rows, 'row')} by {w.principal}") for w in file.latest
        ]
        scopes = {scope: (head, head) for scope, head in file.heads.items()}
        commits = sum(file.heads.values()) - sum(then.heads.values())
        return Look(environment.wall_ms(), seconds, file, commits, changed, {}, scopes, latest)
    _, status = read_status(file.path, key)
    waiting = inspect_file(file.path, waiting_writes, environment, key)[-LATEST_MAX:]
    latest = [WatchedWrite(each.written_ms, each.state, rows_of(each)) for each in reversed(waiting)]
    commits = file.commit - then.commit
    return Look(environment.wall_ms(), seconds, file, commits, changed, status.waiting, _scopes(status), latest)


def _scopes(status: FileStatus) -> dict[str, tuple[int, int]]:
    return {each.scope: (each.cursor.seq, max(each.head, each.cursor.seq)) for each in status.scopes}


# as people read it


def _head(look: Look) -> str:
    file = look.file
    rate = f", {look.commits / look.seconds:,.1f} commits/s" if look.seconds else ""
    of = f", open in {count(file.programs, 'program')}" if file.programs else ""
    log = f" + {size(file.wal_bytes)} log" if file.wal_bytes else ""
    return f"{cell(file.path)}: {WHOSE[file.layout]}, {size(file.bytes)}{log}{of}{rate}"


def _stores(look: Look) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = [(name, f"{rows:,}", f"{look.changed[name]:+,}" if look.changed[name] else "") for name, rows in look.file.rows.items()]  # fmt: skip
    return ("store", "rows", "change"), [tuple(map(cell, row)) for row in rows]


def _replication(look: Look) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = [
        (scope, f"{at:,}", "up to date" if at == head else f"{head - at:,} behind the hub")
        for scope, (at, head) in look.scopes.items()
    ]
    if look.file.layout == "hub":
        rows = [(scope, at, "") for scope, at, _ in rows]
    return ("scope", "at", ""), [tuple(map(cell, row)) for row in rows]


def _latest(look: Look) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = [(moment(event.at_ms), event.state, event.what) for event in look.latest]
    return ("when", "where" if look.file.layout == "hub" else "state", "what"), [tuple(map(cell, row)) for row in rows]


def _counts(look: Look) -> str:
    if look.file.layout == "hub":
        return f"{count(look.file.clients, 'device file')} known"
    return ", ".join(f"{number:,} {name}" for name, number in look.waiting.items())


def _print(look: Look) -> None:
    print(f"{moment(look.at_ms)}  {_head(look)}; {_counts(look)}")
    for columns, cells in (_stores(look), _replication(look)):
        if cells:
            print_table(columns, cells)
    print(flush=True)


def _drawn(look: Look) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(_head(look), style="bold"), Text(_counts(look)), Text()]
    titles = ("", "", "the last writes" if look.file.layout == "hub" else "what waits to be sent")
    for title, (columns, cells) in zip(titles, (_stores(look), _replication(look), _latest(look)), strict=True):
        if cells:
            parts.append(table(columns, cells, [name in ("rows", "change", "at") for name in columns], title))
    return Group(*parts)
