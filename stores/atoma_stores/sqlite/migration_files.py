"""Bringing a file to a schema from outside its program, or seeing what that would do."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from atoma.schema.schema import Schema
from atoma_stores.sql.migrating import ConversionProgress, MigrationReport
from atoma_stores.sqlite import hub_driver
from atoma_stores.sqlite._internals import CLIENT_ADDITIONS, CLIENT_TABLES
from atoma_stores.sqlite.connections import open_existing, transaction
from atoma_stores.sqlite.copies import copy_before_steps
from atoma_stores.sqlite.ddl import Layout, allow_writes, is_guarded, prepare_file
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.files import layout_of
from atoma_stores.sqlite.hub_files import look_whose_log
from atoma_stores.sqlite.hub_lock import sole_hub


@dataclass(frozen=True, slots=True)
class Migrated:
    """The result for a file, or what it would be.

    Attributes:
        layout: Whose file it is.
        report: What was done, or would be.
        copy: Where the copy of before stands; None where none was needed.
    """

    layout: Layout
    report: MigrationReport
    copy: str | None


def migrate_file(
    path: str, schema: Schema, told: ConversionProgress, *, plan: bool = False, key: FileKey | None = None
) -> Migrated:
    """Bring the file of a device or a hub to ``schema``, as opening it would; with ``plan`` everything is taken back.

    Args:
        path: The file; a hub on it has to be stopped, as has a device's program unless it is a plan.
        schema: The stores of the application.
        told: Called with how far it is.
        plan: Only say what would be done.
        key: That of an encrypted file.

    Raises:
        MigrationError: A change needs a step, or the file is newer than the schema.
        StoreBusy: A hub is running on it.
        StoreError: It is not a file of ours, or cannot be read or written.
        ConfigurationError: There is none.
    """
    look_whose_log(path)
    with ExitStack() as stack:
        connection = stack.enter_context(open_existing(path, writing=True, key=key))
        layout = layout_of(connection)
        if layout == "hub":
            stack.enter_context(sole_hub(path))
        allow_writes(connection)
        copy = None if plan else copy_before_steps(connection, schema, None, key)
        with transaction(connection, "BEGIN IMMEDIATE", "ROLLBACK" if plan else "COMMIT"):
            if layout == "hub":
                internals, additions = hub_driver.INTERNALS, hub_driver.ADDITIONS
            else:
                internals, additions = CLIENT_TABLES, CLIENT_ADDITIONS
            synced = frozenset(name for name in schema.stores if is_guarded(connection, name))
            report = prepare_file(
                connection, schema, layout=layout, synced=synced, internals=internals, additions=additions, told=told
            )
        return Migrated(layout, report, copy)
