"""What a failure means for replication: try again, take a snapshot, or stop until somebody acts."""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

import trio

from atoma.codes import Help, row
from atoma.contracts.values import ErrorInfo, remote_error
from atoma.errors import (
    AtomaError,
    ClientForked,
    RemoteError,
    StoreError,
    SyncError,
    TransportError,
    is_retryable,
    what_helps,
)
from atoma.ports.tasks import leaves


class Remedy(Enum):
    """A remedy against a failure."""

    RETRY = "retry"
    RECONNECT = "reconnect"
    RESNAPSHOT = "resnapshot"
    STALL = "stall"


class HubLostData(SyncError):
    """The hub does not know mutations that it had decided: it was restored from an older state."""

    code = "HUB_LOST_DATA"


class HistoryMoved(SyncError):
    """The hub's history, or what it knows of this file, has moved since the session was opened: open anew and look."""

    code = "HISTORY_MOVED"


class SeveralHubs(SyncError):
    """The history moves again and again under sessions: hubs of different histories answer under one address."""

    code = "SEVERAL_HUBS"


class ClientExpired(SyncError):
    """The hub has forgotten this file: nobody can tell any more what became of what it had sent."""

    code = "CLIENT_EXPIRED"


class WrongHub(SyncError):
    """The file belongs to another hub or to another principal; nothing is sent to this one."""

    code = "WRONG_HUB"


SyncCall: TypeAlias = Literal["open", "push", "pull", "snapshot", "notify"]
"""What replication asks of a hub; connecting counts as a part of the opening."""


class Course(Enum):
    """A course that replication takes by itself when a request of it fails."""

    AGAIN = "the request is made again, a little later each time"
    ANEW = "the session ends, and another one is opened a little later each time"
    SLOWLY = "the session ends, and another one is opened within a minute"
    SNAPSHOT = "the scope is fetched whole, beside what is shown of it"
    SMALLER = "the request is made with less; a write that is too large by itself goes to the inbox"
    ASIDE = "the scope waits by itself, and is asked for within a minute"
    WITHOUT = "scopes are asked for every few seconds, without hints"


_REMEDIES: dict[Help, Remedy] = {"retry": Remedy.RETRY, "less": Remedy.RETRY, "resnapshot": Remedy.RESNAPSHOT}


def remedy(error: BaseException) -> Remedy:
    """What helps against ``error``; anything unknown stalls, visibly, and is retried slowly."""
    if isinstance(error, RemoteError):
        return _REMEDIES.get(what_helps(error), Remedy.STALL)
    return Remedy.RECONNECT if is_retryable(error) else Remedy.STALL


_COURSES: dict[SyncCall, dict[Remedy, Course]] = {
    "open": {Remedy.RETRY: Course.ANEW, Remedy.RESNAPSHOT: Course.ANEW, Remedy.STALL: Course.SLOWLY},
    "push": {Remedy.RETRY: Course.AGAIN, Remedy.RESNAPSHOT: Course.ANEW, Remedy.STALL: Course.SLOWLY},
    "pull": {Remedy.RETRY: Course.AGAIN, Remedy.RESNAPSHOT: Course.SNAPSHOT, Remedy.STALL: Course.ASIDE},
    "snapshot": {Remedy.RETRY: Course.AGAIN, Remedy.RESNAPSHOT: Course.SNAPSHOT, Remedy.STALL: Course.ASIDE},
    "notify": {Remedy.RETRY: Course.WITHOUT, Remedy.RESNAPSHOT: Course.WITHOUT, Remedy.STALL: Course.SLOWLY},
}


def course(call: SyncCall, error: AtomaError) -> Course:
    """What is done about ``error``, with which ``call`` was answered or has failed."""
    if not isinstance(error, RemoteError):
        return Course.ANEW if is_retryable(error) and not isinstance(error, StoreError) else Course.SLOWLY
    if call != "notify" and what_helps(error) == "less":
        return Course.SMALLER
    if call == "notify" and what_helps(error) == "rights":
        return Course.WITHOUT  # of one of the scopes, of which the others know nothing
    if call == "push" and error.remote_code == "OUT_OF_ORDER":
        return Course.ANEW  # the opening tells exactly where the hub is
    if call in ("pull", "snapshot") and ends_session(error):
        return Course.SLOWLY
    return _COURSES[call][remedy(error)]


def ends_session(error: RemoteError) -> bool:
    """Whether ``error`` concerns the device as such, not the one scope or the one request that met it."""
    return what_helps(error) == "login" or of_this_file(error)


def of_another(error: AtomaError) -> bool:
    """Whether the file belongs to another hub, or to another principal, than the one that is talked to."""
    return what_helps(error) == "adopt"


def of_this_file(error: RemoteError) -> bool:
    """Whether the hub says that this file has another history than it knows, or none that it knows."""
    return what_helps(error) == "repair"


def history_moved(error: RemoteError) -> bool:
    """Whether the hub has another history than it had when the session was opened."""
    return row(error.remote_code).category == "history"


def error_from(info: ErrorInfo) -> AtomaError:
    """The exception that an error inside a reply stands for."""
    return as_forked(remote_error(info))


def refusal(info: ErrorInfo | None) -> AtomaError | None:
    """The exception that ``info`` stands for, where nothing gets better by trying again; else None."""
    error = None if info is None else error_from(info)
    return error if error is not None and remedy(error) is Remedy.STALL else None


def as_forked(error: AtomaError) -> AtomaError:
    """``error``, as this device's own where the hub says that this file has another history than it knows, or none that it knows."""
    if not isinstance(error, RemoteError) or not of_this_file(error):
        return error
    kinds: dict[str, type[SyncError]] = {kind.code: kind for kind in (ClientForked, ClientExpired, HubLostData)}
    return kinds[error.remote_code](str(error))


def worst(error: BaseException) -> Exception:
    """The one error to tell about: a bug before a refusal, a refusal before a broken wire.

    Raises:
        BaseException: What is not an ``Exception`` (an interrupt) is passed on.
    """
    singles = [single for single in leaves(error) if not isinstance(single, trio.Cancelled)]
    for single in singles:
        if not isinstance(single, Exception):
            raise single
    ordinary = [single for single in singles if isinstance(single, Exception)]
    ranked = sorted(ordinary, key=lambda single: (isinstance(single, AtomaError), isinstance(single, TransportError)))
    return ranked[0]
