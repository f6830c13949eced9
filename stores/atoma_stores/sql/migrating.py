"""Bringing what a database holds from an earlier version of the schema to today's, by its steps: for every database alike.

A row, an image in a log and a write that waits each hold parts of a row. :class:`Conversion` brings any of them over the steps, and
keeps what cannot be converted. Whoever has the database says where they lie.
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
from atoma_stores.sql.defaults import fill_image
from atoma_stores.sql.dialect import Dialect, Write
from atoma_stores.sql.names import quote
from atoma_stores.sql.scripts import Execute, Row, Script
from atoma_stores.sql.tables import SqlColumns, Table, integers, text

ConversionProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with a store, how many of its rows are converted, and how many there are."""
ColumnForms: TypeAlias = Mapping[str, tuple[str, bool]]
"""Type of each column of a table, and whether it may be NULL."""

PORTION = 5_000
"""Rows that are read, converted and written at a time."""
TOLD_EVERY = 20_000

_log = logging.getLogger("atoma.migrating")


@dataclass(slots=True)
class MigrationReport:
    """A report of what was done to a database, or would be.

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
    """Write to the log how far a store is."""
    _log.info("migrating %s: %d of %d rows", store, done, total)


class Conversion:
    """The way of everything that holds a part of a row from an earlier version to today's.

    Args:
        schema: The declared stores.
        since: The version to begin with.

    Attributes:
        pasts: The stores as that version had them, those that steps have changed.
        aside: What could not be converted: store, id, what it was, why, and the values as JSON.
        put_aside: How many of those were there, before.
    """

    def __init__(self, schema: Schema, since: int) -> None:
        self._schema, self._since = schema, since
        self.pasts = schema.past(since)
        self.aside: list[tuple[str, str, str, str, str]] = []
        self.put_aside = 0

    def row(self, past: Past, id: str, image: RowImage) -> RowImage | None:
        """A row as it is today; None when it cannot be converted."""
        try:
            return fill_image(self._schema.stores[past.store], past.upgrade(image))
        except ValidationError as error:
            self._keep(past.store, id, "a row", str(error), image)
            return None

    def image(self, what: str, store: str, id: str, packed: bytes) -> bytes | None:
        """An image, packed; None when it cannot be converted, which is kept under ``what`` unless that is ``""``."""
        past = self.pasts[store]
        image = past.unpack(as_image(cast("dict[str, object]", msgspec.msgpack.decode(packed))))
        try:
            return encode(self._schema.stores[store].pack(past.upgrade(image)))
        except ValidationError as error:
            if what:
                self._keep(store, id, what, str(error), image)
            return None

    def op(self, op: Op, pasts: Mapping[str, Past]) -> Op | None:
        """``op`` in today's terms, without what cannot be converted; None when nothing is left to show."""
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
        """A JSON list of the fields that these fields have become."""
        return json.dumps(list(self.pasts[store].names(json.loads(names))))

    def taken_aside(self) -> list[Row]:
        """The rows for the quarantine of what has been kept since the last time: :data:`ASIDE`."""
        rows: list[Row] = [(store, id, what, reason, self._since, kept) for store, id, what, reason, kept in self.aside]
        self.put_aside += len(rows)
        self.aside.clear()
        return rows

    def conflict(self, conflict: Conflict) -> Conflict:
        """A conflict in today's terms; without its row when that cannot be converted."""
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
"""The columns of a quarantine that are written: its key is drawn."""


def scope_fact(store: AnyStore) -> str:
    """What a database notes of where the rows of a store have their scope from."""
    return f"field {store.scope_field}" if store.scope_field else f"fixed {store.fixed_scope}"


def moved_scope(past: Past, noted: object) -> bool:
    """Whether steps have given the field another name that ``noted``, as :func:`scope_fact` says it, names as the scope's."""
    return past.scope_field is not None and noted == f"field {past.scope_field}"


def check_scope(store: AnyStore, noted: object) -> None:
    """See that a table is that of a store, and that its rows have their scope from where they had it.

    Raises:
        MigrationError: It is none, or they have not; ``noted`` is what :func:`scope_fact` said of it.
    """
    if noted is None:
        raise MigrationError(f"a table {store.name!r} that is not a store is in the way; rename it or the store")
    if noted != scope_fact(store):
        raise MigrationError(
            f"store {store.name!r}: the scope was declared as {noted}, now as {scope_fact(store)}; rows cannot change "
            "their scope: declare a new store and copy the rows into it"
        )


def renames(table: str, past: Past, there: Collection[str]) -> list[str] | None:
    """The statements that give columns their names of today where that is all that steps have done; None where they did more.

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


def check_columns(past: Past, since: int, found: ColumnForms) -> None:
    """See that the columns of a store are as the steps say they were.

    Raises:
        MigrationError: They are not.
    """
    for name, (sql_type, nullable) in found.items():
        then = past.fields.get(name)
        if then is None:
            raise MigrationError(
                f"store {past.store!r}: version {since} has a column {name!r} that no step speaks of; "
                f'give it up with a step: Drop("{past.store}.{name}")'
            )
        if (sql_type, nullable) != (then.sql_type, then.nullable):
            raise MigrationError(
                f"store {past.store!r}: field {name!r} is {sql_type}{'' if nullable else ' NOT NULL'} in version {since}, "
                f"and {then.sql_type}{'' if then.nullable else ' NOT NULL'} by what the steps say"
            )


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Where the rows of a store are while they are converted, and where they go.

    Attributes:
        table: The table that has them, as SQL.
        key: Its key, all of it text; the id is the last part.
        carried: Columns of every table of rows that go along as they are.
        values: Its columns of values.
        packed: Those of them that hold values packed.
        put: Writes converted rows: key, what is carried, and the columns ``to``.
        to: The columns of today that :attr:`put` takes.
        drop: Takes away, by key, what cannot be converted; None where it stays behind by itself.
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
    """Convert every row of a store; how many there were.

    Args:
        dialect: How it is written.
        conversion: Converts them.
        past: The store as it was.
        rows: Where they are.
        told: Called with how far it is.
        instead: What a row is that cannot be converted, by its id; None for no row.
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
    """A page of a table behind a key."""
    names, places = ", ".join(map(quote, key)), ", ".join(dialect.place(at + 1) for at in range(len(key)))
    columns = ", ".join(map(quote, (*key, *others)))
    return f"SELECT {columns} FROM {table} WHERE ({names})>({places}) ORDER BY {names} LIMIT {PORTION}"


def _convertible(past: Past, packed: RowImage) -> RowImage:
    """The values that can be converted, converted."""
    found: RowImage = {}
    for name, value in packed.items():
        try:
            found |= past.upgrade(past.unpack({name: value}))
        except ValidationError:
            continue
    return found
