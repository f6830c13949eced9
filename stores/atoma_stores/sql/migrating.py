"""The conversion of a database from an earlier version of the schema to the current one by its steps, on every database.

A row, an image in a log and a pending write each contain parts of a row. :class:`Conversion` takes any of them through the
steps, and keeps what cannot be converted. The code for each database says where they are stored.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import msgspec
from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import Op
from atoma.contracts.sync import Conflict
from atoma.contracts.values import RowImage, as_image
from atoma.errors import MigrationError, ValidationError
from atoma.schema.bodies import pack_op, unpack_op, upgrade_op
from atoma.schema.migrations import Past, statements_of
from atoma.schema.schema import Schema
from atoma.schema.spec import AnyStore
from atoma_stores.sql.defaults import check_new_field, constant_defaults, fill_image
from atoma_stores.sql.dialect import Dialect, Write
from atoma_stores.sql.names import quote
from atoma_stores.sql.scripts import Execute, Row, Script
from atoma_stores.sql.tables import SqlColumns, Table, integers, text

ConversionProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with a store, the number of its rows that have been converted, and their total number."""
ColumnForms: TypeAlias = Mapping[str, tuple[str, bool]]
"""The type of each column of a table, and whether it may be NULL."""

PORTION = 5_000
"""The number of rows that are read, converted and written at a time."""
TOLD_EVERY = 20_000

_log = logging.getLogger("atoma.migrating")


@dataclass(slots=True)
class MigrationReport:
    """A report of what a migration did to a database, or would do.

    Attributes:
        since: The version it was in.
        version: The version it is in.
        rows: Number of rows of each store that were converted.
        pending: Number of pending mutations that were converted.
        quarantined: Number of values that could not be converted and were quarantined.
        statements: The other statements that were run, which adapt tables and indexes to the stores.
    """

    since: int
    version: int
    rows: dict[str, int] = field(default_factory=dict[str, int])
    pending: int = 0
    quarantined: int = 0
    statements: list[str] = field(default_factory=list[str])


def is_due(schema: Schema, since: int) -> bool:
    """Whether there are steps from version ``since`` to that of the schema."""
    return bool(schema.past(since)) or any(statements_of(schema.steps, since))


def log_progress(store: str, done: int, total: int) -> None:
    """Log the progress of a store."""
    _log.info("migrating %s: %d of %d rows", store, done, total)


class Conversion:
    """The conversion of everything that contains a part of a row from an earlier version to the current one.

    Args:
        schema: The declared stores.
        since: The version to begin with.

    Attributes:
        pasts: The stores that steps have changed, as that version had them.
        aside: What could not be converted: store, id, what it was, why, and the values as JSON.
        put_aside: Number of those that have been taken from ``aside`` already.
    """

    def __init__(self, schema: Schema, since: int) -> None:
        self._schema, self._since = schema, since
        self.pasts = schema.past(since)
        self.aside: list[tuple[str, str, str, str, str]] = []
        self.put_aside = 0

    def row(self, past: Past, id: str, image: RowImage) -> RowImage | None:
        """Convert a row; None if that is not possible."""
        try:
            return fill_image(self._schema.stores[past.store], past.upgrade(image))
        except ValidationError as error:
            self._keep(past.store, id, "a row", str(error), image)
            return None

    def image(self, what: str, store: str, id: str, packed: bytes) -> bytes | None:
        """Convert a packed image; None if that is not possible, and then it is kept as ``what`` unless that is ``""``."""
        past = self.pasts[store]
        image = past.unpack(as_image(cast("dict[str, object]", msgspec.msgpack.decode(packed))))
        try:
            return encode(self._schema.stores[store].pack(past.upgrade(image)))
        except ValidationError as error:
            if what:
                self._keep(store, id, what, str(error), image)
            return None

    def op(self, op: Op, pasts: Mapping[str, Past]) -> Op | None:
        """Convert ``op`` without what cannot be converted; None if nothing is left of it."""
        past = pasts.get(op.store)
        if past is None:
            store = self._schema.stores.get(op.store)
            return unpack_op(op, store)
        try:
            return upgrade_op(op, past)
        except ValidationError as error:
            self._keep(op.store, op.id, "a write that waits", str(error), past.unpack({**op.defaults, **op.values}))
            if op.kind in ("create", "replace"):
                return None
            return replace(op, values=_convertible(past, op.values), defaults=_convertible(past, op.defaults), edits=())

    def packed_op(self, store: str, id: str, packed: bytes) -> bytes:
        """:meth:`op` of one that is packed, of the version to begin with."""
        op = self.op(decode(packed, Op), self.pasts) or Op("patch", store, id)
        return encode(pack_op(op, self._schema.stores[store]))

    def names(self, store: str, names: str) -> str:
        """Return a JSON list of the fields that these fields have become."""
        return json.dumps(list(self.pasts[store].names(json.loads(names))))

    def taken_aside(self) -> list[Row]:
        """Return the rows for the quarantine, with the columns :data:`ASIDE`, of what was kept since the last call."""
        rows: list[Row] = [(store, id, what, reason, self._since, kept) for store, id, what, reason, kept in self.aside]
        self.put_aside += len(rows)
        self.aside.clear()
        return rows

    def conflict(self, conflict: Conflict) -> Conflict:
        """Convert a conflict, without its row if that cannot be converted."""
        past = self.pasts.get(conflict.store)
        if past is None:
            return conflict
        named = replace(conflict, fields=past.names(conflict.fields), dropped=past.names(conflict.dropped))
        if conflict.current is None:
            return named
        image = self.image("", conflict.store, conflict.id, encode(conflict.current))
        return replace(named, current=None if image is None else decode(image, dict[str, object]))

    def _keep(self, store: str, id: str, what: str, reason: str, image: RowImage) -> None:
        shown = {name: value.hex() if isinstance(value, bytes) else value for name, value in image.items()}
        self.aside.append((store, id, what, reason, json.dumps(shown, ensure_ascii=False)))


