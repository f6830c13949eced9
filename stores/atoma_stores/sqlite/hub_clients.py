"""Clients that a hub knows, and those that it has forgotten: a bounded number of both for each principal.

Of a client, and of a mutation that was decided under a later name, it stays that it was there. Whoever comes under such a name
once more is no new one.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import apsw

from atoma.contracts.mutations import Origin
from atoma.ports.hub import CLIENTS_MAX, FORGOTTEN_MAX
from atoma_stores.sqlite.hub_tables import gravestone

CLIENTS_AT_ONCE = 50
NAMES_AT_ONCE = 5_000

_OLD = "SELECT number, client_id, principal FROM _atoma_hub_client WHERE seen_ms<? LIMIT ?"
_OF_PRINCIPAL = """SELECT number, client_id, principal FROM _atoma_hub_client WHERE principal=?
    ORDER BY seen_ms, number"""
_COUNT = "SELECT count(*) FROM _atoma_hub_client WHERE principal=?"
_LATER_NAMES = "SELECT digest FROM _atoma_hub_alias WHERE client=?"
_NAMELESS = """SELECT a.digest, coalesce(c.principal, '') FROM _atoma_hub_alias a
    LEFT JOIN _atoma_hub_client c ON c.number=a.client WHERE NOT EXISTS
    (SELECT 1 FROM _atoma_hub_outcome o WHERE o.client=a.client AND o.mid=a.mid) LIMIT ?"""
_FIRST_NUMBER = """SELECT c.last_mid, EXISTS(SELECT 1 FROM _atoma_hub_outcome o WHERE o.client=c.number AND o.mid=?)
    FROM _atoma_hub_client c WHERE c.client_id=? AND c.principal=?"""
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
    for (digest,) in connection.execute(_LATER_NAMES, (number,)).fetchall():
        _forget_name(connection, cast("bytes", digest), principal)
    connection.execute("DELETE FROM _atoma_hub_client WHERE number=?", (number,))
    _bury(connection, client_id, principal)


def forget_names(connection: apsw.Connection) -> int:
    """Forget some later names of mutations whose outcomes are forgotten, but that there was one; how many."""
    found = connection.execute(_NAMELESS, (NAMES_AT_ONCE,)).fetchall()
    for row in cast("list[tuple[bytes, str]]", found):
        _forget_name(connection, *row)
    return len(found)


def _forget_name(connection: apsw.Connection, digest: bytes, principal: str) -> None:
    connection.execute("DELETE FROM _atoma_hub_alias WHERE digest=?", (digest,))
    _bury(connection, digest, principal)


def _bury(connection: apsw.Connection, name: bytes, principal: str) -> None:
    """Keep that somebody had ``name``, as long as that are not too many."""
    if cast("int", connection.execute(_COUNT_FORGOTTEN, (principal, FORGOTTEN_MAX + 1)).get) <= FORGOTTEN_MAX:
        connection.execute("INSERT OR IGNORE INTO _atoma_hub_expired(client) VALUES(?)", (gravestone(name),))


def is_forgotten(connection: apsw.Connection, name: bytes) -> bool:
    """Whether it is kept that a client with this id, or a mutation with this first digest, was forgotten."""
    return connection.execute("SELECT 1 FROM _atoma_hub_expired WHERE client=?", (gravestone(name),)).get is not None


def has_forgotten(connection: apsw.Connection) -> bool:
    """Whether anything at all was forgotten."""
    return connection.execute("SELECT 1 FROM _atoma_hub_expired_count LIMIT 1").get is not None


def may_have_been_decided(connection: apsw.Connection, origin: Origin, principal: str, *, renamed: bool) -> bool:
    """Whether a mutation of which no outcome is found was decided once, or may have been, and how is forgotten.

    Under its first number that is so when its client came that far or is forgotten itself, and under a later one when it is
    kept that it had one.
    """
    if is_forgotten(connection, origin.digest):
        return True
    if not renamed:
        return False
    row = connection.execute(_FIRST_NUMBER, (origin.mid, origin.client_id, principal)).fetchone()
    if row is None:
        return is_forgotten(connection, origin.client_id) or forgets_without_a_trace(connection, principal)
    last_mid, is_another = cast("tuple[int, int]", row)
    return origin.mid <= last_mid and not is_another


def forgets_without_a_trace(connection: apsw.Connection, principal: str) -> bool:
    """Whether clients of ``principal`` were forgotten of which nothing is kept."""
    found: object = connection.execute("SELECT n FROM _atoma_hub_expired_count WHERE principal=?", (principal,)).get
    return isinstance(found, int) and found > FORGOTTEN_MAX
