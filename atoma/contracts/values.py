"""The values in messages: columns, rows and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, cast, overload

import msgspec

from atoma.errors import RemoteError

Scalar: TypeAlias = bool | int | float | str | bytes | None
"""An encoded column value: one of SQLite's storage classes (booleans are stored as 0 and 1)."""

RowImage: TypeAlias = dict[str, Scalar]
"""One row: column name → stored value, every declared column present, no ``_``-prefixed system column but :data:`HIDDEN`."""

RowKey: TypeAlias = tuple[str, str]
"""A row within a scope: the name of its store, and its id."""

HIDDEN = "_hidden"
"""The column of a store with soft delete that holds the time of a row's deletion; NULL if it is not deleted."""


def is_hidden(image: RowImage | None) -> bool:
    """Return whether ``image`` is of a softly deleted row, which is kept but found only by reads that ask for such rows."""
    return image is not None and image.get(HIDDEN) is not None


def is_gone(image: RowImage | None) -> bool:
    """Return whether a row is not visible: it does not exist, or was softly deleted."""
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


TableRow: TypeAlias = tuple[Any, ...]
"""A row as values by their places: id, version, seq and scope, as :class:`StoredRow` has them, then a value for each column.

Where the declaration of the store says the scope, it need not be there: None may stand in its place.
"""


class TableRows(Sequence[StoredRow]):
    """Rows of one store as the engine read them; they become :class:`StoredRow` where somebody asks for one.

    Most answers become models at once, which are made of the values themselves.

    Args:
        columns: The names of the values.
        table: The rows, in their order.
        make: Makes rows of such values.

    Attributes:
        columns: The names of the values.
        table: The rows, in their order.
    """

    __slots__ = ("_made", "_make", "columns", "table")

    def __init__(
        self,
        columns: tuple[str, ...],
        table: Sequence[TableRow],
        make: Callable[[Iterable[TableRow]], list[StoredRow]],
    ) -> None:
        self.columns = columns
        self.table = table
        self._make = make
        self._made: tuple[StoredRow, ...] | None = None

    @property
    def versions(self) -> tuple[int, ...]:
        """The version of each row."""
        return tuple([row[1] for row in self.table])

    @property
    def ends(self) -> TableRows:
        """The first row and the last one of these, which are some."""
        return TableRows(self.columns, (self.table[0], self.table[-1]), self._make)

    def _rows(self) -> tuple[StoredRow, ...]:
        made = self._made
        if made is None:
            made = self._made = tuple(self._make(self.table))
        return made

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[StoredRow]:
        return iter(self._rows())

    @overload
    def __getitem__(self, place: int) -> StoredRow: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[StoredRow, ...]: ...
    def __getitem__(self, place: int | slice) -> StoredRow | tuple[StoredRow, ...]:
        if self._made is None and isinstance(place, int):  # the edges of a page are all that is asked of most
            return self._make((self.table[place],))[0]
        return self._rows()[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (tuple, TableRows)) and self._rows() == tuple(cast("Sequence[object]", other))

    def __hash__(self) -> int:
        return hash(self._rows())

    def __repr__(self) -> str:
        return repr(self._rows())


def versions_of(rows: Sequence[StoredRow]) -> tuple[int, ...]:
    """The version of each of ``rows``."""
    return rows.versions if isinstance(rows, TableRows) else tuple([row.version for row in rows])


def ends_of(rows: Sequence[object]) -> Sequence[object]:
    """The first of ``rows`` and the last one; none where there are none."""
    if not rows:
        return ()
    return rows.ends if isinstance(rows, TableRows) else (rows[0], rows[-1])


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as data, the same on every transport and inside item results.

    Attributes:
        code: Stable identifier (``errors.AtomaError.code`` or one of the protocol's).
        message: What happened, where, and what to do, for people.
        retryable: Whether the same request may succeed later.
        retry_after_ms: Milliseconds to wait before a retry; 0 if not stated.
        info: Further facts, by name.
    """

    code: str
    message: str
    retryable: bool = False
    retry_after_ms: int = 0
    info: dict[str, str] = {}


def remote_error(info: ErrorInfo) -> RemoteError:
    """Return the exception for an error that arrived as data."""
    return RemoteError(
        info.message,
        remote_code=info.code,
        remote_retryable=info.retryable,
        retry_after_s=info.retry_after_ms / 1000,
        info=info.info,
    )


_SCALARS = frozenset((bool, int, float, str, bytes, type(None)))


def as_image(values: dict[str, object]) -> RowImage:
    """Return decoded column values as a row image; raises ``TypeError`` for a value that no column can hold."""
    if _SCALARS.issuperset(map(type, values.values())):
        return cast("RowImage", values)
    for name, value in values.items():
        if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
            raise TypeError(f"column {name!r} holds a {type(value).__name__}")
    return cast("RowImage", values)
