"""A table model of a live query for Qt (PySide6); needs the extra ``qt``.

The client is one of :mod:`atoma.bindings.blocking`, opened around ``app.exec()``: its loop runs in a thread of its own, and the
model is told in Qt's thread what has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from typing import Generic, TypeAlias, TypeVar

from atoma.bindings.splicing import Edit, Inserted, Removed
from atoma.bindings.window import Column, OfPortal, Window
from atoma.contracts.extras import needs_extra
from atoma.query import Rows

with needs_extra("qt"):
    from PySide6.QtCore import QAbstractTableModel, QByteArray, QModelIndex, QObject, QPersistentModelIndex, Qt, Signal

__all__ = ["Column", "LiveModel"]

T = TypeVar("T")
Index: TypeAlias = "QModelIndex | QPersistentModelIndex"

ROW = int(Qt.ItemDataRole.UserRole)
"""The role of a whole row; None where it is not there yet."""


class _Post(QObject):
    """A post box whose functions are called in Qt's thread."""

    called = Signal(object)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.called.connect(_call, Qt.ConnectionType.QueuedConnection)


def _call(function: Callable[[], None]) -> None:
    function()


class LiveModel(QAbstractTableModel, Generic[T]):
    """The rows of a query, however many there are, as they are now; memory is that of some hundred.

    A view fetches rows by showing them: what is not there yet is empty for a moment. Selected rows stay selected when others
    come and go. It is used in Qt's thread only.

    Every column is a role as well, under its title in small letters, and the whole row is the role ``row``, so that QML
    finds them: ``model.title``, ``model.row``.

    Args:
        client: An open client of ``atoma.bindings.blocking`` or ``atoma.bindings.aio``.
        query: Whole rows, without limit and offset.
        columns: What is shown of each.
        key: What tells rows apart; by default their ``id``.
        parent: Qt's owner of the model.

    Attributes:
        failed: Emitted with the error when the query is followed no more.

    Raises:
        QueryError: The query has a limit or an offset.
    """

    failed = Signal(object)

    def __init__(
        self,
        client: OfPortal,
        query: Rows[T],
        columns: Sequence[Column[T]],
        *,
        key: Callable[[T], Hashable] | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._columns = tuple(columns)
        self._roles = {ROW: QByteArray(b"row")}
        for number, column in enumerate(self._columns, ROW + 1):
            self._roles[number] = QByteArray(column.title.lower().replace(" ", "_").encode())
        self._window = Window(client, query, _Post(self).called.emit, key=key)
        self._window.editing = self._edited
        self._window.failed = self.failed.emit
        self.destroyed.connect(self._window.close)

    def row_at(self, number: int) -> T | None:
        """The row with this number; None when it is not there yet, or at all."""
        return self._window.row(number)

    def number_of(self, key: Hashable) -> int | None:
        """The number of the row with this key, if it is among those that are there."""
        return self._window.number_of(key)

    def close(self) -> None:
        """Stop following; the rows stay as they are."""
        self._window.close()

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008, N802 - Qt's
        """How many rows there are; Qt calls it."""
        return 0 if parent.isValid() else len(self._window)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008, N802 - Qt's
        """How many columns there are; Qt calls it."""
        return 0 if parent.isValid() else len(self._columns)

    def roleNames(self) -> dict[int, QByteArray]:  # noqa: N802 - Qt's
        """The names by which QML finds a row and its columns; Qt calls it."""
        return {**super().roleNames(), **self._roles}

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        """What a cell shows, or a role of its row; Qt calls it."""
        named = role in self._roles
        if not index.isValid() or (role != Qt.ItemDataRole.DisplayRole and not named):
            return None
        number = index.row()
        self._window.show(number, 1)
        row = self._window.row(number)
        if row is None or role == ROW:
            return row
        return str(self._columns[role - ROW - 1 if named else index.column()].cell(row))

    def headerData(  # noqa: N802 - Qt's
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        """The title of a column; Qt calls it."""
        if role != Qt.ItemDataRole.DisplayRole or orientation != Qt.Orientation.Horizontal:
            return None
        return self._columns[section].title if 0 <= section < len(self._columns) else None

    @contextmanager
    def _edited(self, edit: Edit) -> Generator[None]:
        first, last = edit.at, edit.at + edit.count - 1
        if isinstance(edit, Inserted):
            self.beginInsertRows(QModelIndex(), first, last)
            yield
            self.endInsertRows()
        elif isinstance(edit, Removed):
            self.beginRemoveRows(QModelIndex(), first, last)
            yield
            self.endRemoveRows()
        else:
            yield
            self.dataChanged.emit(self.index(first, 0), self.index(last, len(self._columns) - 1))
