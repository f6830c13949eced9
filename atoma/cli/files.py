"""``atoma query``, ``atoma check`` and ``atoma backup``: commands for any Atoma file, a device's or a hub's, while it is in use."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoma.cli import keys
from atoma.cli.numbers import whole_number
from atoma.cli.reports import Exit, Report, answers, said, unsound
from atoma.cli.screen import print_table, progress
from atoma.cli.words import size
from atoma.contracts.values import Scalar
from atoma.errors import ConfigurationError
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.files import back_up, check_file, query_file

WHOSE = {"client": "a device's file", "hub": "a hub's file"}
ROWS_SHOWN = 1_000


def add_file(command: argparse.ArgumentParser) -> None:
    """Add the argument for an Atoma file to a command."""
    command.add_argument("file", metavar="FILE", help="a device's or a hub's file; it may be open elsewhere")
    keys.add_option(command)


# atoma query


@dataclass(frozen=True, slots=True)
class Answer:
    """The first rows of the answer to a statement.

    Attributes:
        columns: The names of its columns.
        rows: Its first rows.
        more: Whether there are more rows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    more: bool


def ask(path: str, text: str, params: Mapping[str, Scalar], limit: int, key: FileKey | None) -> Answer:
    """Return the first ``limit`` rows of a statement, or all of them if it is 0; see :func:`atoma_stores.sqlite.files.query_file`."""
    at_most = limit + 1 if limit else None  # one more tells whether there are more
    found = query_file(path, text, params, at_most=at_most, key=key)
    more = bool(limit) and len(found.tuples) > limit
    return Answer(found.columns, found.tuples[:limit] if more else found.tuples, more)


def add_query(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma query``."""
    command.description = "Query a file in SQLite's SQL. Statements only read. Stores are tables; their columns hold the fields as stored."
    command.epilog = 'For example: atoma query app.db "SELECT lane, count(*) FROM cards WHERE team=:team GROUP BY lane" --param team=red'
    add_file(command)
    command.add_argument("sql", metavar="SQL", help="one statement; - reads it from the standard input")
    command.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="the value of :NAME, as text; may be repeated",
    )
    command.add_argument(
        "--limit",
        type=whole_number,
        default=ROWS_SHOWN,
        metavar="ROWS",
        help="print at most this many rows; 0 prints all (default %(default)s)",
    )
    answers(command, _query)


def _query(options: argparse.Namespace) -> Report:
    text: str = _from_stdin() if options.sql == "-" else options.sql
    found = ask(options.file, text, dict(_named(each) for each in options.param), options.limit, keys.key_of(options))
    return Report(found, lambda: _print_answer(found))


def _from_stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the standard input is not text: {error}") from None


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigurationError(f"--param takes a name and a value, as in team=red, not {text!r}")
    return name, value


def _print_answer(found: Answer) -> None:
    print_table(found.columns, found.rows)
    if found.more:
        print("… and more; --limit 0 prints all of them", file=sys.stderr)


# atoma check


def add_check(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma check``."""
    command.description = (
        "Check a whole file: its pages, its indexes, the types of its values, and the writes that wait to be sent. "
        f"The exit code is {Exit.FOUND.value} if something is wrong."
    )
    add_file(command)
    answers(command, _check)


def _check(options: argparse.Namespace) -> Report:
    with progress(f"checking {options.file}") as told:
        problems = check_file(options.file, told, keys.key_of(options))
    if not problems:
        return said({"file": options.file, "problems": []}, f"{options.file}: sound")
    helps = "Stop the programs that have the file open, keep a copy of it, and restore a backup."
    return unsound(options.file, {"file": options.file, "problems": problems}, problems, helps)


# atoma backup


def add_backup(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma backup``."""
    command.description = (
        "Copy a file in one consistent state, while programs go on writing. The copy is checked, and appears under its name as a whole or "
        "not at all."
    )
    command.epilog = (
        "A device's file that is restored from a copy takes a new identity at its next contact with the hub."
    )
    add_file(command)
    command.add_argument("to", metavar="TO", help="the backup; it must not exist")
    answers(command, _backup)


def _backup(options: argparse.Namespace) -> Report:
    with progress(f"copying {options.file}", sizes=True) as told:
        made = back_up(options.file, options.to, told, keys.key_of(options))
    data = {"file": options.file, "copy": options.to, "layout": made.layout, "bytes": made.bytes}
    return said(data, f"{options.to}: {WHOSE[made.layout]}, {size(made.bytes)}, checked, on the disk")
