"""What a failure means for replication: try again, take a snapshot, or stop until somebody acts."""

from __future__ import annotations

from enum import Enum

import trio

from atoma.contracts.values import ErrorInfo, remote_error
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ClientForked,
    ProtocolError,
    RemoteError,
    SyncError,
    TransportError,
    is_retryable,
)
from atoma.ports.tasks import leaves


class Remedy(Enum):
    """What helps against a failure."""

    RETRY = "retry"
    RECONNECT = "reconnect"
    RESNAPSHOT = "resnapshot"
    STALL = "stall"


RESNAPSHOT_CODES = frozenset(
    {"CURSOR_TOO_OLD", "CURSOR_AHEAD", "LINEAGE_MISMATCH", "EPOCH_CHANGED", "HANDLE_CHANGED", "SNAPSHOT_EXPIRED"}
)
MOVED_CODES = frozenset({"CURSOR_AHEAD", "LINEAGE_MISMATCH", "EPOCH_CHANGED"})
"""The hub has another history than it had when the session was opened."""
FORK_CODES = frozenset({"CLIENT_FORKED", "CLIENT_EXPIRED"})
AUTH_CODES = frozenset({"UNAUTHENTICATED", "AUTH_EXPIRED"})
TRANSIENT_CODES = frozenset(
    {
        "UNAVAILABLE",
        "TIMEOUT",
        "BUSY",
        "INTERNAL",
        "OVERLOADED",
        "RATE_LIMITED",
        "HUB_BEHIND",
        "OUT_OF_ORDER",
        "TOO_LARGE",
    }
)


class HubLostData(SyncError):
    """The hub does not know mutations that it had decided: it was restored from an older state."""

    code = "HUB_LOST_DATA"


class HistoryMoved(SyncError):
    """The hub's history, or what it knows of this file, has moved since the session was opened: open anew and look."""

    code = "HISTORY_MOVED"


class ClientExpired(SyncError):
    """The hub has forgotten this file: nobody can tell any more what became of what it had sent."""

    code = "CLIENT_EXPIRED"


class WrongHub(SyncError):
    """The file belongs to another hub or to another principal; nothing is sent to this one."""

    code = "WRONG_HUB"


def remedy(error: BaseException) -> Remedy:
    """What helps against ``error``; anything unknown stalls, visibly, and is retried slowly."""
    if isinstance(error, RemoteError):
        code = error.remote_code
        if code in RESNAPSHOT_CODES:
            return Remedy.RESNAPSHOT
        if code in FORK_CODES or code in AUTH_CODES:
            return Remedy.STALL
        return Remedy.RETRY if error.remote_retryable or code in TRANSIENT_CODES else Remedy.STALL
    if isinstance(error, AuthenticationError | ProtocolError):
        return Remedy.STALL
    if isinstance(error, TransportError | HistoryMoved) or is_retryable(error):
        return Remedy.RECONNECT
    return Remedy.STALL


def error_from(info: ErrorInfo) -> AtomaError:
    """The exception that an error inside a reply stands for."""
    if info.code in FORK_CODES:
        return ClientForked(f"{info.code}: {info.message}")
    return remote_error(info)


def info_from(error: BaseException) -> ErrorInfo:
    """``error`` as data, for the status and for the outbox."""
    if isinstance(error, RemoteError):
        wait_ms = int(error.retry_after_s * 1000)
        return ErrorInfo(error.remote_code, str(error), error.remote_retryable, wait_ms, error.info)
    if isinstance(error, AtomaError):
        return ErrorInfo(error.code, str(error), is_retryable(error))
    return ErrorInfo("INTERNAL", f"{type(error).__name__}: {error}")


def worst(error: BaseException) -> Exception:
    """The one error to tell about: a bug before a refusal, a refusal before a broken wire.

    Raises:
        BaseException: What is no ``Exception`` (an interrupt) is passed on.
    """
    singles = [single for single in leaves(error) if not isinstance(single, trio.Cancelled)]
    for single in singles:
        if not isinstance(single, Exception):
            raise single
    ordinary = [single for single in singles if isinstance(single, Exception)]
    ranked = sorted(ordinary, key=lambda single: (isinstance(single, AtomaError), isinstance(single, TransportError)))
    return ranked[0]
