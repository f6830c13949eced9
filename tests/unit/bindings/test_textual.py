"""The table for Textual, driven by its pilot: it scrolls, follows, keeps the cursor, and ends with the application."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

pytest.importorskip("textual", reason="textual is not installed: pip install textual")

from textual.app import App, ComposeResult
from textual.pilot import Pilot

from atoma import col, select
from atoma.bindings import aio
from atoma.bindings.textual import Column, LiveTable
from atoma.errors import QueryError
from atoma.query import Rows
from tests.unit.bindings.kit import NOTES, SCHEMA, Note, local, loops, settled, under_asyncio

QUERY = select(NOTES).order_by("text")
SIZE = (40, 12)


class Board(App[None]):
    """An application with one table."""

    def __init__(self, client: aio.Client, query: Rows[Note] = QUERY) -> None:
        super().__init__()
        self.table = LiveTable(client, query, [Column("Text", lambda note: note.text), Column("Id", lambda n: n.id, 8)])
        self.chosen: list[str] = []
        self.errors: list[Exception] = []

    def compose(self) -> ComposeResult:
        yield self.table

    def on_mount(self) -> None:
        self.table.focus()

    def on_live_table_chosen(self, message: LiveTable.Chosen[Note]) -> None:
        self.chosen.append(message.row.text)

    def on_live_table_failed(self, message: LiveTable.Failed) -> None:
        self.errors.append(message.error)


def note(number: int, suffix: str = "") -> Note:
    return Note(id=f"{number:05}{suffix}", text=f"{number:05}{suffix}")


def shown(board: Board) -> list[str]:
    """The first column, as it stands on the screen."""
    table = board.table
    return [table.render_line(y).text[:19].strip() for y in range(table.size.height)]


def driven(story: Callable[[aio.Client, Board, Pilot[None]], Awaitable[None]], rows: int = 3_000) -> None:
    """Tell a story about a board over many rows."""

    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=local()) as client:
            await client.store(NOTES).insert_many([note(number) for number in range(rows)])
            board = Board(client)
            async with board.run_test(size=SIZE) as pilot:
                await settled(pilot, lambda: board.table.row_count == rows and board.table.cursor_row is not None)
                await story(client, board, pilot)

    under_asyncio(main)
    assert not loops(), "the client has left a thread"


def test_keys_go_anywhere_and_rows_come() -> None:
    async def story(client: aio.Client, board: Board, pilot: Pilot[None]) -> None:
        assert shown(board)[:3] == ["Text", "00000", "00001"]
        await pilot.press("end")
        await settled(pilot, lambda: shown(board)[-1] == "02999")
        assert board.table.cursor_number == 2_999
        await pilot.press("pageup", "up", "enter")
        await settled(pilot, lambda: board.chosen == ["02987"])
        await pilot.press("home", "down", "enter")
        await settled(pilot, lambda: board.chosen[1:] == ["00001"])
        board.table.scroll_to(y=1_500, animate=False)
        await settled(pilot, lambda: shown(board)[1:3] == ["01500", "01501"])
        assert board.table.cursor_number == 1, "scrolling leaves the cursor"

    driven(story)


def test_the_cursor_stays_on_its_row_and_what_is_shown_does_not_move() -> None:
    async def story(client: aio.Client, board: Board, pilot: Pilot[None]) -> None:
        board.table.go_to(1_500)
        await settled(pilot, lambda: board.table.cursor_row == note(1_500))
        before = shown(board)
        store = client.store(NOTES)
        await store.insert_many([note(1_400, "a"), note(1_400, "b")])
        await settled(pilot, lambda: board.table.row_count == 3_002)
        await settled(pilot, lambda: shown(board) == before)
        assert board.table.cursor_row == note(1_500)
        await store.update("01500", text="00000a")
        await settled(pilot, lambda: board.table.cursor_row is None or board.table.cursor_row.id != "01500")
        await store.delete("01501")
        await settled(pilot, lambda: board.table.row_count == 3_001)

    driven(story)


def test_a_cell_cannot_write_on_the_terminal() -> None:
    async def story(client: aio.Client, board: Board, pilot: Pilot[None]) -> None:
        await client.store(NOTES).update("00001", text="00001\x1b[2J\n[b]x[/b]")
        await settled(pilot, lambda: shown(board)[2] == "00001 [2J [b]x[/b]")

    driven(story, 20)


def test_a_query_that_cannot_be_followed_is_told_as_a_message() -> None:
    async def main() -> list[Exception]:
        async with aio.open_client(SCHEMA, plugins=local()) as client:
            board = Board(client, select(NOTES).where(col("nothing") == 1))
            async with board.run_test(size=SIZE) as pilot:
                await settled(pilot, lambda: bool(board.errors))
        return board.errors

    assert isinstance(under_asyncio(main)[0], QueryError)


def test_a_client_that_is_closed_first_leaves_the_rows_and_harms_nobody() -> None:
    async def main() -> list[str]:
        client_open = aio.open_client(SCHEMA, plugins=local())
        client = await client_open.__aenter__()
        await client.store(NOTES).insert_many([note(number) for number in range(30)])
        board = Board(client)
        async with board.run_test(size=SIZE) as pilot:
            await settled(pilot, lambda: board.table.row_count == 30)
            await client_open.__aexit__(None, None, None)
            await pilot.press("end", "home")
            return shown(board)

    assert under_asyncio(main)[:2] == ["Text", "00000"]
    assert not loops()


def test_an_application_whose_loop_dies_leaves_no_thread() -> None:
    async def main() -> None:
        client = await aio.open_client(SCHEMA, plugins=local()).__aenter__()
        board = Board(client)
        running = board.run_test(size=SIZE)
        await running.__aenter__()
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(20)
    deadline = time.monotonic() + 10
    while loops() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not loops()
