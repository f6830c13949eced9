"""``atoma export`` and ``atoma import``: write the rows of a store to a file, and read them from one."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_args

import trio

from atoma.cli import schemas
from atoma.cli.offline import add_device_file, open_offline
from atoma.cli.reports import Exit, Report, answers, said
from atoma.cli.screen import cell, progress
from atoma.cli.words import count
from atoma.runtime import Store
from atoma.runtime.table_files import FileFormat
from atoma.runtime.transfer import ImportConflict, ImportReport

T = TypeVar("T")
SHOWN = 10


def add_export(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma export``."""
    command.description = (
        "Write every row of a store to a file, which appears as a whole or not at all. The program may be running."
    )
    _add_common(command)
    command.add_argument("to", metavar="TO", help="the file to write; it must not exist")
    answers(command, _export)


def add_import(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma import``."""
    command.description = (
        "Write the rows of a file into a store as the application would: checked, with hooks, and sent to the hub with its next sync. Rows "
        f"that exist with the same values are skipped, so an import may be repeated. The exit code is {Exit.FOUND.value} if lines are refused."
    )
    _add_common(command)
    command.add_argument("source", metavar="FROM", help="the file to read")
    command.add_argument(
        "--conflict",
        choices=get_args(ImportConflict),
        default="insert",
        help="whether insert refuses rows whose id exists with other values, or upsert changes them (default insert)",
    )
    command.add_argument("--rejected", metavar="OUT", help="write every refused line to this file, with the reason")
    answers(command, _import)


def _add_common(command: argparse.ArgumentParser) -> None:
    add_device_file(command)
    command.add_argument("store", metavar="STORE", help="the store")
    schemas.add_option(command)
    command.add_argument(
        "--format", choices=get_args(FileFormat), help="the format of the file (default: by the ending of its name)"
    )


def _export(options: argparse.Namespace) -> Report:
    with progress(f"exporting {options.store}") as told:
        rows = _with_store(options, lambda store: store.export(options.to, format=options.format, progress=told))
    return said({"file": options.to, "store": options.store, "rows": rows}, f"{options.to}: {count(rows, 'row')}")


def _import(options: argparse.Namespace) -> Report:
    with progress(f"importing {options.source}", sizes=True) as told:
        found = _with_store(
            options,
            lambda store: store.import_(
                options.source,
                conflict=options.conflict,
                format=options.format,
                rejected=options.rejected,
                progress=told,
            ),
        )
    return Report(found, lambda: _print(options, found), Exit.FOUND if found.rejected else Exit.DONE)


def _with_store(options: argparse.Namespace, work: Callable[[Store[Any]], Awaitable[T]]) -> T:
    schema = schemas.load(options.schema)
    spec = schema.store(options.store)

    async def run() -> T:
        async with open_offline(options, schema) as client:
            return await work(client.store(spec))

    return trio.run(run)


def _print(options: argparse.Namespace, found: ImportReport) -> None:
    there = f", {found.present:,} already there" if found.present else ""
    refused = f", {count(found.rejected, 'line')} refused" if found.rejected else ""
    print(f"{options.source}: {count(found.written, 'row')} written to {options.store}{there}{refused}")
    for each in found.first[:SHOWN]:
        print(f"  line {each.line}: {cell(each.message)}")
    if found.rejected > SHOWN:
        where = options.rejected or "--rejected OUT writes all of them"
        print(f"  … and {found.rejected - SHOWN:,} more; {where}")
