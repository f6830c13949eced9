"""The check that the server's history is the one that the hub last ran on: identity and timeline, on every new connection.

A fail-over breaks every connection and begins a timeline; so does a restore to a point in time, and a copy that was restored
into another cluster has another identity. Commits may have been lost then, and nobody can tell which: the epoch ends. A snapshot of
the server's disks goes back with both of them; but a server that goes back so is started, and that is noted as another boot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from atoma.contracts.boots import BOOT_BYTES
from atoma.ports.environment import Environment
from atoma_stores.postgres.ddl import PUT_FACTS
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.hub import tables
from atoma_stores.sql.hub.epochs import end_epoch, mint_epoch, note_boot
from atoma_stores.sql.scripts import Execute, Row, Script

SERVER: Final = "server"
"""The key in ``meta`` for the server that the hub last ran on."""
_NOW = (
    "SELECT system_identifier::text || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()"
)
_KEPT = POSTGRESQL.render("SELECT m.value FROM {meta} m WHERE m.key={p1}")
_STARTED = "SELECT extract(epoch FROM pg_postmaster_start_time())::text"
_BOOT = POSTGRESQL.render("SELECT i.boot FROM {info} i")
_LOOK = [Execute(_NOW), Execute(_KEPT, (SERVER,)), Execute(_STARTED), Execute(_BOOT)]


def differs() -> Script[bool]:
    """Whether the history may have changed, or is written by another boot."""
    now, kept, started, boot = yield _LOOK
    return now != kept or boot != [(_boot(started),)]


def _boot(started: Sequence[Row]) -> bytes:
    """The boot of a server that was started then."""
    return hashlib.sha256(str(started[0][0]).encode()).digest()[:BOOT_BYTES]


def follow_server(environment: Environment) -> Script[bytes | None]:
    """Note which boot it is, begin a new epoch if the history may have changed, and return it.

    The lock keeps every writer out, so that all later decisions belong to the new epoch.
    """
    locks = POSTGRESQL.lock_all(tables.SCOPE)
    *_, now, kept, started, _ = yield [*locks, *_LOOK]
    yield from note_boot(POSTGRESQL, _boot(started))
    if now == kept:
        return None
    yield [PUT_FACTS.of([(SERVER, now[0][0])])]
    if not kept:  # a new database
        return None
    epoch = mint_epoch(environment)
    yield from end_epoch(POSTGRESQL, epoch, environment.wall_ms(), "offer", deletes=False)
    return epoch
