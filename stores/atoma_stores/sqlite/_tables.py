"""A store's table as prepared statements and conversions; made once per open database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import eq, itemgetter, ne
from typing import TypeAlias, cast

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import RowImage, Scalar, StoredRow, TableRow, TableRows, as_image
from atoma.errors import ValidationError
from atoma.query.indexes import CheckedIndex, checked_index
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.defaults import fill_image
from atoma_stores.sql.fence import KEY_COLUMNS, SCOPE
from atoma_stores.sql.indexes import row_text
from atoma_stores.sql.names import quote
from atoma_stores.sqlite._search import SearchIndex

Values: TypeAlias = tuple[Scalar, ...]

COMMIT = "SELECT value FROM _atoma_meta WHERE key='commit'"
"""Reads the number of the last commit."""


def pack(image: RowImage | None, table: StoreTable | None) -> bytes | None:
    """An image as it lies in the internal tables; of a store that is not declared any more, as it is."""
    if image is None:
        return None
    return encode(image if table is None else table.spec.pack(image))


def unpack(data: object, table: StoreTable | None) -> RowImage | None:
    """What :func:`pack` made."""
    if data is None:
        return None
    image = as_image(decode(cast("bytes", data), dict[str, object]))
    return image if table is None else table.spec.unpack(image)


class StoreTable:
    """Statements and conversions of one store.

    Attributes:
        spec: The declaration.
        synced: Whether it replicates.
        columns: Value columns in declaration order.
        unique: The unique indexes that the engine has to check itself, each with a statement that finds another row of the
            scope with the same values in it.
        search: The index of its words; None when it is not searched.
        row: Makes a row of what one of the SELECT statements gave; what follows its columns is passed over.
    """

    def __init__(self, spec: StoreSpec[object], synced: bool) -> None:
        self.spec = spec
        self.synced = synced
        self.columns = spec.value_columns
        self.row = _row_maker(spec)
        self._make_rows = _rows_maker(spec)
        self._names = frozenset(self.columns)
        self.unique = {index: _taken_by(spec, checked_index(index, spec)) for index in spec.unique} if synced else {}
        self.search = SearchIndex(spec) if spec.search else None
        self._values = _value_getter(self.columns)
        self._nan_columns = tuple(f.name for f in spec.fields.values() if f.sql_type == "REAL" and f.nullable)
        table = quote(spec.name)
        names = [quote(name) for name in self.columns]
        places = ",".join("?" * (len(names) + 4))
        sets = ", ".join(f"{name}=excluded.{name}" for name in [*names, "_ver", "_seq", "_scope"])
        self.name = spec.name
        row = ", ".join([*KEY_COLUMNS, *names])
        self.select = f"SELECT {row} FROM {table} WHERE id=?"
        self.point = f"SELECT {row}, ({COMMIT}) FROM {table} WHERE id=?"
        self.insert = f"INSERT INTO {table}({', '.join(['id', '_ver', '_seq', '_scope', *names])}) VALUES({places})"
        self.upsert = f"{self.insert} ON CONFLICT(id) DO UPDATE SET {sets}"
        self.update = f"UPDATE {table} SET {', '.join(f'{name}=?' for name in [*names, '_ver'])} WHERE id=?"
        self.delete = f"DELETE FROM {table} WHERE id=?"
        self.set_seq = f"UPDATE {table} SET _seq=? WHERE id=?"
        self.select_seq = f"SELECT _seq FROM {table} WHERE id=?"
        shadow = "SELECT 1 FROM _atoma_shadow AS h WHERE h.store={store} AND h.id={id}"
        self.beyond = (
            f"SELECT {row} FROM {table} WHERE _scope=?1 AND _seq>?2 AND NOT EXISTS "
            f"({shadow.format(store='?3', id=f'{table}.id')})"
        )
        self.gone = (
            "SELECT s.id, s.seq FROM _atoma_stage AS s WHERE s.scope=?1 AND s.store=?2 AND s.seq<=?3 AND s.image IS NOT "
            f"NULL AND NOT EXISTS ({shadow.format(store='?2', id='s.id')} AND h.image IS NOT NULL) AND (EXISTS "
            f"({shadow.format(store='?2', id='s.id')}) OR NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t.id=s.id))"
        )
        self.unstaged = (
            f"SELECT id FROM {table} AS t WHERE _scope=?1 AND NOT EXISTS (SELECT 1 FROM _atoma_stage AS s "
            "WHERE s.scope=?1 AND s.store=?2 AND s.id=t.id AND s.image IS NOT NULL)"
        )

    def rows(self, table: Sequence[TableRow]) -> TableRows:
        """The rows of a whole result, which has nothing but their columns."""
        return TableRows(self.columns, table, self._make_rows)

    def values(self, image: RowImage) -> Values:
        """The values of a complete image, in column order.

        Raises:
            ValidationError: A value is NaN, which SQLite would store as NULL.
            KeyError: A column is missing.
        """
        for name in self._nan_columns:
            value = image[name]
            if value != value:  # only NaN differs from itself
                raise ValidationError(f"{self.name}.{name}: NaN cannot be stored", store=self.name, field=name)
        return self._values(image)

    def values_of_many(self, images: Sequence[RowImage]) -> Iterable[Values]:
        """:meth:`values` of each of ``images``, for the columns that can be NaN one column after the other."""
        for name in self._nan_columns:
            column = [image[name] for image in images]
            if any(map(ne, column, column)):
                return [self.values(image) for image in images]  # which raises
        return map(self._values, images)

    def complete_many(self, images: Sequence[RowImage]) -> Sequence[RowImage]:
        """:meth:`complete` of each of ``images``; the same ones where each of them is."""
        whole = all(map(eq, map(RowImage.keys, images), repeat(self._names)))
        return images if whole else [self.complete(image) for image in images]

    def is_whole(self, image: RowImage) -> bool:
        """Whether ``image`` has every declared column, and perhaps others: of a program of another schema it may lack some."""
        return image.keys() >= self._names

    def complete(self, image: RowImage) -> RowImage:
        """``image`` with exactly the declared columns (it may be of an older or newer schema)."""
        return image if image.keys() == self._names else fill_image(self.spec, image)


def _row_maker(spec: StoreSpec[object]) -> Callable[[Sequence[object]], StoredRow]:
    """What makes a row of its key columns and values, written for them: the loop over their names costs four times as much."""
    image = ", ".join(f"{name!r}: raw[{at}]" for at, name in enumerate(spec.value_columns, len(KEY_COLUMNS)))
    scope = f"raw[{SCOPE}]" if spec.scope_field else repr(spec.fixed_scope)  # which is not read everywhere
    source = f"lambda raw: StoredRow(raw[0], raw[1], raw[2], {scope}, {{{image}}})"
    return cast("Callable[[Sequence[object]], StoredRow]", eval(source, {"StoredRow": StoredRow}))


def _rows_maker(spec: StoreSpec[object]) -> Callable[[Iterable[Sequence[object]]], list[StoredRow]]:
    """The same for all rows of a result: a call for each of them takes a quarter longer."""
    columns = spec.value_columns
    values = [f"v{at}" for at in range(len(columns))]
    image = ", ".join([f"{name!r}: {value}" for name, value in zip(columns, values, strict=True)])
    scope = "scope" if spec.scope_field else repr(spec.fixed_scope)
    taken = ", ".join(["id, ver, seq, scope", *values])
    source = f"lambda raws: [StoredRow(id, ver, seq, {scope}, {{{image}}}) for {taken} in raws]"
    return cast("Callable[[Iterable[Sequence[object]]], list[StoredRow]]", eval(source, {"StoredRow": StoredRow}))


def _taken_by(spec: StoreSpec[object], index: CheckedIndex) -> str:
    same = [f"{row_text(key.expr, spec)}=?" for key in index.keys]
    within = [] if index.where is None else [row_text(index.where, spec)]
    conditions = " AND ".join([*same, *within, "_scope=?", "id<>?"])
    return f"SELECT id FROM {quote(spec.name)} WHERE {conditions} LIMIT 1"


def _value_getter(columns: tuple[str, ...]) -> Callable[[RowImage], Values]:
    if not columns:
        return lambda image: ()
    if len(columns) == 1:
        only = columns[0]
        return lambda image: (image[only],)
    return cast("Callable[[RowImage], Values]", itemgetter(*columns))
