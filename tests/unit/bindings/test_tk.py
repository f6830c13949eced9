"""The table for Tk on a display of its own: it scrolls, follows, keeps the cursor, and ends with its widget."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tkinter", reason="this Python has no tkinter: apt install python3-tk")

import tkinter
from tkinter import ttk

from atoma import col, select
from atoma.bindings import blocking
from atoma.bindings.feeding import WINDOW_ROWS
from atoma.bindings.tk import Column, LiveTable
from atoma.errors import QueryError
from atoma.query import Rows
from tests.unit.bindings import kit
from tests.unit.bindings.kit import NOTES, SCHEMA, Note, local, loops

if TYPE_CHECKING:
    from types import TracebackType

pytestmark = pytest.mark.xdist_group("tk")

QUERY = select(NOTES).order_by("text")
GONE = """
import gc, threading, tkinter
from atoma.bindings import blocking
from atoma.bindings.tk import LiveTable
from tests.unit.bindings.test_tk import COLUMNS, QUERY, SCHEMA, local

with blocking.open_client(SCHEMA, plugins=local()) as client:
    root = tkinter.Tk()
    root.itself = root  # so that it is the collector that frees it
    LiveTable(root, client, QUERY, COLUMNS)
    root.destroy()
    del root
collecting = threading.Thread(target=gc.collect)
collecting.start()
collecting.join()
print("alive")
"""
COLUMNS = [Column[Note]("Text", lambda note: note.text), Column[Note]("Id", lambda note: note.id, 8)]


@pytest.fixture(scope="module", autouse=True)
def display() -> Generator[None]:
    """A display that nobody looks at."""
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("there is no Xvfb to show windows on: apt install xvfb")
    reading, writing = os.pipe()
    with subprocess.Popen(
        [server, "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    ) as running:
        os.close(writing)
        with os.fdopen(reading) as said, pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISPLAY", f":{said.readline().strip()}")
            yield
        running.terminate()


class Root(tkinter.Tk):
    """A window whose callbacks that fail are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[object] = []

    def report_callback_exception(self, exc: type[BaseException], val: BaseException, tb: TracebackType | None) -> None:
        self.failures.append(val)


@contextmanager
def opened_root() -> Generator[Root]:
    root = Root()
    root.geometry("400x300")
    try:
        yield root
    finally:
        root.destroy()
    assert root.failures == []


def until(root: Root, happened: Callable[[], bool]) -> None:
    kit.until(happened, root.update)


def note(number: int, suffix: str = "") -> Note:
    return Note(id=f"{number:05}{suffix}", text=f"{number:05}{suffix}")


def tree_of(table: LiveTable[Note]) -> ttk.Treeview:
    (tree,) = [child for child in table.winfo_children() if isinstance(child, ttk.Treeview)]
    return tree


def shown(table: LiveTable[Note]) -> list[str]:
    """The first column, as it stands on the screen."""
    tree = tree_of(table)
    return [str(tree.set(line, "0")) for line in tree.get_children()]


def marked(table: LiveTable[Note]) -> list[str]:
    """The first column of what is drawn as selected."""
    tree = tree_of(table)
    return [str(tree.set(line, "0")) for line in tree.selection()]


@contextmanager
def driven(rows: int, query: Rows[Note] = QUERY) -> Generator[tuple[blocking.Client, Root, LiveTable[Note]]]:
    """A table over many rows, on the screen."""
    with blocking.open_client(SCHEMA, plugins=local()) as client, opened_root() as root:
        client.store(NOTES).insert_many([note(number) for number in range(rows)])
        table = LiveTable(root, client, query, COLUMNS)
        table.pack(fill="both", expand=True)
        until(root, lambda: len(shown(table)) > 5 and shown(table)[0] == "00000")
        yield client, root, table
    assert not loops(), "the client has left a thread"


def press(root: Root, table: LiveTable[Note], *keys: str) -> None:
    tree_of(table).focus_force()
    for key in keys:
        tree_of(table).event_generate(f"<{key}>")
        root.update()


def test_keys_wheel_and_bar_go_anywhere_and_rows_come() -> None:
    with driven(3_000) as (_, root, table):
        chosen: list[str] = []
        table.bind("<<Chosen>>", lambda event: chosen.append(table.cursor_row.text if table.cursor_row else ""))
        page = len(shown(table))
        assert 5 < page < 20
        press(root, table, "End")
        until(root, lambda: shown(table)[-1] == "02999")
        assert (table.cursor_number, marked(table), len(shown(table))) == (2_999, ["02999"], page)
        press(root, table, "Prior", "Up", "Return")
        assert chosen == [f"{2_999 - page - 1:05}"]
        press(root, table, "Home", "Down")
        until(root, lambda: marked(table) == ["00001"])
        press(root, table, "Return")
        assert chosen[1:] == ["00001"]
        press(root, table, "Button-5", "Button-5", "Button-4")
        assert (shown(table)[0], table.cursor_number) == ("00003", 1), "scrolling leaves the cursor"
        (bar,) = [child for child in table.winfo_children() if isinstance(child, ttk.Scrollbar)]
        root.tk.call(bar.cget("command"), "moveto", "0.5")
        until(root, lambda: shown(table)[:2] == ["01500", "01501"])
        root.tk.call(bar.cget("command"), "scroll", "1", "pages")
        until(root, lambda: shown(table)[0] == f"{1_500 + page:05}")
        assert bar.get()[0] == pytest.approx((1_500 + page) / 3_000, abs=0.001)
        assert sum(table._viewport.window.row(number) is not None for number in range(3_000)) <= WINDOW_ROWS


