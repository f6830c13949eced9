"""Tables from declared stores: creation, additive changes, and refusal of everything else before anything is touched."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import apsw

from atoma.contracts.codec import encode
from atoma.contracts.query import Expr, Order
from atoma.contracts.values import HIDDEN, Scalar
from atoma.errors import MigrationError, StoreCorrupt
from atoma.query.indexes import indexes_of
from atoma.schema.fields import Field
from atoma.schema.hiding import GIVEN_UP
from atoma.schema.schema import Schema
from atoma.schema.spec import AnyStore
from atoma_stores.sql.defaults import check_new_field, constant_defaults
from atoma_stores.sql.indexes import index_columns, index_name, index_where
from atoma_stores.sql.migrating import (
    ColumnForms,
    ConversionProgress,
    MigrationReport,
    check_scope,
    is_due,
    log_progress,
    scope_fact,
)
from atoma_stores.sql.names import SYSTEM_COLUMNS, quote
from atoma_stores.sqlite import forms, migrating
from atoma_stores.sqlite._others import call_ours, trigger_names, trigger_steps
from atoma_stores.sqlite.assumptions import assume
from atoma_stores.sqlite.meta import META, columns_of, read_meta, write_meta

Layout: TypeAlias = Literal["client", "hub"]

FORMATS: Mapping[Layout, int] = {"client": 2, "hub": 3}
"""What this program makes; it reads everything up to there."""
APPLICATION_ID = 0x41746F6D  # "Atom"
OTHER_SEQ = "_other_seq INTEGER"
"""Only at the hub: sequence of the last change by anybody but the row's author; NULL in rows from before the column."""
GUARD_FUNCTION = "atoma_write_goes_through_the_client"
GUARD_MESSAGE = "this store is synced: write through Atoma, or the change would never reach the hub"


_log = logging.getLogger("atoma.sqlite")


def allow_writes(connection: apsw.Connection) -> None:
    """Let the triggers of stores know that ``connection`` is ours."""
    connection.create_scalar_function(GUARD_FUNCTION, _always, 0, flags=apsw.SQLITE_INNOCUOUS)
    call_ours(connection)


def _always(*_arguments: object) -> int:
    return 1


def check_ours(connection: apsw.Connection) -> None:
    """Refuse a file that another application made, before anything in it is changed.

    Raises:
        StoreCorrupt: The file is a database, but not one of ours.
    """
    application: object = connection.pragma("application_id")
    if application == APPLICATION_ID:
        return
    tables: object = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if application != 0 or tables != 0:
        raise StoreCorrupt(f"{connection.filename}: this is a database of another application; choose another file")


