"""Clients that a hub knows, and those that it has forgotten: a bounded number of both for each principal."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import apsw

from atoma.ports.hub import CLIENTS_MAX, FORGOTTEN_MAX
from atoma_stores.sqlite.hub_tables import gravestone

CLIENTS_AT_ONCE = 50

_OLD = "SELECT number, client_id, principal FROM _atoma_hub_client WHERE seen_ms<? LIMIT ?"
_OF_PRINCIPAL = """SELECT number, client_id, principal FROM _atoma_hub_client WHERE principal=?
    ORDER BY seen_ms, number"""
_COUNT = "SELECT count(*) FROM _atoma_hub_client WHERE principal=?"
_COUNT_FORGOTTEN = """INSERT INTO _atoma_hub_expired_count(principal, n) VALUES(?, 1)
    ON CONFLICT(principal) DO UPDATE SET n=min(n+1, ?) RETURNING n"""


def forget_clients(connection: apsw.Connection, before_ms: int) -> int:
    """Forget some clients without a sign of life since ``before_ms``, but that they were there; how many."""
    found = connection.execute(_OLD, (before_ms, CLIENTS_AT_ONCE)).fetchall()
    for row in cast("list[tuple[int, bytes, str]]", found):
        _forget(connection, *row)
    return len(found)


def make_room(connection: apsw.Connection, principal: str, busy: Collection[bytes]) -> None:
    """See that one more client of ``principal`` can be known: forget those that were seen least recently.

    The clients ``busy``, about which more is to be written, stay.
    """
    known = cast("int", connection.execute(_COUNT, (principal,)).get)
    if known < CLIENTS_MAX:
        return
    left = known - CLIENTS_MAX + 1
    for row in cast("list[tuple[int, bytes, str]]", connection.execute(_OF_PRINCIPAL, (principal,)).fetchall()):
        if left and row[1] not in busy:
            _forget(connection, *row)
            left -= 1


def _forget(connection: apsw.Connection, number: int, client_id: bytes, principal: str) -> None:
    connection.execute("DELETE FROM _atoma_hub_outcome WHERE client=?", (number,))
    connection.execute("DELETE FROM _atoma_hub_client WHERE number=?", (number,))
    if cast("int", connection.execute(_COUNT_FORGOTTEN, (principal, FORGOTTEN_MAX + 1)).get) <= FORGOTTEN_MAX:
        connection.execute("INSERT OR IGNORE INTO _atoma_hub_expired(client) VALUES(?)", (gravestone(client_id),))


def is_forgotten(connection: apsw.Connection, client_id: bytes) -> bool:
    """Whether it is kept that this client was forgotten."""
    return (
        connection.execute("SELECT 1 FROM _atoma_hub_expired WHERE client=?", (gravestone(client_id),)).get is not None
    )


def forgets_without_a_trace(connection: apsw.Connection, principal: str) -> bool:
    """Whether clients of ``principal`` were forgotten of which nothing is kept."""
    found: object = connection.execute("SELECT n FROM _atoma_hub_expired_count WHERE principal=?", (principal,)).get
    return isinstance(found, int) and found > FORGOTTEN_MAX
