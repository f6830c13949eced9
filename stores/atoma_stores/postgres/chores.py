"""Leases for work that one process at a time should do; they only save work, as two may do it without harm."""

from __future__ import annotations

from atoma_stores.postgres.ddl import CHORE
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.scripts import Execute, Script

LEASE_MS = 60_000
"""Milliseconds of the lease of a long chore, which is renewed after each part of it."""
NOW_MS = "(extract(epoch FROM clock_timestamp())*1000)::bigint"
"""The server's clock, since those of the processes may differ."""
_TAKE = POSTGRESQL.render(
    f"INSERT INTO {{chore}} AS old(name, owner, until_ms) VALUES({{p1}}, {{p2}}, {NOW_MS}+{{p3}}::bigint) ON CONFLICT(name) DO UPDATE "
    f"SET owner=excluded.owner, until_ms=excluded.until_ms WHERE old.owner=excluded.owner OR old.until_ms<{NOW_MS} RETURNING 1"
)
_LEAVE = POSTGRESQL.render("DELETE FROM {chore} WHERE name={p1} AND owner={p2}")
assert CHORE.name == "chore"


def take(name: str, owner: str, lease_ms: int = LEASE_MS) -> Script[bool]:
    """Take the lease for ``lease_ms``, or extend it by that; False if somebody else has it."""
    (rows,) = yield [Execute(_TAKE, (name, owner, lease_ms))]
    return bool(rows)


def leave(name: str, owner: str) -> Script[None]:
    """Give the lease back."""
    yield [Execute(_LEAVE, (name, owner))]
