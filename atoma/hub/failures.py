"""The border of the hub: whatever went wrong inside leaves as a ``RemoteError`` without SQL, paths or traces."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from atoma.errors import (
    AtomaError,
    ClosedError,
    DiskFull,
    MigrationError,
    Overloaded,
    QueryError,
    RemoteError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    WrongKey,
)
from atoma.hub.admission import Refusal

_log = logging.getLogger("atoma.hub")
RETRY_S = 0.5


@contextmanager
def at_the_border(call: str) -> Generator[None]:
    """Turn what ``call`` raises into the protocol's errors; cancellation passes through."""
    try:
        yield
    except RemoteError:
        raise
    except Refusal as refused:
        raise RemoteError(refused.error.message, remote_code=refused.error.code, info=refused.error.info) from None
    except AtomaError as error:
        raise _remote(call, error) from error
    except Exception as error:
        _log.exception("the hub failed in %s", call)
        raise _transient("INTERNAL", f"the hub failed in {call}; its log has the details") from error


@dataclass(frozen=True, slots=True)
class Trouble:
    """A state in which a hub cannot serve.

    Attributes:
        told: The code with which it answers calls meanwhile.
        message: The message of that answer; it names no file and no row.
        named: Whether the answer names the state itself, as its ``reason``.
        level: How it is logged.
    """

    told: str
    message: str
    named: bool = True
    level: int = logging.ERROR


_FAILED = Trouble("UNAVAILABLE", "the hub's database failed; nothing is known to be written")
TROUBLES: Mapping[str, Trouble] = MappingProxyType(
    {
        Overloaded.code: Trouble(
            Overloaded.code, "a bounded queue of the hub is full", named=False, level=logging.DEBUG
        ),
        StoreBusy.code: Trouble(
            StoreBusy.code, "the hub's database is busy; nothing was written", named=False, level=logging.WARNING
        ),
        DiskFull.code: Trouble("UNAVAILABLE", "the hub's disk is full; nothing was written"),
        ClosedError.code: Trouble("UNAVAILABLE", "the hub is closing", level=logging.DEBUG),
        **{kind.code: _FAILED for kind in (StoreError, StoreCorrupt, WrongKey, MigrationError)},
    }
)
"""Every state of a hub's own by the code of its error: whatever a store can fail with, and a crowd. What each means, and what helps, is in the
table of codes. A hub that cannot be opened raises the error itself."""


def _transient(code: str, message: str, reason: str = "") -> RemoteError:
    info = {"reason": reason} if reason else None
    return RemoteError(message, remote_code=code, retry_after_s=RETRY_S, info=info)


def _remote(call: str, error: AtomaError) -> RemoteError:
    match error:
        case QueryError() if error.__cause__ is None:
            facts = {"path": error.path, "hint": error.hint}
            return RemoteError(
                str(error), remote_code=error.code, info={name: fact for name, fact in facts.items() if fact}
            )
        case QueryError():
            _log.warning("%s: %s", call, error)
            return _transient("TIMEOUT", "the query took too long and was stopped; ask for less")
        case Overloaded() | StoreError():
            trouble = TROUBLES[error.code]
            _log.log(trouble.level, "%s: %s", call, error)
            return _transient(
                trouble.told,
                trouble.message if isinstance(error, StoreError) else str(error),
                error.code if trouble.named else "",
            )
        case _:
            return RemoteError(str(error), remote_code=error.code)
