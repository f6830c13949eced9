"""Parses the command line, runs one command and turns what goes wrong into a sentence and an exit code.

===========  ==================================================================
``demo``     ``atoma demo``: two devices and a hub
``sync``     ``atoma sync …``: a device's file
``hub``      ``atoma hub …``: a hub, and its file
``migrate``  ``atoma migrate``: a file, and the schema of an application
``words``    how all of them print
===========  ==================================================================
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from atoma.cli import demo, hub, migrate, sync
from atoma.errors import AtomaError
from atoma.ports.tasks import single_error

EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 1 it failed, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BaseExceptionGroup as group:
        error = single_error(group)
        if isinstance(error, KeyboardInterrupt):
            return EXIT_INTERRUPTED
        raise
    except AtomaError as error:
        print(f"atoma: {error}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    """A parser that takes options by their whole names only: what begins like one is a slip, perhaps with a secret."""

    def __init__(self, **options: Any) -> None:
        options["allow_abbrev"] = False
        super().__init__(**options)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="atoma", description="An embedded, reactive, offline-first database runtime.")
    parser.add_argument("--version", action="version", version=f"atoma {version('atoma-runtime')}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo.add_command(commands.add_parser("demo", help="two devices and a hub"))
    sync.add_commands(commands.add_parser("sync", help="look at a device's file, and repair it"))
    hub.add_commands(commands.add_parser("hub", help="run a hub, back its file up, restore it, see its epochs"))
    told = "bring a file to the schema of your application, or say what that would do"
    migrate.add_command(commands.add_parser("migrate", help=told))
    return parser
