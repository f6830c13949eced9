"""``atoma migrate``: migrates the file of a device or a hub, or a hub's database on PostgreSQL, to an application's schema."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import trio

from atoma.cli import keys, schemas
from atoma.cli.files import WHOSE
from atoma.cli.reports import Report, answers
from atoma.cli.screen import progress
from atoma.cli.serving import POSTGRESQL, postgresql_at
from atoma.cli.words import count, pairs
from atoma.schema import Schema
from atoma_stores.sqlite.migration_files import Migrated, migrate_file


def add_command(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    command.description = (
        "Migrate the file of a device or a hub, or a hub's database on PostgreSQL, to your application's schema, as opening it "
        "would. Stop the programs that have it open first. If migration steps convert rows, a copy of the file as it was stays "
        "beside it; for a database, make a dump first."
    )
    command.add_argument("where", metavar="WHERE", help="the file, or postgresql://user@host/database")
    keys.add_option(command)
    schemas.add_option(command)
    command.add_argument("--plan", action="store_true", help="only say what would be done; nothing is changed")
    answers(command, _run)


def _run(options: argparse.Namespace) -> Report:
    schema, where = schemas.load(options.schema), options.where
    with progress(f"migrating {where}") as told:

        def told_rows(_store: str, rows: int, total: int) -> None:
            told(rows, total)

        if where.startswith(POSTGRESQL):
            store = postgresql_at(where)
            report = trio.run(partial(store.migrate, schema, told_rows, plan=options.plan))
            done, whose = Migrated("hub", report, None), "a hub's database"
        else:
            done = migrate_file(where, schema, told_rows, plan=options.plan, key=keys.key_of(options))
            whose = WHOSE[done.layout]
    data = {"layout": done.layout, "copy": done.copy, "planned": options.plan, **_facts(done)}
    return Report(data, lambda: _print(f"{where}: {whose}", schema, done, planned=options.plan))


def _facts(done: Migrated) -> dict[str, object]:
    report = done.report
    return {
        "since": report.since, "version": report.version, "rows": report.rows, "pending": report.pending,
        "quarantined": report.quarantined, "statements": report.statements,
    }  # fmt: skip


def _print(whose: str, schema: Schema, done: Migrated, *, planned: bool) -> None:
    report = done.report
    print(f"{whose}, version {report.since} → {report.version}")
    aside = f"{count(report.quarantined, 'value')} that cannot be converted; see `atoma quarantine list`"
    pairs([*_listed("step", _steps(schema, report.since)), *_listed("statement", iter(report.statements))], indent=2)
    pairs(
        [
            *((f"rows of {store}", f"{rows:,}") for store, rows in report.rows.items()),
            ("writes that wait", report.pending or None),
            ("put aside", aside if report.quarantined else None),
            ("copy", done.copy),
        ],
        indent=2,
    )
    print("Nothing was changed." if planned else "Done.")


def _steps(schema: Schema, since: int) -> Iterator[str]:
    for to in sorted(schema.steps):
        if to > since:
            yield from (f"to {to}: {step!r}" for step in schema.steps[to])


def _listed(name: str, values: Iterator[str]) -> list[tuple[str, object]]:
    return [(name, value) for value in values]