QUARANTINE = Table(
    "quarantine",
    (*integers("n"), *text("store", "id", "what", "reason"), *integers("version"), *text("kept")),
    ("n",),
    drawn=True,
)
"""What could not be converted."""
ASIDE: SqlColumns = QUARANTINE.of(*[column.name for column in QUARANTINE.columns if column.name not in QUARANTINE.key])
"""The columns of a quarantine that are written; the database draws its key."""


def scope_fact(store: AnyStore) -> str:
    """Return what a database records about the source of the scope of a store's rows."""
    return f"field {store.scope_field}" if store.scope_field else f"fixed {store.fixed_scope}"


def moved_scope(past: Past, noted: object) -> bool:
    """Whether steps have renamed the field of the scope in ``noted``, which was made by :func:`scope_fact`."""
    return past.scope_field is not None and noted == f"field {past.scope_field}"


def check_scope(store: AnyStore, noted: object) -> None:
    """Check that a table belongs to a store, and that the scope of its rows still comes from the same source.

    Raises:
        MigrationError: One of both is not so; ``noted`` is what :func:`scope_fact` returned for the table.
    """
    if noted is None:
        raise MigrationError(f"a table {store.name!r} that is not a store is in the way; rename it or the store")
    if noted != scope_fact(store):
        raise MigrationError(
            f"store {store.name!r}: the scope was declared as {noted}, now as {scope_fact(store)}; rows cannot change "
            "their scope: declare a new store and copy the rows into it"
        )


def renames(table: str, past: Past, there: Collection[str]) -> list[str] | None:
    """Return the statements that rename columns if the steps have done nothing else; None if they have.

    Args:
        table: The table, as SQL.
        past: The store as it was.
        there: The columns that the table has.
    """
    if past.renamed is None:
        return None
    names, statements = set(there), list[str]()
    for before, after in past.renamed:
        if before in names:
            statements.append(f"ALTER TABLE {table} RENAME COLUMN {quote(before)} TO {quote(after)}")
            names = names - {before} | {after}
    return statements


