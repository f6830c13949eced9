"""Bringing a file of an earlier version to the schema's, by its steps: rows, and everything else that holds a part of one.

All of it is one transaction, in which :func:`atoma_stores.sqlite.ddl.prepare_file` opens the file: ended at any moment, the file
is as it was or as it is to be, and what was begun is begun anew. What cannot be converted is put aside, into
``_atoma_quarantine``, as JSON that any tool reads, and is reported.

A pending mutation keeps its bytes: digests are over them, and a hub of either version may still have to decide it. Beside them
lies what it says in today's terms, for the rows that are shown until then.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, cast

import apsw
from msgspec.structs import replace

from atoma.contracts.codec import decode
from atoma.contracts.mutations import MutationBody, Op
from atoma.contracts.values import RowImage, as_image
from atoma.errors import MigrationError, ValidationError
from atoma.mutations import rebase
from atoma.schema.bodies import decode_body, encode_body
from atoma.schema.migrations import Past, statements_of
from atoma.schema.schema import Schema
from atoma.schema.spec import AnyStore
from atoma_stores.sql.defaults import fill_image
from atoma_stores.sql.dialect import SQLITE, Write
from atoma_stores.sql.hub.migrating import (
    CONVERTED,
    check_statements,
    convert_log,
    note_heads,
    read_heads,
    replicates,
)
from atoma_stores.sql.migrating import (
    ASIDE,
    Conversion,
    ConversionProgress,
    MigrationReport,
    Rewriting,
    check_columns,
    convert_rows,
    log_progress,
    moved_scope,
    renames,
    scope_fact,
)
from atoma_stores.sql.names import SYSTEM_COLUMNS, quote
from atoma_stores.sqlite import forms
from atoma_stores.sqlite._history import raise_floor
from atoma_stores.sqlite.hub_driver import drive
from atoma_stores.sqlite.meta import columns_of, read_meta, write_meta
from atoma_stores.sqlite.quarantine import CREATE, TABLE

ASIDE_INTO = SQLITE.insert(TABLE, ASIDE)
TURN, TURN_OP = "atoma_turn", "atoma_turn_op"

_IMAGES: Sequence[tuple[str, str, str]] = (
    ("_atoma_shadow", "image", "a confirmed row"),
    ("_atoma_pending_row", "pre", ""),
    ("_atoma_stage", "image", "a row of a snapshot"),
    ("_atoma_inbox", "base", ""),
    ("_atoma_inbox", "mine", "a write in the inbox"),
    ("_atoma_inbox", "theirs", ""),
    ("_atoma_lost", "image", "a row that the hub has lost"),
    ("_atoma_lost", "theirs", ""),
)
"""Where a device has images, packed, and what they are; ``""`` for what is also elsewhere. What is remembered of the past is
beside them."""

_log = logging.getLogger("atoma.sqlite")


def converted_heads(connection: apsw.Connection) -> Mapping[str, int]:
    """By scope, up to which sequence a migration has converted a hub's log, whose hashes are still those of what was."""
    told = read_meta(connection, CONVERTED)
    if not isinstance(told, str):
        if not columns_of(connection, TABLE):
            return {}
        told = drive(
            connection, note_heads(SQLITE)
        )  # before that was noted, nothing but this table told of a migration
    return read_heads(told)


def migrate(
    connection: apsw.Connection,
    schema: Schema,
    since: int,
    layout: Literal["client", "hub"],
    create: Callable[[AnyStore], str],
    told: ConversionProgress = log_progress,
) -> MigrationReport:
    """Convert everything that steps concern, inside the caller's transaction; indexes and triggers have to be made again.

    Args:
        connection: In a write transaction; the internal tables are there.
        schema: The declared stores.
        since: The version that the file is in.
        layout: Whose file it is.
        create: Makes the statement that creates the table of a store, under the name that ``forms.beside`` gives.
        told: Called with how far it is.

    Raises:
        MigrationError: The file is not as the steps say it was.
    """
    report = MigrationReport(since, schema.version)
    migration = _Migration(connection, schema, since, layout, report, told)
    if schema.past(since):  # a hub's file that has this table is taken for one whose log was converted
        connection.execute(CREATE)
    migration.convert_kept()
    for name, past in schema.past(since).items():
        if columns_of(connection, name):
            migration.convert_table(schema.stores[name], past, create(schema.stores[name]))
    migration.run_statements()
    report.quarantined = migration.quarantined
    if report.quarantined:
        _log.warning(
            "%s: %d values could not be converted; they are in quarantine: client.quarantine, or `atoma quarantine list`",
            connection.filename,
            report.quarantined,
        )
    return report


