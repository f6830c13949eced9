"""The rows in a transaction: what its parts share, the visible rows, and the confirmed base under them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice, repeat
from typing import TypeAlias, cast

import apsw
from msgspec.structs import replace

from atoma.contracts.mutations import BaseRow
from atoma.contracts.query import BoundQuery
from atoma.contracts.replica import ClientIdentity
from atoma.contracts.values import RowImage, Scalar, StoredRow
from atoma.errors import ConflictError, UnknownStore, ValidationError
from atoma.query.indexes import checked_index, indexes_of, unique_values
from atoma.schema.schema import Schema
from atoma_stores.changes import BeforeAfter, StoreDelta
from atoma_stores.sql.indexes import index_name
from atoma_stores.sqlite._history import HistoryRecorder
from atoma_stores.sqlite._others import Standing
from atoma_stores.sqlite._queries import QueryReader
from atoma_stores.sqlite._tables import StoreTable, pack, unpack
from atoma_stores.sqlite.codes import is_unique_violation
from atoma_stores.sqlite.main_files import NOTE_CHECKPOINTED, MainFile

Delta = dict[str, dict[str, BeforeAfter]]
BaseChange: TypeAlias = tuple[str, RowImage | None, int]

CHUNK = 2_000
_KNOWN = (
    "SELECT key, value FROM _atoma_meta WHERE key IN ('commit', 'version', 'outbox_rows', 'outbox_bytes', 'raw') "
    "UNION ALL SELECT 'programs', count(*) FROM _atoma_process "
    "UNION ALL SELECT 'shadows', EXISTS (SELECT 1 FROM _atoma_shadow) "
    "UNION ALL SELECT 'units', EXISTS (SELECT 1 FROM _atoma_unit) "
    "UNION ALL SELECT 'triggers', EXISTS (SELECT 1 FROM sqlite_schema WHERE type='trigger' AND name NOT GLOB '_atoma_*')"
)
_COMMITTED = "UPDATE _atoma_meta SET value=? WHERE key='commit'"
_MOVED = "UPDATE _atoma_meta SET value=CASE key WHEN 'commit' THEN ? ELSE ? END WHERE key IN ('commit', 'version')"
_QUEUED = (
    "UPDATE _atoma_meta SET value=CASE key WHEN 'commit' THEN ? WHEN 'version' THEN ? WHEN 'outbox_rows' THEN ? ELSE ? END "
    "WHERE key IN ('commit', 'version', 'outbox_rows', 'outbox_bytes')"
)


_SETTLED = (
    "SELECT id, image, seq, scope FROM _atoma_shadow AS h WHERE store=? AND id=? AND NOT EXISTS "
    "(SELECT 1 FROM _atoma_pending_row AS r WHERE r.store=h.store AND r.id=h.id)"
)
_OF_THE_OUTBOX = ("outbox_rows", "outbox_bytes")


class FileKnowledge:
    """The knowledge of the file from one transaction to the next, as long as nobody else writes to it.

    SQLite moves the version of the data by one with every commit, of this connection and of others. So what a transaction
    has left holds within it, and in the next one when the version is one further: then that commit was its own.

    Attributes:
        counters: The counters as the last unit has left them; :meth:`write` brings them into the file.
        identity: Who the file is to a hub, as the last unit has left it; None when that has not been asked.
        shadows: Whether confirmed images may be set aside, of any store.
        units: Whether answers of units may be kept.
        raw: How many rows other tools have written in all.
        programs: How many programs have the file open.
        told: How far the file was when this program last told what it has come to.
    """

    __slots__ = (
        "_connection",
        "_main",
        "_noted",
        "_version",
        "_written",
        "counters",
        "identity",
        "programs",
        "raw",
        "shadows",
        "told",
        "units",
    )

    def __init__(self, main: MainFile | None = None) -> None:
        self.counters: dict[str, int] = {}
        self._written = self.counters
        self.identity: ClientIdentity | None = None
        self.shadows = self.units = True
        self.raw = 0
        self.programs = 1
        self.told = Standing()
        self._version = -2
        self._connection: apsw.Connection | None = None
        self._main = main
        self._noted = 0

    def refresh(self, connection: apsw.Connection) -> None:
        """Ask the file, unless what is known of it holds."""
        if connection is not self._connection:
            self._connection, self._version = connection, -2
        if 0 <= connection.data_version() - self._version <= 1:
            return
        rows = cast("list[tuple[str, int]]", connection.execute(_KNOWN).fetchall())
        self.counters = dict(rows)
        self.raw, self.programs = self.counters.pop("raw"), self.counters.pop("programs")
        self.shadows, self.units = bool(self.counters.pop("shadows")), bool(self.counters.pop("units"))
        # the engine's own triggers are for other tools: here each would find, row by row, that it has nothing to do
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, self.counters.pop("triggers"))
        self._written, self.identity = self.counters, None
        self._version = connection.data_version()

    def left(self, connection: apsw.Connection, counters: dict[str, int]) -> None:
        """A unit of the open transaction leaves these counters behind."""
        self.counters, self._version = counters, connection.data_version()

    def write(self, connection: apsw.Connection) -> None:
        """Bring the counters into the file, before COMMIT: once for all units of a group, and those that moved by one statement."""
        now, written = self.counters, self._written
        if now is written:
            return
        if any(now[name] != written[name] for name in _OF_THE_OUTBOX):
            connection.execute(_QUEUED, (now["commit"], now["version"], *[now[name] for name in _OF_THE_OUTBOX]))
        elif now["version"] != written["version"]:
            connection.execute(_MOVED, (now["commit"], now["version"]))
        elif now["commit"] != written["commit"]:
            connection.execute(_COMMITTED, (now["commit"],))
        self._written = now
        self.note(connection)

    def note(self, connection: apsw.Connection) -> None:
        """Write down what the main file alone has come to, once for each checkpoint: a log says by it whose it is."""
        seen = 0 if self._main is None else self._main.checkpointed
        if seen > self._noted:
            connection.execute(NOTE_CHECKPOINTED, (seen,))
            self._noted = seen

    def forget(self) -> None:
        """Ask the file anew: what was left is undone, and nothing of it is to be written."""
        self._version, self._written, self._noted = -2, self.counters, 0


class Counters:
    """The file's counters in one unit: known when first needed, and left to the next one at its end."""

    __slots__ = ("_connection", "_known", "_loaded", "_now")

    def __init__(self, connection: apsw.Connection, known: FileKnowledge) -> None:
        self._connection = connection
        self._known = known
        self._loaded: dict[str, int] = {}
        self._now: dict[str, int] = {}

    def get(self, name: str) -> int:
        """The counter as it stands in this unit."""
        if not self._loaded:
            self._known.refresh(self._connection)
            self._loaded = self._known.counters
            self._now = dict(self._loaded)
        return self._now[name]

    def add(self, name: str, amount: int) -> int:
        """Move the counter and return where it stands."""
        self._now[name] = value = self.get(name) + amount
        return value

    @property
    def moved(self) -> bool:
        """Whether there is something to leave."""
        return self._now != self._loaded

    def leave(self) -> None:
        """Let what follows go on from here; called once, last."""
        self._known.left(self._connection, self._now)


