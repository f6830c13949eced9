"""Forgetting: floors rise first, then what lies below goes, in batches that keep the writer free for others."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import apsw

from atoma.contracts.values import Scalar
from atoma.ports.hub import ClockAhead
from atoma.schema.ids import drawn_ms
from atoma_stores.sqlite.hub_tables import gravestone, note_forgotten

BATCH_ROWS = 5_000
DAY_MS = 86_400_000
QUIET_MS = 3 * DAY_MS
"""After so long without a sign of life it may be the clock that has moved."""
APART_MS = 3_600_000
"""How far the clock of a device may be ahead of the hub's for its keys to look no younger than they are."""
_NEWEST_ANSWER = "SELECT max(at_ms) FROM _atoma_hub_idem"
_NEWEST_CLIENT = "SELECT max(seen_ms) FROM _atoma_hub_client"

_BELOW: dict[str, str] = {
    "transactions": "DELETE FROM _atoma_hub_tx WHERE (scope, seq) IN "
    "(SELECT scope, seq FROM _atoma_hub_tx WHERE scope=? AND seq<=? LIMIT ?)",
    "changes": "DELETE FROM _atoma_hub_change WHERE (scope, seq, idx) IN "
    "(SELECT scope, seq, idx FROM _atoma_hub_change WHERE scope=? AND seq<=? LIMIT ?)",
    "tombstones": "DELETE FROM _atoma_hub_tombstone WHERE (scope, store, id) IN "
    "(SELECT scope, store, id FROM _atoma_hub_tombstone WHERE scope=? AND seq<=? LIMIT ?)",
}
# a rejection stays: mutations that build on it may lie in an outbox for any time, and have to be rejected with it
_CONFIRMED = """DELETE FROM _atoma_hub_outcome WHERE (client, mid) IN (SELECT o.client, o.mid FROM _atoma_hub_client c
    JOIN _atoma_hub_outcome o ON o.client=c.number AND o.mid<=c.confirmed_mid WHERE o.status<>'rejected' AND o.at_ms<?
    LIMIT ?)"""
_ANSWERS = "SELECT principal, idem FROM _atoma_hub_idem WHERE at_ms<? LIMIT ?"


def raise_floors(connection: apsw.Connection, keep: int, before_ms: int) -> dict[str, int]:
    """Let every scope's log begin ``keep`` transactions before its head; the floors, by scope.

    What came behind the end of an epoch that ended since ``before_ms`` stays: devices still offer what that epoch had, and
    have to be told apart from what was written since.
    """
    rows = connection.execute(
        "WITH wanted AS (SELECT s.scope, s.floor, min(s.head-?, coalesce((SELECT min(d.head) FROM _atoma_hub_epoch e "
        "JOIN _atoma_hub_epoch_end d ON d.epoch=e.number AND d.scope=s.scope WHERE e.ended_ms>=?), s.head)) AS until "
        "FROM _atoma_hub_scope s) SELECT w.scope, w.until, t.hash FROM wanted w "
        "JOIN _atoma_hub_tx t ON t.scope=w.scope AND t.seq=w.until WHERE w.until>w.floor",
        (keep, before_ms),
    ).fetchall()
    for scope, floor, floor_hash in rows:
        connection.execute(
            "UPDATE _atoma_hub_scope SET floor=?, floor_hash=? WHERE scope=?", (floor, floor_hash, scope)
        )
    found = connection.execute("SELECT scope, floor FROM _atoma_hub_scope WHERE floor>0")
    return dict(cast("Iterator[tuple[str, int]]", found))


def check_clock(connection: apsw.Connection, now_ms: int, answers_ms: int, clients_ms: int) -> None:
    """Refuse to forget all answers, or all clients, when nobody was here for days: the clock may be far ahead.

    Raises:
        ClockAhead: It may.
    """
    answer, client = (
        cast("int | None", connection.execute(newest).get) or 0 for newest in (_NEWEST_ANSWER, _NEWEST_CLIENT)
    )
    quiet_ms = now_ms - max(answer, client)
    if quiet_ms <= QUIET_MS:
        return
    for what, newest, before_ms in (("answer", answer, answers_ms), ("client", client, clients_ms)):
        if 0 < newest < before_ms:
            raise ClockAhead(
                f"every {what} would be forgotten, and nobody was here for {quiet_ms / DAY_MS:.0f} days by this machine's "
                "clock; nothing was forgotten. Look at the clock: if it is right, compact(force=True)"
            )


def raise_forgotten(connection: apsw.Connection, before_ms: int) -> None:
    """Note up to when answers are about to go, if there are any: what is unknown and that old may be one.

    What is newer than the newest of them was not among them, whatever the clock says now.
    """
    newest = cast("int | None", connection.execute(f"{_NEWEST_ANSWER} WHERE at_ms<?", (before_ms,)).get)
    if newest is not None:
        note_forgotten(connection, min(before_ms, newest + APART_MS))


def batches(floors: dict[str, int], before_ms: int) -> Iterator[tuple[str, str, tuple[Scalar, ...]]]:
    """``(what, statement, bindings)`` of everything to delete; each is to be repeated until it deletes nothing."""
    for scope, floor in floors.items():
        for what, statement in _BELOW.items():
            yield what, statement, (scope, floor, BATCH_ROWS)
    yield "outcomes", _CONFIRMED, (before_ms, BATCH_ROWS)


def forget_answers(connection: apsw.Connection, before_ms: int) -> int:
    """Forget some answers that were given before ``before_ms``; how many.

    Of a key that does not tell its age it stays that it was used: nothing else would tell a late copy of its write from a
    new one.
    """
    found = cast("list[tuple[str, str]]", connection.execute(_ANSWERS, (before_ms, BATCH_ROWS)).fetchall())
    ageless = [(gravestone(*key),) for key in found if drawn_ms(key[1]) is None]
    connection.executemany("INSERT OR IGNORE INTO _atoma_hub_spent(key) VALUES(?)", ageless)
    connection.executemany("DELETE FROM _atoma_hub_idem WHERE principal=? AND idem=?", found)
    return len(found)