def check_columns(store: AnyStore, past: Past, since: int, found: ColumnForms, packed: Collection[str] = ()) -> None:
    """Check that the columns of a store are as the steps say they were, and that every field of today has a value.

    Args:
        store: The store.
        past: The store as it was.
        since: The version that it was of.
        found: The columns of values that its table has.
        packed: Those of them whose form is not that of their field.

    Raises:
        MigrationError: They are not, or a field that comes from none of them has no default.
    """
    come = past.names(found)
    added = [of for name, of in store.fields.items() if name != "id" and name not in come]
    for name, (sql_type, nullable) in found.items():
        if name in packed:
            continue
        then = past.fields.get(name)
        if then is None:
            alike = [new.name for new in added if (new.sql_type, new.nullable) == (sql_type, nullable)]
            renamed = "".join([f'Rename("{past.store}.{name}", "{new}") if it has another name now, ' for new in alike])
            raise MigrationError(
                f"store {past.store!r}: version {since} has a column {name!r} that no step speaks of; say what became of it with a "
                f'step: {renamed}Drop("{past.store}.{name}") to give its values up'
            )
        if (sql_type, nullable) != (then.sql_type, then.nullable):
            raise MigrationError(
                f"store {past.store!r}: field {name!r} is {sql_type}{'' if nullable else ' NOT NULL'} in version {since}, "
                f"and {then.sql_type}{'' if then.nullable else ' NOT NULL'} by what the steps say"
            )
    defaults = constant_defaults(store)
    for new in added:
        check_new_field(store, new.name, defaults)


@dataclass(frozen=True, slots=True)
class Rewriting:
    """The source and the destination of a store's rows while they are converted.

    Attributes:
        table: The table that has them, as SQL.
        key: Its key, all of it text; the id is the last part.
        carried: The columns of every table of rows that are copied as they are.
        values: Its columns of values.
        packed: Those of them that hold packed values.
        put: Writes converted rows: the key, the columns ``carried``, and the columns ``to``.
        to: The current columns that :attr:`put` takes.
        drop: Deletes, by key, what cannot be converted; None if the old table is dropped anyway.
        aside: Writes to the quarantine.
    """

    table: str
    key: tuple[str, ...]
    carried: tuple[str, ...]
    values: tuple[str, ...]
    packed: frozenset[str]
    put: Write
    to: tuple[str, ...]
    drop: Write | None
    aside: Write


def convert_rows(
    dialect: Dialect,
    conversion: Conversion,
    past: Past,
    rows: Rewriting,
    told: ConversionProgress,
    instead: Callable[[str], RowImage | None] = lambda _: None,
) -> Script[int]:
    """Convert every row of a store, and return their number.

    Args:
        dialect: The dialect of the database.
        conversion: Converts the rows.
        past: The store as it was.
        rows: The source and the destination of the rows.
        told: Called with the progress.
        instead: Returns the replacement of a row that cannot be converted, by its id; None for no row.
    """
    width, before = len(rows.key), len(rows.key) + len(rows.carried)
    (counted,) = yield [Execute(f"SELECT count(*) FROM {rows.table}")]
    total, done = cast("int", counted[0][0]), 0
    for_page = _page(dialect, rows.table, rows.key, (*rows.carried, *rows.values))
    after: Row = ("",) * width
    while True:
        (found,) = yield [Execute(for_page, after)]
        put: list[Row] = []
        drop: list[Row] = []
        for row in found:
            id, image = cast("str", row[width - 1]), dict(zip(rows.values, row[before:], strict=True))
            unpacked = past.unpack({name: image[name] for name in rows.packed if name in image})
            converted = conversion.row(past, id, {**image, **unpacked}) or instead(id)
            if converted is None:
                drop.append(row[:width])
            else:
                put.append((*row[:before], *(converted[name] for name in rows.to)))
        written = ((rows.put, put), (rows.drop, drop), (rows.aside, conversion.taken_aside()))
        batch = [write.of(each) for write, each in written if write is not None and each]
        if batch:
            yield batch
        done += len(found)
        if len(found) < PORTION:
            return done
        after = found[-1][:width]
        if done % TOLD_EVERY == 0:
            told(past.store, done, total)


def _page(dialect: Dialect, table: str, key: Sequence[str], others: Sequence[str]) -> str:
    """Return the query for a page of a table after a key."""
    names, places = ", ".join(map(quote, key)), ", ".join(dialect.place(at + 1) for at in range(len(key)))
    columns = ", ".join(map(quote, (*key, *others)))
    return f"SELECT {columns} FROM {table} WHERE ({names})>({places}) ORDER BY {names} LIMIT {PORTION}"


def _convertible(past: Past, packed: RowImage) -> RowImage:
    """Convert the values that can be converted, and drop the others."""
    found: RowImage = {}
    for name, value in packed.items():
        try:
            found |= past.upgrade(past.unpack({name: value}))
        except ValidationError:
            continue
    return found
