"""The migration of a database from an earlier version to that of the schema, in the transaction that opens it.

A table is altered in place, so that privileges and foreign keys of other programs stay: new columns are added, every row is
converted, then the old columns are dropped. Meanwhile nobody else may have the stores open: see
:mod:`atoma_stores.postgres.fence`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import msgspec

from atoma.contracts.values import RowImage
from atoma.errors import ValidationError
from atoma.schema.kinds import SqlType
from atoma.schema.left_values import json_from_stored, values_from_json
from atoma.schema.migrations import Past
from atoma.schema.schema import Schema
from atoma.schema.spec import AnyStore
from atoma_stores.postgres.intake_ddl import TABLE as INTAKE
from atoma_stores.sql.dialect import HUB_SCHEMA, POSTGRESQL
from atoma_stores.sql.hub import tables
from atoma_stores.sql.hub.migrating import check_statements, convert_log
from atoma_stores.sql.migrating import (
    ASIDE,
    QUARANTINE,
    Conversion,
    ConversionProgress,
    MigrationReport,
    Rewriting,
    check_columns,
    convert_rows,
    renames,
)
from atoma_stores.sql.names import SYSTEM_COLUMNS, quote
from atoma_stores.sql.scripts import Execute, ExecuteMany, Row, Script
from atoma_stores.sql.tables import Column

SqlColumnForms: TypeAlias = Mapping[str, tuple[SqlType, bool]]
"""The type of each column of a table, by SQLite's name, and whether it may be NULL."""

_ASIDE = POSTGRESQL.insert(POSTGRESQL.table(QUARANTINE.name), ASIDE)
_KEY = ("_scope", "id")
_LEFT = (
    f"SELECT n, store, vals::text FROM {INTAKE} WHERE answer IS NULL AND store=ANY($1::text[]) ORDER BY n FOR UPDATE"
)
_TURN_LEFT = (
    f"UPDATE {INTAKE} AS old SET vals=k.vals::jsonb FROM unnest($1::bigint[], $2::text[]) AS k(n, vals) WHERE old.n=k.n"
)

_log = logging.getLogger("atoma.migrating")


def migrate(
    schema: Schema, since: int, stores: Mapping[str, SqlColumnForms], told: ConversionProgress
) -> Script[MigrationReport]:
    """Convert everything that steps concern; additions and indexes are left to the caller.

    Args:
        schema: The declared stores.
        since: The current version of the database.
        stores: The columns of each store that has a table.
        told: Called with the progress.

    Raises:
        MigrationError: The database is not as the steps say it was.
    """
    report = MigrationReport(since, schema.version)
    conversion = Conversion(schema, since)
    yield POSTGRESQL.lock_all(tables.SCOPE)
    yield from convert_log(POSTGRESQL, conversion, _ASIDE)
    for name, past in conversion.pasts.items():
        if name in stores:
            yield from _convert_store(schema.stores[name], past, conversion, stores[name], report, told)
    yield from _convert_left(conversion)
    yield from check_statements(POSTGRESQL, schema, since, stores.__contains__)
    report.quarantined = conversion.put_aside
    if report.quarantined:
        _log.warning(
            "%d values could not be converted; they are in %s.%s", report.quarantined, HUB_SCHEMA, QUARANTINE.name
        )
    return report


def _convert_left(conversion: Conversion) -> Script[None]:
    """Convert the writes that other programs have left and no hub has decided, as they refer to the old columns.

    A write that cannot be converted stays as it is, and the hub refuses it. The digest is that of the original write, so that
    the same write, if it is repeated, is recognised.
    """
    (left,) = yield [Execute(_LEFT, (list(conversion.pasts),))]
    turned: list[Row] = []
    for n, store, told in cast("Sequence[tuple[int, str, str]]", left):
        past = conversion.pasts[store]
        with contextlib.suppress(ValidationError):
            now = past.upgrade(cast("RowImage", values_from_json(told, past.fields)))
            turned.append((n, msgspec.json.encode({name: json_from_stored(of) for name, of in now.items()}).decode()))
    if turned:
        yield [ExecuteMany(_TURN_LEFT, turned)]


def _convert_store(
    store: AnyStore,
    past: Past,
    conversion: Conversion,
    there: SqlColumnForms,
    report: MigrationReport,
    told: ConversionProgress,
) -> Script[None]:
    values = {name: of for name, of in there.items() if name not in ("id", *SYSTEM_COLUMNS)}
    check_columns(store, past, report.since, values)
    table = POSTGRESQL.store(store.name)
    if (renamed := renames(table, past, values)) is not None:  # values stay in place, so that no row is touched
        yield from _alter(renamed, report)
        return
    # a field that no step names is the same in both
    changed = [name for name in store.value_columns if past.fields.get(name) is not store.fields[name]]
    beside = {name: f"_atoma_new_{number}" for number, name in enumerate(changed)}
    yield from _alter([f"ALTER TABLE {table} {_added(store, name, beside[name])}" for name in changed], report)
    put = POSTGRESQL.update(
        table, dict.fromkeys(_KEY, "TEXT"), {beside[name]: store.fields[name].sql_type for name in changed}
    )
    rows = Rewriting(
        table, _KEY, (), tuple(values), frozenset(),
        put=put, to=tuple(changed), drop=POSTGRESQL.delete(table, dict.fromkeys(_KEY, "TEXT")), aside=_ASIDE,
    )  # fmt: skip
    report.rows[store.name] = yield from convert_rows(POSTGRESQL, conversion, past, rows, told)
    gone = [name for name in values if name not in store.fields or name in beside]
    yield from _alter(
        [
            *(f"ALTER TABLE {table} DROP COLUMN {quote(name)}" for name in gone),
            *(f"ALTER TABLE {table} RENAME COLUMN {beside[name]} TO {quote(name)}" for name in changed),
            *(
                f"ALTER TABLE {table} ALTER COLUMN {quote(name)} SET NOT NULL"
                for name in changed
                if not store.fields[name].nullable
            ),
        ],
        report,
    )


def _added(store: AnyStore, name: str, beside: str) -> str:
    return f"ADD COLUMN {POSTGRESQL.column(Column(beside, store.fields[name].sql_type, nullable=True))}"


def _alter(statements: Sequence[str], report: MigrationReport) -> Script[None]:
    if statements:
        yield [Execute(statement) for statement in statements]
        report.statements += statements