def prepare_file(
    connection: apsw.Connection,
    schema: Schema,
    *,
    layout: Layout,
    synced: frozenset[str] = frozenset(),
    internals: Sequence[str] = (),
    additions: Sequence[tuple[str, str]] = (),
    told: ConversionProgress = log_progress,
) -> MigrationReport:
    """Bring the file to ``schema``, inside the caller's write transaction; what was done.

    What the schema's steps say is carried out, then new stores, nullable or defaulted columns and indexes are added. The
    file's own tables are the truth, so a step that somebody ran by hand with any SQLite tool is seen.

    Args:
        connection: In a write transaction.
        schema: The declared stores.
        layout: ``client`` keys rows by id, ``hub`` by scope and id.
        synced: Stores that get guard triggers.
        internals: Statements that create the internal tables; each does nothing when the table is there.
        additions: Internal tables with the definition of a column that older files lack.
        told: Called with how far steps are.

    Raises:
        MigrationError: The file is newer than the code, or a change needs a step. Nothing was changed.
        StoreCorrupt: The file has the other layout.
    """
    application: object = connection.pragma("application_id")
    fresh = application != APPLICATION_ID
    since = schema.version if fresh else _check_versions(connection, schema, layout)
    prepare_internals(connection, internals, additions)
    report = MigrationReport(since, schema.version)
    if is_due(schema, since):
        report = migrating.migrate(connection, schema, since, layout, _beside(layout), told)
    steps: list[str] = []
    for store in schema.stores.values():
        steps += _store_steps(connection, store, layout, synced, schema)
    forms.allow_unpacking(connection, schema)
    try:
        for statement in steps:
            if not fresh:
                _log.info("%s: %s", connection.filename, statement)
                report.statements.append(statement)
            try:
                connection.execute(statement)
            except apsw.ConstraintError as error:
                raise MigrationError(
                    f"{connection.filename or ':memory:'}: {error}: rows that are there are equal under a unique index; change "
                    f"them with the version before, or declare the index without unique ({statement})"
                ) from error
    finally:
        forms.forbid_unpacking(connection)
    if layout == "hub":
        assume(connection, schema)
    connection.pragma("application_id", APPLICATION_ID)
    facts: dict[str, Scalar] = {"layout": layout, "schema_version": schema.version}
    facts |= {f"store:{store.name}": scope_fact(store) for store in schema.stores.values()}
    if not schema.made_up:
        facts |= {forms.key_of(store.name): forms.told(store) for store in schema.stores.values()}
        facts |= {indexes_key(store.name): _told_indexes(store) for store in schema.stores.values()}
        facts["format"] = FORMATS[layout]
    for key, value in facts.items():
        if read_meta(connection, key) != value:
            write_meta(connection, key, value)
    return report


def prepare_internals(
    connection: apsw.Connection, internals: Sequence[str], additions: Sequence[tuple[str, str]]
) -> None:
    """Create the internal tables that are missing, and the columns that older files lack; see :func:`prepare_file`."""
    for statement in (META, *internals):
        connection.execute(statement)
    for table, column in additions:
        if column.split()[0] not in columns_of(connection, table):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")


def _beside(layout: Layout) -> Callable[[AnyStore], str]:
    """Makes the statement that creates the new table of a store beside the one that is there."""
    return lambda store: create_table(store, layout, of=store.fields)


def _check_versions(connection: apsw.Connection, schema: Schema, layout: Layout) -> int:
    found_version = check_layout(connection, layout)
    if found_version > schema.version:
        raise MigrationError(
            f"{connection.filename or ':memory:'}: the file has schema version {found_version}, the program declares "
            f"{schema.version}; run the newer program, or open a copy from before"
        )
    return found_version


def check_layout(connection: apsw.Connection, layout: Layout) -> int:
    """The schema version that the file is in, if it is one of ours with this layout.

    Raises:
        StoreCorrupt: It is none of ours, or has the other layout.
        MigrationError: It is newer than this program.
    """
    where = connection.filename or ":memory:"
    if connection.pragma("application_id") != APPLICATION_ID:
        raise StoreCorrupt(f"{where}: this is not a database of Atoma's; choose another file")
    found_format, found_version = read_meta(connection, "format"), read_meta(connection, "schema_version")
    if not isinstance(found_format, int) or not isinstance(found_version, int):
        raise StoreCorrupt(f"{where}: the file's own description is missing; restore a copy")
    if read_meta(connection, "layout") != layout:
        raise StoreCorrupt(f"{where}: this is the file of a {read_meta(connection, 'layout')}, not of a {layout}")
    if found_format > FORMATS[layout]:
        raise MigrationError(
            f"{where}: file format {found_format} is newer than this program's {FORMATS[layout]}; update it"
        )
    return found_version


