"""Tables and progress: drawn by rich on a terminal if it is installed, plain everywhere else.

``NO_COLOR`` and ``COLUMNS`` are honoured. A file may hold anything, so control characters are shown and not sent to the terminal.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from atoma.cli.words import size
from atoma.contracts.progress import Progress
from atoma.ports import Environment

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

QUIET_MS = 5_000
"""Milliseconds between two lines of progress where the output is not a terminal but a log."""
CELL_MAX = 400
"""Maximum number of characters of a value that are shown; ``--json`` has all of them."""


def console(stream: TextIO) -> Console | None:
    """Return a console that draws on ``stream``; None if it is not a terminal, or rich is not installed."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    return Console(file=stream, highlight=False)


def cell(value: object) -> str:
    """Return a value as one line of visible characters."""
    if value is None:
        return "NULL"
    text = f"x'{value.hex()}'" if isinstance(value, bytes) else str(value)
    shown = "".join(_visible(letter) for letter in text[:CELL_MAX])
    return shown if len(text) <= CELL_MAX else f"{shown}…"


def _visible(letter: str) -> str:
    return repr(letter)[1:-1] if unicodedata.category(letter)[0] == "C" or letter in "\u2028\u2029" else letter


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below the names of their columns; on a terminal that is too narrow, each row is a list of its values."""
    cells = [[cell(value) for value in row] for row in rows]
    screen = console(sys.stdout)
    if screen is None:
        _print_plain([list(columns), *cells])
    elif cells and _width(columns, cells) > screen.width and len(columns) > 1:
        _print_records(screen, columns, cells)
    else:
        screen.print(table(columns, cells, _numeric(columns, rows)))


def table(
    columns: Sequence[str], cells: Iterable[Sequence[str]], numeric: Sequence[bool] = (), title: str = ""
) -> Table:
    """Return a table for a terminal; nothing in ``cells`` is read as markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False)
    for at, name in enumerate(columns):
        right = at < len(numeric) and numeric[at]
        drawn.add_column(Text(name), justify="right" if right else "left", overflow="fold", header_style="bold cyan")
    for row in cells:
        drawn.add_row(*(Text(each, style="dim" if each == "NULL" else "") for each in row))
    return drawn


def _numeric(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[bool]:
    return [bool(rows) and all(isinstance(row[at], (int, float)) for row in rows) for at in range(len(columns))]


def _width(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    widest = (max(len(row[at]) for row in (columns, *cells)) for at in range(len(columns)))
    return sum(widest) + 3 * len(columns)


def _print_plain(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def _print_records(screen: Console, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    for number, row in enumerate(cells, 1):
        drawn = Table.grid(padding=(0, 2))
        for name, text in zip(columns, row, strict=True):
            drawn.add_row(Text(name, style="cyan"), Text(text, overflow="fold"))
        screen.print(Text(f"row {number}", style="bold"))
        screen.print(drawn)


@contextmanager
def progress(what: str, *, sizes: bool = False) -> Generator[Progress]:
    """Show the progress of ``what`` on standard error while the block runs.

    Args:
        what: What is being done, as in ``copying app.db``.
        sizes: Whether numbers are bytes.
    """
    screen = console(sys.stderr)
    if screen is None:
        yield _lines(what, sizes=sizes)
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    parts = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*parts, TimeElapsedColumn(), console=screen, transient=True) as bar:
        task = bar.add_task(cell(what), total=None, told="")

        def tell(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of or None, told=_far(done, of, sizes=sizes))

        yield tell


def _lines(what: str, *, sizes: bool) -> Progress:
    clock = Environment().wall_ms
    last = clock()

    def tell(done: int, of: int) -> None:
        nonlocal last
        if clock() - last >= QUIET_MS:
            last = clock()
            print(f"{what}: {_far(done, of, sizes=sizes) or 'going on'}", file=sys.stderr)

    return tell


def _far(done: int, of: int, *, sizes: bool) -> str:
    if not done and not of:
        return ""
    show: Callable[[int], str] = size if sizes else "{:,}".format
    return f"{show(done)} of {show(of)}" if of else show(done)
