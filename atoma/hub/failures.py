"""The border of the hub: whatever went wrong inside leaves as a ``RemoteError`` without SQL, paths or traces."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from atoma.errors import AtomaError, ClosedError, DiskFull, Overloaded, QueryError, RemoteError, StoreBusy, StoreError
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
        case Overloaded():
            return _transient("OVERLOADED", str(error))
        case StoreBusy():
            _log.warning("%s: %s", call, error)
            return _transient("BUSY", "the hub's database is busy; nothing was written")
        case DiskFull():
            _log.error("%s: %s", call, error)
            return _transient("UNAVAILABLE", "the hub's disk is full; nothing was written", error.code)
        case ClosedError():
            return _transient("UNAVAILABLE", "the hub is closing", error.code)
        case StoreError():
            _log.error("%s: %s", call, error)
            return _transient("UNAVAILABLE", "the hub's database failed; nothing is known to be written", error.code)
        case _:
            return RemoteError(str(error), remote_code=error.code)
