"""Epochs of the hub: where each one ended, and what a sequence of one of them is worth now.

A hub that goes back to an older state gives numbers out anew. Within one epoch a sequence names one state; between
epochs only what lies before the end of the earlier one is common.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import apsw

from atoma.contracts.sync import DevicePolicy
from atoma.contracts.versions import PLAIN, Versions, tag_of
from atoma.errors import StoreCorrupt
from atoma.ports.hub import ClientState, EndedEpoch, Permission
from atoma_stores.sqlite.hub_tables import note_forgotten

ABSENT_MAX = 1_000
_ENDS = """SELECT e.epoch, coalesce(d.head, 0) FROM _atoma_hub_epoch e
    LEFT JOIN _atoma_hub_epoch_end d ON d.epoch=e.number AND d.scope=? ORDER BY e.number"""
_END = "SELECT e.head FROM _atoma_hub_epoch_end e WHERE e.scope=? AND e.epoch=?"
_PERMITTED: dict[Permission, str] = {"offers": "devices='offer'", "deletes": "deletes=1", "unproven": "unproven=1"}
_EARLIEST_END = """SELECT min(coalesce(d.head, 0)) FROM _atoma_hub_epoch e
    LEFT JOIN _atoma_hub_epoch_end d ON d.epoch=e.number AND d.scope=?"""


def load_epoch(connection: apsw.Connection) -> bytes:
    """The epoch as the file has it.

    Raises:
        StoreCorrupt: The file does not say.
    """
    epoch: object = connection.execute("SELECT epoch FROM _atoma_hub_info").get
    if not isinstance(epoch, bytes):
        raise StoreCorrupt("the hub's own description is missing; restore a copy")
    return epoch


def end_epoch(
    connection: apsw.Connection, following: bytes, now_ms: int, devices: DevicePolicy, *, deletes: bool
) -> None:
    """Let the epoch end at the heads of now and ``following`` begin.

    Answers of before may be among what was lost: nobody is told that such a write never happened, or has it done again.
    """
    connection.execute(
        "INSERT INTO _atoma_hub_epoch(epoch, ended_ms, devices, deletes) VALUES(?,?,?,?)",
        (load_epoch(connection), now_ms, devices, deletes),
    )
    connection.execute(
        "INSERT INTO _atoma_hub_epoch_end(scope, epoch, head) SELECT scope, ?, head FROM _atoma_hub_scope",
        (connection.last_insert_rowid(),),
    )
    note_forgotten(connection, now_ms)
    connection.execute("UPDATE _atoma_hub_info SET epoch=?, commits=commits+1", (following,))


def read_commits(connection: apsw.Connection) -> int:
    """The file's counter of commits."""
    found: object = connection.execute("SELECT commits FROM _atoma_hub_info").get
    return found if isinstance(found, int) else 0


def load_epochs(connection: apsw.Connection) -> list[EndedEpoch]:
    """Every epoch that has ended, oldest first."""
    rows = connection.execute(
        "SELECT epoch, ended_ms, devices, deletes, unproven FROM _atoma_hub_epoch ORDER BY number"
    )
    return [
        EndedEpoch(epoch, ended_ms, devices, bool(deletes), bool(unproven))
        for epoch, ended_ms, devices, deletes, unproven in cast(
            "Iterator[tuple[bytes, int, DevicePolicy, int, int]]", rows
        )
    ]


def load_absent(connection: apsw.Connection, epoch: bytes) -> list[ClientState]:
    """Clients that have not been seen since ``epoch`` ended, the one that was away longest first; a thousand at most."""
    rows = connection.execute(
        "SELECT client_id, incarnation, principal, last_mid, last_digest, confirmed_mid, seen_ms FROM _atoma_hub_client "
        f"WHERE seen_ms<(SELECT ended_ms FROM _atoma_hub_epoch WHERE epoch=?) ORDER BY seen_ms, number LIMIT {ABSENT_MAX}",
        (epoch,),
    )
    return [ClientState(*row) for row in cast("Iterator[tuple[bytes, int, str, int, bytes, int, int]]", rows)]


def load_renewal(connection: apsw.Connection) -> int:
    """When the present epoch began, 0 for the first one."""
    found: object = connection.execute("SELECT max(ended_ms) FROM _atoma_hub_epoch").get
    return found if isinstance(found, int) else 0


def permit(connection: apsw.Connection, epoch: bytes, what: Permission) -> bool:
    """Allow devices ``what`` about what came behind the end of ``epoch``; False when no such epoch has ended."""
    connection.execute(f"UPDATE _atoma_hub_epoch SET {_PERMITTED[what]} WHERE epoch=?", (epoch,))
    return connection.changes() > 0


def read_versions(connection: apsw.Connection, scope: str) -> Versions:
    """How the versions of the scope's rows name their epochs."""
    rows = cast("list[tuple[bytes, int]]", connection.execute(_ENDS, (scope,)).fetchall())
    if not rows:
        return PLAIN
    ends = [(head, 0 if number == 0 else tag_of(epoch)) for number, (epoch, head) in enumerate(rows)]
    return Versions(ends, tag_of(load_epoch(connection)))


def ended_at(connection: apsw.Connection, scope: str, epoch: bytes) -> int | None:
    """Head of the scope when ``epoch`` ended; None when it is unknown, or has not ended."""
    number: object = connection.execute("SELECT number FROM _atoma_hub_epoch WHERE epoch=?", (epoch,)).get
    if not isinstance(number, int):
        return None
    end: object = connection.execute(_END, (scope, number)).get
    return end if isinstance(end, int) else 0


def load_word(connection: apsw.Connection, epoch: bytes, after: bytes = b"") -> tuple[DevicePolicy, bool, bool]:
    """What devices may do about what came behind the end of ``epoch``; whether that goes for deletions, and unproved.

    Args:
        connection: The hub's file.
        epoch: The epoch.
        after: The epoch that began when the other one was lost, where this is known: of one that the file has never had,
            what is said of the epoch before ``after`` counts. Else it is the latest word, and no deletion that any word
            holds.
    """
    said = load_epochs(connection)
    if not said:
        return "offer", True, False
    following = [*(ended.epoch for ended in said[1:]), load_epoch(connection)]
    named = next((ended for ended in said if ended.epoch == epoch), None)
    before = next((ended for ended, began in zip(said, following, strict=True) if began == after), None)
    word = named or before or replace(said[-1], deletes=all(ended.deletes for ended in said))
    return word.devices, word.deletes, word.unproven


def load_traced(connection: apsw.Connection) -> list[tuple[str, bytes]]:
    """Scopes with the epochs of which devices have brought rows back."""
    found = connection.execute("SELECT DISTINCT scope, epoch FROM _atoma_hub_trace").fetchall()
    return cast("list[tuple[str, bytes]]", found)


def known_until(connection: apsw.Connection, scope: str, epoch: bytes, seq: int) -> int:
    """How much of the scope's history now somebody knows who had seen ``seq`` of ``epoch``; see ``Facts.since``."""
    if epoch == load_epoch(connection):
        return seq
    if not epoch:
        end: object = connection.execute(_EARLIEST_END, (scope,)).get
        return seq if not isinstance(end, int) else min(seq, end)
    return min(seq, ended_at(connection, scope, epoch) or 0)
