"""The board of ``examples/kanban`` in a terminal and in a window: each beside a colleague's device, with a hub that comes and goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoma.bindings import aio, blocking
from examples.kanban.model import CARDS, POLICY, SCHEMA, Card, Lane, beside, device
from tests.scenarios.examples.kit import DOCS, PICTURES
from tests.unit.bindings.kit import loops, running_hub, settled, under_asyncio, until

pytestmark = pytest.mark.xdist_group("qt")
TITLES: dict[Lane, list[str]] = {
    "todo": ["Call the plumber", "Order paint", "Read the contract"],
    "doing": ["Paint the fence"],
    "done": ["Buy brushes", "Measure the fence"],
}


@contextmanager
def colleague(folder: Path, address: str) -> Generator[blocking.Client]:
    """A device of somebody else, with some cards."""
    plugins = device(str(folder / "colleague.db"), f"ws://{address}/sync")
    with blocking.open_client(SCHEMA, plugins=plugins, policy=POLICY) as client:
        cards = [Card(title=title, lane=lane) for lane, titles in TITLES.items() for title in titles]
        client.store(CARDS).insert_many(cards)
        yield client


def lane_of(client: blocking.Client, title: str) -> str:
    return next((card.lane for card in client.store(CARDS).query() if card.title == title), "")


def test_the_outer_lanes_are_the_end() -> None:
    assert [beside("todo", -1), beside("todo", 1), beside("done", 1)] == ["todo", "doing", "done"]


def test_the_terminal_shows_what_a_colleague_writes_and_moves_cards_for_both(tmp_path: Path) -> None:
    pytest.importorskip("textual", reason="textual is not installed: pip install textual")
    from examples.kanban.terminal import Board

    async def told(address: str, other: blocking.Client) -> None:
        plugins = device(str(tmp_path / "terminal.db"), f"ws://{address}/sync")
        async with aio.open_client(SCHEMA, plugins=plugins, policy=POLICY) as client:
            board = Board(client)
            async with board.run_test(size=(110, 18)) as pilot:
                await settled(pilot, lambda: [table.row_count for table in board.lanes.values()] == [3, 1, 2])
                await settled(pilot, lambda: board.sub_title == "online")
                await pilot.press("n", *"Oil the gate", "enter", "end", "greater_than_sign")
                await settled(pilot, lambda: board.lanes["doing"].row_count == 2)
                await asyncio.to_thread(until, lambda: lane_of(other, "Oil the gate") == "doing")
                await pilot.press("tab")
                assert board.lane == "doing"
                await asyncio.to_thread(other.store(CARDS).insert, Card(title="Ring Ada", lane="doing"))
                await settled(pilot, lambda: board.lanes["doing"].row_count == 3)
                if PICTURES:
                    board.save_screenshot("kanban-terminal.svg", str(DOCS))
                await pilot.press("home", "d")
                await settled(pilot, lambda: board.lanes["doing"].row_count == 2)
                await asyncio.to_thread(until, lambda: lane_of(other, "Paint the fence") == "")

    with running_hub(tmp_path, SCHEMA) as address, colleague(tmp_path, address) as other:
        under_asyncio(lambda: told(address, other))
    assert not loops()


def test_the_window_works_without_a_hub_and_sends_when_there_is_one(tmp_path: Path) -> None:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    pytest.importorskip(
        "PySide6.QtWidgets", reason="PySide6 is not installed: pip install PySide6-Essentials", exc_type=ImportError
    )
    from PySide6.QtCore import QEventLoop, QModelIndex, Qt
    from PySide6.QtWidgets import QApplication

    from examples.kanban.desktop import Board

    application = QApplication.instance() or QApplication(["kanban"])

    def turn() -> None:
        QEventLoop().processEvents(QEventLoop.ProcessEventsFlag.AllEvents)

    def shown(board: Board) -> list[int]:
        return [model.rowCount() for model in board.models.values()]

    def write(board: Board, title: str) -> None:
        board.line.setText(title)
        board.line.returnPressed.emit()

    def drag(board: Board, title: str, lane: Lane) -> None:
        """What Qt does between picking a card up and letting it go over a lane."""
        model = next(model for model in board.models.values() if title in texts(board, model.lane))
        data = model.mimeData([model.index(texts(board, model.lane).index(title), 0)])
        assert not board.models[lane].dropMimeData(data, Qt.DropAction.MoveAction, -1, -1, QModelIndex())

    def texts(board: Board, lane: Lane) -> list[str]:
        return [row.title for number in range(shown(board)[0] + 9) if (row := board.models[lane].row_at(number))]

    file = str(tmp_path / "desktop.db")
    with blocking.open_client(SCHEMA, plugins=device(file, "ws://127.0.0.1:9/sync"), policy=POLICY) as client:
        board = Board(client)
        board.resize(760, 420)
        board.show()
        write(board, "Oil the gate")
        until(lambda: texts(board, "todo") == ["Oil the gate"], turn)
        drag(board, "Oil the gate", "doing")
        until(lambda: texts(board, "doing") == ["Oil the gate"] and shown(board) == [0, 1, 0], turn)
        until(lambda: "2 to send" in board.statusBar().currentMessage(), turn)
        board.stop_status()
        board.close()
    with running_hub(tmp_path, SCHEMA) as address, colleague(tmp_path, address) as other:
        plugins = device(file, f"ws://{address}/sync")
        with blocking.open_client(SCHEMA, plugins=plugins, policy=POLICY) as client:
            board = Board(client)
            board.resize(760, 420)
            board.show()
            until(lambda: shown(board) == [3, 2, 2] and board.statusBar().currentMessage() == "online", turn)
            until(lambda: lane_of(other, "Oil the gate") == "doing", turn)
            if PICTURES:
                board.grab().save(str(DOCS / "kanban-desktop.png"))
            board.stop_status()
            board.close()
    assert application is not None
    assert not loops()