def _store_steps(
    connection: apsw.Connection, store: AnyStore, layout: Layout, synced: frozenset[str], schema: Schema
) -> list[str]:
    forms_known = schema.made_up
    found = columns_of(connection, store.name)
    older: Sequence[Field] = ()
    if not found:
        steps = [create_table(store, layout)]
    else:
        check_scope(store, read_meta(connection, f"store:{store.name}"))
        _check_vanished(connection, store, found, schema)
        steps = []
        if not forms_known:
            older = forms.to_rebuild(
                store.name, store.fields, found, forms.read(read_meta(connection, forms.key_of(store.name)))
            )
        if older:
            steps = forms.rebuild(store, create_table(store, layout, of=found), tuple(found), older)
            found |= {field.name: (field.sql_type, found[field.name][1]) for field in older}
            found |= {OTHER_SEQ.split(maxsplit=1)[0]: ("INTEGER", True)}
        steps += _column_steps(connection, store, found, schema)
        if layout == "hub" and OTHER_SEQ.split(maxsplit=1)[0] not in found:
            steps.append(f"ALTER TABLE {quote(store.name)} ADD COLUMN {OTHER_SEQ}")
    if not forms_known:
        steps += _index_steps(connection, store, layout, store.name in synced, rebuilt=bool(older))
    if layout == "client":
        steps += _guard_steps(connection, store, store.name in synced, rebuilt=bool(older))
    if not forms_known:
        steps += forms.view_steps(connection, store, scoped=layout == "hub", rebuilt=bool(older))
    return steps


def column_definition(field: Field, default: Scalar = None) -> str:
    """One declared column as SQL."""
    definition = f"{quote(field.name)} {field.sql_type}{'' if field.nullable else ' NOT NULL'}"
    return definition if default is None else f"{definition} DEFAULT {apsw.format_sql_value(default)}"


def create_table(store: AnyStore, layout: Layout, *, of: Mapping[str, object] | None = None) -> str:
    """The statement that creates a store's table: STRICT, typed, clustered by its key.

    Args:
        store: The store.
        layout: See :func:`prepare_file`.
        of: Columns of a table that is there and is rebuilt: the new one stands beside it and has no others of the store's.
    """
    fields = [field for name, field in store.fields.items() if name != "id" and (of is None or name in of)]
    columns = [column_definition(field) for field in fields]
    name = store.name if of is None else forms.beside(store.name)
    key = "_scope, id" if layout == "hub" else "id"
    system = "_ver INTEGER NOT NULL, _seq INTEGER NOT NULL DEFAULT 0, _scope TEXT NOT NULL"
    if layout == "hub":
        system = f"{system}, {OTHER_SEQ}"
    body = ", ".join(["id TEXT NOT NULL", *columns, system, f"PRIMARY KEY({key})"])
    return f"CREATE TABLE {quote(name)}({body}) STRICT, WITHOUT ROWID"


def _column_steps(connection: apsw.Connection, store: AnyStore, found: ColumnForms, schema: Schema) -> list[str]:
    defaults = constant_defaults(store)
    table = quote(store.name)
    steps: list[str] = []
    for name, field in store.fields.items():
        if name not in found:
            check_new_field(store, name, defaults)
            steps.append(f"ALTER TABLE {table} ADD COLUMN {column_definition(field, defaults.get(name))}")
        elif name != "id" and found[name] != (field.sql_type, field.nullable):
            was = f"{found[name][0]}{'' if found[name][1] else ' NOT NULL'}"
            raise MigrationError(
                f"store {store.name!r}: field {name!r} is {was} in the file and {column_definition(field)} in the code; say what "
                f"becomes of its values with a step: "
                + _proposal(connection, schema, f'Convert("{store.name}.{name}", FUNCTION, was=TYPE_BEFORE)')
            )
    return steps


def _check_vanished(connection: apsw.Connection, store: AnyStore, found: ColumnForms, schema: Schema) -> None:
    """Refuse a column that is not declared, with the steps that may have been meant."""
    name = next((name for name in found if name not in store.fields and name not in SYSTEM_COLUMNS), None)
    if name is None:
        return
    alike = [
        field.name
        for field in store.fields.values()
        if field.name not in found and (field.sql_type, field.nullable) == found[name]
    ]
    given_up = f'Drop("{store.name}.{name}") to give its values up'
    if name == HIDDEN:
        drop = f'Drop("{store.name}.{name}")'
        raise MigrationError(f"store {store.name!r}: {GIVEN_UP}, and then {_proposal(connection, schema, drop)}")
    renamed = " or ".join(f'Rename("{store.name}.{name}", "{new}")' for new in alike)
    raise MigrationError(
        f"store {store.name!r}: the file has a column {name!r} that the code does not declare; declare it, or say what became of "
        f"it by a step, {_proposal(connection, schema, 'STEP')}: "
        + (f"{renamed} if it has another name now, {given_up}" if alike else given_up)
    )


