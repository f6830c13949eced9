"""The one place where apsw's exceptions become Atoma's."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import apsw

from atoma.errors import (
    AtomaError,
    ConflictError,
    DiskFull,
    QueryError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    ValidationError,
    WrongKey,
)
from atoma_stores.sqlite.encryption import is_encrypted

_UNIQUE = frozenset(
    {apsw.SQLITE_CONSTRAINT_UNIQUE, apsw.SQLITE_CONSTRAINT_PRIMARYKEY, apsw.SQLITE_CONSTRAINT_ROWID},
)


def extended_code(error: apsw.Error) -> int:
    """SQLite's extended result code, 0 when there is none."""
    code: object = getattr(error, "extendedresult", 0)
    return code if isinstance(code, int) else 0


def is_unique_violation(error: apsw.ConstraintError) -> bool:
    """Whether a UNIQUE index or primary key refused the row."""
    return extended_code(error) in _UNIQUE


def _constraint(error: apsw.ConstraintError) -> AtomaError:
    if is_unique_violation(error):
        return ConflictError(f"another row has the same value: {error}")
    return ValidationError(f"the file refuses the value: {error}")


def translate(error: apsw.Error, where: str) -> AtomaError:
    """The Atoma error that says what ``error`` means.

    Args:
        error: What apsw raised.
        where: File (or ``:memory:``) for the message.
    """
    match error:
        case apsw.FullError():
            return DiskFull(f"{where}: no space left, nothing was written; free some and try again ({error})")
        case apsw.IOError() if extended_code(error) == apsw.SQLITE_IOERR_SHMSIZE:
            return DiskFull(
                f"{where}: no space left for the index of its log (-shm); free some and try again ({error})"
            )
        case apsw.BusyError() | apsw.LockedError():
            return StoreBusy(f"{where}: another process or connection holds the file ({error})")
        case apsw.CorruptError():
            return StoreCorrupt(f"{where}: the file is damaged; restore a copy ({error})")
        case apsw.NotADBError():
            if is_encrypted(where):
                return WrongKey(f"{where}: this file is encrypted; open it with its key")
            return StoreCorrupt(f"{where}: this is not a SQLite database ({error})")
        case apsw.ConstraintError():
            return _constraint(error)
        case apsw.TooBigError() | apsw.MismatchError():
            return ValidationError(f"the file cannot hold the value: {error}")
        case apsw.InterruptError():
            return QueryError(f"{where}: the query was interrupted because it ran too long or the database closed")
        case apsw.SQLError() | apsw.RangeError() | apsw.BindingsError():
            return QueryError(f"{where}: {error}")
        case apsw.CantOpenError():
            return StoreError(f"{where}: the file cannot be opened; check folder and permissions ({error})")
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError():
            return StoreError(f"{where}: the file may not be written ({error})")
        case _:
            return StoreError(f"{where}: {type(error).__name__}: {error}")


def translate_commit(error: apsw.Error, where: str) -> AtomaError:
    """What a failed COMMIT means to those who took part in it."""
    if leaves_doubt(error):
        return StoreError(
            f"{where}: the disk failed during COMMIT ({error}); whether the write is in the file shows when it is "
            "opened again, until then this database refuses every call"
        )
    return translate(error, where)


def leaves_doubt(error: apsw.Error) -> bool:
    """Whether the connection's view and the file may differ after this failure of a COMMIT."""
    return not isinstance(error, apsw.FullError | apsw.BusyError | apsw.LockedError | apsw.ConstraintError)
