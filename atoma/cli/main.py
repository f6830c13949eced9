"""The entry point: parses the command line, runs one command and turns errors into a message and an exit code.

==============  ====================================================================
``demo``        ``atoma demo``: two devices and a hub
``sync``        ``atoma sync …``: a device's file
``waiting``     ``atoma outbox …``, ``atoma inbox …``: the outbox and the inbox of a device's file
``hub``         ``atoma hub …``: a hub's file: backup, restore, epochs
``serving``     ``atoma hub serve``: a hub on a port
``setup``       ``atoma hub init``: creates what a hub needs
``tokens``      ``atoma hub tokens …``: who is admitted
``upkeep``      ``atoma hub new-epoch``, ``compact``, ``verify``
``migrate``     ``atoma migrate``: a file, and the schema of an application
``quarantine``  ``atoma quarantine …``: what migrations could not convert
``files``       ``atoma query``, ``check``, ``backup``: any file
``watching``    ``atoma top``: what is happening in a file
``inspecting``  ``atoma inspect``: the inspector's page for a device's file
``doctor``      ``atoma doctor``: what is wrong, and what to do
``completion``  ``atoma completion``: code with which a shell completes commands
``assistants``  ``atoma mcp``: a file, for a coding assistant
``transfer``    ``atoma export``, ``atoma import``: rows to files, and back
``keys``        the key of an encrypted file
``offline``     a device's file, opened without a hub
``schemas``     the schema of an application, by its name
``reports``     the answer of a command, and its exit code
``screen``      tables and progress
``words``       how values are printed
``numbers``     numbers in options
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
from atoma.cli.reports import Exit, Report, commands_of
from atoma.cli.words import print_json
from atoma.contracts.extras import DISTRIBUTION
from atoma.errors import AtomaError
from atoma.ports.tasks import single_error

_EXITS = "exit codes:\n" + "\n".join(
    f"  {code.value:<4} {told}"
    for code, told in (
        (Exit.DONE, "done"),
        (Exit.FAILED, "failed; one line on standard error says why"),
        (Exit.USAGE, "wrong usage"),
        (Exit.FOUND, "done, with something to look at: a damaged file, rejected rows, a finding"),
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
    """A parser that takes options by their full names only: an abbreviation is a slip, perhaps with a secret."""

    def __init__(self, **options: Any) -> None:
        options["allow_abbrev"] = False
        super().__init__(**options)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    found = _Parser(
        prog="atoma",
        description="An embedded, reactive, offline-first database runtime.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--version", action="version", version=f"atoma {version(DISTRIBUTION)}")
    commands = commands_of(found)
    demo.add_command(commands.add_parser("demo", help="show two devices and a hub in a browser"))
    files.add_query(commands.add_parser("query", help="query a file in SQL"))
    watching.add_command(commands.add_parser("top", help="show what is happening in a file"))
    inspecting.add_command(commands.add_parser("inspect", help="inspect a device's file in a browser"))
    doctor.add_command(commands.add_parser("doctor", help="say what is wrong with a file and what to do"))
    files.add_check(commands.add_parser("check", help="check a whole file and say whether it is intact"))
    files.add_backup(commands.add_parser("backup", help="copy a file, even while programs write to it"))
    assistants.add_command(commands.add_parser("mcp", help="let a coding assistant query a file"))
    transfer.add_export(commands.add_parser("export", help="write the rows of a store to a file"))
    transfer.add_import(commands.add_parser("import", help="write the rows of a file into a store"))
    told = "migrate a file to your application's schema, or say what that would do"
    migrate.add_command(commands.add_parser("migrate", help=told))
    told = "handle values that migrations could not convert: list, bring back, discard"
    quarantine.add_command(commands.add_parser("quarantine", help=told))
    sync.add_commands(commands.add_parser("sync", help="show the replication of a device's file, and repair it"))
    waiting.add_outbox(
        commands.add_parser(
            "outbox", help="manage the writes that wait to be sent: list, retry, hold, release, edit, discard"
        )
    )
    waiting.add_inbox(
        commands.add_parser("inbox", help="manage the changes that the hub refused: keep mine, or take theirs")
    )
    hub.add_commands(
        commands.add_parser("hub", help="set up, run and maintain a hub: tokens, backups, restores, upkeep")
    )
    completion.add_command(
        commands.add_parser("completion", help="print the code with which your shell completes commands"), parser
    )
    return found
