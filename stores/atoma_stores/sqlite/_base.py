"""The confirmed base under the visible rows: shadows, and what comes from the hub."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TypeAlias, cast

from atoma.contracts.mutations import BaseRow
from atoma.contracts.values import RowImage, Scalar, StoredRow
from atoma_stores.sqlite._rows import TxState, VisibleRows
from atoma_stores.sqlite._tables import StoreTable, pack, unpack

BaseChange: TypeAlias = tuple[str, RowImage | None, int]

CHUNK = 2_000


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
            self._put_shadow(table, scope, shadow.scope, change)

    def put_many(self, store: str, scope: str, rows: Iterable[BaseChange]) -> list[str]:
        """:meth:`put` for many rows of one store; returns the ids that are shadowed. The last of one id counts."""
        table = self._state.table(store)
        shadows: dict[str, str] = {}
        if self._state.known.shadows:
            found = self._connection.execute("SELECT id, scope FROM _atoma_shadow WHERE store=?", (store,)).fetchall()
            shadows = dict(cast("list[tuple[str, str]]", found))
        shadowed: list[str] = []
        pending = iter(rows)
        self._state.last = None
        while chunk := {row[0]: row for row in islice(pending, CHUNK)}:
            if shadows:
                for id in [id for id in chunk if id in shadows]:
                    shadowed.append(id)
                    self._put_shadow(table, scope, shadows[id], chunk.pop(id))
            self._put_clean(table, scope, chunk)
        return shadowed

    def _put_shadow(self, table: StoreTable, scope: str, known_scope: str, change: BaseChange) -> None:
        id, image, seq = change
        if image is None and known_scope != scope:
            return
        self._connection.execute(
            "UPDATE _atoma_shadow SET image=?, seq=?, scope=? WHERE store=? AND id=?",
            (pack(None if image is None else table.complete(image), table), seq, scope, table.name, id),
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
