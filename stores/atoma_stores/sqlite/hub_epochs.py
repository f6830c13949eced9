"""Epochs of the hub: where each one ended, and what a sequence of one of them is worth now.

A hub that goes back to an older state gives numbers out anew. Within one epoch a sequence names one state; between
epochs only what lies before the end of the earlier one is common.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from typing import cast

import apsw

from atoma.contracts.sync import DevicePolicy
from atoma.errors import StoreCorrupt

_END = "SELECT e.head FROM _atoma_hub_epoch_end e WHERE e.scope=? AND e.epoch=?"
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


def end_epoch(connection: apsw.Connection, following: bytes, now_ms: int, devices: DevicePolicy) -> None:
    """Let the epoch end at the heads of now and ``following`` begin."""
    ended = load_epoch(connection)
    connection.execute("INSERT INTO _atoma_hub_epoch(epoch, ended_ms, devices) VALUES(?,?,?)", (ended, now_ms, devices))
    connection.execute(
        "INSERT INTO _atoma_hub_epoch_end(scope, epoch, head) SELECT scope, ?, head FROM _atoma_hub_scope",
        (connection.last_insert_rowid(),),
    )
    connection.execute("UPDATE _atoma_hub_info SET epoch=?", (following,))


def ended_at(connection: apsw.Connection, scope: str, epoch: bytes) -> int | None:
    """Head of the scope when ``epoch`` ended; None when it is unknown, or has not ended."""
    number: object = connection.execute("SELECT number FROM _atoma_hub_epoch WHERE epoch=?", (epoch,)).get
    if not isinstance(number, int):
        return None
    end: object = connection.execute(_END, (scope, number)).get
    return end if isinstance(end, int) else 0


def load_devices(connection: apsw.Connection, epoch: bytes) -> DevicePolicy:
    """What the operator has said about what came behind the end of ``epoch``; of an unknown one, the latest word."""
    found: object = connection.execute(
        "SELECT devices FROM _atoma_hub_epoch ORDER BY epoch=? DESC, number DESC LIMIT 1", (epoch,)
    ).get
    return cast("DevicePolicy", found) if isinstance(found, str) else "offer"


def known_until(connection: apsw.Connection, scope: str, epoch: bytes, seq: int) -> int:
    """How much of the scope's history now somebody knows who had seen ``seq`` of ``epoch``; see ``Facts.since``."""
    if epoch == load_epoch(connection):
        return seq
    if not epoch:
        end: object = connection.execute(_EARLIEST_END, (scope,)).get
        return seq if not isinstance(end, int) else min(seq, end)
    return min(seq, ended_at(connection, scope, epoch) or 0)
