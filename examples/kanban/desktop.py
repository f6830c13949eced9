"""The board in a window, by Qt (PySide6).

    python -m examples.kanban.desktop [FILE [HUB]]

Qt's loop is in C++ and knows no `await`: the client is the one of `atoma.bindings.blocking`, whose loop has a thread of its own.
"""

from __future__ import annotations

import signal
import sys

from PySide6.QtCore import QMimeData, QModelIndex, QPersistentModelIndex, Qt, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QGroupBox,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QMainWindow,
    QVBoxLayout,
    QWidget,
)

from atoma.bindings.blocking import Client, open_client
from atoma.bindings.qt import Column, LiveModel
from atoma.sync import SyncStatus

from .model import CARDS, HUB, LANES, POLICY, SCHEMA, Card, Lane, device, in_lane, in_words

Index = QModelIndex | QPersistentModelIndex
CARD = "application/x-card-id"


class LaneModel(LiveModel[Card]):
    """A lane that cards are dragged from and dropped on."""

    def __init__(self, client: Client, lane: Lane, parent: QWidget) -> None:
        super().__init__(client, in_lane(lane), [Column[Card]("Title", lambda card: card.title)], parent=parent)
        self.cards = client.store(CARDS)
        self.lane: Lane = lane

    def flags(self, index: Index) -> Qt.ItemFlag:
        return super().flags(index) | Qt.ItemFlag.ItemIsDragEnabled | Qt.ItemFlag.ItemIsDropEnabled

    def mimeTypes(self) -> list[str]:  # noqa: N802 - Qt's
        return [CARD]

    def mimeData(self, indexes: list[QModelIndex]) -> QMimeData:  # type: ignore[override]  # noqa: N802 - Qt's
        data = QMimeData()
        card = self.row_at(indexes[0].row()) if indexes else None
        if card is not None:
            data.setData(CARD, card.id.encode())
        return data

    def dropMimeData(self, data: QMimeData, action: Qt.DropAction, row: int, column: int, parent: Index) -> bool:  # noqa: N802
        if not data.hasFormat(CARD):
            return False
        # One field is written, and that is all: both models learn of it from their queries, and no row is moved by hand.
        self.cards.update(bytes(data.data(CARD).data()).decode(), lane=self.lane)
        return False  # else Qt would remove the row from the other lane itself


class Board(QMainWindow):
    """Three lists beside one another, and a line for a new card."""

    status_came = Signal(object)
    """A signal is how another thread speaks to Qt's: the client's loop emits it, and Qt's thread shows it."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.setWindowTitle("Kanban")
        self.cards = client.store(CARDS)
        self.models: dict[Lane, LaneModel] = {}
        self.line = QLineEdit(placeholderText="What is to be done?")
        self.line.returnPressed.connect(self.add)
        lanes = QHBoxLayout()
        for lane in LANES:
            lanes.addWidget(self.show_lane(client, lane))
        content = QWidget()
        column = QVBoxLayout(content)
        column.addWidget(self.line)
        column.addLayout(lanes)
        self.setCentralWidget(content)
        self.status_came.connect(self.show_status)
        self.stop_status = client.sync.subscribe(self.status_came.emit)

    def show_lane(self, client: Client, lane: Lane) -> QGroupBox:
        group, view = QGroupBox(lane.capitalize()), QListView()
        self.models[lane] = LaneModel(client, lane, self)
        view.setModel(self.models[lane])
        view.setDragDropMode(QAbstractItemView.DragDropMode.DragDrop)
        view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        QVBoxLayout(group).addWidget(view)
        return group

    def add(self) -> None:
        if title := self.line.text().strip():
            self.cards.insert(Card(title=title))  # waits for this device's file, never for the hub
        self.line.clear()

    def show_status(self, status: SyncStatus) -> None:
        self.statusBar().showMessage(in_words(status))


def main(file: str = "desktop.db", hub: str = HUB) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: Qt's loop does not look at Python's signals
    application = QApplication(sys.argv)
    with open_client(SCHEMA, plugins=device(file, hub), policy=POLICY) as client:
        board = Board(client)
        board.resize(760, 420)
        board.show()
        application.exec()
        board.stop_status()


if __name__ == "__main__":
    main(*sys.argv[1:3])
