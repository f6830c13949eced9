"""``atoma migrate``: brings the file of a device or a hub to the schema of an application, or says what that would do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from atoma.cli.serving import load_schema
from atoma.cli.words import count, pairs, print_json
from atoma.schema import Schema
from atoma_stores.sqlite.migration_files import Migrated, migrate_file

_WHOSE = {"client": "a device's file", "hub": "a hub's file"}


def add_command(command: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    command.description = (
        "Bring the file of a device or a hub to the schema of your application, as opening it would. The programs that have it "
        "open are to be stopped. A copy of before is left beside it where steps convert rows."
    )
    command.add_argument("file", metavar="FILE", help="the file")
    command.add_argument("--schema", required=True, metavar="MODULE:NAME", help="the Schema of your application")
    command.add_argument("--plan", action="store_true", help="only say what would be done; the file is left as it is")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    schema = load_schema(options.schema)
    done = migrate_file(options.file, schema, _tell, plan=options.plan)
    if options.json:
        print_json({"layout": done.layout, "copy": done.copy, "planned": options.plan, **_facts(done)})
    else:
        _print(options.file, schema, done, planned=options.plan)
    return 0


def _facts(done: Migrated) -> dict[str, object]:
    report = done.report
    return {
        "since": report.since, "version": report.version, "rows": report.rows, "pending": report.pending,
        "quarantined": report.quarantined, "statements": report.statements,
    }  # fmt: skip


def _tell(store: str, done: int, total: int) -> None:
    print(f"{store}: {done:,} of {total:,} rows", file=sys.stderr)


def _print(path: str, schema: Schema, done: Migrated, *, planned: bool) -> None:
    report = done.report
    print(f"{path}: {_WHOSE[done.layout]}, version {report.since} → {report.version}")
    aside = f"{count(report.quarantined, 'value')} that cannot be converted, in _atoma_quarantine"
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
