"""One table over the rows of a file, scrolled for a while: ``python -m benchmarks.scrolling FILE HOST`` prints what it cost as JSON.

A frame is what the thread of the user interface does for one step: it takes what has come, scrolls, and draws every line.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import queue
import random
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from atoma import select
from atoma.bindings import aio, blocking
from atoma.bindings.viewport import Viewport
from atoma.bindings.window import WAITING, Column, Window
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from benchmarks.models import SCHEMA, TODOS, Todo

HEIGHT = 40
STEPS, JUMPS = 600, 24
FRAME_S = 1 / 60
QUERY = select(TODOS).order_by("id")
COLUMNS = [Column[Todo](name, lambda row, name=name: getattr(row, name)) for name in ("id", "title", "status", "user")]  # type: ignore[misc]


class Scrolled:
    """A view that scrolls smoothly through parts of the rows, and jumps between them, at sixty frames a second.

    Args:
        total: How many rows there are.
        frame: Shows the rows from this number on; whether all of them are there.
    """

    def __init__(self, total: int, frame: Callable[[int], bool]) -> None:
        self._total, self._frame = total, frame
        self._frames: list[float] = []
        self._work: list[float] = []
        self._there: list[float] = []

    async def run(self) -> dict[str, float]:
        """Scroll, and tell what it cost."""
        dice = random.Random(11)
        before = _resident_mb()
        for _ in range(JUMPS):
            top = dice.randrange(self._total - HEIGHT)
            begun = time.perf_counter()
            while not await self._show(top):
                pass
            self._there.append(time.perf_counter() - begun)
            step = dice.choice((1, 3, HEIGHT))
            for _ in range(STEPS // JUMPS):
                top = min(top + step, self._total - HEIGHT)
                await self._show(top)
        return {
            "p50_ms": _at(self._frames, 0.5) * 1e3,
            "p99_ms": _at(self._frames, 0.99) * 1e3,
            "cpu_p99_ms": _at(self._work, 0.99) * 1e3,
            "there_ms": _at(self._there, 0.5) * 1e3,
            "grown_mb": _resident_mb() - before,
        }

    async def _show(self, top: int) -> bool:
        begun, worked = time.perf_counter(), time.thread_time()
        there = self._frame(top)
        spent = time.perf_counter() - begun
        self._frames.append(spent)
        self._work.append(time.thread_time() - worked)
        await asyncio.sleep(max(0.0, FRAME_S - spent))
        return there


def in_no_toolkit(path: str) -> dict[str, float]:
    """The window and the viewport by themselves: what every toolkit pays beside its own drawing."""
    waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def take_waiting() -> None:
        while not waiting.empty():
            waiting.get()()

    with blocking.open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path))]) as client:
        viewport = Viewport(Window(client, QUERY, waiting.put), lambda: None)
        viewport.resize(HEIGHT)
        while not viewport.window.row(0):
            take_waiting()
            time.sleep(0.001)

        def frame(top: int) -> bool:
            take_waiting()
            viewport.scroll_to(top)
            rows = [viewport.window.row(number) for number in range(top, top + HEIGHT)]
            drawn = [[column.line(row) for column in COLUMNS] for row in rows if row is not None]
            return len(drawn) == HEIGHT

        return asyncio.run(Scrolled(len(viewport.window), frame).run())


def in_textual(path: str) -> dict[str, float]:
    """A ``LiveTable`` of Textual, on a screen that nobody sees."""
    from textual.app import App, ComposeResult

    from atoma.bindings.textual import LiveTable

    class Board(App[None]):
        def __init__(self, client: aio.Client) -> None:
            super().__init__()
            self.table = LiveTable(client, QUERY, COLUMNS)

        def compose(self) -> ComposeResult:
            yield self.table

    async def main() -> dict[str, float]:
        async with aio.open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path))]) as client:
            board = Board(client)
            async with board.run_test(size=(100, HEIGHT + 1)) as pilot:
                while board.table.cursor_row is None:
                    await pilot.pause(0.01)

                def frame(top: int) -> bool:
                    board.table.scroll_to(y=top, animate=False, immediate=True)
                    lines = [board.table.render_line(y).text for y in range(1, HEIGHT + 1)]
                    return not any(line.startswith(WAITING) for line in lines)

                return await Scrolled(board.table.row_count, frame).run()

    return asyncio.run(main())


def in_qt(path: str) -> dict[str, float]:
    """A ``QTableView`` over a ``LiveModel``, drawn into a picture."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6.QtCore import QEventLoop
    from PySide6.QtWidgets import QApplication, QTableView

    from atoma.bindings.qt import LiveModel

    application = QApplication(["scrolling"])

    def take_waiting() -> None:
        QEventLoop().processEvents(QEventLoop.ProcessEventsFlag.AllEvents)

    with blocking.open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path))]) as client:
        model: Any = LiveModel(client, QUERY, COLUMNS)
        view = QTableView()
        view.setModel(model)
        view.resize(700, HEIGHT * view.rowHeight(0) if view.rowHeight(0) else 1_200)
        view.show()
        while model.row_at(0) is None:
            take_waiting()

        def frame(top: int) -> bool:
            take_waiting()
            view.verticalScrollBar().setValue(top)
            view.grab()
            return model.row_at(top) is not None and model.row_at(top + HEIGHT - 1) is not None

        told = asyncio.run(Scrolled(model.rowCount(), frame).run())
        model.close()
    application.quit()
    return told


HOSTS: dict[str, tuple[str, Callable[[str], dict[str, float]]]] = {
    "the window alone": ("", in_no_toolkit),
    "Textual": ("textual", in_textual),
    "Qt": ("PySide6", in_qt),
}


def there_is(host: str) -> bool:
    """Whether what a host needs is installed."""
    library = HOSTS[host][0]
    return not library or importlib.util.find_spec(library) is not None


def _at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _resident_mb() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(HOSTS[sys.argv[2]][1](sys.argv[1])))