class _Migration:
    """One migration under way."""

    def __init__(
        self,
        connection: apsw.Connection,
        schema: Schema,
        since: int,
        layout: Literal["client", "hub"],
        report: MigrationReport,
        told: ConversionProgress,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._since = since
        self._layout = layout
        self._report = report
        self._told = told
        self._conversion = Conversion(schema, since)

    @property
    def quarantined(self) -> int:
        """How many values were put aside."""
        return self._conversion.put_aside

    # tables

    def convert_table(self, store: AnyStore, past: Past, create: str) -> None:
        """Bring the table of a store to today: by other names for its columns, else by a copy of its rows, each converted.

        Raises:
            MigrationError: The table is not as the steps say it was.
        """
        found = columns_of(self._connection, store.name)
        kept = forms.read(read_meta(self._connection, forms.key_of(store.name)))
        packed = frozenset(item.name for item in forms.to_rebuild(past.store, past.fields, found, kept))
        system = tuple(name for name in found if name in SYSTEM_COLUMNS)
        values = tuple(name for name in found if name not in system and name != "id")
        check_columns(store, past, self._since, {name: found[name] for name in values}, packed)
        for view in self._connection.execute("SELECT name, sql FROM sqlite_schema WHERE type='view'").fetchall():
            if view[0] == f"{store.name}_readable" and forms.VIEW_MARK in str(view[1]):
                self._connection.execute(f"DROP VIEW {quote(str(view[0]))}")
        renamed = None if packed else renames(quote(store.name), past, found)
        if renamed is None:
            self._copy(store, past, create, (system, values, packed))
        for statement in renamed or ():  # values stay where they are, so that no row is touched
            self._connection.execute(statement)
        write_meta(self._connection, forms.key_of(store.name), forms.told(store))
        if moved_scope(past, read_meta(self._connection, f"store:{store.name}")):
            write_meta(self._connection, f"store:{store.name}", scope_fact(store))

    def _copy(
        self, store: AnyStore, past: Past, create: str, columns: tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]
    ) -> None:
        """Make the new table of a store beside the one that is there, and put it in its place."""
        system, values, packed = columns
        key = ("_scope", "id") if self._layout == "hub" else ("id",)
        carried = tuple(name for name in system if name not in key)
        target = [*key, *carried, *store.value_columns]
        into = f"{quote(forms.beside(store.name))}({', '.join(map(quote, target))})"
        rows = Rewriting(
            quote(store.name), key, carried, values, packed,
            put=Write(f"INSERT INTO {into} VALUES({', '.join('?' * len(target))})"), to=store.value_columns,
            drop=None, aside=ASIDE_INTO,
        )  # fmt: skip
        self._connection.execute(create)
        self._report.rows[store.name] = drive(
            self._connection,
            convert_rows(SQLITE, self._conversion, past, rows, self._told, lambda id: self._of_base(store, id)),
        )
        self._connection.execute(f"DROP TABLE {quote(store.name)}")
        self._connection.execute(f"ALTER TABLE {quote(forms.beside(store.name))} RENAME TO {quote(store.name)}")

    def _of_base(self, store: AnyStore, id: str) -> RowImage | None:
        """What a row of a device that cannot be converted is by its base and what waits; None without a base."""
        if self._layout == "hub":
            return None
        base: object = self._connection.execute(
            "SELECT image FROM _atoma_shadow WHERE store=? AND id=?", (store.name, id)
        ).get
        rebased = None if base is None else rebase(_read(base, store), self._pending_ops(store, id))
        try:
            return None if rebased is None else fill_image(store, rebased)
        except ValidationError:
            return None

    def _pending_ops(self, store: AnyStore, id: str) -> Iterator[Op]:
        bodies = self._connection.execute(
            "SELECT CASE WHEN length(local) THEN local ELSE body END FROM _atoma_pending WHERE lsn IN "
            "(SELECT lsn FROM _atoma_pending_row WHERE store=? AND id=?) ORDER BY lsn",
            (store.name, id),
        ).fetchall()
        for (body,) in bodies:
            yield from (
                op for op in decode_body(cast("bytes", body), self._schema).ops if (op.store, op.id) == (store.name, id)
            )

    # everything else that holds a part of a row

    def convert_kept(self) -> None:
        """Convert images and operations in the internal tables."""
        if self._layout == "hub":
            drive(self._connection, convert_log(SQLITE, self._conversion, ASIDE_INTO))
            if self._conversion.pasts:
                write_meta(self._connection, CONVERTED, drive(self._connection, note_heads(SQLITE)))
        elif self._conversion.pasts:
            self._convert_device()

    def _convert_device(self) -> None:
        functions: dict[str, tuple[Callable[..., object], int]] = {
            TURN: (self._conversion.image, 4),
            TURN_OP: (self._conversion.packed_op, 3),
        }
        stores = json.dumps(list(self._conversion.pasts))
        for name, (function, arguments) in functions.items():
            self._connection.create_scalar_function(name, function, arguments)
        try:
            for table, column, what in _IMAGES:
                self._connection.execute(
                    f"UPDATE {table} SET {column}={TURN}('{what}', store, id, {column}) WHERE {column} IS NOT NULL "
                    "AND store IN (SELECT value FROM json_each(?))",
                    (stores,),
                )
            self._convert_words(stores)
        finally:
            for name, (_, arguments) in functions.items():
                self._connection.create_scalar_function(name, None, arguments)
        self.put_aside()

    def _convert_words(self, stores: str) -> None:
        concerned = "store IN (SELECT value FROM json_each(?))"
        execute = self._connection.execute
        # without its image a lost row would be offered as a deletion
        execute(
            f"UPDATE _atoma_lost SET resolution='discarded' WHERE image IS NULL AND resolution='' AND {concerned} AND EXISTS "
            "(SELECT 1 FROM json_each(?) AS j WHERE j.value=_atoma_lost.store || ' ' || _atoma_lost.id)",
            (
                stores,
                json.dumps([f"{store} {id}" for store, id, what, _, _ in self._conversion.aside if "lost" in what]),
            ),
        )
        execute(f"UPDATE _atoma_inbox SET op={TURN_OP}(store, id, op) WHERE {concerned}", (stores,))
        self._convert_pending()
        self._convert_history(concerned, stores)

    def _convert_history(self, concerned: str, stores: str) -> None:
        """Convert what is remembered of the past; from where it cannot be told in today's terms, it is forgotten."""
        execute = self._connection.execute
        for column in ("pre", "post"):
            broken: object = execute(
                f"SELECT max(n) FROM _atoma_history WHERE {column} IS NOT NULL AND {concerned} "
                f"AND {TURN}('', store, id, {column}) IS NULL",
                (stores,),
            ).get
            if broken is not None:
                raise_floor(self._connection, cast("int", broken))
            execute(
                f"UPDATE _atoma_history SET {column}={TURN}('', store, id, {column}) WHERE {column} IS NOT NULL AND {concerned}",
                (stores,),
            )

    def _convert_pending(self) -> None:
        """Lay beside each mutation that waits what it says in today's terms."""
        read: list[tuple[bytes, int]] = []
        for lsn, body, local in self._connection.execute("SELECT lsn, body, local FROM _atoma_pending").fetchall():
            mutation = decode(cast("bytes", local or body), MutationBody)
            pasts = self._schema.past(mutation.schema_version)
            if not any(op.store in pasts for op in mutation.ops):
                continue
            ops = [turned for op in mutation.ops if (turned := self._conversion.op(op, pasts)) is not None]
            today = replace(mutation, ops=tuple(ops), schema_version=self._schema.version)
            read.append((encode_body(today, self._schema), cast("int", lsn)))
        self._connection.executemany("UPDATE _atoma_pending SET local=? WHERE lsn=?", read)
        self._report.pending = len(read)

    def put_aside(self) -> None:
        """Write to the quarantine what could not be converted."""
        self._connection.executemany(ASIDE_INTO.sql, self._conversion.taken_aside())

    # the rest

    def run_statements(self) -> None:
        """Run the statements among the steps.

        Raises:
            MigrationError: The store replicates, or the statement fails.
        """
        if self._layout == "hub":
            drive(self._connection, check_statements(SQLITE, self._schema, self._since, self._is_there))
            return
        for step in statements_of(self._schema.steps, self._since):
            if not columns_of(self._connection, step.store):
                continue
            # what a statement does to rows, nobody writes down
            raise_floor(self._connection, cast("int", read_meta(self._connection, "commit")))
            if self._replicates(step.store):
                raise replicates(step.store, step.statement)
            try:
                self._connection.execute(step.statement)
            except apsw.SQLError as error:
                raise MigrationError(f"{step!r}: {error}") from error

    def _is_there(self, store: str) -> bool:
        return bool(columns_of(self._connection, store))

    def _replicates(self, store: str) -> bool:
        """Whether rows of the store are elsewhere, too."""
        found = self._connection.execute(
            "SELECT EXISTS(SELECT 1 FROM _atoma_pending_row WHERE store=?1) OR EXISTS(SELECT 1 FROM sqlite_schema "
            "WHERE type='trigger' AND tbl_name=?1 AND name GLOB '_atoma_guard_*')",
            (store,),
        ).get
        return bool(found)


def _read(packed: object, store: AnyStore) -> RowImage:
    return store.unpack(as_image(decode(cast("bytes", packed), dict[str, object])))
