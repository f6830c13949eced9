"""Bringing a file of an earlier version to the schema's, by its steps: rows, and everything else that holds a part of one.

All of it is one transaction, in which :func:`atoma_stores.sqlite.ddl.prepare_file` opens the file: ended at any moment, the file
is as it was or as it is to be, and what was begun is begun anew. What cannot be converted is put aside, into
``_atoma_quarantine``, as JSON that any tool reads, and is told.

A pending mutation keeps its bytes: digests are over them, and a hub of either version may still have to decide it. Beside them
lies what it says in today's terms, for the rows that are shown until then.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

import apsw
import msgspec
from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import MutationBody, Op
from atoma.contracts.sync import Conflict
from atoma.contracts.values import RowImage, Scalar, as_image
from atoma.errors import MigrationError, ValidationError
from atoma.mutations import rebase
from atoma.schema.bodies import decode_body, encode_body, pack_op, upgrade_op
from atoma.schema.migrations import Past, statements_of
from atoma.schema.spec import Schema, StoreSpec
from atoma_stores.sql.defaults import fill_image
from atoma_stores.sql.hub.rows import turned_detail
from atoma_stores.sql.names import quote
from atoma_stores.sqlite import forms
from atoma_stores.sqlite.meta import columns_of, read_meta, write_meta

Spec: TypeAlias = StoreSpec[object]
Told: TypeAlias = Callable[[str, int, int], None]
"""Called with a store, how many of its rows are converted, and how many there are."""

QUARANTINE = (
    "CREATE TABLE IF NOT EXISTS _atoma_quarantine(n INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, id TEXT NOT NULL, "
    "what TEXT NOT NULL, reason TEXT NOT NULL, version INTEGER NOT NULL, kept TEXT NOT NULL) STRICT"
)
CHUNK = 20_000
TURN, TURN_OP, TURN_NAMES, TURN_DETAIL = "atoma_turn", "atoma_turn_op", "atoma_turn_names", "atoma_turn_detail"

_IMAGES: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "client": (
        ("_atoma_shadow", "image", "a confirmed row"),
        ("_atoma_pending_row", "pre", ""),
        ("_atoma_stage", "image", "a row of a snapshot"),
        ("_atoma_inbox", "base", ""),
        ("_atoma_inbox", "mine", "a write in the inbox"),
        ("_atoma_inbox", "theirs", ""),
        ("_atoma_lost", "image", "a row that the hub has lost"),
        ("_atoma_lost", "theirs", ""),
    ),
    "hub": (
        ("_atoma_hub_change", "pre", ""),
        ("_atoma_hub_change", "post", "an entry of the log"),
        ("_atoma_hub_tombstone", "last", ""),
    ),
}
"""Where images lie, packed, and what they are; ``""`` for what is also elsewhere. History and the index of a search add theirs."""

_log = logging.getLogger("atoma.sqlite")


@dataclass(slots=True)
class MigrationReport:
    """What was done to a file, or would be.

    Attributes:
        since: The version it was in.
        version: The version it is in.
        rows: How many rows of each store were converted.
        pending: How many mutations that wait were read anew.
        quarantined: How many values could not be converted and were put aside.
        statements: What else was run, to bring tables and indexes to the stores.
    """

    since: int
    version: int
    rows: dict[str, int] = field(default_factory=dict[str, int])
    pending: int = 0
    quarantined: int = 0
    statements: list[str] = field(default_factory=list[str])


def is_due(schema: Schema, since: int) -> bool:
    """Whether steps lead from version ``since`` to the schema's."""
    return bool(schema.past(since)) or any(statements_of(schema.steps, since))


def log_progress(store: str, done: int, total: int) -> None:
    """Tell the log how far a store is."""
    _log.info("migrating %s: %d of %d rows", store, done, total)


