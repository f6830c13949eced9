"""PostgreSQL's error codes and their meanings: what is retried, what is refused, and what the operator has to solve."""

from __future__ import annotations

from typing import Literal, TypeAlias

from atoma.errors import AtomaError, DiskFull, QueryError, StoreError

ErrorClass: TypeAlias = Literal["again", "value", "passing", "slow", "fault"]
"""``again``: a race or the connection was lost, and the same decisions may be sent once more. ``value``: the database refuses a
value. ``passing``: it may work later. ``slow``: the statement ran out of time. ``fault``: ours or the operator's."""

UNIQUE = "23505"
CANCELED = "57014"
OUT_OF_RANGE = "22003"
DISK_FULL = "53100"
_AGAIN = frozenset({
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # waited too long for a lock
    "57P01", "57P02", "57P03",  # the server is stopping, has crashed, or is starting
    "25P02",  # a statement after the real error
    "25P03",  # idle in a transaction: this process was stopped
    "08000", "08001", "08003", "08004", "08006",  # the connection
})  # fmt: skip
_VALUES = ("22", "23", "54")
"""Data that do not fit, violated constraints, and values too long for an index."""
_PASSING = frozenset({DISK_FULL, "53000", "53200", "53300", "53400", "25006"})


class ServerError(Exception):
    """An error that PostgreSQL has returned.

    Args:
        state: The SQLSTATE.
        message: The message.
        at: The number of the statement within the batch.
        fatal: Whether the server has ended the session.

    Attributes:
        state: As above.
        at: As above.
        fatal: As above.
    """

    def __init__(self, state: str, message: str, at: int = 0, *, fatal: bool = False) -> None:
        super().__init__(f"{message.strip()} ({state})")
        self.state, self.at, self.fatal = state, at, fatal

    @property
    def meaning(self) -> ErrorClass:
        """The class of the error, which says what to do about it."""
        if self.state in _AGAIN:
            return "again"
        if self.state == CANCELED:
            return "slow"
        if self.state in _PASSING:
            return "passing"
        return "value" if self.state[:2] in _VALUES else "fault"


class ConnectionLost(Exception):
    """A connection that was lost or could not be made; the last batch may or may not have been carried out."""


def translate(error: ServerError | ConnectionLost, where: str) -> AtomaError:
    """Return the Atoma error for ``error`` once it is not retried any more.

    Args:
        error: The error.
        where: The database, for the message.
    """
    if isinstance(error, ConnectionLost):
        return StoreError(f"{where}: the database cannot be reached; try again later ({error})")
    if error.state == DISK_FULL:
        return DiskFull(f"{where}: no space left, nothing was written; free some and try again ({error})")
    if error.meaning == "slow":
        return QueryError(f"{where}: the query was interrupted because it ran too long")
    if error.meaning == "passing":
        return StoreError(f"{where}: the database takes nothing now, nothing was written; try again later ({error})")
    return StoreError(f"{where}: {error}")
