"""The values that travel: what a column holds, what a row is, what an error looks like on the wire."""

from __future__ import annotations

from typing import TypeAlias, cast

import msgspec

from atoma.errors import RemoteError

Scalar: TypeAlias = bool | int | float | str | bytes | None
"""What one column holds once encoded: SQLite's storage classes (booleans are stored as 0 and 1)."""

RowImage: TypeAlias = dict[str, Scalar]
"""One row: column name → stored value, every declared column present, no ``_``-prefixed system column but :data:`HIDDEN`."""

HIDDEN = "_hidden"
"""The column of a store with soft delete that holds when a row was deleted; NULL while it is not."""


def is_hidden(image: RowImage | None) -> bool:
    """Whether ``image`` is of a row that was deleted softly: it is kept, and no read finds it unless it asks for such rows."""
    return image is not None and image.get(HIDDEN) is not None


def is_gone(image: RowImage | None) -> bool:
    """Whether there is nothing to see of a row: it is not there, or was deleted softly."""
    return image is None or image.get(HIDDEN) is not None


class StoredRow(msgspec.Struct, frozen=True, gc=False):
    """A visible row as the engine read it.

    Attributes:
        id: Primary key.
        version: ``_ver``: moves at every visible change; for compare-and-set on this device.
        seq: ``_seq``: hub sequence of the confirmed base, 0 if the hub never sent it. Of a row that a hub was asked for, the
            version that it gave.
        scope: Scope the row belongs to.
        image: Column name → stored value. Treat as immutable.
    """

    id: str
    version: int
    seq: int
    scope: str
    image: RowImage

    def column(self, name: str) -> Scalar:
        """The stored value of a column; the id is one.

        Raises:
            KeyError: The row has no such column.
        """
        return self.id if name == "id" else self.image[name]


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as data: equal on every transport, and inside item results.

    Attributes:
        code: Stable identifier (``errors.AtomaError.code`` or one of the protocol's).
        message: What, where and what to do, for a person.
        retryable: Whether the same request may succeed later.
        retry_after_ms: Milliseconds to wait first, 0 when not stated.
        info: Further facts, by name.
    """

    code: str
    message: str
    retryable: bool = False
    retry_after_ms: int = 0
    info: dict[str, str] = {}


def remote_error(info: ErrorInfo) -> RemoteError:
    """The exception that an error which came as data stands for."""
    return RemoteError(
        info.message,
        remote_code=info.code,
        remote_retryable=info.retryable,
        retry_after_s=info.retry_after_ms / 1000,
        info=info.info,
    )


_SCALARS = frozenset((bool, int, float, str, bytes, type(None)))


def as_image(values: dict[str, object]) -> RowImage:
    """View decoded column values as a row image; raises ``TypeError`` on a value no column can hold."""
    if _SCALARS.issuperset(map(type, values.values())):
        return cast("RowImage", values)
    for name, value in values.items():
        if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
            raise TypeError(f"column {name!r} holds a {type(value).__name__}")
    return cast("RowImage", values)