def _proposal(connection: apsw.Connection, schema: Schema, step: str) -> str:
    """How the schema says ``step``, which leads from the version of the file to the next."""
    version = schema.version + (read_meta(connection, "schema_version") == schema.version)
    return f"Schema(…, version={version}, steps={{{version}: [{step}]}})"


IndexFact: TypeAlias = tuple[tuple[Order, ...], bool, Expr | None]
"""An index as the file keeps it: what it sorts by, whether it is unique, its condition."""


def indexes_key(store: str) -> str:
    """Where the file says how the indexes of ``store`` were declared."""
    return f"indexes:{store}"


def _told_indexes(store: AnyStore) -> bytes:
    return encode([(index.keys, index.unique, index.where) for index in indexes_of(store)])


def _index_steps(
    connection: apsw.Connection, store: AnyStore, layout: Layout, synced: bool, *, rebuilt: bool
) -> list[str]:
    wanted: dict[str, str] = {}
    for index in indexes_of(store):
        # what arrives from the hub may break uniqueness for a moment: on a synced store the engine checks user writes
        unique = index.unique and not (synced and layout == "client")
        columns = index_columns(store, index)
        if layout == "hub":
            columns.insert(0, "_scope")
        elif unique:
            columns.append("_scope")
        name = index_name(store, index, unique=unique)
        kind = "UNIQUE INDEX" if unique else "INDEX"
        wanted[name] = (
            f"CREATE {kind} {quote(name)} ON {quote(store.name)}({', '.join(columns)}){index_where(store, index)}"
        )
    sql = "SELECT name FROM sqlite_schema WHERE type='index' AND tbl_name=? AND name GLOB '_atoma_*'"
    found: set[str] = set() if rebuilt else {str(row[0]) for row in connection.execute(sql, (store.name,))}
    dropped = [f"DROP INDEX {quote(name)}" for name in sorted(found - set(wanted))]
    return dropped + [statement for name, statement in wanted.items() if name not in found]


def _guard(store: str, operation: str) -> str:
    return f"_atoma_guard_{store}_{operation.lower()}"


def _has_trigger(connection: apsw.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_schema WHERE type='trigger' AND name=?", (name,)).get is not None


def is_guarded(connection: apsw.Connection, store: str) -> bool:
    """Whether the file was last opened with ``store`` as one that replicates."""
    return _has_trigger(connection, _guard(store, "INSERT"))


def _guard_steps(connection: apsw.Connection, store: AnyStore, synced: bool, *, rebuilt: bool) -> list[str]:
    steps: list[str] = []
    for operation in ("INSERT", "UPDATE", "DELETE"):
        name = _guard(store.name, operation)
        there = not rebuilt and _has_trigger(connection, name)
        if synced and not there:
            steps.append(
                f"CREATE TRIGGER {quote(name)} BEFORE {operation} ON {quote(store.name)} "
                f"WHEN NOT {GUARD_FUNCTION}() BEGIN SELECT RAISE(ABORT, '{GUARD_MESSAGE}'); END"
            )
        elif there and not synced:
            steps.append(f"DROP TRIGGER {quote(name)}")
    counted = not rebuilt and _has_trigger(connection, trigger_names(store.name)["INSERT"])
    if counted and synced:
        steps += [f"DROP TRIGGER {quote(name)}" for name in trigger_names(store.name).values()]
    elif not counted and not synced:
        steps += trigger_steps(store.name)
    return steps
