"""The answer of a command: one value, printed as JSON for programs or in a form for people, and its exit code."""

from __future__ import annotations

import argparse
import enum
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atoma.cli.words import count


class Exit(enum.IntEnum):
    """The exit codes of commands, for the shell."""

    DONE = 0
    """The command did what it was asked to do."""
    FAILED = 1
    """The command failed; the line on standard error says why."""
    USAGE = 2
    """The command line is wrong."""
    FOUND = 3
    """The command was carried out, and there is something to look at: a damaged file, rejected rows, a finding."""
    INTERRUPTED = 130
    """Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of a command: what it did or found.

    Attributes:
        data: The value that ``--json`` prints, for programs.
        show: A function that prints the same for people.
        exit: The exit code of the command.
    """

    data: object
    show: Callable[[], None]
    exit: Exit = Exit.DONE


RunCommand: TypeAlias = Callable[[argparse.Namespace], Report]
# argparse has no public name for it
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # pyright: ignore[reportPrivateUsage]


def answers(command: argparse.ArgumentParser, run: RunCommand) -> None:
    """Let ``command`` print what ``run`` reports, as JSON if ``--json`` is given."""
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def commands_of(parser: argparse.ArgumentParser) -> Commands:
    """Return the commands of ``parser``, to be added; if none of them is given, its help is printed."""

    def run(options: argparse.Namespace) -> Exit:
        parser.print_help(sys.stderr)
        return Exit.USAGE

    parser.set_defaults(run=run)
    return parser.add_subparsers(metavar="COMMAND", title="commands")


def unsound(where: str, data: object, problems: Sequence[str], helps: str) -> Report:
    """Return a report of the problems in a file or a database, one a line, and what to do."""
    lines = [f"{where}: {count(len(problems), 'problem')}", *(f"  {each}" for each in problems), helps]
    return Report(data, lambda: print(*lines, sep="\n"), Exit.FOUND)


def said(data: object, *lines: str) -> Report:
    """Return a report that is printed for people as these lines."""
    return Report(data, lambda: print(*lines, sep="\n"))