class TxState:
    """The common state of the parts of one transaction: the connection, and what the transaction has done so far.

    Attributes:
        connection: Where the transaction is open.
        schema: The declared stores.
        tables: Statements and conversions by store.
        counters: The file's counters.
        changes: What the transaction did to visible rows: the first ``old`` and the last ``new`` of each.
        recorder: Writes down what the transaction does to visible rows; None in a file that keeps no history.
        last: The visible row that was read last, until something moves: who writes a row has usually just read it.
    """

    __slots__ = ("_asked", "_known", "changes", "connection", "counters", "last", "recorder", "schema", "tables")

    def __init__(
        self,
        connection: apsw.Connection,
        schema: Schema,
        tables: Mapping[str, StoreTable],
        known: FileKnowledge,
    ) -> None:
        self.connection = connection
        self.schema = schema
        self.tables = tables
        self._known = known
        self._asked = False
        self.counters = Counters(connection, known)
        self.changes: Delta = {}
        self.last: tuple[str, str, StoredRow | None] | None = None
        self.recorder: HistoryRecorder | None = None

    @property
    def known(self) -> FileKnowledge:
        """What is known of the file; asked for when first needed, as nobody else writes to it before the end."""
        if not self._asked:
            self._known.refresh(self.connection)
            self._asked = True
        return self._known

    @property
    def asked(self) -> FileKnowledge | None:
        """What is known of the file, if it was asked for in this unit; None when it may hold no more."""
        return self._known if self._asked else None

    def table(self, store: str) -> StoreTable:
        """The table of a store.

        Raises:
            UnknownStore: It is not declared.
        """
        table = self.tables.get(store)
        if table is None:
            raise UnknownStore(store, tuple(self.tables))
        return table

    def note(self, store: str, id: str, old: StoredRow | None, new: StoredRow | None) -> None:
        """Remember a change; what the transaction did to a row is the first ``old`` and the last ``new``."""
        self.last = None
        delta = self.changes.setdefault(store, {})
        known = delta.get(id)
        delta[id] = (old, new) if known is None else (known[0], new)

    def index_searches(self) -> None:
        """Bring the indexes of words to what the transaction has done."""
        for store, delta in self.changes.items():
            search = self.tables[store].search
            if search is not None:
                search.follow(self.connection, delta)

    def net_changes(self) -> dict[str, StoreDelta]:
        """What changed, without rows that are as they were."""
        found: dict[str, StoreDelta] = {}
        for store, delta in self.changes.items():
            real = {id: change for id, change in delta.items() if change[0] is not None or change[1] is not None}
            if real:
                found[store] = real
        return found

    def next_version(self) -> int:
        """A local version that no row of this file ever had."""
        return self.counters.add("version", 1)


