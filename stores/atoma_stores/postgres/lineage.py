"""The check that the server's history is the one that the hub last ran on: identity and timeline, on every new connection.

A fail-over breaks every connection and begins a timeline; so does a restore to a point in time, and a copy that was restored
into another cluster has another identity. Commits may have been lost then, and nobody can tell which: the epoch ends.
"""

from __future__ import annotations

from typing import Final

from atoma.ports.environment import Environment
from atoma_stores.postgres.ddl import PUT_FACTS
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.hub import tables
from atoma_stores.sql.hub.epochs import end_epoch, mint_epoch
from atoma_stores.sql.scripts import Execute, Script

SERVER: Final = "server"
"""The key in ``meta`` for the server that the hub last ran on."""
_NOW = (
    "SELECT system_identifier::text || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()"
)
_KEPT = POSTGRESQL.render("SELECT m.value FROM {meta} m WHERE m.key={p1}")


def differs() -> Script[bool]:
    """Whether the history may have changed."""
    now, kept = yield [Execute(_NOW), Execute(_KEPT, (SERVER,))]
    return now != kept


def follow_server(environment: Environment) -> Script[bytes | None]:
    """Begin a new epoch if the history may have changed, and return it.

    The lock keeps every writer out, so that all later decisions belong to the new epoch.
    """
    locks = POSTGRESQL.lock_all(tables.SCOPE)
    *_, now, kept = yield [*locks, Execute(_NOW), Execute(_KEPT, (SERVER,))]
    if now == kept:
        return None
    yield [PUT_FACTS.of([(SERVER, now[0][0])])]
    if not kept:  # a new database
        return None
    epoch = mint_epoch(environment)
    yield from end_epoch(POSTGRESQL, epoch, environment.wall_ms(), "offer", deletes=False)
    return epoch
