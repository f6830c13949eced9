"""What a command answers: one value, printed as JSON for programs or as people read it, and its exit code."""

from __future__ import annotations

import argparse
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atoma.cli.words import count


class Exit(enum.IntEnum):
    """The exit codes of commands, for the shell."""

    DONE = 0
    """It did what it was asked to."""
    FAILED = 1
    """It could not; the line on the standard error stream says why."""
    USAGE = 2
    """The command line makes no sense."""
    FOUND = 3
    """It did, and there is something for you: a damaged file, rejected rows, a condition that needs help."""
    INTERRUPTED = 130
    """Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of a command: what it has done or found.

    Attributes:
        data: For programs: what ``--json`` prints.
        show: Prints the same for people.
        exit: How the command ends.
    """

    data: object
    show: Callable[[], None]
    exit: Exit = Exit.DONE


Run: TypeAlias = Callable[[argparse.Namespace], Report]


def answers(command: argparse.ArgumentParser, run: Run) -> None:
    """Let ``command`` answer with what ``run`` reports, as JSON where that is asked for."""
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def unsound(where: str, data: object, problems: Sequence[str], helps: str) -> Report:
    """A report of what is wrong in a file or a database, one problem a line, and what helps."""
    lines = [f"{where}: {count(len(problems), 'problem')}", *(f"  {each}" for each in problems), helps]
    return Report(data, lambda: print(*lines, sep="\n"), Exit.FOUND)


def said(data: object, *lines: str) -> Report:
    """A report that people read as these lines."""
    return Report(data, lambda: print(*lines, sep="\n"))
