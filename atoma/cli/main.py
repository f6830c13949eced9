"""Parses the command line, runs one command and turns what goes wrong into a sentence and an exit code.

==============  ====================================================================
``demo``        ``atoma demo``: two devices and a hub
``sync``        ``atoma sync …``: a device's file
``waiting``     ``atoma outbox …``, ``atoma inbox …``: what waits in a device's file
``hub``         ``atoma hub …``: a hub's file: backup, restore, epochs
``serving``     ``atoma hub serve``: a hub on a port
``setup``       ``atoma hub init``: what that needs
``tokens``      ``atoma hub tokens …``: who gets in
``upkeep``      ``atoma hub new-epoch``, ``compact``, ``verify``
``migrate``     ``atoma migrate``: a file, and the schema of an application
``quarantine``  ``atoma quarantine …``: what migrations could not convert
``files``       ``atoma query``, ``check``, ``backup``: any file
``watching``    ``atoma top``: what happens in a file
``inspecting``  ``atoma inspect``: the inspector's page over a device's file
``doctor``      ``atoma doctor``: what is wrong, and what helps
``completion``  ``atoma completion``: what a shell needs to complete commands
``assistants``  ``atoma mcp``: a file, for a coding assistant
``transfer``    ``atoma export``, ``atoma import``: rows into files, and out of them
``keys``        the key of an encrypted file
``offline``     a device's file, opened without a hub
``schemas``     the schema of an application, by its name
``reports``     what a command answers, and its exit code
``screen``      tables and progress
``words``       how values are written
``numbers``     how numbers are read
==============  ====================================================================
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from atoma.cli import (
    assistants,
    completion,
    demo,
    doctor,
    files,
    hub,
    inspecting,
    keys,
    migrate,
    quarantine,
    sync,
    transfer,
    waiting,
    watching,
)
from atoma.cli.reports import Exit, Report
from atoma.cli.words import print_json
from atoma.contracts.extras import DISTRIBUTION
from atoma.errors import AtomaError
from atoma.ports.tasks import single_error

_EXITS = "exit codes:\n" + "\n".join(
    f"  {code.value:<4} {told}"
    for code, told in (
        (Exit.DONE, "done"),
        (Exit.FAILED, "it failed; one line says why"),
        (Exit.USAGE, "wrong usage"),
        (Exit.FOUND, "done, and there is something to look at: damage, rejected rows, a condition"),
        (Exit.INTERRUPTED, "interrupted"),
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see :class:`atoma.cli.reports.Exit`."""
    options = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], Report | Exit] = options.run
    try:
        return _finish(run(options), options)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BaseExceptionGroup as group:
        error = single_error(group)
        if isinstance(error, KeyboardInterrupt):
            return Exit.INTERRUPTED
        raise
    except AtomaError as error:
        message = keys.told(error)
        print(f"atoma: {message}", file=sys.stderr)
        if getattr(options, "json", False):
            print_json({"error": {"code": error.code, "type": type(error).__name__, "message": message}})
        return Exit.FAILED
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE


def _finish(report: Report | Exit, options: argparse.Namespace) -> Exit:
    if isinstance(report, Exit):
        return report
    if options.json:
        print_json(report.data)
    else:
        report.show()
    sys.stdout.flush()
    return report.exit


class _Parser(argparse.ArgumentParser):
    """A parser that takes options by their whole names only: what begins like one is a slip, perhaps with a secret."""

    def __init__(self, **options: Any) -> None:
        options["allow_abbrev"] = False
        super().__init__(**options)


def parser() -> argparse.ArgumentParser:
    """Everything that the command line takes."""
    found = _Parser(
        prog="atoma",
        description="An embedded, reactive, offline-first database runtime.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--version", action="version", version=f"atoma {version(DISTRIBUTION)}")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    demo.add_command(commands.add_parser("demo", help="two devices and a hub"))
    files.add_query(commands.add_parser("query", help="ask a file in SQL"))
    watching.add_command(commands.add_parser("top", help="watch what happens in a file"))
    inspecting.add_command(commands.add_parser("inspect", help="look into a device's file in a browser"))
    doctor.add_command(commands.add_parser("doctor", help="say what is wrong with a file, and what helps"))
    files.add_check(commands.add_parser("check", help="read a file through and say whether it is sound"))
    files.add_backup(commands.add_parser("backup", help="copy a file, also while programs write to it"))
    assistants.add_command(commands.add_parser("mcp", help="let a coding assistant ask about a file"))
    transfer.add_export(commands.add_parser("export", help="write the rows of a store to a file"))
    transfer.add_import(commands.add_parser("import", help="write the rows of a file into a store"))
    told = "bring a file to the schema of your application, or say what that would do"
    migrate.add_command(commands.add_parser("migrate", help=told))
    told = "what migrations of a file could not convert: list, bring back, discard"
    quarantine.add_command(commands.add_parser("quarantine", help=told))
    sync.add_commands(commands.add_parser("sync", help="look at a device's file, and repair it"))
    waiting.add_outbox(
        commands.add_parser(
            "outbox", help="what a device's file has to send: list, retry, hold, release, edit, discard"
        )
    )
    waiting.add_inbox(commands.add_parser("inbox", help="what came back to a device's file: keep mine, or take theirs"))
    hub.add_commands(commands.add_parser("hub", help="set a hub up and run it; who gets in, backups, restores, upkeep"))
    completion.add_command(commands.add_parser("completion", help="let your shell complete commands"), parser)
    return found