class VisibleRows:
    """The rows that the user sees; see ``RowsPart``.

    Attributes:
        enforce_unique: Whether the engine checks unique indexes of synced stores (for users' writes, not for what
            comes from the hub).
    """

    __slots__ = ("_connection", "_state", "enforce_unique")

    def __init__(self, state: TxState) -> None:
        self._state = state
        self._connection = state.connection
        self.enforce_unique = False

    def read(self, store: str, id: str) -> StoredRow | None:
        """The visible row."""
        last = self._state.last  # who writes a row has usually just read it
        if last is not None and last[1] == id and last[0] == store:
            return last[2]
        table = self._state.table(store)
        raw = self._connection.execute(table.select, (id,)).fetchone()
        row = None if raw is None else table.row(raw)
        self._state.last = (store, id, row)
        return row

    def matching(self, query: BoundQuery) -> Sequence[str]:
        """Ids of the visible rows that ``query`` finds now; see ``RowsPart``."""
        found = QueryReader(self._state.tables).answer(query)(self._connection)
        return [row.id for row in found.rows]

    def put(self, store: str, id: str, scope: str, image: RowImage | None) -> int:
        """Make ``image`` the visible row (None deletes it) and return its new version; see ``RowsPart``."""
        table = self._state.table(store)
        old = self.read(store, id)
        if image is not None:
            image = table.complete(image)
        if old is None:
            return 0 if image is None else self._insert(table, id, scope, image, 0)
        if old.scope != scope:
            raise ValidationError(
                f"{store}/{id} belongs to scope {old.scope!r} and cannot move to {scope!r}; delete it and insert it anew",
                store=store,
            )
        if image is None:
            self._connection.execute(table.delete, (id,))
            self._state.note(store, id, old, None)
            return 0
        if image == old.image:
            return old.version
        return self._update(table, old, image)

    def insert(self, store: str, id: str, scope: str, image: RowImage) -> int | None:
        """Insert a row and return its version; None and no change when there is a row with this id."""
        table = self._state.table(store)
        try:
            return self._insert(table, id, scope, table.complete(image), 0)
        except ConflictError:  # of the row's id or of another unique value, whichever SQLite has met first
            if self.read(store, id) is not None:
                return None
            raise

    def insert_many(
        self, store: str, ids: Sequence[str], scopes: Sequence[str], images: Sequence[RowImage]
    ) -> Sequence[int] | None:
        """Insert many rows at once; None and no change when one of them is refused.

        Several times faster than :meth:`put` per row, for callers that know what to do row by row otherwise.
        """
        table = self._state.table(store)
        if table.unique or (not table.synced and self._state.known.shadows and self._has_shadows(store)):
            return None
        versions = range(first := self._state.counters.get("version") + 1, first + len(ids))
        try:
            images = table.complete_many(images)
            rows = zip(ids, versions, scopes, table.values_of_many(images), strict=True)
        except ValidationError:
            return None
        self._state.last = None
        connection = self._connection
        connection.execute("SAVEPOINT bulk")
        try:
            # one row after the other: as many tuples at a time would have the garbage collector look for cycles in them
            connection.executemany(table.insert, ((id, version, 0, scope, *own) for id, version, scope, own in rows))
        except apsw.ConstraintError:
            connection.execute("ROLLBACK TO bulk")
            return None
        finally:
            if connection.in_transaction:
                connection.execute("RELEASE bulk")
        self._state.counters.add("version", len(ids))
        delta = self._state.changes.setdefault(store, {})
        known = {id: delta[id][0] for id in ids if id in delta} if delta else {}
        made = map(StoredRow, ids, versions, repeat(0), scopes, images)
        delta.update(zip(ids, zip(repeat(None), made, strict=False), strict=True))
        for id, old in known.items():
            delta[id] = (old, delta[id][1])
        return versions

    def _has_shadows(self, store: str) -> bool:
        found: object = self._connection.execute("SELECT 1 FROM _atoma_shadow WHERE store=? LIMIT 1", (store,)).get
        return found is not None

    def _insert(self, table: StoreTable, id: str, scope: str, image: RowImage, seq: int) -> int:
        self._check_unique(table, id, scope, image)
        row = StoredRow(id, self._state.next_version(), seq, scope, image)
        self._run(table, id, table.insert, (id, row.version, seq, scope, *table.values(image)))
        self._state.note(table.name, id, None, row)
        return row.version

    def _update(self, table: StoreTable, old: StoredRow, image: RowImage) -> int:
        self._check_unique(table, old.id, old.scope, image)
        moved = not table.spec.is_same(old.image, image)  # what the hub has set is no reason to read the row again
        row = replace(old, version=self._state.next_version() if moved else old.version, image=image)
        self._run(table, old.id, table.update, (*table.values(image), row.version, old.id))
        self._state.note(table.name, old.id, old, row)
        return row.version

    def _run(self, table: StoreTable, id: str, sql: str, values: tuple[Scalar, ...]) -> None:
        try:
            self._connection.execute(sql, values)
        except apsw.ConstraintError as error:
            self._state.counters.add("version", -1)  # no row has got what was drawn for this one
            if not is_unique_violation(error):
                raise ValidationError(f"{table.name}/{id}: {error}", store=table.name) from None
            raise _taken(table, id, _said(table, str(error).partition(": ")[2])) from None

    def check_unique(self, store: str, id: str) -> None:
        """Refuse a row that shows a unique value of another one; see ``RowsPart``."""
        row = self.read(store, id)
        if row is not None:
            self._refuse_taken(self._state.table(store), id, row.scope, row.image)

    def _check_unique(self, table: StoreTable, id: str, scope: str, image: RowImage) -> None:
        if self.enforce_unique and table.unique:
            self._refuse_taken(table, id, scope, image)

    def _refuse_taken(self, table: StoreTable, id: str, scope: str, image: RowImage) -> None:
        for index, values in unique_values(table.spec, id, image):
            other: object = self._connection.execute(table.unique[index], (*values, scope, id)).get
            if other is not None:
                raise _taken(table, id, checked_index(index, table.spec).said)


