"""Forgetting: floors rise first, then what lies below goes, in batches that keep the writer free for others."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import cast

import apsw

from atoma.contracts.values import Scalar

BATCH_ROWS = 5_000
CLIENTS_AT_ONCE = 50

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
_ALIASES = """DELETE FROM _atoma_hub_alias WHERE digest IN (SELECT a.digest FROM _atoma_hub_alias a WHERE NOT EXISTS
    (SELECT 1 FROM _atoma_hub_outcome o WHERE o.client=a.client AND o.mid=a.mid) LIMIT ?)"""
_ANSWERS = """DELETE FROM _atoma_hub_idem WHERE (principal, idem) IN
    (SELECT principal, idem FROM _atoma_hub_idem WHERE at_ms<? LIMIT ?)"""


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


def raise_forgotten(connection: apsw.Connection, before_ms: int) -> None:
    """Note that answers given before ``before_ms`` are about to go, if there are any: what is unknown may be one."""
    if connection.execute("SELECT 1 FROM _atoma_hub_idem WHERE at_ms<? LIMIT 1", (before_ms,)).get is not None:
        connection.execute(
            "INSERT INTO _atoma_hub_forgotten(one, before_ms) VALUES(1, ?) "
            "ON CONFLICT(one) DO UPDATE SET before_ms=max(before_ms, excluded.before_ms)",
            (before_ms,),
        )


def batches(floors: dict[str, int], before_ms: int) -> Iterator[tuple[str, str, tuple[Scalar, ...]]]:
    """``(what, statement, bindings)`` of everything to delete; each is to be repeated until it deletes nothing."""
    for scope, floor in floors.items():
        for what, statement in _BELOW.items():
            yield what, statement, (scope, floor, BATCH_ROWS)
    yield "outcomes", _CONFIRMED, (before_ms, BATCH_ROWS)
    yield "aliases", _ALIASES, (BATCH_ROWS,)
    yield "answers", _ANSWERS, (before_ms, BATCH_ROWS)


def forget_clients(connection: apsw.Connection, before_ms: int) -> int:
    """Forget some clients without a sign of life since ``before_ms``, but that they were there; how many."""
    found = connection.execute(
        "SELECT number, client_id FROM _atoma_hub_client WHERE seen_ms<? LIMIT ?", (before_ms, CLIENTS_AT_ONCE)
    ).fetchall()
    for number, client_id in cast("list[tuple[int, bytes]]", found):
        connection.execute("DELETE FROM _atoma_hub_outcome WHERE client=?", (number,))
        connection.execute("DELETE FROM _atoma_hub_client WHERE number=?", (number,))
        connection.execute("INSERT OR IGNORE INTO _atoma_hub_expired(client) VALUES(?)", (gravestone(client_id),))
    return len(found)


def gravestone(client_id: bytes) -> bytes:
    """What is kept of a client that was forgotten."""
    return hashlib.sha256(client_id).digest()[:16]
