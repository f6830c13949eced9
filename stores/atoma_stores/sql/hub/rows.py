"""The SQL of one store's table at the hub, and what the log keeps of rows and verdicts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import msgspec

from atoma.contracts.codec import decode, encode
from atoma.contracts.sync import Conflict, Outcome, OutcomeStatus
from atoma.contracts.values import ErrorInfo, RowImage, Scalar, as_image
from atoma.query.indexes import unique_values
from atoma.schema.indexes import Index
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.names import quote
from atoma_stores.sql.tables import SqlColumns

_ROW_KEY: SqlColumns = {"scope": "TEXT", "id": "TEXT"}
_KEY: SqlColumns = {"_scope": "TEXT", "id": "TEXT"}
_SYSTEM: SqlColumns = {"_ver": "INTEGER", "_seq": "INTEGER", "_other_seq": "INTEGER"}


class StoreSql:
    """SQL for one store's table at the hub, where ``_ver`` is the number of the client that changed the row last.

    ``_other_seq`` is the sequence of the last change by anybody else: below the log's floor nothing else tells a client
    whose own change is the last one that somebody else's lies underneath.

    Attributes:
        name: Store name.
        columns: Value columns.
        unique: The columns of each unique index; with one, a row can be in the way of another.
        get: By scope and id → position among the keys, columns, sequence, sequence of the last change by another author,
            client id of its own author (NULL for a direct write).
        offered: ``(scope, epoch, position)`` → id in the place of the position among the keys, and the same, of the rows
            that have been offered from before that position.
        behind: ``(scope,)`` → the same, of the rows that are changed behind the head of the scope.
        put: ``(columns…, author, sequence, other sequence, scope, id)``.
        delete: ``(scope, id)``.
        scan: ``(scope, after id, limit)`` → id, sequence, columns, in order of id.
        locate: By id → id, scope.
        looks_back: Whether its rules ask what others have made of a row.
    """

    __slots__ = (
        "_spec",
        "behind",
        "columns",
        "delete",
        "get",
        "locate",
        "looks_back",
        "name",
        "offered",
        "put",
        "scan",
        "unique",
    )

    def __init__(self, dialect: Dialect, store: StoreSpec[object]) -> None:
        self._spec = store
        self.name = store.name
        self.columns = store.value_columns
        self.unique = store.unique
        self.looks_back = store.merging.looks_back
        table = dialect.store(store.name)
        values = "".join(f", t.{quote(column)}" for column in self.columns)
        other = other_seq(row="t", scope="t._scope", store=f"'{store.name}'", columns=("_other_seq", "_seq", "_ver"))
        known = f"{values}, t._seq, {other}, c.client_id"
        author = "LEFT JOIN {client} c ON c.number=t._ver"
        at = "{join} {table} t ON t._scope=k.scope AND t.id=k.id"
        self.get = dialect.lookup(_ROW_KEY, f"SELECT k.n{known} FROM {{keys}} {at} {author}", table=table)
        traced = "r.scope={p1} AND r.epoch={p2} AND r.position<{p3} AND r.store='" + store.name + "'"
        self.offered = dialect.render(
            f"SELECT t.id{known} FROM {{trace}} r {{join}} {{table}} t ON t._scope=r.scope AND t.id=r.id {author} "
            f"WHERE {traced}",
            table=table,
        )
        self.behind = dialect.render(
            f"SELECT t.id{known} FROM {{change}} b {{join}} {{table}} t ON t._scope=b.scope AND t.id=b.id {author} WHERE "
            f"b.scope={{p1}} AND b.store='{store.name}' "
            "AND b.seq>coalesce((SELECT s.head FROM {scope} s WHERE s.scope=b.scope), 0)",
            table=table,
        )
        columns: SqlColumns = {**{name: store.fields[name].sql_type for name in self.columns}, **_SYSTEM, **_KEY}
        sets = ", ".join(f"{quote(name)}=excluded.{quote(name)}" for name in (*self.columns, *_SYSTEM))
        self.put = dialect.insert(table, columns, f"(_scope, id) DO UPDATE SET {sets}", store=self.name)
        self.delete = dialect.delete(table, _KEY, store=self.name)
        self.scan = dialect.render(
            f"SELECT t.id, t._seq{values} FROM {{table}} t WHERE t._scope={{p1}} AND t.id>{{p2}} ORDER BY t.id LIMIT {{p3}}",
            table=table,
        )
        # rows are clustered by scope, so every scope is looked into
        self.locate = dialect.lookup(
            {"id": "TEXT"},
            "SELECT k.id, s.scope FROM {keys} {join} {scope} s ON 1=1 {join} {table} t ON t._scope=s.scope AND t.id=k.id "
            "ORDER BY k.n, s.scope",
            table=table,
        )

    def unique_values(self, id: str, image: RowImage) -> Iterator[tuple[Index, tuple[Scalar, ...]]]:
        """What a row has under each unique index; see :func:`atoma.query.indexes.unique_values`."""
        return unique_values(self._spec, id, image)

    def pack(self, image: RowImage) -> bytes:
        """An image as the log and tombstones keep it."""
        return encode(self._spec.pack(image))

    def unpack(self, packed: bytes) -> RowImage:
        """The image in a log entry or tombstone."""
        return self._spec.unpack(read_image(packed))

    def image(self, values: Sequence[Scalar]) -> RowImage:
        """An image from values in the order of ``columns``."""
        return dict(zip(self.columns, values, strict=True))


def stores_of(dialect: Dialect, schema: Schema) -> Mapping[str, StoreSql]:
    """The SQL of every store."""
    return {store.name: StoreSql(dialect, store) for store in schema.stores.values()}


def other_seq(*, row: str, scope: str, store: str, columns: tuple[str, str, str]) -> str:
    """Part of a template: the sequence of the last change of ``row`` by anybody but its author.

    Of a row from before this was kept, the log tells, else anything that lies below its floor.

    Args:
        row: What the row is called in the text.
        scope: SQL of its scope.
        store: SQL of its store.
        columns: Where it keeps this, its own sequence, and its author.
    """
    kept, seq, author = (f"{row}.{column}" for column in columns)
    logged = (
        f"SELECT max(o.seq) FROM {{change}} o WHERE o.scope={scope} AND o.store={store} AND o.id={row}.id "
        f"AND o.author<>{author}"
    )
    floor = f"SELECT f.floor FROM {{scope}} f WHERE f.scope={scope}"
    return f"coalesce({kept}, ({logged}), {{least}}({seq}, ({floor})))"


class _Detail(msgspec.Struct, frozen=True, array_like=True):
    error: ErrorInfo | None
    conflicts: tuple[Conflict, ...]


def read_image(packed: bytes) -> RowImage:
    """The image in a log entry or tombstone as it is packed."""
    return as_image(cast("dict[str, object]", msgspec.msgpack.decode(packed)))


def read_outcome(mid: int, status: str, scope: str, seq: int, detail: bytes | None) -> Outcome:
    """An outcome from its row."""
    found = _Detail(None, ()) if detail is None else decode(detail, _Detail)
    return Outcome(mid, cast("OutcomeStatus", status), scope, seq, error=found.error, conflicts=found.conflicts)


def turned_detail(detail: bytes, turn: Callable[[Conflict], Conflict]) -> bytes:
    """What :func:`detail_of` made, with each of its conflicts turned."""
    found = decode(detail, _Detail)
    return encode(_Detail(found.error, tuple(turn(conflict) for conflict in found.conflicts)))


def detail_of(outcome: Outcome) -> bytes | None:
    """What :func:`read_outcome` reads the error and the conflicts from."""
    if outcome.error is None and not outcome.conflicts:
        return None
    return encode(_Detail(outcome.error, outcome.conflicts))


def gravestone(*names: str | bytes) -> bytes:
    """What is kept of a client, or of a key, that was forgotten."""
    parts = (name.encode() if isinstance(name, str) else name for name in names)
    return hashlib.sha256(b"\0".join(parts)).digest()[:16]
