"""Bringing a file to a schema from outside its program, or seeing what that would do."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import apsw

from atoma.errors import StoreCorrupt
from atoma.schema.spec import Schema
from atoma_stores.sqlite import hub_driver
from atoma_stores.sqlite._internals import CLIENT_ADDITIONS, CLIENT_TABLES
from atoma_stores.sqlite.connections import open_existing
from atoma_stores.sqlite.copies import copy_before_steps
from atoma_stores.sqlite.ddl import Layout, allow_writes, check_layout, is_guarded, prepare_file
from atoma_stores.sqlite.hub_files import look_whose_log
from atoma_stores.sqlite.hub_lock import sole_hub
from atoma_stores.sqlite.meta import read_meta
from atoma_stores.sqlite.migrating import MigrationReport, Told


@dataclass(frozen=True, slots=True)
class Migrated:
    """What became of a file, or would.

    Attributes:
        layout: Whose file it is.
        report: What was done, or would be.
        copy: Where the copy of before stands; None where none was needed.
    """

    layout: Layout
    report: MigrationReport
    copy: str | None


def migrate_file(path: str, schema: Schema, told: Told, *, plan: bool = False) -> Migrated:
    """Bring the file of a device or a hub to ``schema``, as opening it would; with ``plan`` everything is taken back.

    Args:
        path: The file; a hub on it has to be stopped, as has a device's program unless it is a plan.
        schema: The stores of the application.
        told: Hears how far it is.
        plan: Only say what would be done.

    Raises:
        MigrationError: A change needs a step, or the file is newer than the schema.
        StoreBusy: A hub is running on it.
        StoreError: It is no file of ours, or cannot be read or written.
        ConfigurationError: There is none.
    """
    look_whose_log(path)
    with ExitStack() as stack:
        connection = stack.enter_context(open_existing(path, writing=True))
        layout = _layout(connection)
        if layout == "hub":
            stack.enter_context(sole_hub(path))
        allow_writes(connection)
        copy = None if plan else copy_before_steps(connection, schema, None)
        with _transaction(connection, "ROLLBACK" if plan else "COMMIT"):
            if layout == "hub":
                internals, additions = hub_driver.INTERNALS, hub_driver.ADDITIONS
            else:
                internals, additions = CLIENT_TABLES, CLIENT_ADDITIONS
            synced = frozenset(name for name in schema.stores if is_guarded(connection, name))
            report = prepare_file(
                connection, schema, layout=layout, synced=synced, internals=internals, additions=additions, told=told
            )
        return Migrated(layout, report, copy)


def _layout(connection: apsw.Connection) -> Layout:
    found = (
        read_meta(connection, "layout")
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name='_atoma_meta'").get
        else None
    )
    if found not in ("client", "hub"):
        raise StoreCorrupt(f"{connection.filename}: this is no database of Atoma's; choose another file")
    check_layout(connection, found)
    return found


@contextmanager
def _transaction(connection: apsw.Connection, end: Literal["COMMIT", "ROLLBACK"]) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute(end)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
