"""The model for Qt under Qt's own model tester: a view scrolls, rows come, go and move, and what is selected stays so."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip(
    "PySide6.QtWidgets",
    reason="PySide6 is not installed, or a library of its platform is missing: pip install PySide6-Essentials",
    exc_type=ImportError,
)

from PySide6.QtCore import QCoreApplication, QEventLoop, QItemSelectionModel, Qt
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QApplication, QTableView

from atoma import col, select
from atoma.bindings import blocking
from atoma.bindings.feeding import WINDOW_ROWS
from atoma.bindings.qt import Column, LiveModel
from atoma.errors import QueryError
from tests.unit.bindings import kit
from tests.unit.bindings.kit import NOTES, SCHEMA, Note, local, loops

pytestmark = pytest.mark.xdist_group("qt")

QUERY = select(NOTES).order_by("text")
COLUMNS = [Column[Note]("Text", lambda note: note.text), Column[Note]("Id", lambda note: note.id)]


@pytest.fixture(scope="module")
def app() -> QCoreApplication:
    return QApplication.instance() or QApplication(["test"])


def note(number: int, suffix: str = "") -> Note:
    return Note(id=f"{number:05}{suffix}", text=f"{number:05}{suffix}")


def turn() -> None:
    """Let Qt do what waits; ``QCoreApplication.processEvents`` of PySide 6.12 drops a reference of None each time."""
    QEventLoop().processEvents(QEventLoop.ProcessEventsFlag.AllEvents)


def until(happened: Callable[[], bool]) -> None:
    kit.until(happened, turn)


@contextmanager
def watched(rows: int) -> Generator[tuple[blocking.Client, LiveModel[Note]]]:
    """A model over many rows, which Qt's tester watches; what it finds ends the program."""
    with blocking.open_client(SCHEMA, plugins=local()) as client:
        client.store(NOTES).insert_many([note(number) for number in range(rows)])
        model = LiveModel(client, QUERY, COLUMNS)
        tester = QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal)
        until(lambda: model.rowCount() == rows)
        yield client, model
        del tester
        model.close()
    assert not loops(), "the client has left a thread"


def text(model: LiveModel[Note], number: int) -> object:
    return model.data(model.index(number, 0))


def texts(model: LiveModel[Note]) -> list[object]:
    return [text(model, number) for number in range(model.rowCount())]


def test_qts_own_tester_finds_nothing_while_rows_come_go_and_move(app: QCoreApplication) -> None:
    dice = random.Random(7)
    with watched(40) as (client, model):
        view = QTableView()
        view.setModel(model)
        view.show()
        store, there = client.store(NOTES), {f"{number:05}": f"{number:05}" for number in range(40)}
        for number in range(60):
            match dice.choice(["insert", "delete", "move"]):
                case "insert":
                    id = f"{dice.randrange(40):05}-{number}"
                    store.insert(Note(id=id, text=id))
                    there[id] = id
                case "delete" if there:
                    id = dice.choice(sorted(there))
                    store.delete(id)
                    del there[id]
                case _ if there:
                    id = dice.choice(sorted(there))
                    there[id] = f"{dice.randrange(40):05}+{number}"
                    store.update(id, text=there[id])
            if dice.random() < 0.3:
                turn()
        until(lambda: texts(model) == sorted(there.values()))


def test_a_view_over_many_rows_fetches_what_it_shows(app: QCoreApplication) -> None:
    with watched(5_000) as (_, model):
        view = QTableView()
        view.setModel(model)
        view.resize(300, 200)
        view.show()
        for number in (4_999, 2_500, 0):
            view.scrollTo(model.index(number, 0))
            view.grab()
            until(lambda number=number: text(model, number) == f"{number:05}")  # type: ignore[misc]
        assert sum(model.row_at(number) is not None for number in range(5_000)) <= WINDOW_ROWS


def test_selected_rows_stay_selected_and_qml_finds_names(app: QCoreApplication) -> None:
    with watched(100) as (client, model):
        view = QTableView()
        view.setModel(model)
        until(lambda: text(model, 50) == "00050")
        rows = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        view.selectionModel().select(model.index(50, 0), rows)
        client.store(NOTES).insert_many([note(3, "a"), note(4, "b"), note(70, "c")])
        client.store(NOTES).delete("00000")
        until(lambda: model.rowCount() == 102 and text(model, 51) == "00050")
        (selected,) = view.selectionModel().selectedRows()
        assert (selected.row(), text(model, selected.row())) == (51, "00050")
        names = {bytes(name.data()).decode(): role for role, name in model.roleNames().items()}
        assert model.data(selected, names["text"]) == "00050"
        assert model.data(selected, names["row"]) == note(50)
        assert model.headerData(1, Qt.Orientation.Horizontal) == "Id"


def test_an_error_is_a_signal(app: QCoreApplication) -> None:
    with blocking.open_client(SCHEMA, plugins=local()) as client:
        told: list[object] = []
        model = LiveModel(client, select(NOTES).where(col("nothing") == 1), COLUMNS)
        model.failed.connect(told.append)
        until(lambda: bool(told))
        assert isinstance(told[0], QueryError)


def test_a_model_that_is_deleted_or_outlives_its_client_harms_nobody(app: QCoreApplication) -> None:
    with blocking.open_client(SCHEMA, plugins=local()) as client:
        client.store(NOTES).insert(note(1))
        gone, model = LiveModel(client, QUERY, COLUMNS), LiveModel(client, QUERY, COLUMNS)
        until(partial(lambda first: first.rowCount() == 1 and model.rowCount() == 1, gone))
        del gone
        gc.collect()
        client.store(NOTES).insert(note(2))
        until(lambda: model.rowCount() == 2)
    assert (model.rowCount(), text(model, 0)) == (2, "00001")
    turn()
    assert not loops()
