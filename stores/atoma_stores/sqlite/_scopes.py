"""Replication state: subscriptions, cursors, and the snapshot under construction."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, cast

from msgspec import structs

from atoma.contracts.codec import decode, encode
from atoma.contracts.replica import (
    TURNS_MAX,
    BroughtScope,
    Portion,
    StagedRow,
    Subscription,
    SubscriptionState,
    longer_trail,
)
from atoma.contracts.sync import Cursor, Mark
from atoma.contracts.values import RowImage
from atoma_stores.sqlite._companions import term_of
from atoma_stores.sqlite._rows import CHUNK, ConfirmedRows, TxState
from atoma_stores.sqlite._tables import StoreTable, pack, unpack

_USES = "(SELECT scope, x'' AS shape, program, at_ms FROM _atoma_use UNION ALL SELECT scope, shape, program, at_ms FROM _atoma_part)"
_BROUGHT = (
    f"SELECT u.scope, u.shape, max(u.at_ms), json_group_array(p.id) FILTER (WHERE p.id IS NOT NULL) FROM {_USES} AS u "
    "LEFT JOIN _atoma_process AS p ON p.id=u.program GROUP BY u.scope, u.shape ORDER BY u.scope, u.shape"
)
_USED = (
    "INSERT INTO _atoma_use(scope, program, at_ms) VALUES(?1,?3,?4) "
    "ON CONFLICT(scope, program) DO UPDATE SET at_ms=max(at_ms, excluded.at_ms)"
)
_USED_PART = (
    "INSERT INTO _atoma_part(scope, shape, program, at_ms) VALUES(?1,?2,?3,?4) "
    "ON CONFLICT(scope, shape, program) DO UPDATE SET at_ms=max(at_ms, excluded.at_ms)"
)
_SHADOWS_BEYOND = "SELECT id, seq, image FROM _atoma_shadow WHERE store=? AND scope=? AND seq>? AND image IS NOT NULL"
Marks: TypeAlias = tuple[Mark, ...]


class Scopes:
    """The progress of each scope's replication, and the snapshots under construction; see ``ScopesPart``.

    Attributes:
        moved: The scopes that were moved, as they are now.
        used: Whether anything was said of who uses what was brought along.
    """

    __slots__ = ("_base", "_connection", "_state", "moved", "used")

    def __init__(self, state: TxState, base: ConfirmedRows) -> None:
        self._state = state
        self._connection = state.connection
        self._base = base
        self.moved: dict[str, Subscription] = {}
        self.used = False

    def read(self, scope: str) -> Subscription:
        """How far the scope is replicated; a fresh ``new`` one if it never was."""
        row = self._connection.execute(
            "SELECT state, cursor, stage_cursor, token, head, trail, proof, turns FROM _atoma_sub WHERE scope=?",
            (scope,),
        ).fetchone()
        if row is None:
            return Subscription(scope)
        return Subscription(
            scope,
            cast("SubscriptionState", row[0]),
            decode(cast("bytes", row[1]), Cursor),
            None if row[2] is None else decode(cast("bytes", row[2]), Cursor),
            cast("bytes", row[3]),
            cast("int", row[4]),
            () if row[5] is None else decode(cast("bytes", row[5]), Marks),
            cast("bytes", row[6]),
            () if row[7] is None else decode(cast("bytes", row[7]), Marks),
        )

    def every(self) -> Sequence[str]:
        """Names of the scopes that something is known of, in order."""
        rows = self._connection.execute("SELECT scope FROM _atoma_sub ORDER BY scope").fetchall()
        return [cast("str", row[0]) for row in rows]

    def brought(self) -> Sequence[BroughtScope]:
        """What was brought along, by scope and shape."""
        return [
            BroughtScope(
                Portion(cast("str", scope), cast("bytes", shape)),
                cast("int", used_ms),
                tuple(sorted(json.loads(cast("str", programs)))),
            )
            for scope, shape, used_ms, programs in self._connection.execute(_BROUGHT)
        ]

    def is_brought(self, scope: str) -> bool:
        """Whether ``scope``, or a part of it, was brought along."""
        found = self._connection.execute(f"SELECT 1 FROM {_USES} WHERE scope=? LIMIT 1", (scope,))
        return found.fetchone() is not None

    def use(self, portion: Portion, program: int, at_ms: int) -> None:
        """Note that ``program`` uses ``portion`` from now on, which brings it along."""
        scope, shape = portion.scope, portion.shape
        used = _USED_PART if shape else _USED
        self.used = True
        self._connection.executemany(used, [(scope, shape, 0, at_ms), (scope, shape, program, at_ms)])

    def leave(self, portion: Portion, program: int, at_ms: int) -> None:
        """Note that ``program`` has used ``portion`` until now; nothing where it has not."""
        scope, shape = portion.scope, portion.shape
        if self._delete_uses(portion, program):
            self._connection.execute(_USED_PART if shape else _USED, (scope, shape, 0, at_ms))

    def let_go(self, portion: Portion) -> None:
        """Forget who has used ``portion``, so that it is wanted no more; its rows stay."""
        self._delete_uses(portion)

    def _delete_uses(self, portion: Portion, program: int | None = None) -> int:
        self.used = True
        table, only = ("_atoma_part", " AND shape=?2") if portion.shape else ("_atoma_use", "")
        self._connection.execute(
            f"DELETE FROM {table} WHERE scope=?1{only} AND ?3 IN (program, -1)",
            (portion.scope, portion.shape, -1 if program is None else program),
        )
        return self._connection.changes()

    def remove(self, scope: str) -> None:
        """Forget the scope: its confirmed rows and their past, its stage, how far it was, who uses it."""
        self.clear_stage(scope)
        for table in self._state.tables.values():
            if table.synced:
                self._drop_unstaged(table, scope)
                if self._state.recorder is not None:
                    self._state.recorder.leave(table.name, scope)
        self._connection.execute("DELETE FROM _atoma_sub WHERE scope=?", (scope,))
        for used in ("_atoma_use", "_atoma_part"):
            self._connection.execute(f"DELETE FROM {used} WHERE scope=?", (scope,))
        self.moved[scope], self.used = Subscription(scope), True

    def save(self, subscription: Subscription) -> None:
        """Replace the scope's state; the cursor of a live one moves through :meth:`advance` only."""
        known = self.read(subscription.scope)
        assert not (known.state == subscription.state == "live" and known.cursor != subscription.cursor), (
            "the cursor of a live scope moves through advance()"
        )
        self._replace(subscription)

    def _replace(self, s: Subscription) -> None:
        stage = None if s.stage_cursor is None else encode(s.stage_cursor)
        trail = longer_trail(s.trail, s.cursor)
        turns = tuple(mark for mark in s.turns if mark.seq <= s.cursor.seq)[-TURNS_MAX:]
        self._connection.execute(
            "INSERT INTO _atoma_sub(scope, state, cursor, stage_cursor, token, head, trail, proof, turns) "
            "VALUES(?,?,?,?,?,?,?,?,?) "
            "ON CONFLICT(scope) DO UPDATE SET state=excluded.state, cursor=excluded.cursor, "
            "stage_cursor=excluded.stage_cursor, token=excluded.token, head=excluded.head, trail=excluded.trail, "
            "proof=excluded.proof, turns=excluded.turns",
            (s.scope, s.state, encode(s.cursor), stage, s.token, s.head, encode(trail), s.proof, encode(turns)),
        )
        self.moved[s.scope] = structs.replace(s, trail=trail, turns=turns)

    def advance(self, scope: str, start: Cursor, end: Cursor, proof: bytes = b"") -> bool:
        """Move the cursor from ``start`` to ``end``, where ``proof`` is for; False and no change when it is elsewhere."""
        known = self.read(scope)
        if known.cursor != start:
            return False
        turns = known.turns
        if end.epoch != start.epoch and start.hash:
            turns = (*turns, Mark(start.seq, start.hash))
        self._replace(structs.replace(known, cursor=end, proof=proof, turns=turns))
        return True

    def stage(self, scope: str, rows: Iterable[StagedRow]) -> None:
        """Add rows to the snapshot under construction; an older sequence never replaces a newer one."""
        self._connection.executemany(
            "INSERT INTO _atoma_stage(scope, store, id, seq, image) VALUES(?,?,?,?,?) ON CONFLICT(scope, store, id) "
            "DO UPDATE SET seq=excluded.seq, image=excluded.image WHERE excluded.seq >= _atoma_stage.seq",
            ((scope, row.store, row.id, row.seq, pack(row.image, self._state.tables.get(row.store))) for row in rows),
        )

    def term(self) -> int:
        """The number of the reign that the file is in."""
        return term_of(self._connection)

    def clear_stage(self, scope: str) -> None:
        """Forget the snapshot under construction."""
        self._connection.execute("DELETE FROM _atoma_stage WHERE scope=?", (scope,))

    def beyond(self, scope: str, fork: int) -> Sequence[StagedRow]:
        """What the confirmed base has that the staged snapshot's history has lost behind ``fork``."""
        found: list[StagedRow] = []
        for table in self._state.tables.values():
            if table.synced:
                found += self._beyond(table, scope, fork)
        return found

    def _beyond(self, table: StoreTable, scope: str, fork: int) -> Iterator[StagedRow]:
        execute, store = self._connection.execute, table.name
        for raw in execute(table.beyond, (scope, fork, store)):
            row = table.row(raw)
            yield StagedRow(store, row.id, row.seq, row.image)
        for id, seq, image in execute(_SHADOWS_BEYOND, (store, scope, fork)):
            yield StagedRow(store, cast("str", id), cast("int", seq), unpack(image, table))
        for id, seq in execute(table.gone, (scope, store, fork)):
            yield StagedRow(store, cast("str", id), cast("int", seq), None)

    def swap(self, scope: str) -> None:
        """Make the staged snapshot the confirmed base of the scope, writing only what differs."""
        if self._state.recorder is not None:
            self._state.recorder.swapped = True
        for table in self._state.tables.values():
            if table.synced:
                self._drop_unstaged(table, scope)
                self._base.put_many(table.name, scope, self._staged(table, scope))
        self.clear_stage(scope)

    def _drop_unstaged(self, table: StoreTable, scope: str) -> None:
        """Rows of the scope that the snapshot does not have leave the base."""
        gone = {cast("str", row[0]) for row in self._connection.execute(table.unstaged, (scope, table.name))}
        shadows = self._connection.execute(
            "SELECT id FROM _atoma_shadow AS h WHERE scope=?1 AND store=?2 AND NOT EXISTS (SELECT 1 FROM _atoma_stage "
            "AS s WHERE s.scope=?1 AND s.store=?2 AND s.id=h.id AND s.image IS NOT NULL)",
            (scope, table.name),
        ).fetchall()
        gone.update(cast("str", row[0]) for row in shadows)
        self._base.put_many(table.name, scope, ((id, None, 0) for id in sorted(gone)))

    def _staged(self, table: StoreTable, scope: str) -> Iterator[tuple[str, RowImage | None, int]]:
        last = ""
        while True:
            rows = self._connection.execute(
                "SELECT id, image, seq FROM _atoma_stage WHERE scope=? AND store=? AND id>? AND image IS NOT NULL "
                "ORDER BY id LIMIT ?",
                (scope, table.name, last, CHUNK),
            ).fetchall()
            for row in rows:
                yield cast("str", row[0]), unpack(row[1], table), cast("int", row[2])
            if len(rows) < CHUNK:
                return
            last = cast("str", rows[-1][0])