def test_a_click_moves_the_cursor_and_a_double_one_chooses() -> None:
    with driven(30) as (_, _, table):
        chosen: list[str] = []
        table.bind("<<Chosen>>", lambda event: chosen.append(table.cursor_row.text if table.cursor_row else ""))
        box = tree_of(table).bbox("2")
        assert not isinstance(box, str)
        x, y, _, height = box
        tree_of(table).event_generate("<Button-1>", x=x + 5, y=y + height // 2)
        assert (marked(table), chosen) == (["00002"], [])
        tree_of(table).event_generate("<Button-1>", x=x + 5, y=y + height // 2)
        assert chosen == ["00002"]


def test_the_cursor_stays_on_its_row_and_what_is_shown_does_not_move() -> None:
    with driven(3_000) as (client, root, table):
        table.go_to(1_500)
        until(root, lambda: table.cursor_row == note(1_500))
        before, store = shown(table), client.store(NOTES)
        store.insert_many([note(1_400, "a"), note(1_400, "b")])
        until(root, lambda: table.row_count == 3_002)
        assert (shown(table), table.cursor_row, marked(table)) == (before, note(1_500), ["01500"])
        store.update("01500", text="00000a")
        until(root, lambda: "01500" not in shown(table))
        store.delete("01501")
        until(root, lambda: table.row_count == 3_001)


def test_the_last_rows_fill_the_table_when_rows_go() -> None:
    with driven(60) as (client, root, table):
        page = len(shown(table))
        press(root, table, "End")
        until(root, lambda: shown(table)[-1] == "00059")
        client.store(NOTES).delete_many([f"{number:05}" for number in range(30, 60)])
        until(root, lambda: table.row_count == 30 and shown(table)[-1] == "00029")
        assert (len(shown(table)), marked(table)) == (page, ["00029"])


def test_a_table_without_rows_gets_its_first_and_loses_it() -> None:
    with blocking.open_client(SCHEMA, plugins=local()) as client, opened_root() as root:
        table = LiveTable(root, client, QUERY, COLUMNS)
        table.pack(fill="both", expand=True)
        root.update()
        press(root, table, "Down", "End", "Return")
        assert (table.row_count, table.cursor_row, shown(table)) == (0, None, [])
        client.store(NOTES).insert_many([note(1), note(2)])
        until(root, lambda: shown(table) == ["00001", "00002"])
        client.store(NOTES).delete_many(["00001", "00002"])
        until(root, lambda: shown(table) == [])


def test_a_table_that_is_seen_late_fills_its_place() -> None:
    with blocking.open_client(SCHEMA, plugins=local()) as client, opened_root() as root:
        client.store(NOTES).insert_many([note(number) for number in range(30)])
        root.withdraw()
        table = LiveTable(root, client, QUERY, COLUMNS)
        table.pack(fill="both", expand=True)
        until(root, lambda: shown(table) == ["00000"])
        root.deiconify()
        until(root, lambda: len(shown(table)) > 5)
        assert len(shown(table)) * 20 > table.winfo_height() - 60, "no more than a line and a heading are left"


def test_braces_lines_and_dollars_are_shown_as_they_are() -> None:
    with driven(20) as (client, root, table):
        client.store(NOTES).update("00001", text="00001 {a} [exit] $b \\\n\x1bc")
        until(root, lambda: shown(table)[1] != "00001")
        assert shown(table)[1] == "00001 {a} [exit] $b \\  c"


def test_a_query_that_cannot_be_followed_is_told_as_an_event() -> None:
    with blocking.open_client(SCHEMA, plugins=local()) as client, opened_root() as root:
        table = LiveTable(root, client, select(NOTES).where(col("nothing") == 1), COLUMNS)
        told: list[object] = []
        table.bind("<<Failed>>", lambda event: told.append(table.error))
        until(root, lambda: bool(told))
        assert isinstance(told[0], QueryError)
        with pytest.raises(QueryError, match="limit"):
            LiveTable(root, client, QUERY.limit(3), COLUMNS)
        assert root.winfo_children() == [table]


def test_a_table_that_is_destroyed_or_outlives_its_client_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with opened_root() as root:
        with blocking.open_client(SCHEMA, plugins=local()) as client:
            client.store(NOTES).insert(note(1))
            gone, table = LiveTable(root, client, QUERY, COLUMNS), LiveTable(root, client, QUERY, COLUMNS)
            for each in (gone, table):
                each.pack(fill="both", expand=True)
            until(root, lambda: shown(gone) == shown(table) == ["00001"])
            root.tk.call("destroy", str(gone))  # as Tk does it, without Python's method
            client.store(NOTES).insert(note(2))
            until(root, lambda: table.row_count == 2)
        press(root, table, "Down")
        assert (shown(table), table.cursor_number) == (["00001", "00002"], 1)
    assert not loops()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_window_that_is_gone_is_not_freed_by_another_thread(tmp_path: Path) -> None:
    program = tmp_path / "gone.py"
    program.write_text(GONE, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "alive\n", "")