class ConfirmedRows:
    """The confirmed image of every row: its shadow if it has one, else the visible row; see ``ConfirmedPart``."""

    __slots__ = ("_connection", "_rows", "_state")

    def __init__(self, state: TxState, rows: VisibleRows) -> None:
        self._state = state
        self._connection = state.connection
        self._rows = rows

    def read(self, store: str, id: str) -> BaseRow:
        """The confirmed image: the shadow if the row has pending mutations, else the visible row."""
        shadow = self.shadow_of(store, id)
        if shadow is not None:
            return shadow
        row = self._rows.read(store, id)
        return BaseRow(None, 0, "", False) if row is None else BaseRow(row.image, row.seq, row.scope, False)

    def shadow_of(self, store: str, id: str) -> BaseRow | None:
        """The confirmed image where it was set aside; None where it is the visible row."""
        table = self._state.table(store)
        if not self._state.known.shadows:
            return None
        shadow = self._connection.execute(
            "SELECT image, seq, scope FROM _atoma_shadow WHERE store=? AND id=?", (store, id)
        ).fetchone()
        if shadow is None:
            return None
        return BaseRow(unpack(shadow[0], table), cast("int", shadow[1]), cast("str", shadow[2]), True)

    def put(self, store: str, id: str, scope: str, image: RowImage | None, seq: int) -> None:
        """Make ``image`` the confirmed image: the shadow if there is one, else the visible row itself.

        A deletion that names another scope than the row's is of an older life of the row and is passed over.
        """
        table, change = self._state.table(store), (id, image, seq)
        shadow = self.shadow_of(store, id)  # this one, not those of the whole store: many may be set aside
        self._state.last = None
        if shadow is None:
            self._put_clean(table, scope, {id: change})
        else:
            self._put_shadows(table, scope, [(shadow.scope, change)])

    def put_many(self, store: str, scope: str, rows: Iterable[BaseChange]) -> list[str]:
        """:meth:`put` for many rows of one store; returns the ids that are shadowed. The last of one id counts."""
        table = self._state.table(store)
        shadowed: list[str] = []
        pending = iter(rows)
        self._state.last = None
        while chunk := {row[0]: row for row in islice(pending, CHUNK)}:
            if self._state.known.shadows:
                shadows = self._scopes_of_shadows(
                    store, chunk
                )  # not all of the store: as many may wait as the outbox holds
                shadowed += shadows
                self._put_shadows(table, scope, [(known, chunk.pop(id)) for id, known in shadows.items()])
            self._put_clean(table, scope, chunk)
        return shadowed

    def _scopes_of_shadows(self, store: str, ids: Iterable[str]) -> dict[str, str]:
        """The scopes of those of ``ids`` that are shadowed."""
        found = self._connection.executemany(
            "SELECT id, scope FROM _atoma_shadow WHERE store=? AND id=?", ((store, id) for id in ids)
        ).fetchall()
        return dict(cast("list[tuple[str, str]]", found))

    def _put_shadows(self, table: StoreTable, scope: str, changes: Sequence[tuple[str, BaseChange]]) -> None:
        """Replace shadows, each given with the scope that it has."""
        self._connection.executemany(
            "UPDATE _atoma_shadow SET image=?, seq=?, scope=? WHERE store=? AND id=?",
            [
                (pack(None if image is None else table.complete(image), table), seq, scope, table.name, id)
                for known, (id, image, seq) in changes
                if image is not None or known == scope
            ],
        )

    def _put_clean(self, table: StoreTable, scope: str, chunk: dict[str, BaseChange]) -> None:
        """Rows without pending mutations: base and visible row are one."""
        connection = self._connection
        old = {
            row.id: row
            for row in map(table.row, connection.executemany(table.select, ((id,) for id in chunk)).fetchall())
        }
        upserts: list[tuple[Scalar, ...]] = []
        deletes: list[tuple[str]] = []
        moved: list[tuple[int, str]] = []
        for id, image, seq in chunk.values():
            before = old.get(id)
            if image is None:
                if before is not None and before.scope == scope:
                    deletes.append((id,))
                    self._state.note(table.name, id, before, None)
                continue
            image = table.complete(image)
            if before is not None and before.image == image and before.scope == scope:
                if before.seq != seq:
                    moved.append((seq, id))
                continue
            row = StoredRow(id, self._state.next_version(), seq, scope, image)
            upserts.append((id, row.version, seq, scope, *table.values(image)))
            self._state.note(table.name, id, before, row)
        # deletions first, so that a value may move from one row to another under a unique index
        if deletes:
            connection.executemany(table.delete, deletes)
        if upserts:
            connection.executemany(table.upsert, upserts)
        if moved:
            connection.executemany(table.set_seq, moved)

    def shadow(self, store: str, id: str, scope: str, pre: RowImage | None) -> bool:
        """Set ``pre`` aside as the confirmed image and return True, unless the row is shadowed already."""
        change = self._state.changes.get(store, {}).get(id)
        if change is not None:
            seq = 0 if change[0] is None else change[0].seq  # of the row as it was before this transaction
        else:
            found: object = self._connection.execute(self._state.table(store).select_seq, (id,)).get
            seq = cast("int", found or 0)
        self._connection.execute(
            "INSERT OR IGNORE INTO _atoma_shadow(store, id, scope, seq, image) VALUES(?,?,?,?,?)",
            (store, id, scope, seq, pack(pre, self._state.table(store))),
        )
        self._state.known.shadows = True
        return self._connection.changes() > 0

    def unshadow(self, store: str, id: str) -> None:
        """Forget the shadow; the visible row keeps its image and takes the shadow's sequence."""
        seq: object = self._connection.execute(
            "DELETE FROM _atoma_shadow WHERE store=? AND id=? RETURNING seq", (store, id)
        ).get
        if seq is not None:
            self._state.last = None
            self._connection.execute(self._state.table(store).set_seq, (cast("int", seq), id))

    def unshadow_settled(self, store: str, ids: Sequence[str]) -> Collection[str]:
        """:meth:`unshadow` of those of ``ids`` on which nothing is pending and that are visible as they are confirmed; which."""
        if not self._state.known.shadows:
            return ()
        connection, table = self._connection, self._state.table(store)
        found = connection.executemany(_SETTLED, ((store, id) for id in ids)).fetchall()
        if not found:
            return ()
        settled = cast("list[tuple[str, bytes | None, int, str]]", found)
        seen = connection.executemany(table.select, ((id,) for id, _, _, _ in settled)).fetchall()
        visible = {row.id: row for row in map(table.row, seen)}
        gone = {id: seq for id, image, seq, scope in settled if _shows(table, visible.get(id), scope, image)}
        self._state.last = None
        connection.executemany("DELETE FROM _atoma_shadow WHERE store=? AND id=?", ((store, id) for id in gone))
        connection.executemany(table.set_seq, ((seq, id) for id, seq in gone.items()))
        return gone.keys()

    def shadowed(self, scope: str) -> Sequence[tuple[str, str]]:
        """``(store, id)`` of every shadowed row of a scope."""
        rows = self._connection.execute(
            "SELECT store, id FROM _atoma_shadow WHERE scope=? ORDER BY store, id", (scope,)
        ).fetchall()
        return cast("list[tuple[str, str]]", rows)

    def hidden(self, store: str) -> Sequence[str]:
        """Ids of shadowed rows on which nothing is pending; none of a synced store, where no index refuses what is rebased."""
        if self._state.table(store).synced:
            return []
        rows = self._connection.execute(
            "SELECT id FROM _atoma_shadow AS h WHERE store=? AND NOT EXISTS "
            "(SELECT 1 FROM _atoma_pending_row AS r WHERE r.store=h.store AND r.id=h.id) ORDER BY id",
            (store,),
        ).fetchall()
        return [cast("str", row[0]) for row in rows]


def _shows(table: StoreTable, row: StoredRow | None, scope: str, packed: bytes | None) -> bool:
    """Whether the visible row is what is confirmed of it."""
    if row is None or packed is None:
        return row is None and packed is None
    image = unpack(packed, table)
    return row.scope == scope and image is not None and row.image == table.complete(image)


def _said(table: StoreTable, told: str) -> str:
    """What SQLite calls what refuses a row, its columns or an index over expressions, as people know it."""
    name = told.removeprefix("index '").removesuffix("'")
    for index in indexes_of(table.spec):
        if name == index_name(table.spec, index, unique=True):
            return index.said
    columns = [each.rpartition(".")[2] for each in told.split(", ")]
    return ", ".join([each for each in columns if not each.startswith("_")])


def _taken(table: StoreTable, id: str, said: str) -> ConflictError:
    """A unique index refuses the row, whether SQLite keeps the index or the engine does."""
    return ConflictError(f"{table.name}/{id}: another row has the same {said}", store=table.name, id=id)