def migrate(
    connection: apsw.Connection,
    schema: Schema,
    since: int,
    layout: Literal["client", "hub"],
    create: Callable[[Spec], str],
    told: Told = log_progress,
) -> MigrationReport:
    """Convert everything that steps concern, inside the caller's transaction; indexes and triggers have to be made again.

    Args:
        connection: In a write transaction; the internal tables are there.
        schema: The declared stores.
        since: The version that the file is in.
        layout: Whose file it is.
        create: Makes the statement that creates the table of a store, under the name that ``forms.beside`` gives.
        told: Hears how far it is.

    Raises:
        MigrationError: The file is not as the steps say it was.
    """
    report = MigrationReport(since, schema.version)
    migration = _Migration(connection, schema, since, layout, report, told)
    connection.execute(QUARANTINE)
    migration.convert_kept()
    for name, past in schema.past(since).items():
        if columns_of(connection, name):
            migration.convert_table(schema.stores[name], past, create(schema.stores[name]))
    migration.run_statements()
    if report.quarantined:
        _log.warning(
            "%s: %d values could not be converted; they are in _atoma_quarantine",
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
        told: Told,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._since = since
        self._pasts = schema.past(since)
        self._layout = layout
        self._report = report
        self._told = told
        self._aside: list[tuple[str, str, str, str, str]] = []

    # tables

    def convert_table(self, store: Spec, past: Past, create: str) -> None:
        """Bring the table of a store to today: by other names for its columns, else by a copy of its rows, each converted.

        Raises:
            MigrationError: The table is not as the steps say it was.
        """
        found = columns_of(self._connection, store.name)
        kept = forms.read(read_meta(self._connection, forms.key_of(store.name)))
        packed = {item.name for item in forms.to_rebuild(past.store, past.fields, found, kept)}
        system = [name for name in found if name.startswith("_")]
        values = [name for name in found if name not in system and name != "id"]
        self._check_columns(store, past, {name: found[name] for name in values if name not in packed})
        for view in self._connection.execute("SELECT name, sql FROM sqlite_schema WHERE type='view'").fetchall():
            if view[0] == f"{store.name}_readable" and forms.VIEW_MARK in str(view[1]):
                self._connection.execute(f"DROP VIEW {quote(str(view[0]))}")
        if past.renamed is not None and not packed:
            for before, after in past.renamed:
                if before in found:  # values stay where they are, so that no row is touched
                    self._connection.execute(
                        f"ALTER TABLE {quote(store.name)} RENAME COLUMN {quote(before)} TO {quote(after)}"
                    )
                    found[after] = found.pop(before)
        else:
            self._copy(store, past, create, (system, values, packed))
        write_meta(self._connection, forms.key_of(store.name), forms.told(store))
        if (
            past.scope_field is not None
            and read_meta(self._connection, f"store:{store.name}") == f"field {past.scope_field}"
        ):
            write_meta(self._connection, f"store:{store.name}", f"field {store.scope_field}")

    def _copy(
        self, store: Spec, past: Past, create: str, columns: tuple[Sequence[str], Sequence[str], set[str]]
    ) -> None:
        """Make the new table of a store beside the one that is there, and put it in its place."""
        system, values, packed = columns
        self._connection.execute(create)
        target = [*system, "id", *store.value_columns]
        insert = f"INSERT INTO {quote(forms.beside(store.name))}({', '.join(map(quote, target))}) VALUES({', '.join('?' * len(target))})"
        self._connection.executemany(insert, self._rows(store, past, system, values, packed))
        self._put_aside()
        self._connection.execute(f"DROP TABLE {quote(store.name)}")
        self._connection.execute(f"ALTER TABLE {quote(forms.beside(store.name))} RENAME TO {quote(store.name)}")

    def _check_columns(self, store: Spec, past: Past, found: Mapping[str, tuple[str, bool]]) -> None:
        for name, (sql_type, nullable) in found.items():
            then = past.fields.get(name)
            if then is None:
                raise MigrationError(
                    f"store {store.name!r}: the file of version {self._since} has a column {name!r} that no step speaks of; "
                    f'give it up with a step: Drop("{store.name}.{name}")'
                )
            if (sql_type, nullable) != (then.sql_type, then.nullable):
                raise MigrationError(
                    f"store {store.name!r}: field {name!r} is {sql_type}{'' if nullable else ' NOT NULL'} in the file of version "
                    f"{self._since}, and {then.sql_type}{'' if then.nullable else ' NOT NULL'} by what the steps say"
                )

    def _rows(
        self, store: Spec, past: Past, system: Sequence[str], values: Sequence[str], packed: set[str]
    ) -> Iterator[tuple[Scalar, ...]]:
        names = ", ".join(map(quote, [*system, "id", *values]))
        total = cast("int", self._connection.execute(f"SELECT count(*) FROM {quote(store.name)}").get)
        width, done = len(system) + 1, 0
        for row in self._connection.execute(f"SELECT {names} FROM {quote(store.name)}"):
            raw = cast("tuple[Scalar, ...]", row)
            id = cast("str", raw[width - 1])
            image = dict(zip(values, raw[width:], strict=True))
            converted = self._converted(store, past, id, {**image, **past.unpack(_part(image, packed))})
            if converted is not None:
                yield (*raw[:width], *(converted[name] for name in store.value_columns))
            done += 1
            if done % CHUNK == 0:
                self._told(store.name, done, total)
        self._report.rows[store.name] = done

    def _converted(self, store: Spec, past: Past, id: str, image: RowImage) -> RowImage | None:
        """A visible row as it is today; one whose own values cannot be converted is made anew of its base, if it has one."""
        try:
            return fill_image(store, past.upgrade(image))
        except ValidationError as error:
            self._keep(store.name, id, "a row", str(error), image)
        base = None
        if self._layout == "client":
            base = self._connection.execute(
                "SELECT image FROM _atoma_shadow WHERE store=? AND id=?", (store.name, id)
            ).get
        rebased = None if base is None else rebase(_read(base, store), self._pending_ops(store, id))
        try:
            return None if rebased is None else fill_image(store, rebased)
        except ValidationError:
            return None

    def _pending_ops(self, store: Spec, id: str) -> Iterator[Op]:
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
        if not self._pasts:
            return
        functions: dict[str, tuple[Callable[..., object], int]] = {
            TURN: (self._turned, 4),
            TURN_OP: (self._turned_op, 3),
            TURN_NAMES: (self._turned_names, 2),
            TURN_DETAIL: (self._turned_detail, 1),
        }
        stores = json.dumps(list(self._pasts))
        for name, (function, arguments) in functions.items():
            self._connection.create_scalar_function(name, function, arguments)
        try:
            for table, column, what in _IMAGES[self._layout]:
                empty = f"coalesce({{}}, {apsw.format_sql_value(encode({}))})" if column == "last" else "{}"
                turned = empty.format(f"{TURN}('{what}', store, id, {column})")
                self._connection.execute(
                    f"UPDATE {table} SET {column}={turned} WHERE {column} IS NOT NULL "
                    "AND store IN (SELECT value FROM json_each(?))",
                    (stores,),
                )
            self._convert_words(stores)
        finally:
            for name, (_, arguments) in functions.items():
                self._connection.create_scalar_function(name, None, arguments)
        self._put_aside()

    def _convert_words(self, stores: str) -> None:
        concerned = "store IN (SELECT value FROM json_each(?))"
        execute = self._connection.execute
        if self._layout == "client":
            # without its image a lost row would be offered as a deletion
            execute(
                f"UPDATE _atoma_lost SET resolution='discarded' WHERE image IS NULL AND resolution='' AND {concerned} AND EXISTS "
                "(SELECT 1 FROM json_each(?) AS j WHERE j.value=_atoma_lost.store || ' ' || _atoma_lost.id)",
                (stores, json.dumps([f"{store} {id}" for store, id, what, _, _ in self._aside if "lost" in what])),
            )
            execute(f"UPDATE _atoma_inbox SET op={TURN_OP}(store, id, op) WHERE {concerned}", (stores,))
            self._convert_pending()
            return
        execute(
            f"UPDATE _atoma_hub_change SET fields={TURN_NAMES}(store, fields) WHERE fields IS NOT NULL AND {concerned}",
            (stores,),
        )
        execute(f"UPDATE _atoma_hub_outcome SET detail={TURN_DETAIL}(detail) WHERE detail IS NOT NULL")

    def _convert_pending(self) -> None:
        """Lay beside each mutation that waits what it says in today's terms."""
        read: list[tuple[bytes, int]] = []
        for lsn, body, local in self._connection.execute("SELECT lsn, body, local FROM _atoma_pending").fetchall():
            mutation = decode(cast("bytes", local or body), MutationBody)
            pasts = self._schema.past(mutation.schema_version)
            if not any(op.store in pasts for op in mutation.ops):
                continue
            ops = [turned for op in mutation.ops if (turned := self._readable(op, pasts)) is not None]
            today = replace(mutation, ops=tuple(ops), schema_version=self._schema.version)
            read.append((encode_body(today, self._schema), cast("int", lsn)))
        self._connection.executemany("UPDATE _atoma_pending SET local=? WHERE lsn=?", read)
        self._report.pending = len(read)

    def _readable(self, op: Op, pasts: Mapping[str, Past]) -> Op | None:
        """``op`` in today's terms, without what cannot be converted; None when nothing is left to show."""
        past = pasts.get(op.store)
        if past is None:
            store = self._schema.stores.get(op.store)
            return (
                op if store is None else replace(op, values=store.unpack(op.values), defaults=store.unpack(op.defaults))
            )
        try:
            return upgrade_op(op, past)
        except ValidationError as error:
            self._keep(op.store, op.id, "a write that waits", str(error), past.unpack({**op.defaults, **op.values}))
            whole = op.kind in ("create", "replace")
            return (
                None
                if whole
                else replace(op, values=_convertible(past, op.values), defaults=_convertible(past, op.defaults))
            )

    def _turned(self, what: str, store: str, id: str, packed: bytes) -> bytes | None:
        past = self._pasts[store]
        image = past.unpack(as_image(cast("dict[str, object]", msgspec.msgpack.decode(packed))))
        try:
            return encode(self._schema.stores[store].pack(past.upgrade(image)))
        except ValidationError as error:
            if what:
                self._keep(store, id, what, str(error), image)
            return None

    def _turned_op(self, store: str, id: str, packed: bytes) -> bytes:
        op = self._readable(decode(packed, Op), self._pasts) or Op("patch", store, id)
        return encode(pack_op(op, self._schema.stores[store]))

    def _turned_names(self, store: str, names: str) -> str:
        return json.dumps(list(self._pasts[store].names(json.loads(names))))

    def _turned_detail(self, detail: bytes) -> bytes:
        return turned_detail(detail, self._turned_conflict)

    def _turned_conflict(self, conflict: Conflict) -> Conflict:
        past = self._pasts.get(conflict.store)
        if past is None:
            return conflict
        named = replace(conflict, fields=past.names(conflict.fields), dropped=past.names(conflict.dropped))
        if conflict.current is None:
            return named
        image = self._turned("", conflict.store, conflict.id, encode(conflict.current))
        return replace(named, current=None if image is None else decode(image, dict[str, object]))

    # what cannot be converted

    def _keep(self, store: str, id: str, what: str, reason: str, image: RowImage) -> None:
        shown = {name: value.hex() if isinstance(value, bytes) else value for name, value in image.items()}
        self._aside.append((store, id, what, reason, json.dumps(shown, ensure_ascii=False)))

    def _put_aside(self) -> None:
        rows = [(store, id, what, reason, self._since, kept) for store, id, what, reason, kept in self._aside]
        self._connection.executemany(
            "INSERT INTO _atoma_quarantine(store, id, what, reason, version, kept) VALUES(?,?,?,?,?,?)", rows
        )
        self._report.quarantined += len(rows)
        self._aside.clear()

    # the rest

    def run_statements(self) -> None:
        """Run the statements among the steps.

        Raises:
            MigrationError: The store replicates, or the statement fails.
        """
        for step in statements_of(self._schema.steps, self._since):
            if not columns_of(self._connection, step.store):
                continue
            if self._replicates(step.store):
                raise MigrationError(
                    f"store {step.store!r} replicates: its rows are in the hub's log and on other devices as well, where no "
                    f"statement reaches them; say it with Convert, Split or Drop instead of Sql({step.statement!r})"
                )
            try:
                self._connection.execute(step.statement)
            except apsw.SQLError as error:
                raise MigrationError(f"{step!r}: {error}") from error

    def _replicates(self, store: str) -> bool:
        """Whether rows of the store are elsewhere, too."""
        if self._layout == "hub":
            found: object = self._connection.execute(f"SELECT EXISTS(SELECT 1 FROM {quote(store)})").get
            return bool(found)
        found = self._connection.execute(
            "SELECT EXISTS(SELECT 1 FROM _atoma_pending_row WHERE store=?1) OR EXISTS(SELECT 1 FROM sqlite_schema "
            "WHERE type='trigger' AND tbl_name=?1 AND name GLOB '_atoma_guard_*')",
            (store,),
        ).get
        return bool(found)


def _part(image: RowImage, names: set[str]) -> RowImage:
    return {name: image[name] for name in names if name in image}


def _read(packed: object, store: Spec) -> RowImage:
    return store.unpack(as_image(decode(cast("bytes", packed), dict[str, object])))


def _convertible(past: Past, packed: RowImage) -> RowImage:
    """The values that can be converted, converted."""
    found: RowImage = {}
    for name, value in packed.items():
        try:
            found |= past.upgrade(past.unpack({name: value}))
        except ValidationError:
            continue
    return found
